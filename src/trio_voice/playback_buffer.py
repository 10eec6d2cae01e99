"""The playback buffer: what is to be heard, what has been pulled, and what must never sound again.

Core ring: pure and synchronous; ticks are counted from pulls, there is no clock. The playback actor owns one and
puts a lock around it, because the device pulls from a thread of its own.

The invariant kept here: after `interrupt(turn)` no sample of that turn, or of an earlier one, is ever pulled.
Clearing alone does not give it, since late audio of a cancelled turn keeps arriving; the *turn floor* does:
whatever belongs to a turn at or below it is refused for ever.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat


class Insertion(enum.Enum):
    """What became of a chunk."""

    QUEUED = "queued"
    STALE = "stale"
    """Its turn was interrupted: refused."""
    OVERFLOW = "overflow"
    """The buffer holds its capacity: dropped."""


@attrs.define
class BufferStatistics:
    """Counters since the buffer was made. Samples, unless the name says otherwise."""

    inserted_samples: int = 0
    pulled_samples: int = 0
    """Of sound; silence does not count."""
    heard_samples: int = 0
    """Of sound, out of the loudspeaker, when that was last looked at."""
    stale_samples: int = 0
    """Refused because their turn had been interrupted."""
    cleared_samples: int = 0
    """Queued, then dropped by an interruption."""
    overflow_samples: int = 0
    underruns: int = 0
    """Times the buffer ran dry in the middle of a turn."""
    silence_samples: int = 0


@attrs.frozen
class ItemPosition:
    """How far one item of the conversation has got."""

    turn: int
    item_id: str
    content_index: int
    received_ms: float
    """Accepted from the wire so far."""
    heard_ms: float
    """Out of the loudspeaker so far; never more than was received."""


@attrs.define(eq=False)
class _Track:
    """One item's sound."""

    turn: int
    item_id: str
    content_index: int
    received_samples: int = 0
    heard_samples: int = 0


@attrs.define(eq=False)
class _Chunk:
    track: _Track
    pcm: memoryview


@attrs.define(eq=False)
class _Segment:
    """A piece of one track that has been pulled and is on its way to the air."""

    track: _Track
    start: int
    """On the timeline of all pulled samples, silence included."""
    pcm: memoryview
    """Kept until it was heard: the device may die with it."""

    @property
    def samples(self) -> int:
        return len(self.pcm) // BYTES_PER_SAMPLE


