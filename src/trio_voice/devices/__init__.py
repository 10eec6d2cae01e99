"""Where sound enters and leaves. Two tiny protocols; one file for each outside thing.

A *microphone* is opened and then asked for frames. A *speaker* is opened with a `pull` function and calls it,
from whatever thread it likes, each time it needs a block: nothing is ever pushed into a device, so silencing
it is a matter of the buffer behind `pull` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from trio_voice.audio import AudioFormat, Frame
from trio_voice.errors import DeviceError

Pull: TypeAlias = Callable[[int], bytes]
"""`pull(sample_count)` gives exactly that many `pcm16` samples as bytes: sound, or silence if there is none.

Safe to call from a device's own thread; never blocks for long and never raises.
"""


class DeviceCounters(Struct):
    """What an open device noticed of its own trouble. One that can tell has them as an attribute `counters`."""

    late_callbacks: int = 0
    """Times it called back more than a block too late."""
    underflows: int = 0
    """Times a loudspeaker had nothing to play, or a microphone lost sound, since the callback was late."""


class OpenMicrophone(Protocol):
    """A microphone that is running."""

    async def receive(self) -> Frame:
        """Wait for the next frame: `frame_ms` of sound, except the last one of a source that ends.

        Raises: `trio.EndOfChannel` when the source has ended (a file), `DeviceError` when the device failed: a
        session opens it again.
        Cancellation: safe; the frame waited for is received by the next call.
        When full: a device does not wait for its reader; the oldest frames are dropped and counted in
        `dropped_frames`.
        """

    @property
    def dropped_frames(self) -> int: ...


class Microphone(Protocol):
    """Something that hears: `async with microphone.open(fmt, 20) as mic: frame = await mic.receive()`."""

    @property
    def name(self) -> str: ...

    def open(self, audio_format: AudioFormat, frame_ms: int) -> AbstractAsyncContextManager[OpenMicrophone]:
        """Start it. Raises `DeviceError` when there is none, saying what to install or which flag to use."""


class OpenSpeaker(Protocol):
    """A speaker that is running."""

    def unheard_samples(self) -> int:
        """How many of the samples pulled so far have not yet reached the air: the device's output latency."""

    async def wait_failed(self) -> DeviceError:
        """Wait until the device fails, and give the error; a device that cannot fail waits for ever.

        A speaker has no call to raise from, as a microphone has `receive`: who opened it waits here, and a session
        opens it again.
        """


@runtime_checkable
class FlushableSpeaker(OpenSpeaker, Protocol):
    """A speaker that holds sound for longer than a block, and can be made to forget it."""

    def flush(self) -> None:
        """Forget all that was pulled and has not reached the air. Never waits; from here on nothing is unheard."""


class Speaker(Protocol):
    """Something that sounds: it calls `pull` for every block it needs."""

    @property
    def name(self) -> str: ...

    def open(self, audio_format: AudioFormat, pull: Pull) -> AbstractAsyncContextManager[OpenSpeaker]:
        """Start it. Raises `DeviceError` as a microphone does."""
