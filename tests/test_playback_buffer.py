from __future__ import annotations

from collections import Counter, deque
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from trio_voice.audio import AudioFormat, samples_of
from trio_voice.playback_buffer import BufferStatistics, Insertion, PlaybackBuffer
from trio_voice.server.scripted import marked_samples

EIGHT_KHZ = AudioFormat("pcm16", 8_000)
PREBUFFER_MS, CAPACITY_MS = 4, 40
PREBUFFER_SAMPLES, CAPACITY_SAMPLES = 32, 320

Operation: TypeAlias = tuple[str, int, int]
"""What to do, with two numbers whose meaning depends on it."""

operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(1, 5), st.integers(0, 120)),
        st.tuples(st.just("insert"), st.integers(1, 5), st.integers(0, 400)),
        st.tuples(st.just("pull"), st.integers(1, 90), st.just(0)),
        st.tuples(st.just("pull"), st.integers(1, 90), st.just(0)),
        st.tuples(st.just("end"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("interrupt"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("hold"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("look"), st.integers(0, 100), st.just(0)),
        st.tuples(st.just("die"), st.integers(0, 100), st.just(0)),
    ),
    max_size=40,
)


def marked(turn: int, count: int, start: int = 0) -> bytes:
    return marked_samples(turn, count, start).astype("<i2").tobytes()


def buffer_of(fade_ms: int = 0, prebuffer_ms: int = PREBUFFER_MS) -> PlaybackBuffer:
    return PlaybackBuffer(EIGHT_KHZ, prebuffer_ms=prebuffer_ms, capacity_ms=CAPACITY_MS, fade_ms=fade_ms)


class Checked:
    """A playback buffer beside a plain account of what must be true of it; every operation compares the two."""

    def __init__(self, fade_ms: int) -> None:
        self.fade_samples = EIGHT_KHZ.samples_of_ms(fade_ms)
        self.buffer = buffer_of(fade_ms)
        self.queue: deque[tuple[int, int]] = deque()
        self.timeline: list[int | None] = []
        self.values: list[int] = []
        self.taken_back = self.refused = 0
        self.inserted: Counter[int] = Counter()
        self.heard_until = 0
        self.floor = self.ended = self.cleared = self.stale = self.overflow = self.underruns = 0
        self.flowing = False
        self.quiet_for = 0
        self.level = 0
        self.sounding = 0

    def apply(self, operation: Operation) -> None:
        match operation:
            case ("insert", turn, byte_count):
                self.insert(turn, byte_count)
            case ("pull", count, _):
                self.pull(count)
            case ("end", turn, _):
                self.buffer.end(turn)
                self.ended = max(self.ended, turn)
            case ("interrupt", turn, _):
                self.interrupt(turn)
            case ("hold", held, _):
                self.buffer.held = bool(held)
            case ("look", unheard, _):
                self.look(unheard)
            case ("die", unheard, _):
                self.die(unheard)
        assert len(self.queue) <= CAPACITY_SAMPLES + self.taken_back
        assert self.buffer.queued_ms == EIGHT_KHZ.ms_of_samples(len(self.queue))

    def insert(self, turn: int, byte_count: int) -> None:
        samples = byte_count // 2
        outcome = self.buffer.insert(turn, f"item {turn}", 0, marked(turn, samples) + b"\x7f" * (byte_count % 2))
        if turn <= self.floor:
            assert outcome is Insertion.STALE
            self.stale += samples
        elif len(self.queue) + samples > CAPACITY_SAMPLES:
            assert outcome is Insertion.OVERFLOW
            self.overflow += samples
        else:
            assert outcome is Insertion.QUEUED
            self.queue.extend((turn, int(value)) for value in marked_samples(turn, samples))
            self.inserted[turn] += samples

    def interrupt(self, turn: int) -> None:
        discarded_ms = self.buffer.interrupt(turn)
        self.floor = max(self.floor, turn)
        kept = deque(sample for sample in self.queue if sample[0] > self.floor)
        assert discarded_ms == EIGHT_KHZ.ms_of_samples(len(self.queue) - len(kept))
        self.cleared += len(self.queue) - len(kept)
        self.queue = kept
        if self.sounding <= self.floor:
            self.flowing = self.flowing and bool(kept)

    def pull(self, count: int) -> None:
        before = self.buffer.statistics.pulled_samples
        block = samples_of(self.buffer.pull(count))
        assert len(block) == count
        sound = self.buffer.statistics.pulled_samples - before
        if sound:
            assert not self.buffer.held
            enough = len(self.queue) >= PREBUFFER_SAMPLES or self.queue[0][0] <= self.ended
            assert self.flowing or enough, "it began before the prebuffer was full"
        expected = [self.queue.popleft() for _ in range(sound)]
        assert block[:sound].tolist() == [value for _, value in expected]
        assert all(turn > self.floor for turn, _ in expected)
        self.timeline += [turn for turn, _ in expected] + [None] * (count - sound)
        self.values += [value for _, value in expected] + [0] * (count - sound)
        if sound:
            self.level, self.quiet_for, self.sounding = int(block[sound - 1]), 0, expected[-1][0]
        may_sound = not self.buffer.held and (sound or self.flowing)
        if self.fade_samples == 0 and may_sound and sound < count and self.sounding > self.ended:
            self.underruns += 1
        if not self.buffer.held:
            self.flowing = sound == count or (self.fade_samples > 0 and self.flowing and bool(self.queue))
        self.check_quiet(block[sound:].tolist())

    def check_quiet(self, quiet: list[int]) -> None:
        """Silence may begin with a decay of what was played last: smaller and smaller values of its sign."""
        for value in quiet:
            self.quiet_for += 1
            assert 0 <= value <= self.level, "louder than what was played just before"
            assert value == 0 or self.quiet_for <= self.fade_samples, "it fades too long"
            self.level = value

    def look(self, unheard: int) -> None:
        self.heard_until = max(self.heard_until, len(self.timeline) - unheard)
        heard = Counter(turn for turn in self.timeline[: self.heard_until] if turn is not None)
        positions = {position.turn: position for position in self.buffer.positions(unheard)}
        assert {turn for turn, samples in self.inserted.items() if samples} == set(positions)
        for turn, position in positions.items():
            assert position.item_id == f"item {turn}"
            assert position.heard_ms == EIGHT_KHZ.ms_of_samples(heard[turn])
            assert position.received_ms == EIGHT_KHZ.ms_of_samples(self.inserted[turn])
            assert position.heard_ms <= position.received_ms
        on_its_way = [turn for turn in self.timeline[self.heard_until :] if turn is not None]
        for turn in range(1, 6):
            waiting = any(queued <= turn for queued, _ in self.queue) or any(sent <= turn for sent in on_its_way)
            assert self.buffer.is_finished(turn, unheard) == (turn <= self.ended and not waiting)

    def die(self, unheard: int) -> None:
        """The device dies with what it had not played: that is to be played again, and was not heard."""
        self.buffer.take_back(unheard)
        self.heard_until = max(self.heard_until, len(self.timeline) - unheard)
        lost = [(turn, value) for turn, value in zip(self.timeline, self.values, strict=True) if turn is not None]
        lost = lost[sum(turn is not None for turn in self.timeline[: self.heard_until]) :]
        again = [(turn, value) for turn, value in lost if turn > self.floor]
        self.queue.extendleft(reversed(again))
        self.taken_back += len(again)
        self.refused += len(lost) - len(again)
        self.timeline[self.heard_until :] = [None] * (len(self.timeline) - self.heard_until)
        self.heard_until, self.level = len(self.timeline), 0
        self.look(0)

    def check_statistics(self) -> None:
        on_the_timeline = sum(turn is not None for turn in self.timeline)
        pulled = on_the_timeline + self.refused
        assert sum(self.inserted.values()) == pulled + self.cleared + len(self.queue)
        assert self.buffer.statistics == BufferStatistics(
            inserted_samples=sum(self.inserted.values()),
            pulled_samples=pulled,
            stale_samples=self.stale,
            cleared_samples=self.cleared,
            heard_samples=sum(turn is not None for turn in self.timeline[: self.heard_until]),
            overflow_samples=self.overflow,
            underruns=self.underruns if self.fade_samples == 0 else self.buffer.statistics.underruns,
            silence_samples=len(self.timeline) - on_the_timeline - self.taken_back - self.refused,
        )


@given(operations, st.sampled_from([0, 5]))
@example([("insert", 1, 80), ("pull", 40, 0), ("look", 0, 0), ("pull", 1, 0)], 0).via("dry just after a look")
@example([("insert", 1, 240), ("pull", 90, 0), ("look", 70, 0), ("die", 40, 0)], 0).via("dies in mid-piece")
@example([("insert", 1, 240), ("pull", 90, 0), ("interrupt", 1, 0), ("die", 40, 0)], 0).via("dies after a barge-in")
@example([("insert", 1, 240), ("pull", 10, 0), ("hold", 1, 0), ("pull", 90, 0), ("interrupt", 1, 0), ("pull", 9, 0)], 5)
def test_whatever_happens_it_plays_what_it_may_in_order_and_accounts_for_all(plan: list[Operation], fade: int) -> None:
    checked = Checked(fade)
    for operation in plan:
        checked.apply(operation)
    checked.check_statistics()
    # Whatever was not interrupted comes out, down to the last sample, once the turns have ended.
    checked.apply(("end", 5, 0))
    checked.apply(("hold", 0, 0))
    for _ in range(CAPACITY_SAMPLES // 50 + 4):
        checked.apply(("pull", 50, 0))
    assert not checked.queue
    checked.apply(("look", 0, 0))
    assert checked.buffer.is_finished(5, 0)
    checked.check_statistics()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 60))