class PlaybackBuffer:
    """Takes chunks of turns in any size, gives blocks of any size, forgets a turn at once.

    Every length is whole samples of `pcm16` mono at `audio_format.rate_hz`.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        prebuffer_ms: int = 100,
        capacity_ms: int = 600_000,
        fade_ms: int = 5,
    ) -> None:
        self._format = audio_format
        self._prebuffer_samples = audio_format.samples_of_ms(prebuffer_ms)
        self._capacity_samples = audio_format.samples_of_ms(capacity_ms)
        self._fade_samples = audio_format.samples_of_ms(fade_ms)
        self._chunks: deque[_Chunk] = deque()
        self._queued_samples = 0
        self._tracks: dict[tuple[int, str, int], _Track] = {}
        self._segments: deque[_Segment] = deque()
        self._timeline = 0
        self._heard_timeline = 0
        self._floor = 0
        self._ended_turn = 0
        self._flowing = False
        self._sounding_turn = 0
        self._fade = b""
        self._last_sample = 0
        self.held = False
        """While true, `pull` gives silence and consumes nothing."""
        self.statistics = BufferStatistics()

    @property
    def floor(self) -> int:
        """The turn floor: turns at or below it will never sound again."""
        return self._floor

    @property
    def queued_ms(self) -> float:
        """Sound waiting to be pulled."""
        return self._format.ms_of_samples(self._queued_samples)

    def insert(self, turn: int, item_id: str, content_index: int, pcm: bytes) -> Insertion:
        """Append sound of `turn`. Turns are expected in rising order; an odd trailing byte is dropped."""
        samples = len(pcm) // BYTES_PER_SAMPLE
        if turn <= self._floor:
            self.statistics.stale_samples += samples
            return Insertion.STALE
        if self._queued_samples + samples > self._capacity_samples:
            self.statistics.overflow_samples += samples
            return Insertion.OVERFLOW
        if samples:
            key = (turn, item_id, content_index)
            track = self._tracks.get(key)
            if track is None:
                track = self._tracks[key] = _Track(*key)
            track.received_samples += samples
            self._chunks.append(_Chunk(track, memoryview(pcm)[: samples * BYTES_PER_SAMPLE]))
            self._queued_samples += samples
            self.statistics.inserted_samples += samples
        return Insertion.QUEUED

    def end(self, turn: int) -> None:
        """No more of `turn` will come: play what there is, even if it is less than the prebuffer."""
        self._ended_turn = max(self._ended_turn, turn)

    def interrupt(self, turn: int) -> float:
        """Forget `turn` and every earlier one, now and for ever. Returns the milliseconds thrown away.

        What was pulled before stays in the account of `positions`: the device may still be sounding it.
        """
        self._floor = max(self._floor, turn)
        kept = deque(chunk for chunk in self._chunks if chunk.track.turn > self._floor)
        kept_samples = sum(len(chunk.pcm) for chunk in kept) // BYTES_PER_SAMPLE
        cleared = self._queued_samples - kept_samples
        self._chunks, self._queued_samples = kept, kept_samples
        self.statistics.cleared_samples += cleared
        if self._sounding_turn <= self._floor:
            self._cut()
        return self._format.ms_of_samples(cleared)

    def pull(self, sample_count: int) -> bytes:
        """The next `sample_count` samples: always that many, silence where there is no sound."""
        parts: list[bytes | memoryview] = []
        missing = sample_count
        if self.held:
            self._fade_out()
        elif not self._fade and self._may_flow():
            missing = self._take(parts, sample_count)
            if missing:
                self._ran_dry()
        if missing:
            self.statistics.silence_samples += missing
            self._timeline += missing
            parts.append(self._quiet(missing))
        return b"".join(parts)

    def positions(self, unheard_samples: int = 0) -> tuple[ItemPosition, ...]:
        """Every item not yet retired, in the order it began, given the device's output latency in samples."""
        self._settle(unheard_samples)
        to_ms = self._format.ms_of_samples
        return tuple(
            ItemPosition(
                track.turn, track.item_id, track.content_index,
                received_ms=to_ms(track.received_samples), heard_ms=to_ms(track.heard_samples),
            )
            for track in self._tracks.values()
        )  # fmt: skip

    def retire(self, turn: int) -> None:
        """Drop the account of `turn` and every earlier one: its positions have been reported for the last time.

        Sound of it that still comes would be outside every account, and nothing could interrupt it: it is refused.
        """
        self._floor = max(self._floor, turn)
        self._tracks = {key: track for key, track in self._tracks.items() if track.turn > turn}

    def take_back(self, unheard_samples: int) -> None:
        """The device is gone with the last `unheard_samples` in it: queue again what of them was sound.

        From here on nothing is on its way to the air, and the positions stand still until the next pull.
        """
        self._settle(unheard_samples)
        for segment in reversed(self._segments):
            if segment.track.turn > self._floor:
                self._chunks.appendleft(_Chunk(segment.track, segment.pcm))
                self._queued_samples += segment.samples
                self.statistics.pulled_samples -= segment.samples
        self._segments.clear()
        self._heard_timeline = self._timeline
        self._fade, self._last_sample = b"", 0  # nothing sounds that could decay

    def is_finished(self, turn: int, unheard_samples: int) -> bool:
        """Whether everything of `turn`, which has ended, was heard."""
        if turn > self._ended_turn or any(chunk.track.turn <= turn for chunk in self._chunks):
            return False
        self._settle(unheard_samples)
        return not any(segment.track.turn <= turn for segment in self._segments)

    # --- inside -----------------------------------------------------------------------------------

    def _may_flow(self) -> bool:
        """Whether sound may be pulled now: flowing already, or enough gathered to begin."""
        if not self._flowing and self._chunks:
            whole_turn_is_here = self._chunks[0].track.turn <= self._ended_turn
            self._flowing = whole_turn_is_here or self._queued_samples >= self._prebuffer_samples
        return self._flowing

    def _take(self, parts: list[bytes | memoryview], sample_count: int) -> int:
        """Move up to `sample_count` samples into `parts`; returns how many are missing."""
        missing = sample_count
        while missing and self._chunks:
            chunk = self._chunks[0]
            available = len(chunk.pcm) // BYTES_PER_SAMPLE
            taken = min(missing, available)
            part = chunk.pcm[: taken * BYTES_PER_SAMPLE]
            parts.append(part)
            if taken == available:
                self._chunks.popleft()
            else:
                chunk.pcm = chunk.pcm[taken * BYTES_PER_SAMPLE :]
            self._account(chunk.track, part)
            missing -= taken
        if parts:
            self._last_sample = int.from_bytes(parts[-1][-BYTES_PER_SAMPLE:], "little", signed=True)
        return missing

    def _account(self, track: _Track, part: memoryview) -> None:
        segment = _Segment(track, self._timeline, part)
        samples = segment.samples
        self._segments.append(segment)
        self._sounding_turn = track.turn
        self._timeline += samples
        self._queued_samples -= samples
        self.statistics.pulled_samples += samples

    def _ran_dry(self) -> None:
        self._flowing = False
        if self._sounding_turn > self._ended_turn:
            self.statistics.underruns += 1
        self._cut()

    def _cut(self) -> None:
        """Sound stops here."""
        self._flowing = self._flowing and bool(self._chunks)
        self._fade_out()

    def _fade_out(self) -> None:
        """Let the last value played decay instead of popping. No sample that was not played is used."""
        if self._last_sample:
            self._fade = self._decay(self._last_sample)
        self._last_sample = 0

    def _decay(self, value: int) -> bytes:
        steps = self._fade_samples
        return b"".join(
            int(value * (steps - step) / (steps + 1)).to_bytes(BYTES_PER_SAMPLE, "little", signed=True)
            for step in range(steps)
        )

    def _quiet(self, sample_count: int) -> bytes:
        """Silence, beginning with what is left of a decay."""
        byte_count = sample_count * BYTES_PER_SAMPLE
        decaying, self._fade = self._fade[:byte_count], self._fade[byte_count:]
        return decaying.ljust(byte_count, b"\0")

    def _settle(self, unheard_samples: int) -> None:
        """Credit to each track what has left the loudspeaker by now. Never goes back when the latency jitters."""
        self._heard_timeline = max(self._heard_timeline, self._timeline - max(0, unheard_samples))
        while self._segments:
            segment = self._segments[0]
            heard = min(segment.samples, self._heard_timeline - segment.start)
            if heard <= 0:
                return
            segment.track.heard_samples += heard
            self.statistics.heard_samples += heard
            segment.start += heard
            segment.pcm = segment.pcm[heard * BYTES_PER_SAMPLE :]
            if segment.samples:
                return
            self._segments.popleft()
