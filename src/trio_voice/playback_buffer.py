"""The playback buffer: what is to be heard, what has been pulled, and what must never sound again.

Core ring: pure and synchronous; ticks are counted from pulls and arrival times are arguments, there is no clock. The
playback actor owns one and puts a lock around it, because the device pulls from a thread of its own.

The invariant kept here: after `interrupt(turn)` no sample of that turn, or of an earlier one, is ever pulled.
Clearing alone does not give it, since late audio of a cancelled turn keeps arriving; the *turn floor* does:
whatever belongs to a turn at or below it is refused for ever. Where the device has another rate than the wire, each
turn has a resampler of its own, which is thrown away with it.

When full, the newest is dropped, and with it the rest of its item: a server that is ahead cannot be slowed down, and
speech that breaks off is better than speech with holes. What is heard of an item is so always its beginning.
"""

from __future__ import annotations

import enum
from collections import deque

from msgspec import Struct

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat
from trio_voice.errors import ConfigError
from trio_voice.gain import Gain
from trio_voice.jitter import JitterEstimator
from trio_voice.tracks import Share, Track, TurnConverter


class Insertion(enum.Enum):
    """What became of a chunk."""

    QUEUED = "queued"
    STALE = "stale"
    """Its turn was interrupted: refused."""
    OVERFLOW = "overflow"
    """The buffer holds its capacity, or did when earlier sound of this item came: dropped."""


class BufferStatistics(Struct):
    """Counters since the buffer was made. Samples of the wire where they come in, of the device where they go out."""

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
    late_chunks: int = 0
    """Pieces of sound that came later than the prebuffer of that moment makes up for."""
    jitter_ms: float = 0.0
    """How unevenly sound comes, see `JitterEstimator`."""
    prebuffer_ms: float = 0.0
    """What is gathered before the next turn begins."""


class ItemPosition(Struct, frozen=True):
    """How far one item of the conversation has got."""

    turn: int
    item_id: str
    content_index: int
    received_ms: float
    """Come from the wire so far, whether or not there was room for it."""
    heard_ms: float
    """Out of the loudspeaker so far; never more than was received."""


class _Segment(Struct, eq=False):
    """A piece of one track that has been pulled and is on its way to the air."""

    track: Track
    start: int
    """On the timeline of all pulled samples, silence included."""
    pcm: memoryview
    """Kept until it was heard: the device may die with it."""

    @property
    def samples(self) -> int:
        return len(self.pcm) // BYTES_PER_SAMPLE


