"""Devices that come and go by a timetable, on Trio's clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_voice.audio import AudioFormat, Frame
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.errors import DeviceError
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

Away = tuple[tuple[float, float], ...]
"""From when to when it is away, in seconds since the start."""


@attrs.define(eq=False)
class Timetable:
    away: Away
    started_at: float = attrs.field(factory=trio.current_time)
    attempts: list[float] = attrs.Factory(list)

    @property
    def elapsed_s(self) -> float:
        return trio.current_time() - self.started_at

    def check(self) -> None:
        self.attempts.append(self.elapsed_s)
        if any(start <= self.elapsed_s < end for start, end in self.away):
            raise DeviceError("it is not there")

    async def until_it_fails(self) -> DeviceError:
        start = min((start for start, _ in self.away if start > self.elapsed_s), default=float("inf"))
        await trio.sleep_until(self.started_at + start)
        return DeviceError("it was unplugged")


@attrs.define(eq=False)
class FragileMicrophone:
    """A scripted microphone that fails when its timetable says so."""

    timetable: Timetable
    name: str = "fragile microphone"
    inner: ScriptedMicrophone = attrs.Factory(ScriptedMicrophone)

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        self.timetable.check()
        async with self.inner.open(audio_format, frame_ms) as opened:
            yield _Opened(opened, self.timetable)


@attrs.define(eq=False)
class _Opened:
    opened: OpenMicrophone
    timetable: Timetable
    dropped_frames: int = 0

    async def receive(self) -> Frame:
        frame: Frame | None = None
        failed: DeviceError | None = None
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                nonlocal failed
                failed = await self.timetable.until_it_fails()
                nursery.cancel_scope.cancel()

            nursery.start_soon(fail)
            frame = await self.opened.receive()
            nursery.cancel_scope.cancel()
        if failed is not None or frame is None:
            raise failed or DeviceError("no frame")
        return frame


@attrs.define(eq=False)
class FragileSpeaker:
    """Plays into memory what reaches the air: when it fails, the last `latency_ms` that it pulled are lost.

    `primes` is how many blocks an opening pulls, and never plays, before it stops: as a suspended one does.
    """

    timetable: Timetable
    latency_ms: int = 60
    block_ms: int = 20
    suspended: Away = ()
    name: str = "fragile speaker"
    pcm: bytearray = attrs.Factory(bytearray)
    """What was heard, silence included."""
    pulls: list[Pull] = attrs.Factory(list)
    """What each opening was given, also those that are over."""

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        self.timetable.check()
        self.pulls.append(pull)
        if any(start <= self.timetable.elapsed_s < end for start, end in self.suspended):
            for _ in range(3):
                pull(audio_format.samples_of_ms(self.block_ms))
            yield _Suspended()
            return
        inner = RecordingSpeaker(block_ms=self.block_ms, latency_ms=self.latency_ms)
        try:
            async with inner.open(audio_format, pull) as opened:
                yield _Sounding(opened, self.timetable)
        finally:
            heard = max(0, len(inner.pcm) - audio_format.bytes_of_ms(self.latency_ms))
            self.pcm += inner.pcm[:heard]


@attrs.define(eq=False)
class _Sounding:
    opened: OpenSpeaker
    timetable: Timetable

    def unheard_samples(self) -> int:
        return self.opened.unheard_samples()

    async def wait_failed(self) -> DeviceError:
        return await self.timetable.until_it_fails()


class _Suspended:
    def unheard_samples(self) -> int:
        return 0  # by the clock its blocks should have sounded long ago

    async def wait_failed(self) -> DeviceError:
        await trio.sleep(2)
        return DeviceError("it has asked for no sound for 2 s")
