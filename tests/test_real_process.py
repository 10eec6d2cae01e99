"""Against a real server process on loopback: killed, stopped, reset and closed in the middle of a conversation.

In real time, so bounds are generous where they are not the point. The servers say what their brain was asked: that is
what was restored.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio

from kit import NO_FADE, RATE_HZ, Call
from program import without_keys
from real_server import GO_ON, GOES_ON_MS, STORY, TELL, TOOL, USE_TOOL, WORD_MS
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, events, tool
from trio_voice.channels import EventStream
from trio_voice.protocol.resume import CONTINUES
from trio_voice.server.scripted import marked_samples
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

GOES_ON_SAMPLES = GOES_ON_MS * RATE_HZ // 1000
HANG_GUARD_S = 30.0
OUTAGE_S = 2.0
NOTICED_WITHIN_S = 5.0
PROGRAM = Path(__file__).with_name("real_server.py")


@attrs.define(eq=False)
class Server:
    """A server process, and what it says."""

    process: trio.Process
    port: int = 0
    listening: trio.Event = attrs.Factory(trio.Event)
    said: dict[str, list[Any]] = attrs.Factory(dict)
    said_more: trio.Event = attrs.Factory(trio.Event)

    async def listen(self) -> None:
        """Take in its words until it ends."""
        assert self.process.stdout is not None
        pending = b""
        async for received in self.process.stdout:
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                ((name, value),) = json.loads(line).items()
                self.said.setdefault(name, []).append(value)
            self.said_more.set()
            self.said_more = trio.Event()

    async def next(self, name: str) -> Any:
        """The oldest of its words called `name` not yet taken."""
        while not self.said.get(name):
            await self.said_more.wait()
        return self.said[name].pop(0)

    async def asked(self) -> list[tuple[str, ...]]:
        """What the next response is an answer to: type, role and text or output of each item."""
        return [tuple(item) for item in await self.next("asked")]

    async def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{command}\n".encode())

    async def kill(self) -> None:
        """kill -9; works on a stopped process too."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def connections(self) -> int:
        await self.tell("count")
        count: int = await self.next("count")
        return count


