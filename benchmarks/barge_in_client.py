"""An application that works 20 ms on every piece of sound, and is interrupted: one variant, one process.

`sleeping` waits those 20 ms, `computing` keeps the event loop for itself, `idle` is one that does neither. Each hears
of the interruption twice: in a callback of its own, and in the stream of events in which it also takes the sound.
`floor` is the bare loop that anyone could write, asyncio and websockets: it handles events as they come.

Run: python -m benchmarks.barge_in_client VARIANT URL --times N [--core N] [--realtime]; prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from collections import Counter
from typing import Any

from benchmarks.barge_in_server import NEXT, PIECE_BYTES
from benchmarks.machine import pin, run_first

WORK_S = 0.020
VARIANTS = ("floor", "idle", "sleeping", "computing")


def compute() -> None:
    until = time.perf_counter() + WORK_S
    while time.perf_counter() < until:
        pass


class Account:
    """What the application was given, and when it learned of each interruption."""

    def __init__(self) -> None:
        self.callback_ms: list[float] = []
        self.listener_ms: list[float] = []
        self.said_us = 0
        self.silenced: set[int] = set()
        self.stale_bytes = 0
        self.next_bytes: Counter[int] = Counter()

    def since_said_ms(self) -> float:
        return (time.perf_counter_ns() // 1000 - self.said_us) / 1000

    def sound(self, answer: int, byte_count: int) -> None:
        if answer in self.silenced:
            self.stale_bytes += byte_count
        elif answer % 2 == 0:
            self.next_bytes[answer] += byte_count

    def told(self, **more: Any) -> dict[str, Any]:
        whole = sum(count == NEXT * PIECE_BYTES for count in self.next_bytes.values())
        measured = {"callback_ms": self.callback_ms, "listener_ms": self.listener_ms}
        return {**measured, "stale_bytes": self.stale_bytes, "whole_answers": whole, **more}


async def floor(url: str, times: int) -> dict[str, Any]:
    """No turns and no floor of them: what comes late is taken for sound like any other."""
    from benchmarks.floor import open_session

    account, socket = Account(), await open_session(url)
    while account.next_bytes[2 * times] < NEXT * PIECE_BYTES:
        event = json.loads(await socket.recv())
        match event["type"]:
            case "response.output_audio.delta":
                account.sound(int(event["response_id"][1:]), len(base64.b64decode(event["delta"])))
                await asyncio.sleep(WORK_S)
            case "input_audio_buffer.speech_started":
                account.said_us = event["audio_start_ms"]
                account.listener_ms.append(account.since_said_ms())
                account.silenced.add(2 * len(account.listener_ms) - 1)
    await socket.close()
    return account.told(speaker_stale_samples=0)


def of_the_runtime(url: str, times: int, variant: str) -> dict[str, Any]:
    import numpy as np
    import trio

    from trio_voice import AudioOutputConfig, ConnectionOptions, RealtimeAgent, RealtimeSession, events
    from trio_voice.audio import samples_of
    from trio_voice.testing import RecordingSpeaker

    async def main() -> dict[str, Any]:
        account, speaker = Account(), RecordingSpeaker()
        stale_samples, over = 0, trio.Event()
        session = RealtimeSession(
            RealtimeAgent(), connection=ConnectionOptions(url=url, model=None), speaker=speaker,
            audio_output=AudioOutputConfig(fade_ms=0),
        )  # fmt: skip
        cut_at: dict[int, int] = {}

        def speech_started(event: events.SpeechStart) -> None:
            account.said_us = event.audio_ms

        def interrupted(event: events.Interruption) -> None:
            account.callback_ms.append(account.since_said_ms())
            cut_at[event.turn] = len(speaker.pcm) // 2

        def played(event: events.PlaybackEnd) -> None:
            if event.turn == 2 * times:
                over.set()

        session.on("speech_start", speech_started)
        session.on("interruption", interrupted)
        session.on("playback_end", played)
        stream = session.events(audio=True)

        async def listen() -> None:
            async for event in stream:
                if isinstance(event, events.Interruption):
                    account.listener_ms.append(account.since_said_ms())
                    account.silenced.add(event.turn)
                elif isinstance(event, events.ResponseAudio):
                    account.sound(event.turn, len(event.pcm))
                    if variant == "sleeping":
                        await trio.sleep(WORK_S)
                    elif variant == "computing":
                        compute()

        async with session, trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await over.wait()
            nursery.cancel_scope.cancel()
        marks = samples_of(bytes(speaker.pcm))
        for turn, since in cut_at.items():
            stale_samples += int(np.count_nonzero(marks[since:] == turn))
        return account.told(speaker_stale_samples=stale_samples)

    return trio.run(main)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("variant", choices=VARIANTS)
    options.add_argument("url")
    options.add_argument("--times", type=int, required=True)
    options.add_argument("--core", type=int)
    options.add_argument("--realtime", action="store_true")
    chosen = options.parse_args()
    pin(chosen.core)
    if chosen.realtime:
        run_first()
    if chosen.variant == "floor":
        print(json.dumps(asyncio.run(floor(chosen.url, chosen.times))))
    else:
        print(json.dumps(of_the_runtime(chosen.url, chosen.times, chosen.variant)))