class PlaybackBuffer:
    """Takes chunks of turns in any size, gives blocks of any size, forgets a turn at once.

    Sound is `pcm16` mono; it comes at `audio_format.rate_hz` and is pulled at `device_rate_hz`, the same unless given.
    The prebuffer begins at `prebuffer_ms` and follows the jitter between its two bounds; without bounds it stays.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        device_rate_hz: int | None = None,
        prebuffer_ms: float = 100,
        prebuffer_bounds_ms: tuple[float, float] | None = None,
        capacity_ms: int = 600_000,
        fade_ms: int = 5,
    ) -> None:
        self._wire = audio_format
        self._device = AudioFormat("pcm16", device_rate_hz or audio_format.rate_hz)
        self._jitter = JitterEstimator(prebuffer_ms, prebuffer_bounds_ms or (prebuffer_ms, prebuffer_ms))
        self._capacity_samples = self._device.samples_of_ms(capacity_ms)
        self._fade_samples = self._device.samples_of_ms(fade_ms)
        self._chunks: deque[Share] = deque()
        self._queued_samples = 0
        self._tracks: dict[tuple[int, str, int], Track] = {}
        self._converters: dict[int, TurnConverter] = {}
        self._segments: deque[_Segment] = deque()
        self._timeline = 0
        self._heard_timeline = 0
        self._floor = 0
        self._ended_turn = 0
        self._flowing = False
        self._sounding_turn = 0
        self._fade = b""
        self._last_sample = 0
        self._fade_in, self._duck = Gain(), Gain()
        self.held = False
        """While true, `pull` gives silence and consumes nothing."""
        self.statistics = BufferStatistics(jitter_ms=self._jitter.jitter_ms, prebuffer_ms=self._jitter.prebuffer_ms)

    @property
    def floor(self) -> int:
        """The turn floor: turns at or below it will never sound again."""
        return self._floor

    @property
    def queued_ms(self) -> float:
        """Sound waiting to be pulled."""
        return self._device.ms_of_samples(self._queued_samples)

    def insert(self, turn: int, item_id: str, content_index: int, pcm: bytes, arrived_at: float) -> Insertion:
        """Append sound of `turn`, which came at `arrived_at` seconds. Turns are expected in rising order.

        A chunk may end in the middle of a sample: the next one of the same item goes on there.
        """
        if turn <= self._floor:
            self.statistics.stale_samples += len(pcm) // BYTES_PER_SAMPLE
            return Insertion.STALE
        key = (turn, item_id, content_index)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = Track(*key)
        sound = memoryview(track.odd_byte + pcm if track.odd_byte else pcm)
        samples = len(sound) // BYTES_PER_SAMPLE
        sound, track.odd_byte = sound[: samples * BYTES_PER_SAMPLE], bytes(sound[samples * BYTES_PER_SAMPLE :])
        track.received_samples += samples
        self._note_arrival(turn, arrived_at, samples)
        duration_ms = self._wire.ms_of_samples(samples)
        fits = self._queued_samples + self._device.samples_of_ms(duration_ms) <= self._capacity_samples
        if track.overflowed or not fits:
            track.overflowed = True
            self.statistics.overflow_samples += samples
            return Insertion.OVERFLOW
        if samples:
            track.accepted_samples += samples
            self.statistics.inserted_samples += samples
            self._queue(self._converted(track, sound, samples))
        return Insertion.QUEUED

    def end(self, turn: int) -> None:
        """No more of `turn` will come: play what there is, even if it is less than the prebuffer."""
        self._ended_turn = max(self._ended_turn, turn)
        for ended in sorted(turn for turn in self._converters if turn <= self._ended_turn):
            self._queue(self._converters.pop(ended).finish())

    def interrupt(self, turn: int) -> float:
        """Forget `turn` and every earlier one, now and for ever. Returns the milliseconds thrown away.

        What was pulled before stays in the account of `positions`: the device may still be sounding it. Ducking ends
        with the turn that was ducked: what follows is at full level.
        """
        self._floor = max(self._floor, turn)
        kept = deque(chunk for chunk in self._chunks if chunk.track.turn > self._floor)
        kept_samples = sum(len(chunk.pcm) for chunk in kept) // BYTES_PER_SAMPLE
        cleared = self._queued_samples - kept_samples + self._forget_converters()
        self._chunks, self._queued_samples = kept, kept_samples
        self.statistics.cleared_samples += cleared
        if self._sounding_turn <= self._floor:
            self._cut(self._flowing)
            self._duck.set(1.0)
        return self._device.ms_of_samples(cleared)

    def duck(self, gain: float, ramp_ms: float) -> None:
        """Play more softly from here on, at `gain` times the level, 0 to 1, reached within `ramp_ms`; 1 is full level.

        Raises: `ConfigError` for a gain that is none: above 1 it would clip.
        """
        if not 0.0 <= gain <= 1.0:
            raise ConfigError(f"gain={gain!r} is outside 0..1; 1 is full level, 0.2 is usual for ducking")
        self._duck.move(gain, self._device.samples_of_ms(ramp_ms))

    def pull(self, sample_count: int) -> bytes:
        """The next `sample_count` samples: always that many, silence where there is no sound."""
        parts: list[bytes | memoryview] = []
        missing = sample_count
        if self.held:
            self._fade_out(in_the_middle=self._flowing)
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
        return tuple(
            ItemPosition(
                track.turn, track.item_id, track.content_index,
                received_ms=self._wire.ms_of_samples(track.received_samples),
                heard_ms=track.heard_ms(self._wire, self._device),
            )
            for track in self._tracks.values() if track.received_samples
        )  # fmt: skip

    def retire(self, turn: int) -> None:
        """Drop the account of `turn` and every earlier one: its positions have been reported for the last time.

        Sound of it that still comes would be outside every account, and nothing could interrupt it: it is refused.
        """
        self._floor = max(self._floor, turn)
        self._forget_converters()
        self._tracks = {key: track for key, track in self._tracks.items() if track.turn > turn}

    def take_back(self, unheard_samples: int) -> None:
        """The device is gone with the last `unheard_samples` in it: queue again what of them was sound.

        From here on nothing is on its way to the air, and the positions stand still until the next pull.
        """
        self._settle(unheard_samples)
        for segment in reversed(self._segments):
            if segment.track.turn > self._floor:
                self._chunks.appendleft(Share(segment.track, segment.pcm))
                self._queued_samples += segment.samples
                self.statistics.pulled_samples -= segment.samples
        self._segments.clear()
        self._heard_timeline = self._timeline
        self._fade, self._last_sample = b"", 0  # nothing sounds that could decay
        self._begin_softly()

    def is_finished(self, turn: int, unheard_samples: int) -> bool:
        """Whether everything of `turn`, which has ended, was heard."""
        if turn > self._ended_turn or any(chunk.track.turn <= turn for chunk in self._chunks):
            return False
        self._settle(unheard_samples)
        return not any(segment.track.turn <= turn for segment in self._segments)

    # --- inside -----------------------------------------------------------------------------------

    def _note_arrival(self, turn: int, arrived_at: float, samples: int) -> None:
        within_ms = self._jitter.prebuffer_ms
        late_ms = self._jitter.observe(turn, arrived_at, self._wire.ms_of_samples(samples))
        self.statistics.late_chunks += late_ms > within_ms
        self.statistics.jitter_ms, self.statistics.prebuffer_ms = self._jitter.jitter_ms, self._jitter.prebuffer_ms

    def _converted(self, track: Track, sound: memoryview, samples: int) -> list[Share]:
        """`sound` at the device's rate, as far as it is ready."""
        if self._device.rate_hz == self._wire.rate_hz:
            track.device_samples += samples
            return [Share(track, sound)]
        converter = self._converters.get(track.turn)
        if converter is None:
            converter = self._converters[track.turn] = TurnConverter(self._wire.rate_hz, self._device.rate_hz)
        shares = converter.convert(track, sound)
        if track.turn <= self._ended_turn:  # after its end: nothing will push the rest out
            shares += self._converters.pop(track.turn).finish()
        return shares

    def _queue(self, shares: list[Share]) -> None:
        self._chunks.extend(shares)
        self._queued_samples += sum(len(share.pcm) for share in shares) // BYTES_PER_SAMPLE

    def _forget_converters(self) -> int:
        """Of turns that must not sound any more. Returns the samples that were in them."""
        gone = [self._converters.pop(turn) for turn in sorted(self._converters) if turn <= self._floor]
        return sum(converter.held_back_samples for converter in gone)

    def _may_flow(self) -> bool:
        """Whether sound may be pulled now: flowing already, or enough gathered to begin."""
        if not self._flowing and self._chunks:
            whole_turn_is_here = self._chunks[0].track.turn <= self._ended_turn
            enough_samples = self._device.samples_of_ms(self._jitter.prebuffer_ms)
            self._flowing = whole_turn_is_here or self._queued_samples >= enough_samples
        return self._flowing

    def _take(self, parts: list[bytes | memoryview], sample_count: int) -> int:
        """Move up to `sample_count` samples into `parts`; returns how many are missing."""
        missing = sample_count
        while missing and self._chunks:
            chunk = self._chunks[0]
            available = len(chunk.pcm) // BYTES_PER_SAMPLE
            taken = min(missing, available)
            part = chunk.pcm[: taken * BYTES_PER_SAMPLE]
            parts.append(self._duck.apply(self._fade_in.apply(part)))
            if taken == available:
                self._chunks.popleft()
            else:
                self._chunks[0] = Share(chunk.track, chunk.pcm[taken * BYTES_PER_SAMPLE :])
            self._account(chunk.track, part)
            missing -= taken
        if parts:
            self._last_sample = int.from_bytes(parts[-1][-BYTES_PER_SAMPLE:], "little", signed=True)
        return missing

    def _account(self, track: Track, part: memoryview) -> None:
        segment = _Segment(track, self._timeline, part)
        samples = segment.samples
        self._segments.append(segment)
        self._sounding_turn = track.turn
        self._timeline += samples
        self._queued_samples -= samples
        self.statistics.pulled_samples += samples

    def _ran_dry(self) -> None:
        self._flowing = False
        in_the_middle = self._sounding_turn > self._ended_turn
        self.statistics.underruns += in_the_middle
        self._cut(in_the_middle)

    def _cut(self, in_the_middle: bool) -> None:
        """Sound stops here."""
        self._flowing = self._flowing and bool(self._chunks)
        self._fade_out(in_the_middle)

    def _fade_out(self, in_the_middle: bool) -> None:
        """Let the last value played decay instead of popping. No sample that was not played is used.

        What follows on a stop in the middle of a turn fades in: it is scaled, and none of it is left out.
        """
        if self._last_sample:
            self._fade = self._decay(self._last_sample)
        self._last_sample = 0
        if in_the_middle and self._fade_samples:
            self._begin_softly()

    def _begin_softly(self) -> None:
        self._fade_in.set(0.0)
        self._fade_in.move(1.0, self._fade_samples)

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
