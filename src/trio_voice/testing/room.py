"""A room with a loudspeaker and a microphone in it: what the one plays, the other hears, a little later.

For tests of echo. Runs on Trio's clock; the room is made from its own seed, so it is the same each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import numpy as np
import trio

from trio_voice.audio import AudioFormat, Frame, samples_of
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.testing.devices import RecordingSpeaker, ScriptedMicrophone

if TYPE_CHECKING:
    import numpy.typing as npt

SEED = 1


@attrs.define(eq=False)
class EchoingRoom:
    """`room.microphone` hears the person, who speaks with `await room.say(pcm)`, and `room.speaker`'s echo.

    The echo begins `delay_ms` after the sound, dies away by 60 dB within `decay_ms`, and has `echo_gain` of its power.
    Both devices are opened by one session, at one sample rate.
    """

    delay_ms: int = 40
    decay_ms: int = 150
    echo_gain: float = 0.4
    microphone: RoomMicrophone = attrs.field(init=False)
    speaker: RoomSpeaker = attrs.field(init=False)
    _impulse: npt.NDArray[np.float64] = attrs.field(init=False, factory=lambda: np.zeros(1))
    _sounds: dict[int, npt.NDArray[np.float64]] = attrs.field(init=False, factory=dict)
    """What the loudspeaker sounded, in pieces, each by the number of its first sample on Trio's clock."""

    def __attrs_post_init__(self) -> None:
        self.microphone, self.speaker = RoomMicrophone(self), RoomSpeaker(self)

    async def say(self, pcm: bytes) -> float:
        """Speak into the room; returns when the first sample was in the air, once all were."""
        return (await self.microphone.person.say(pcm)).started_at

    def sound(self, pcm: bytes, begins_at: int) -> None:
        """The loudspeaker's next block, from this sample on."""
        self._sounds[begins_at] = samples_of(pcm).astype(np.float64)

    def build(self, audio_format: AudioFormat) -> None:
        """The walls, for this sample rate."""
        silent, sounding = audio_format.samples_of_ms(self.delay_ms), audio_format.samples_of_ms(self.decay_ms)
        decay = 10.0 ** (-3 * np.arange(sounding) / max(1, sounding))
        tail = np.random.default_rng(SEED).standard_normal(sounding) * decay
        tail *= self.echo_gain / max(1e-9, float(np.sqrt(np.sum(tail * tail))))
        self._impulse = np.concatenate([np.zeros(silent), tail])

    def echo(self, begins_at: int, samples: int) -> npt.NDArray[np.float64]:
        """What of the loudspeaker arrives at the microphone in these samples."""
        reach = len(self._impulse)
        past = np.zeros(reach + samples)
        for first, block in self._near(begins_at - reach, begins_at + samples):
            start = first - (begins_at - reach)
            lower, upper = max(0, start), min(len(past), start + len(block))
            past[lower:upper] = block[lower - start : upper - start]
        if not past.any():
            return np.zeros(samples)
        size = 1 << (len(past) + reach).bit_length()
        heard = np.fft.irfft(np.fft.rfft(past, size) * np.fft.rfft(self._impulse, size), size)
        arriving: npt.NDArray[np.float64] = heard[reach : reach + samples]
        return arriving

    def _near(self, start: int, end: int) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        for first in [first for first, block in self._sounds.items() if first + len(block) <= start]:
            del self._sounds[first]  # it has died away
        yield from ((first, block) for first, block in self._sounds.items() if first < end)


@attrs.define(eq=False)
class RoomSpeaker:
    """Plays into the room, and keeps what it played in `pcm` as a `RecordingSpeaker` does."""

    room: EchoingRoom
    recording: RecordingSpeaker = attrs.Factory(RecordingSpeaker)

    @property
    def name(self) -> str:
        return "loudspeaker in a room"

    @property
    def pcm(self) -> bytearray:
        """Everything played so far, silence included."""
        return self.recording.pcm

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        self.room.build(audio_format)
        next_sample = round(trio.current_time() * audio_format.rate_hz)
        next_sample += audio_format.samples_of_ms(self.recording.latency_ms)

        def pull_and_sound(sample_count: int) -> bytes:
            nonlocal next_sample
            pcm = pull(sample_count)
            self.room.sound(pcm, next_sample)
            next_sample += sample_count
            return pcm

        async with self.recording.open(audio_format, pull_and_sound) as opened:
            yield opened


@attrs.define(eq=False)
class RoomMicrophone:
    """Hears the person and the loudspeaker."""

    room: EchoingRoom
    person: ScriptedMicrophone = attrs.Factory(ScriptedMicrophone)
    """Who else is in the room."""

    @property
    def name(self) -> str:
        return "microphone in a room"

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        async with self.person.open(audio_format, frame_ms) as opened:
            yield _OpenRoomMicrophone(self.room, opened, audio_format.rate_hz)


@attrs.define(eq=False)
class _OpenRoomMicrophone:
    room: EchoingRoom
    opened: OpenMicrophone
    rate_hz: int

    @property
    def dropped_frames(self) -> int:
        return self.opened.dropped_frames

    async def receive(self) -> Frame:
        frame = await self.opened.receive()
        said = samples_of(frame.pcm)
        heard = said + self.room.echo(round(frame.captured_at * self.rate_hz), len(said))
        return Frame(np.clip(heard, -32768, 32767).astype("<i2").tobytes(), frame.captured_at)
