"""A session whose connection is reset again and again while it speaks and listens; in a process of its own.

Run: python -m benchmarks.reconnect_client URL DOOR --count N --exchanges N [--core N] [--realtime]; prints JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import numpy as np
import trio

from benchmarks.machine import pin, run_first
from benchmarks.reconnect_server import STORY, STORY_SAMPLE
from trio_voice import AudioOutputConfig, ConnectionOptions, RealtimeAgent, RealtimeSession, dialects, events
from trio_voice.audio import AudioFormat, samples_of
from trio_voice.devices import OpenSpeaker, Pull
from trio_voice.devices.wav import pulling
from trio_voice.protocol import InputAudioBufferAppend, encode
from trio_voice.testing import ScriptedMicrophone

PAUSE_S = 0.1
"""Between a resumed session and the next reset."""
STORY_MARGIN_S = 5
STORY_S_PER_RESET = 0.4
BLOCK_MS = 20


@attrs.define(eq=False)
class TimedSpeaker:
    """Plays into memory, and notes when each block was pulled."""

    name: str = "timed speaker"
    pcm: bytearray = attrs.Factory(bytearray)
    pulled_at: list[float] = attrs.Factory(list)

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        async with pulling(audio_format, pull, BLOCK_MS, self._play) as opened:
            yield opened

    def _play(self, pcm: bytes) -> None:
        self.pcm += pcm
        self.pulled_at.append(time.perf_counter())


@attrs.define(eq=False)
class FirstFrame:
    """When the first microphone frame since `watch` went to the wire."""

    sent: trio.Event = attrs.Factory(trio.Event)
    sent_ns: int = 0

    def watch(self) -> None:
        self.sent = trio.Event()

    def encode(self, event: object) -> str:
        if isinstance(event, InputAudioBufferAppend) and not self.sent.is_set():
            self.sent_ns = time.perf_counter_ns()
            self.sent.set()
        return encode(event)  # type: ignore[arg-type]


async def measure(url: str, door: int, count: int, exchanges: int) -> dict[str, object]:
    first_frame, speaker = FirstFrame(), TimedSpeaker()
    vars(dialects)["encode"] = first_frame.encode  # there is no other place to look from
    options = ConnectionOptions(
        url=url,
        model=None,
        # Each attempt is to be like the first after a healthy spell, which is immediate.
        reconnect_delay_ms=0,
        max_reconnect_attempts=1000,
    )
    session = RealtimeSession(
        RealtimeAgent("benchmark"),
        connection=options,
        microphone=ScriptedMicrophone(),
        speaker=speaker,
        audio_output=AudioOutputConfig(fade_ms=0),
    )
    stream = session.events()
    connected_ms, uplink_ms = [], []
    knocker = await trio.open_tcp_stream("127.0.0.1", door)
    async with session, knocker:
        await session.start_listening()
        for _ in range(exchanges):
            await session.send_text("A question of about ten words, as people put them.")
            await stream.wait_for(events.PlaybackEnd)
        await session.respond(f"{STORY} {int(count * STORY_S_PER_RESET) + STORY_MARGIN_S}")
        await stream.wait_for(events.ResponseEnd)
        # All of the story is in the playback buffer now: from here on, silence is a fault of ours.
        began_at, played_bytes = time.perf_counter(), len(speaker.pcm)
        for _ in range(count):
            await trio.sleep(PAUSE_S)
            await knocker.send_all(b"!")
            await stream.wait_for(events.Reconnecting)
            first_frame.watch()
            connected = await stream.wait_for(events.Connected)
            connected_ns = time.perf_counter_ns()
            assert connected.resumed
            await first_frame.sent.wait()
            reset_ns = int.from_bytes(await knocker.receive_some(8), "little")
            connected_ms.append((connected_ns - reset_ns) / 1e6)
            uplink_ms.append((first_frame.sent_ns - reset_ns) / 1e6)
        ended_at = time.perf_counter()
    return {"connected_ms": connected_ms, "uplink_ms": uplink_ms, **_gaps(speaker, played_bytes, began_at, ended_at)}


def _gaps(speaker: TimedSpeaker, played_bytes: int, began_at: float, ended_at: float) -> dict[str, float]:
    """Silence between story and story after the first `played_bytes`, and how late a block was at most."""
    places = np.flatnonzero(samples_of(bytes(speaker.pcm[played_bytes:])) == STORY_SAMPLE)
    if not len(places):
        raise RuntimeError("the story was never heard, so nothing was measured")
    silent_samples = int(places[-1] - places[0] + 1 - len(places))
    pulls = [at for at in speaker.pulled_at if began_at <= at <= ended_at]
    longest_s = max(after - before for before, after in itertools.pairwise(pulls))
    return {
        "story_played_ms": len(places) / 24,
        "gap_ms": silent_samples / 24,
        "latest_block_ms": longest_s * 1000 - BLOCK_MS,
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("door", type=int)
    arguments.add_argument("--count", type=int, required=True)
    arguments.add_argument("--exchanges", type=int, required=True)
    arguments.add_argument("--core", type=int)
    arguments.add_argument("--realtime", action="store_true")
    chosen = arguments.parse_args()
    pin(chosen.core)
    if chosen.realtime:
        run_first()
    print(json.dumps(trio.run(measure, chosen.url, chosen.door, chosen.count, chosen.exchanges)))