@attrs.define(eq=False)
class Servers:
    """Starts servers; all of them are gone in the end."""

    nursery: trio.Nursery
    started: list[Server] = attrs.Factory(list)

    async def start(self, port: int = 0) -> Server:
        """Returns when it listens."""
        process = await trio.lowlevel.open_process(
            [sys.executable, str(PROGRAM), "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=without_keys(),
        )
        server = Server(process)
        self.started.append(server)
        self.nursery.start_soon(server.listen)
        server.port = await server.next("listening")
        return server


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Fails the test rather than hang; leaves no process behind."""
    with trio.fail_after(HANG_GUARD_S):
        async with trio.open_nursery() as nursery:
            house = Servers(nursery)
            try:
                yield house
            finally:
                with trio.CancelScope(shield=True):
                    for server in house.started:
                        await server.kill()
                        for pipe in (server.process.stdin, server.process.stdout):
                            assert pipe is not None
                            await pipe.aclose()
                nursery.cancel_scope.cancel()
    for server in house.started:
        with pytest.raises(ProcessLookupError):
            os.kill(server.process.pid, 0)


@asynccontextmanager
async def talking_to(server: Server, agent: RealtimeAgent | None = None) -> AsyncIterator[Call]:
    """A session that listens and speaks; it comes back quickly and does not give up."""
    options = ConnectionOptions(
        url=f"ws://127.0.0.1:{server.port}/v1/realtime",
        model=None,
        max_reconnect_attempts=1000,
        reconnect_delay_ms=200,
        reconnect_backoff_multiplier=1,
        connect_timeout_ms=2000,
    )
    microphone, speaker = ScriptedMicrophone(), RecordingSpeaker()
    session = RealtimeSession(
        agent or RealtimeAgent(),
        connection=options,
        microphone=microphone,
        speaker=speaker,
        audio_output=NO_FADE,
    )
    stream = session.events(audio=True)
    async with session:
        await session.start_listening()
        yield Call(session, microphone, speaker, stream)


async def receive_sound(stream: EventStream, turn: int, milliseconds: float) -> int:
    """Wait until that much of `turn` has come; gives its samples."""
    samples = 0
    async for event in stream:
        if isinstance(event, events.ResponseAudio) and event.turn == turn:
            samples += len(event.pcm) // 2
            if samples >= milliseconds * RATE_HZ / 1000:
                return samples
    raise AssertionError(f"the session ended after {samples} samples of turn {turn}")


async def sound_left(stream: EventStream, turn: int) -> int:
    """The samples of `turn` among what a stream still holds when its session is over."""
    samples = 0
    async for event in stream:
        if isinstance(event, events.ResponseAudio) and event.turn == turn:
            samples += len(event.pcm) // 2
    return samples


async def remembered(call: Call, server: Server) -> list[tuple[str, ...]]:
    """What the server's brain is asked next: the conversation so far, as it knows it."""
    server.said.pop("asked", None)
    playback = call.session.events()
    await call.session.send_text(GO_ON)
    asked = await server.asked()
    answer = await playback.wait_for(events.ResponseStart)
    while (await playback.wait_for(events.PlaybackEnd)).turn != answer.turn:
        pass  # what was said before may have come to its end in this moment
    assert call.errors() == []
    return asked


def story_in(items: list[tuple[str, ...]]) -> str:
    """The words of the story that the agent is known to have said."""
    (story,) = [text for _, role, text in items if role == "assistant" and text.startswith(STORY[0])]
    assert " ".join(STORY).startswith(story)
    return story


def played(call: Call, mark: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """What the speaker played from the first to the last sample marked `mark`, silence between included."""
    places = np.flatnonzero(call.heard >> 8 == mark + 1)
    return call.heard[places[0] : places[-1] + 1] if len(places) else call.heard[:0]


# --- kill -9 --------------------------------------------------------------------------------------


async def test_killed_in_mid_response_and_restarted_after_two_seconds() -> None:
    async with servers() as house:
        first = await house.start()
        async with talking_to(first) as on:
            sound, playback = on.session.events(audio=True), on.session.events()
            await on.session.send_text(TELL)
            received = await receive_sound(sound, 1, 4000)
            await on.next(events.PlaybackStart)
            killed_at = trio.current_time()
            await first.kill()
            lost = await on.next(events.Reconnecting)
            played_at_loss = len(played(on, 0))
            await trio.sleep(OUTAGE_S)
            played_in_outage = len(played(on, 0)) - played_at_loss
            restarted_at = trio.current_time()
            second = await house.start(first.port)
            listening_at = trio.current_time()
            connected = await on.next(events.Connected)
            await on.session.respond(GO_ON)
            await receive_sound(on.events, 2, 1)
            first_sound_at = trio.current_time()
            for _ in range(2):  # of the story, and of what was said after it
                await playback.wait_for(events.PlaybackEnd)
            restored = await remembered(on, second)
        received += await sound_left(sound, 1)

    took_s = {
        "kill to noticed": lost.at - killed_at,
        "start of the process": listening_at - restarted_at,
        "listening to connected": connected.at - listening_at,
        "listening to first new sound": first_sound_at - listening_at,
        "restart to first new sound": first_sound_at - restarted_at,
    }
    print("\nkill -9, ms:", {what: round(1000 * seconds) for what, seconds in took_s.items()})
    assert connected.resumed
    assert lost.at - killed_at <= 1
    assert first_sound_at - listening_at <= 10
    # What the new server's brain sees: all that was said, as far as it had come.
    assert restored[0] == ("message", "user", TELL)
    assert ("message", "system", CONTINUES) in restored
    assert len(story_in(restored).split()) >= 4000 // WORD_MS
    # What had arrived was played to its end, sample by sample, and then the new answer.
    assert received < len(STORY) * WORD_MS * RATE_HZ // 1000, "it was killed in mid-response"
    assert np.array_equal(played(on, 0), marked_samples(0, received)), "a gap, or sound was lost"
    assert played_in_outage >= 0.9 * OUTAGE_S * RATE_HZ
    assert np.array_equal(played(on, 1)[:GOES_ON_SAMPLES], marked_samples(1, GOES_ON_SAMPLES))


# --- SIGSTOP: half-open ---------------------------------------------------------------------------


async def test_a_server_that_stops_in_mid_response_is_noticed_within_five_seconds() -> None:
    """The kernel keeps the connection, and even takes new ones; the process says nothing."""
    async with servers() as house:
        server = await house.start()
        async with talking_to(server) as on:
            sound = on.session.events(audio=True)
            await on.session.send_text(TELL)
            received = await receive_sound(sound, 1, 2000)
            server.process.send_signal(signal.SIGSTOP)
            stopped_at = trio.current_time()
            try:
                lost = await on.next(events.Reconnecting)
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert (await on.next(events.Connected)).resumed
            restored = await remembered(on, server)
            assert await server.connections() == 1, "those that were given up are gone"
        received += await sound_left(sound, 1)
    noticed_s = lost.at - stopped_at
    print(f"\nSIGSTOP: noticed after {noticed_s:.2f} s")
    assert noticed_s <= NOTICED_WITHIN_S
    assert restored[0] == ("message", "user", TELL)
    assert restored[-1] == ("message", "user", GO_ON)
    assert story_in(restored) != " ".join(STORY)
    assert len(played(on, 0)) <= received, "nothing of the old connection came late"
    assert np.array_equal(played(on, 1), marked_samples(1, GOES_ON_SAMPLES))


# --- RST, Close -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["in the outage", "after it"])
async def test_a_reset_in_mid_tool_and_the_result_comes_once(when: str) -> None:
    released, runs = trio.Event(), []

    @tool(name=TOOL)
    async def order_pizza() -> str:
        """Order a pizza."""
        runs.append(trio.current_time())
        await released.wait()
        return "ordered"

    async with servers() as house:
        server = await house.start()
        async with talking_to(server, RealtimeAgent(tools=[order_pizza])) as on:
            await on.session.send_text(USE_TOOL)
            await on.next(events.ToolCalled)
            assert len(await server.asked()) == 1
            await server.tell("reset")
            await on.next(events.Reconnecting)
            if when == "in the outage":
                released.set()
            assert (await on.next(events.Connected)).resumed
            released.set()
            asked = await server.asked()
            await on.next(events.PlaybackEnd)
            assert on.errors() == []
        assert server.said.get("asked", []) == [], "one answer to one result"
    assert len(runs) == 1
    kinds = [item[0] for item in asked]
    assert kinds.count("function_call") == 1
    assert [item[2] for item in asked if item[0] == "function_call_output"] == ["ordered"]
    assert np.array_equal(played(on, 1), marked_samples(1, GOES_ON_SAMPLES))


@pytest.mark.parametrize("code", [1001, 1012])
async def test_a_server_that_closes_in_mid_response(code: int) -> None:
    async with servers() as house:
        server = await house.start()
        async with talking_to(server) as on:
            playback = on.session.events()
            await on.session.send_text(TELL)
            await receive_sound(on.events, 1, 500)
            await server.tell(f"close {code}")
            lost = await on.next(events.Reconnecting)
            assert str(code) in lost.reason
            assert (await on.next(events.Connected)).resumed
            await playback.wait_for(events.PlaybackEnd)
            restored = await remembered(on, server)
            assert await server.connections() == 1
    assert restored[0] == ("message", "user", TELL)
    assert len(story_in(restored).split()) >= 500 // WORD_MS
    story = played(on, 0)
    assert np.array_equal(story, marked_samples(0, len(story)))
    assert len(story) < len(STORY) * WORD_MS * RATE_HZ // 1000
