"""The measuring process of `benchmarks.devices`: prints one line of JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import structlog
import trio

from benchmarks import machine
from benchmarks.devices import BLOCKS, Interruptions, Plan, Restarts
from benchmarks.downlink import percentile
from lab.pulse import AudioLab, audio_lab
from trio_voice import playback
from trio_voice.audio import PCM16_24K, AudioFormat
from trio_voice.channels import EndTurn, InboxItem, Interrupt, Interrupted, Play, PlaybackItem, TurnPlayed
from trio_voice.config import AudioOutputConfig
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.devices import DeviceCounters, OpenSpeaker, Pull
from trio_voice.devices.portaudio import PortAudioMicrophone, PortAudioSpeaker
from trio_voice.events import DeviceLost

SENTENCE = np.arange(1, 24_001, dtype="<i2")
"""A second in which every sample is another; every other turn has it negated."""
PATTERN = np.arange(1, 12_001, dtype="<i2").tobytes()
LEAD = bytes(4_800)
QUIET_BYTES = 9_600
"""0.2 s of silence on the monitor: then all that was under way has come."""


@attrs.define(eq=False)
class Tapped:
    """A loudspeaker that keeps what it was given, and counts its own trouble through all openings."""

    speaker: PortAudioSpeaker
    opened: OpenSpeaker | None = None
    sound: list[npt.NDArray[np.int16]] = attrs.Factory(list)
    begun_with: list[int] = attrs.Factory(list)
    begun_at: list[float] = attrs.Factory(list)
    """Of each opening, when it was first given sound, and which sample."""
    openings: int = 0
    counters: list[DeviceCounters] = attrs.Factory(list)

    @property
    def name(self) -> str:
        return self.speaker.name

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        self.openings += 1
        has_begun = False

        def note(sample_count: int) -> bytes:
            nonlocal has_begun
            pcm = pull(sample_count)
            numbers = np.frombuffer(pcm, dtype="<i2")
            sound = numbers[numbers != 0]
            if len(sound):
                self.sound.append(sound)
                if not has_begun:
                    self.begun_with.append(int(sound[0]))
                    self.begun_at.append(time.perf_counter())
                    has_begun = True
            return pcm

        async with self.speaker.open(audio_format, note) as opened:
            self.opened = opened
            self.counters.append(opened.counters)
            yield opened


@attrs.define(eq=False)
class Voice:
    """The playback actor on a loudspeaker, and what it reports."""

    speaker: Tapped
    send: trio.MemorySendChannel[PlaybackItem]
    reports: trio.MemoryReceiveChannel[InboxItem]

    def say(self, turn: int) -> None:
        pcm = (SENTENCE if turn % 2 else -SENTENCE).tobytes()
        self.send.send_nowait(Play(turn, f"item {turn}", 0, pcm))
        self.send.send_nowait(EndTurn(turn))

    async def until(self, kind: type[Any]) -> Any:
        async for report in self.reports:
            if isinstance(report, kind):
                return report
        raise RuntimeError("playback ended")


@asynccontextmanager
async def playing(speaker: Tapped) -> AsyncIterator[Voice]:
    send, inbox = trio.open_memory_channel[PlaybackItem](1000)
    to_reports, reports = trio.open_memory_channel[InboxItem](1000)
    recovery = DeviceRecovery("speaker", speaker.name, to_reports.clone())
    config = AudioOutputConfig(fade_ms=0)
    async with trio.open_nursery() as nursery:
        play = partial(playback.run, inbox, to_reports, speaker=speaker, config=config)
        await nursery.start(partial(play, recovery=recovery))
        yield Voice(speaker, send, reports)
        send.close()


def numbers_of(pcm: bytes | bytearray) -> npt.NDArray[np.int16]:
    return np.frombuffer(bytes(pcm[: len(pcm) // 2 * 2]), dtype="<i2")


async def measure_microphone(lab: AudioLab, runs: int) -> int:
    """How many of `runs` captured the pattern exactly."""
    exact = 0
    for _ in range(runs):
        captured = bytearray()
        async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, 20) as mic, trio.open_nursery() as nursery:
            nursery.start_soon(lab.play, LEAD + PATTERN + LEAD)
            while PATTERN not in captured and len(captured) < PCM16_24K.bytes_of_ms(5_000):
                captured += (await mic.receive()).pcm
        exact += PATTERN in captured
    return exact


async def measure_interruptions(lab: AudioLab, block_samples: int, count: int) -> Interruptions:
    """Say a sentence, interrupt it in the middle, wait for silence, say the next: `count` times."""
    speaker = Tapped(PortAudioSpeaker(lab.speaker, block_samples=block_samples))
    silent_ms: list[float] = []
    position_errors: list[int] = []
    stale = written = heard_samples = 0
    async with lab.listen() as heard, playing(speaker) as voice:
        await heard.until_longer_by(300)
        for turn in range(1, count + 1):
            heard.pcm.clear()  # it is silent; looking at all of it again and again keeps the audio thread waiting
            speaker.sound.clear()
            voice.say(turn)
            await heard.until(lambda pcm: bool(numbers_of(pcm[-400:]).any()))
            await heard.until_longer_by(200 + 13 * (turn % 16))
            on_monitor = int(abs(numbers_of(heard.pcm[-2:])[-1]))
            cut_at = len(heard.pcm) // 2
            voice.send.send_nowait(Interrupt(turn))
            [position] = (await voice.until(Interrupted)).positions
            position_errors.append(PCM16_24K.samples_of_ms(position.heard_ms) - on_monitor)
            await heard.until_longer_by(200)
            await heard.until(lambda pcm: not any(pcm[-QUIET_BYTES:]))
            numbers = numbers_of(heard.pcm)
            places = np.flatnonzero(numbers)
            silent_ms.append(max(0.0, PCM16_24K.ms_of_samples(int(places[-1]) + 1 - cut_at)))
            sound = numbers[places]
            stale += int(np.count_nonzero((sound > 0) != bool(turn % 2)))
            written += sum(len(piece) for piece in speaker.sound)
            heard_samples += len(sound)
    off = [abs(error) for error in position_errors]
    return Interruptions(
        block_samples,
        percentile(silent_ms, 50),
        percentile(silent_ms, 99),
        max(silent_ms),
        stale,
        written,
        heard_samples,
        statistics.median(off),
        max(off),
        sum(counters.late_callbacks for counters in speaker.counters),
        sum(counters.underflows for counters in speaker.counters),
    )


async def measure_restarts(lab: AudioLab, count: int, abandoned: list[str]) -> Restarts:
    """Kill the second sound server in mid-sentence, start it again, wait for the sentence's end: `count` times."""
    back_ms: list[float] = []
    repeated: list[int] = []
    finished = 0
    speaker = Tapped(PortAudioSpeaker(lab.loose_speaker))
    async with playing(speaker) as voice:
        for turn in range(1, count + 1):
            async with lab.listen(loose=True) as before:
                await before.until_longer_by(300)
                voice.say(turn)
                await before.until(lambda pcm: bool(numbers_of(pcm[-400:]).any()))
                await before.until_longer_by(250)
                begun = len(speaker.begun_with)
                async with lab.crashed() as server:
                    await voice.until(DeviceLost)
                    await trio.sleep(0.1 + 0.17 * (turn % 10))
            last_heard = int(abs(numbers_of(before.pcm).astype(int)).max())
            async with lab.listen(loose=True) as after:
                await voice.until(TurnPlayed)
                await after.until_longer_by(300)
            finished += int(abs(numbers_of(after.pcm).astype(int)).max()) == len(SENTENCE)
            back_ms.append((speaker.begun_at[begun] - server.answers_at) * 1000)
            repeated.append(last_heard + 1 - abs(speaker.begun_with[begun]))
    return Restarts(
        count,
        percentile(back_ms, 50),
        max(back_ms),
        max(0, *repeated),
        max(0, *(-each for each in repeated)),
        finished,
        len(abandoned),
    )


async def run(plan: Plan, lab: AudioLab, abandoned: list[str]) -> dict[str, Any]:
    runs = max(1, plan.restarts // 2)
    return {
        "microphone_runs": runs,
        "microphone_exact": await measure_microphone(lab, runs),
        "interruptions": [
            attrs.asdict(await measure_interruptions(lab, block, plan.interruptions)) for block in BLOCKS
        ],
        "restarts": attrs.asdict(await measure_restarts(lab, plan.restarts, abandoned)),
    }


def main() -> None:
    abandoned: list[str] = []

    def note(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "device.close_abandoned":
            abandoned.append(event["kind"])
        raise structlog.DropEvent

    structlog.configure(processors=[note])  # type: ignore[list-item]  # it gives nothing
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.realtime:
        machine.run_first()  # and with it every process that it starts
    with audio_lab() as lab:
        measured = trio.run(run, plan, lab, abandoned)
    print(json.dumps(measured), flush=True)
    os._exit(0)  # a stream that PortAudio cannot close would be waited for


if __name__ == "__main__":
    main()
