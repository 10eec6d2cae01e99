"""The input audio buffer: what the client appended and nobody committed yet, on one time line.

Between the client's appends (`connection.py`) and turn detection. The invariant: positions are milliseconds
since the session began, and never jump: clearing, committing and changing the format do not move the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, StreamResampler, decode_g711, samples_of
from trio_voice.server.brain import VAD_RATE_HZ, VAD_WINDOW_SAMPLES

if TYPE_CHECKING:
    from trio_voice.audio import Samples

WINDOW_BYTES = VAD_WINDOW_SAMPLES * BYTES_PER_SAMPLE


class InputAudio:
    """Appended audio as `pcm16` at the format's rate, and a second view of it in the detector's windows."""

    def __init__(self, audio_format: AudioFormat, started_ms: float = 0) -> None:
        self.format = audio_format
        self._origin_ms = started_ms
        self._pcm = bytearray()
        self._dropped_samples = 0
        self._resampler: StreamResampler | None = None
        self._unscored = bytearray()

    @property
    def rate_hz(self) -> int:
        return self.format.rate_hz

    @property
    def held_samples(self) -> int:
        return len(self._pcm) // BYTES_PER_SAMPLE

    @property
    def held_ms(self) -> float:
        """Audio waiting to be committed."""
        return self.held_samples * 1000 / self.rate_hz

    @property
    def received_ms(self) -> float:
        """The end of the time line: all that was ever appended."""
        return self._origin_ms + (self._dropped_samples + self.held_samples) * 1000 / self.rate_hz

    def append(self, encoded: bytes) -> None:
        """Take bytes as the client sent them.

        Raises: `ValueError` for half a sample.
        """
        pcm = encoded if self.format.encoding == "pcm16" else decode_g711(encoded, self.format.encoding)
        if len(pcm) % BYTES_PER_SAMPLE:
            raise ValueError(f"{len(pcm)} bytes are not whole 16-bit samples")
        self._pcm += pcm
        if self._resampler is not None:
            self._unscored += self._resampler.convert(bytes(pcm))

    def watch(self) -> float:
        """Start giving windows, from the audio appended next; where that is on the time line."""
        self._resampler = StreamResampler(self.rate_hz, VAD_RATE_HZ)
        self._unscored.clear()
        return self.received_ms

    def unwatch(self) -> None:
        self._resampler = None
        self._unscored.clear()

    def windows(self) -> Iterator[Samples]:
        """The whole windows that were not given before: 512 samples at 16 kHz each."""
        while len(self._unscored) >= WINDOW_BYTES:
            window = samples_of(bytes(self._unscored[:WINDOW_BYTES]))
            del self._unscored[:WINDOW_BYTES]
            yield window

    def between(self, start_ms: float, end_ms: float) -> Samples:
        """A copy of the held audio from `start_ms` to `end_ms`, as far as it is held."""
        first, last = self._index(start_ms), self._index(end_ms)
        return samples_of(bytes(self._pcm[first * BYTES_PER_SAMPLE : last * BYTES_PER_SAMPLE]))

    def drop_before(self, at_ms: float) -> None:
        index = self._index(at_ms)
        del self._pcm[: index * BYTES_PER_SAMPLE]
        self._dropped_samples += index

    def clear(self) -> None:
        self._dropped_samples += self.held_samples
        self._pcm.clear()

    def _index(self, at_ms: float) -> int:
        sample = round((at_ms - self._origin_ms) * self.rate_hz / 1000) - self._dropped_samples
        return max(0, min(sample, self.held_samples))
