"""Audio formats and the only conversions between samples, milliseconds and bytes.

Core ring: pure. Inside the runtime sound is mono, signed 16-bit, little-endian PCM (`pcm16`);
G.711 exists only at an edge that asks for it. Every length carries its unit in its name.

numpy and soxr are imported on first use: a text-only session needs neither, and `import trio_voice`
stays quick.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Samples: TypeAlias = "npt.NDArray[np.int16]"
"""One channel of sound, a number for each sample."""

Encoding: TypeAlias = Literal["pcm16", "pcmu", "pcma"]

BYTES_PER_SAMPLE = 2
"""Of `pcm16`, the encoding everything inside the runtime uses."""


def _rate_in_range(_: object, __: object, rate_hz: int) -> None:
    if not 8_000 <= rate_hz <= 48_000:
        raise ValueError(f"rate_hz={rate_hz} is outside 8000..48000; the usual rates are 8000, 16000, 24000, 48000")


@attrs.frozen
class AudioFormat:
    """How samples are laid out on a wire or a device: an encoding and a rate, always mono."""

    encoding: Encoding = "pcm16"
    rate_hz: int = attrs.field(default=24_000, validator=_rate_in_range)

    @property
    def bytes_per_sample(self) -> int:
        return BYTES_PER_SAMPLE if self.encoding == "pcm16" else 1

    def samples_of_ms(self, duration_ms: float) -> int:
        """Whole samples in `duration_ms`, rounded down; what `ms_of_samples` gave comes back as it was."""
        return int(duration_ms * self.rate_hz / 1000 + 1e-6)

    def bytes_of_ms(self, duration_ms: float) -> int:
        """Bytes in `duration_ms`: always a whole number of samples."""
        return self.samples_of_ms(duration_ms) * self.bytes_per_sample

    def ms_of_samples(self, samples: int) -> float:
        return samples * 1000 / self.rate_hz

    def ms_of_bytes(self, byte_count: int) -> float:
        return self.ms_of_samples(byte_count // self.bytes_per_sample)


PCM16_24K = AudioFormat("pcm16", 24_000)
"""What the Realtime API speaks unless told otherwise."""


@attrs.frozen
class Frame:
    """A short run of microphone samples: `pcm16` mono bytes, and when its first sample was captured.

    `captured_at` is in seconds on `trio.current_time()`'s clock.
    """

    pcm: bytes
    captured_at: float


def samples_of(pcm: bytes | bytearray | memoryview) -> Samples:
    """View `pcm16` bytes as int16 samples, without a copy. A trailing odd byte is a `ValueError`."""
    import numpy as np

    return np.frombuffer(pcm, dtype="<i2")


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Convert a whole clip from one rate to another with soxr (high quality).

    For whole clips only: a stream needs a `StreamResampler`, or every seam clicks.
    """
    if from_hz == to_hz:
        return samples
    import soxr

    resampled: Samples = soxr.resample(samples, from_hz, to_hz)
    return resampled


class StreamResampler:
    """Converts a stream of chunks from one rate to another without seams.

    The filter holds a little back: the sound of a chunk comes out up to two chunks later, and
    `convert(chunk, last=True)` gives the rest.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = None
        if from_hz != to_hz:
            import soxr

            self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16")

    def convert(self, pcm: bytes, *, last: bool = False) -> bytes:
        """Take the next `pcm16` chunk, give what is ready at the other rate."""
        if self._stream is None:
            return pcm
        converted: Samples = self._stream.resample_chunk(samples_of(pcm), last=last)
        return converted.tobytes()


def level_dbfs(pcm: bytes) -> float:
    """The loudness of `pcm16` bytes as RMS in dB below full scale: 0 is the loudest, -96 is silence."""
    if len(pcm) < BYTES_PER_SAMPLE:
        return -96.0
    import numpy as np

    samples = samples_of(pcm).astype(np.float32)
    mean_square = float(np.dot(samples, samples)) / len(samples)
    if mean_square < 1e-1:
        return -96.0
    return max(-96.0, 10.0 * float(np.log10(mean_square / 32768.0**2)))


# --- G.711, the telephone's encoding (ITU-T G.711) ----------------------------------------------


def encode_g711(pcm: bytes, encoding: Literal["pcmu", "pcma"]) -> bytes:
    """`pcm16` samples to one G.711 byte each."""
    table = _encode_table(encoding)
    companded: bytes = table[samples_of(pcm).view("<u2")].tobytes()
    return companded


def decode_g711(companded: bytes, encoding: Literal["pcmu", "pcma"]) -> bytes:
    """G.711 bytes to `pcm16` samples."""
    import numpy as np

    return _decode_table(encoding)[np.frombuffer(companded, dtype=np.uint8)].astype("<i2").tobytes()


@functools.cache
def _decode_table(encoding: Literal["pcmu", "pcma"]) -> npt.NDArray[np.int16]:
    """The 256 sample values of the code, from the standard's formula."""
    import numpy as np

    code = np.arange(256, dtype=np.int32)
    if encoding == "pcmu":
        code = ~code & 0xFF
        magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
        return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)
    code = code ^ 0x55
    exponent, mantissa = (code & 0x70) >> 4, code & 0x0F
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 0x108 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


@functools.cache
def _encode_table(encoding: Literal["pcmu", "pcma"]) -> npt.NDArray[np.uint8]:
    """For each of the 65,536 sample values (as unsigned), the code whose value is nearest."""
    import numpy as np

    values = _decode_table(encoding).astype(np.int32)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    samples = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    above = np.clip(np.searchsorted(ordered, samples), 1, 255)
    nearest = np.where(samples - ordered[above - 1] <= ordered[above] - samples, above - 1, above)
    return order[nearest].astype(np.uint8)
