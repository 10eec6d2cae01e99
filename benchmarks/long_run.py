"""A conversation of an hour: does memory stay flat, and is every task and descriptor gone in the end?

The user speaks, the agent answers, every fifth answer is interrupted, and every fiftieth turn the connection is lost.
In virtual time an hour takes some minutes; with `--wall-minutes` it is real time, in the same way. The server is in
this process, since virtual time ends at a process; it forgets all but the last items, so what grows is the session's.
That keeps its whole conversation, or with `--history-turns` the newest turns of it.
With `--trace` (slower, and its memory counts too) the growth is told by file.

Run: python -m benchmarks.long_run [--virtual-minutes M | --wall-minutes M] [--history-turns N] [--trace] [--core N];
prints JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import trio
from trio.testing import MockClock, memory_stream_pair

from benchmarks.load_client import memory_mb
from benchmarks.machine import pin
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, events
from trio_voice.devices.wav import pulling
from trio_voice.server.brain import ResponseRequest, ResponseWriter
from trio_voice.server.conversation_items import ConversationItems, Entry
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain, tone
from trio_voice.testing import ScriptedMicrophone

RATE_HZ = 24_000
SAMPLES = 12
"""How often memory is looked at."""
SPEECH_MS, ANSWER_MS = 800, 2000
INTERRUPT_EVERY, LOSE_EVERY = 5, 50
PATIENCE_S = 30.0
KEPT_ITEMS = 8
"""By the server: what is still played or interrupted is among them."""
TOLD_FILES = 12


def descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


class _ForgetfulItems(ConversationItems):
    def add(self, entry: Entry, *place: Any) -> str | None:
        del self._entries[:-KEPT_ITEMS]
        return super().add(entry, *place)


class _ForgetfulBrain(ScriptedBrain):
    async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
        self.requests.clear()
        self.utterances.clear()
        await super().respond(request, writer)


class _ForgetfulSpeaker:
    """Plays by Trio's clock, and keeps nothing."""

    name = "forgetful speaker"

    def open(self, audio_format: Any, pull: Any) -> Any:
        return pulling(audio_format, pull, 20, lambda pcm: None)


async def hold(minutes: float, history_turns: int | None, found: dict[str, Any]) -> None:
    """The conversation; fills `found`."""
    tasks_before, descriptors_before = trio.lowlevel.current_statistics().tasks_living, descriptors()
    speech = tone(440, SPEECH_MS, RATE_HZ).tobytes()
    turns = int(minutes * 60 / ((SPEECH_MS + ANSWER_MS) / 1000)) + 100
    brain = _ForgetfulBrain([Say("One two three.", ANSWER_MS)] * turns, ["Yes."] * turns)
    links: list[trio.abc.Stream] = []
    began_at, wall_began = trio.current_time(), time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def open_stream() -> trio.abc.Stream:
            client_end, server_end = memory_stream_pair()
            nursery.start_soon(serve_stream, server_end, brain)
            links.append(client_end)
            del links[:-1]
            await trio.lowlevel.checkpoint()
            return client_end

        microphone = ScriptedMicrophone()
        session = RealtimeSession(
            RealtimeAgent("benchmark"),
            connection=ConnectionOptions(url="ws://memory/v1/realtime", model=None),
            microphone=microphone,
            speaker=_ForgetfulSpeaker(),
            open_stream=open_stream,
            history_turns=history_turns,
        )
        stream = session.events()
        async with session:
            await session.start_listening()
            number, looked = 0, 0
            while trio.current_time() < began_at + minutes * 60:
                number += 1
                await microphone.say(speech)
                microphone.said.clear()
                with trio.move_on_after(PATIENCE_S):
                    await stream.wait_for(events.PlaybackStart)
                    if number % INTERRUPT_EVERY == 0:
                        await trio.sleep(0.5)
                        await session.interrupt()
                    else:
                        await stream.wait_for(events.PlaybackEnd)
                if number % LOSE_EVERY == 0:
                    await trio.aclose_forcefully(links[-1])
                    with trio.move_on_after(PATIENCE_S):
                        await stream.wait_for(events.Connected)
                if (trio.current_time() - began_at) / 60 >= looked * minutes / SAMPLES:
                    looked += 1
                    gc.collect()
                    found["at_minutes"].append(round((trio.current_time() - began_at) / 60, 1))
                    found["memory_mb"].append(round(memory_mb(), 2))
                    if tracemalloc.is_tracing():
                        look(found, looked)
                    found["tasks"].append(trio.lowlevel.current_statistics().tasks_living)
            found["turns"] = number
            found["history_items"] = len(session.history)
            stream.close()
        nursery.cancel_scope.cancel()
    found["virtual_s"] = trio.current_time() - began_at
    found["wall_s"] = time.perf_counter() - wall_began
    found["tasks_left"] = trio.lowlevel.current_statistics().tasks_living - tasks_before
    gc.collect()
    found["descriptors_left"] = descriptors() - descriptors_before


def look(found: dict[str, Any], looked: int) -> None:
    """Keep how much each file holds a sixth of the way in, and how much more that is near the end."""
    held = {stat.traceback[0].filename: stat.size for stat in tracemalloc.take_snapshot().statistics("filename")}
    if looked == SAMPLES // 4:
        found["held"] = held
    elif looked == SAMPLES:
        before = found.pop("held")
        more = sorted(((size - before.get(name, 0)) // 1024, name) for name, size in held.items())[-TOLD_FILES:]
        found["more_kib"] = {"/".join(Path(name).parts[-2:]): kib for kib, name in reversed(more)}


def main(minutes: float, *, virtual: bool, history_turns: int | None = None, trace: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"minutes": minutes, "virtual": virtual, "history_turns": history_turns}
    found |= {"at_minutes": [], "memory_mb": [], "tasks": []}
    if trace:
        tracemalloc.start()
    with mock.patch("trio_voice.server.connection.ConversationItems", _ForgetfulItems):
        trio.run(hold, minutes, history_turns, found, clock=MockClock(autojump_threshold=0) if virtual else None)
    settled = found["memory_mb"][len(found["memory_mb"]) // 4 :]
    found["growth_mb"] = round(settled[-1] - settled[0], 2) if settled else 0.0
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--virtual-minutes", type=float, default=60.0)
    options.add_argument("--wall-minutes", type=float, default=0.0)
    options.add_argument("--history-turns", type=int)
    options.add_argument("--trace", action="store_true")
    options.add_argument("--core", type=int)
    chosen = options.parse_args()
    pin(chosen.core)
    wall = chosen.wall_minutes > 0
    minutes = chosen.wall_minutes if wall else chosen.virtual_minutes
    print(json.dumps(main(minutes, virtual=not wall, history_turns=chosen.history_turns, trace=chosen.trace)))
