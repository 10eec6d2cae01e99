"""Devices for tests: a microphone that says what it is told, a speaker that remembers what it played."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_voice.audio import AudioFormat, Frame
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.devices.wav import pulling


@attrs.define(eq=False)
class ScriptedMicrophone:
    """Silence in real time, by Trio's clock, until `say` gives it something to hear."""

    name: str = "scripted microphone"
    _pending: bytearray = attrs.Factory(bytearray)
    _said: trio.Event = attrs.Factory(trio.Event)

    def say(self, pcm: bytes) -> None:
        """Queue `pcm16` sound at the microphone's rate."""
        self._pending += pcm
        self._said = trio.Event()

    async def wait_said(self) -> None:
        """Wait until the last sample of all that was queued has been captured."""
        if self._pending:
            await self._said.wait()

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        yield _OpenScript(self, audio_format.bytes_of_ms(frame_ms), frame_ms / 1000)

    def take(self, byte_count: int) -> bytes:
        """The next frame's bytes."""
        pcm = bytes(self._pending[:byte_count])
        del self._pending[:byte_count]
        if pcm and not self._pending:
            self._said.set()
        return pcm.ljust(byte_count, b"\0")


@attrs.define(eq=False)
class _OpenScript:
    script: ScriptedMicrophone
    frame_bytes: int
    frame_s: float
    dropped_frames: int = 0
    due_at: float = attrs.field(factory=trio.current_time)

    async def receive(self) -> Frame:
        await trio.sleep_until(self.due_at + self.frame_s)
        frame = Frame(self.script.take(self.frame_bytes), self.due_at)
        self.due_at += self.frame_s
        return frame


@attrs.define(eq=False)
class RecordingSpeaker:
    """Plays into memory, block by block, by Trio's clock."""

    name: str = "recording speaker"
    block_ms: int = 20
    latency_ms: int = 0
    """Pretended output latency: what was pulled this recently counts as not yet heard."""
    pcm: bytearray = attrs.Factory(bytearray)
    """Everything played so far, silence included."""
    started_at: float = 0.0

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        self.started_at = trio.current_time()
        played, latency_ms = self.pcm.extend, self.latency_ms
        async with pulling(audio_format, pull, self.block_ms, played, latency_ms=latency_ms) as opened:
            yield opened