def test_an_ended_turn_sounds_whole_even_if_shorter_than_the_prebuffer(chunks: list[int], block: int) -> None:
    buffer = buffer_of()
    position = 0
    for count in chunks:
        buffer.insert(1, "item", 0, marked(1, count, position))
        position += count
    buffer.end(1)
    pulled = b"".join(buffer.pull(block) for _ in range(position // block + 1))
    assert pulled.rstrip(b"\0")[: 2 * position] == marked(1, position).rstrip(b"\0")
    assert buffer.statistics.underruns == 0


def test_an_unfinished_turn_waits_for_the_prebuffer() -> None:
    buffer = buffer_of()
    buffer.insert(1, "item", 0, marked(1, PREBUFFER_SAMPLES - 1))
    assert not any(buffer.pull(20))
    buffer.insert(1, "item", 0, marked(1, 1, PREBUFFER_SAMPLES - 1))
    assert buffer.pull(20) == marked(1, 20)


def test_late_audio_of_an_interrupted_turn_never_sounds() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, marked(1, 100))
    buffer.pull(40)
    buffer.interrupt(1)
    assert buffer.insert(1, "item", 0, marked(1, 100, 100)) is Insertion.STALE
    buffer.end(1)
    buffer.pull(40)  # the fade
    assert not any(buffer.pull(200))


def test_the_fade_is_the_same_whatever_was_queued_behind_it() -> None:
    fades = set()
    for rest in (b"", marked(1, 200, 40), bytes(400)):
        buffer = buffer_of(fade_ms=5)
        buffer.insert(1, "item", 0, marked(1, 40) + rest)
        buffer.pull(40)
        buffer.interrupt(1)
        fades.add(buffer.pull(80))
    assert len(fades) == 1
    (fade,) = fades
    levels = samples_of(fade)
    assert levels[0] > 0
    assert (np.diff(levels) <= 0).all()
    assert not levels[40:].any()


@pytest.mark.parametrize("level", [-32768, -1, 1, 32767])
def test_the_extremes_fade_too(level: int) -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, np.full(40, level, "<i2").tobytes())
    buffer.pull(40)
    buffer.interrupt(1)
    faded = samples_of(buffer.pull(41)).astype(int) * (1 if level > 0 else -1)
    assert faded.max() <= abs(level)
    assert faded.min() >= 0
    assert faded[-1] == 0


