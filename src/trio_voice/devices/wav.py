"""WAV files as devices: a file that is heard, a file that is written as if it were a loudspeaker.

Both keep time by `trio.current_time()`, so under a virtual clock a long conversation takes no time at all.
"""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, Frame, Samples, resample, samples_of
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.errors import DeviceError


def read_wav(path: str | Path, rate_hz: int) -> Samples:
    """The samples of a 16-bit WAV file at `rate_hz`; of several channels, the first.

    Raises: `DeviceError` saying what is wrong with the file.
    """
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != BYTES_PER_SAMPLE:
                raise DeviceError(f"{path}: {8 * file.getsampwidth()}-bit samples; convert it to 16-bit PCM")
            frames = file.readframes(file.getnframes())
            whole = len(frames) - len(frames) % BYTES_PER_SAMPLE  # a recording cut short is still a recording
            samples = samples_of(frames[:whole])[:: file.getnchannels()]
            return resample(samples, file.getframerate(), rate_hz)
    except FileNotFoundError:
        raise DeviceError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DeviceError(
            f"{path}: it cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except (wave.Error, EOFError) as error:
        raise DeviceError(f"{path}: not a WAV file that can be read ({error}); 16-bit PCM is expected") from error


def write_wav(path: str | Path, rate_hz: int, *channels: Samples) -> None:
    """Write 16-bit samples; several channels are padded with silence to the longest."""
    import numpy as np

    length = max((len(channel) for channel in channels), default=0)
    interleaved = np.zeros((length, len(channels)), dtype="<i2")
    for index, channel in enumerate(channels):
        interleaved[: len(channel), index] = channel
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(BYTES_PER_SAMPLE)
        file.setframerate(rate_hz)
        file.writeframes(interleaved.tobytes())


@attrs.frozen
class WavMicrophone:
    """A file as microphone.

    In `realtime` a frame is given each time one would have been spoken; otherwise as fast as they are taken.
    After the file comes silence, as from a person who has stopped speaking; with `ends=True` the source ends.
    """

    path: Path = attrs.field(converter=Path)
    realtime: bool = True
    ends: bool = False

    @property
    def name(self) -> str:
        return str(self.path)

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        samples = read_wav(self.path, audio_format.rate_hz)
        yield _OpenWav(samples.tobytes(), audio_format.bytes_of_ms(frame_ms), frame_ms / 1000, self.realtime, self.ends)


@attrs.define(eq=False)
class _OpenWav:
    pcm: bytes
    frame_bytes: int
    frame_s: float
    realtime: bool
    ends: bool
    position: int = 0
    dropped_frames: int = 0
    due_at: float = attrs.field(factory=trio.current_time)

    async def receive(self) -> Frame:
        if self.realtime:
            await trio.sleep_until(self.due_at + self.frame_s)
        else:
            await trio.lowlevel.checkpoint()
        if self.ends and self.position >= len(self.pcm):
            raise trio.EndOfChannel
        pcm = self.pcm[self.position : self.position + self.frame_bytes]
        self.position += self.frame_bytes
        frame = Frame(pcm if self.ends else pcm.ljust(self.frame_bytes, b"\0"), self.due_at)
        self.due_at += self.frame_s
        return frame


@attrs.define(eq=False)
class WavSpeaker:
    """A file as loudspeaker: pulls a block each time one is due and writes all of it, silence too."""

    path: Path = attrs.field(converter=Path)
    block_ms: int = 20

    @property
    def name(self) -> str:
        return str(self.path)

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            disk = self.path.open("wb")
        except OSError as error:
            raise DeviceError(f"{self.path}: it cannot be written ({error.strerror}); choose another path") from error
        with disk, wave.open(disk, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(BYTES_PER_SAMPLE)
            file.setframerate(audio_format.rate_hz)
            async with pulling(audio_format, pull, self.block_ms, file.writeframes) as opened:
                yield opened


@asynccontextmanager
async def pulling(
    audio_format: AudioFormat, pull: Pull, block_ms: int, write: Callable[[bytes], None], *, latency_ms: int = 0
) -> AsyncIterator[OpenSpeaker]:
    """Pull a block at each tick of Trio's clock and hand it to `write`: the heart of every speaker in software."""
    block_samples = audio_format.samples_of_ms(block_ms)

    async def tick() -> None:
        due_at = trio.current_time()
        while True:
            write(pull(block_samples))
            due_at += block_ms / 1000
            await trio.sleep_until(due_at)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield SoftwareSpeaker(audio_format.samples_of_ms(latency_ms))
        nursery.cancel_scope.cancel()


@attrs.frozen
class SoftwareSpeaker:
    """Never fails. What it pulled within the last `latency_samples` counts as not yet heard."""

    latency_samples: int = 0

    def unheard_samples(self) -> int:
        return self.latency_samples

    async def wait_failed(self) -> DeviceError:
        await trio.sleep_forever()
