"""Each item's sound in the playback buffer: how much came, how much there is to hear, and the change of its rate.

Core ring: pure. A turn's sound is one stream: where the device has another rate than the wire, one resampler leads
through all items of the turn, so there is no seam between them, and nothing of another turn is ever in it.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, StreamResampler


class Track(Struct, eq=False):
    """One item's sound."""

    turn: int
    item_id: str
    content_index: int
    received_samples: int = 0
    """All that came, at the wire's rate."""
    accepted_samples: int = 0
    """Of these, what there was room for."""
    device_samples: int = 0
    """What the accepted sound amounts to at the device's rate."""
    heard_samples: int = 0
    """At the device's rate."""
    overflowed: bool = False
    """Some of it was dropped, and so is all that follows: what is heard is always its beginning."""
    odd_byte: bytes = b""
    """The first half of a sample whose second half is to come."""

    def heard_ms(self, wire: AudioFormat, device: AudioFormat) -> float:
        """How much of it was heard, of its own duration: all of it when every sample was, however the rates round."""
        accepted_ms = wire.ms_of_samples(self.accepted_samples)
        if self.heard_samples >= self.device_samples:
            return accepted_ms
        return min(accepted_ms, device.ms_of_samples(self.heard_samples))


class Share(Struct, frozen=True, eq=False):
    """Sound at the device's rate, and whose it is."""

    track: Track
    pcm: memoryview


class TurnConverter:
    """One turn's sound on its way from one rate to another.

    The filter holds some sound back, so that what comes out may belong to an earlier item than what went in: item
    boundaries are kept as places in the turn's sound at the new rate.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = StreamResampler(from_hz, to_hz)
        self._from_hz, self._to_hz = from_hz, to_hz
        self._taken_samples = 0
        self._given_samples = 0
        self._ends: deque[tuple[Track, int]] = deque()
        """For each item begun, the place at which its sound ends so far."""

    @property
    def held_back_samples(self) -> int:
        """At the new rate: still to come out."""
        return self._ends[-1][1] - self._given_samples if self._ends else 0

    def convert(self, track: Track, pcm: bytes | memoryview) -> list[Share]:
        """Take the next sound, which is of `track`; give what is ready."""
        before = self._ends[-1][1] if self._ends else 0
        self._taken_samples += len(pcm) // BYTES_PER_SAMPLE
        end = max(before, self._taken_samples * self._to_hz // self._from_hz)
        if self._ends and self._ends[-1][0] is track:
            self._ends[-1] = (track, end)
        else:
            self._ends.append((track, end))
        track.device_samples += end - before
        return self._shared(self._stream.convert(bytes(pcm)))

    def finish(self) -> list[Share]:
        """Give what was held back: the turn has ended."""
        shares = self._shared(self._stream.convert(b"", last=True))
        if self._ends:  # the filter may round the length of the whole by a sample
            track, end = self._ends[-1]
            track.device_samples += self._given_samples - end
        return shares

    def _shared(self, pcm: bytes) -> list[Share]:
        shares: list[Share] = []
        rest = memoryview(pcm)
        while rest:
            track, end = self._ends[0]
            is_last = len(self._ends) == 1
            room = len(rest) if is_last else (end - self._given_samples) * BYTES_PER_SAMPLE
            if room > 0:
                shares.append(Share(track, rest[:room]))
                self._given_samples += len(shares[-1].pcm) // BYTES_PER_SAMPLE
                rest = rest[room:]
            if not is_last and self._given_samples >= end:
                self._ends.popleft()
        return shares
