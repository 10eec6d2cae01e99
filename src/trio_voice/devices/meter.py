"""How loud it is right now: a microphone or a speaker with a meter in its line.

Edge, on the signal path: each wrapper is the device it holds, and passes every sample on unchanged. The invariant: a
block costs one slice and one store, also in a device's own thread; the loudness is worked out by who asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from trio_voice.audio import AudioFormat, Frame, level_dbfs
from trio_voice.devices import DeviceCounters, Microphone, OpenMicrophone, OpenSpeaker, Pull, Speaker

WINDOW_MS = 100
"""Of sound that counts as now: long enough to hold still for the eye, short enough to follow syllables."""


@attrs.define(eq=False)
class Meter:
    """The newest sound that went by. Written in one thread, read in any."""

    _window_bytes: int = 0
    _latest: bytes = b""

    def start(self, audio_format: AudioFormat) -> None:
        """The device opens, with sound in this format."""
        self._window_bytes, self._latest = audio_format.bytes_of_ms(WINDOW_MS), b""

    def stop(self) -> None:
        """The device is closed: nothing is heard."""
        self._latest = b""

    def note(self, pcm: bytes) -> None:
        self._latest = (self._latest + pcm)[-self._window_bytes :]

    def filter(self, frame: Frame) -> Frame:
        """As a `FrameFilter` in a session's line: the frame goes on as it is."""
        self.note(frame.pcm)
        return frame

    def level_dbfs(self) -> float:
        """RMS of the last 100 ms of `pcm16`: 0 is the loudest, -96 is silence, or nothing yet."""
        return level_dbfs(self._latest)


@attrs.frozen(eq=False)
class MeteredMicrophone:
    """`microphone`, with a `meter` of what it hears."""

    microphone: Microphone
    meter: Meter = attrs.Factory(Meter)

    @property
    def name(self) -> str:
        return self.microphone.name

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        self.meter.start(audio_format)
        try:
            async with self.microphone.open(audio_format, frame_ms) as opened:
                yield _Metered(opened, self.meter)
        finally:
            self.meter.stop()


@attrs.frozen(eq=False)
class _Metered:
    opened: OpenMicrophone
    meter: Meter

    @property
    def dropped_frames(self) -> int:
        return self.opened.dropped_frames

    @property
    def counters(self) -> DeviceCounters | None:
        return getattr(self.opened, "counters", None)

    async def receive(self) -> Frame:
        frame = await self.opened.receive()
        self.meter.note(frame.pcm)
        return frame


@attrs.frozen(eq=False)
class MeteredSpeaker:
    """`speaker`, with a `meter` of what it is given to play; that sounds its output latency later."""

    speaker: Speaker
    meter: Meter = attrs.Factory(Meter)

    @property
    def name(self) -> str:
        return self.speaker.name

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        self.meter.start(audio_format)

        def pull_and_note(sample_count: int) -> bytes:
            pcm = pull(sample_count)
            self.meter.note(pcm)
            return pcm

        try:
            async with self.speaker.open(audio_format, pull_and_note) as opened:
                yield opened
        finally:
            self.meter.stop()
