"""Devices for tests: a microphone that says what it is told, a speaker that remembers what it played."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trio_voice.audio import AudioFormat, Frame
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.devices.wav import pulling


@attrs.frozen
class Utterance:
    """What a scripted microphone was given to say, and when its first sample was captured."""

    started_at: float
    pcm: bytes = attrs.field(repr=lambda pcm: f"<{len(pcm)} bytes>")


@attrs.define(eq=False)
class ScriptedMicrophone:
    """Silence in real time, by Trio's clock, until `say` gives it something to hear."""

    name: str = "scripted microphone"
    said: list[Utterance] = attrs.Factory(list)
    """Everything that was said, and when."""
    sleep_until: Callable[[float], Awaitable[None]] = trio.sleep_until
    """How it waits for the time of a frame."""
    _pending: deque[_Line] = attrs.Factory(deque)

    async def say(self, pcm: bytes) -> Utterance:
        """Speak `pcm16` sound at the microphone's rate, after whatever is being said; wait until all is captured.

        Cancellation: what is left of it is not said.
        """
        line = _Line(pcm)
        self._pending.append(line)
        try:
            await line.finished.wait()
        finally:
            line.cancelled = True
        assert line.utterance is not None, "it was begun, since it is finished"
        return line.utterance

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        yield _OpenScript(self, audio_format.bytes_of_ms(frame_ms), frame_ms / 1000)

    def take(self, byte_count: int, captured_at: float) -> bytes:
        """The next frame's bytes: of what is being said, or silence."""
        while self._pending and self._pending[0].cancelled:
            self._pending.popleft()
        if not self._pending:
            return bytes(byte_count)
        line = self._pending[0]
        if line.position == 0:
            line.utterance = Utterance(captured_at, line.pcm)
            self.said.append(line.utterance)
        pcm = line.pcm[line.position : line.position + byte_count]
        line.position += byte_count
        if line.position >= len(line.pcm):
            self._pending.popleft()
            line.finished.set()
        return pcm.ljust(byte_count, b"\0")


@attrs.define(eq=False)
class _Line:
    pcm: bytes
    position: int = 0
    finished: trio.Event = attrs.Factory(trio.Event)
    cancelled: bool = False
    utterance: Utterance | None = None


@attrs.define(eq=False)
class _OpenScript:
    script: ScriptedMicrophone
    frame_bytes: int
    frame_s: float
    dropped_frames: int = 0
    due_at: float = attrs.field(factory=trio.current_time)

    async def receive(self) -> Frame:
        await self.script.sleep_until(self.due_at + self.frame_s)
        frame = Frame(self.script.take(self.frame_bytes, self.due_at), self.due_at)
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