def test_interrupting_an_old_turn_does_not_touch_the_one_that_sounds() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(2, "item", 0, marked(2, 200))
    buffer.pull(40)
    assert buffer.interrupt(1) == 0
    assert buffer.pull(40) == marked(2, 40, 40)


def test_the_next_turn_sounds_whole_after_an_interruption() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "first", 0, marked(1, 100))
    buffer.pull(40)
    buffer.interrupt(1)
    buffer.interrupt(1)
    buffer.insert(2, "second", 0, marked(2, 100))
    buffer.end(2)
    pulled = b"".join(buffer.pull(20) for _ in range(12))
    assert marked(2, 100) in pulled
    assert marked(1, 1, 40) not in pulled


def test_a_hold_goes_quiet_without_a_pop_and_loses_nothing() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, marked(1, 200))
    buffer.pull(40)
    buffer.held = True
    quiet = samples_of(buffer.pull(80))
    assert 0 < quiet[0] <= 2 * 256 + 39
    assert not quiet[40:].any()
    buffer.held = False
    assert buffer.pull(100) == marked(1, 100, 40)


def test_an_interruption_during_a_hold_is_silent() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, marked(1, 200))
    buffer.pull(40)
    buffer.held = True
    buffer.pull(80)
    buffer.interrupt(1)
    assert not any(buffer.pull(80))


def test_running_dry_between_two_blocks_is_an_underrun() -> None:
    buffer = buffer_of()
    buffer.insert(1, "item", 0, marked(1, 40))
    buffer.pull(40)
    buffer.positions(0)
    buffer.pull(40)
    assert buffer.statistics.underruns == 1
    buffer.pull(40)
    assert buffer.statistics.underruns == 1


def test_a_retired_turn_is_out_of_the_account_for_good() -> None:
    buffer = buffer_of()
    for turn in (1, 2):
        buffer.insert(turn, f"item {turn}", 0, marked(turn, 40))
        buffer.end(turn)
    buffer.pull(50)
    buffer.retire(1)
    (position,) = buffer.positions(0)
    assert (position.turn, position.heard_ms) == (2, EIGHT_KHZ.ms_of_samples(10))
    assert buffer.insert(1, "item 1", 0, marked(1, 40)) is Insertion.STALE
