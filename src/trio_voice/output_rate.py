"""Sound whose rate a server names with each piece, converted to the rate of the session.

Core ring: pure. A part of the downlink; some servers make speech at the rate of the model at hand (vLLM-omni). The
invariant: not a sample more or less than the item had, however many pieces it came in.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from trio_voice.audio import BYTES_PER_SAMPLE, StreamResampler
from trio_voice.protocol import ResponseOutputAudioDelta, ResponseOutputAudioDone

LOWEST_HZ, HIGHEST_HZ = 8_000, 48_000
"""A rate outside is no rate: the sound is taken for the session's."""


class OutputRate(Struct, eq=False):
    """Of one connection."""

    session_hz: int
    _last: ResponseOutputAudioDelta | None = None
    """The newest piece that was converted; its item may have more to come."""
    _stream: StreamResampler = field(default_factory=lambda: StreamResampler(1, 1))
    _half: bytes = b""
    """Of a sample that the last piece was cut in."""

    @property
    def is_converting(self) -> bool:
        """Something of an item is held back."""
        return self._last is not None

    def fitted(
        self, event: ResponseOutputAudioDelta | ResponseOutputAudioDone
    ) -> list[ResponseOutputAudioDelta | ResponseOutputAudioDone]:
        """The event at the session's rate, and before the end of an item what the conversion held back of it."""
        if isinstance(event, ResponseOutputAudioDone):
            return [*self._rest(), event]
        rate_hz = event.sample_rate_hz or self.session_hz
        if rate_hz == self.session_hz or not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
            return [event]
        rest = []
        if self._last is None or (self._last.item_id, self._last.sample_rate_hz) != (
            event.item_id,
            event.sample_rate_hz,
        ):
            rest = self._rest()
            self._stream, self._half = StreamResampler(rate_hz, self.session_hz), b""
        self._last, pcm = event, self._half + event.delta
        whole = len(pcm) - len(pcm) % BYTES_PER_SAMPLE
        self._half = pcm[whole:]
        return [*rest, replace(event, delta=self._stream.convert(pcm[:whole]), sample_rate_hz=UNSET)]

    def _rest(self) -> list[ResponseOutputAudioDelta | ResponseOutputAudioDone]:
        last, self._last = self._last, None
        if last is None:
            return []
        return [replace(last, delta=self._stream.convert(b"", last=True), sample_rate_hz=UNSET)]
