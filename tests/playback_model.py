"""The playback buffer beside a plain account of what must be true of it; every operation compares the two.

The account is a queue of single samples that know their turn and their item, fed from what a server sends: responses
by id, numbered by the table of turns, through reconnections. So nothing can be played twice, left out, or played too
late without being noticed, and every truncation that is planned is carried out by the local server's own list of items.
"""

from __future__ import annotations

import bisect
from collections import Counter, deque
from typing import TypeAlias

import attrs
import numpy as np
from hypothesis import settings, strategies as st
from msgspec.structs import replace

from trio_voice.audio import AudioFormat, StreamResampler, samples_of
from trio_voice.playback_buffer import BufferStatistics, Insertion, ItemPosition, PlaybackBuffer
from trio_voice.protocol import ConversationItemDelete, ConversationItemTruncate, Item, ResponseOutputAudioDelta
from trio_voice.protocol.truncation import plan_truncation
from trio_voice.protocol.turns import TurnNumbers
from trio_voice.server.conversation_items import ConversationItems, Entry, Sound
from trio_voice.server.scripted import marked_samples

WIRE = AudioFormat("pcm16", 8_000)
PREBUFFER_MS, CAPACITY_MS = 4, 40
BOUNDS_MS = (2.0, 8.0)

Operation: TypeAlias = tuple[str, int, int]
"""What to do, with two numbers whose meaning depends on it."""

_responses = st.integers(1, 4)
_zero = st.just(0)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), _responses, st.integers(0, 120)),
        st.tuples(st.just("insert"), _responses, st.integers(0, 400)),
        st.tuples(st.just("next item"), _responses, _zero),
        st.tuples(st.just("pull"), st.integers(1, 90), _zero),
        st.tuples(st.just("pull"), st.integers(1, 90), _zero),
        st.tuples(st.just("end"), st.integers(0, 3), _zero),
        st.tuples(st.just("interrupt"), st.integers(0, 2), st.integers(0, 1)),
        st.tuples(st.just("hold"), st.integers(0, 1), _zero),
        st.tuples(st.just("duck"), st.sampled_from([0, 20, 100]), st.sampled_from([0, 3])),
        st.tuples(st.just("look"), st.integers(0, 100), _zero),
        st.tuples(st.just("die"), st.integers(0, 100), _zero),
        st.tuples(st.just("wait"), st.integers(0, 20), _zero),
        st.tuples(st.just("reconnect"), _zero, _zero),
    ),
    max_size=40,
)
"""`end` and `interrupt` are of turns, counted back from the newest."""


def thorough() -> settings:
    """2,000 examples of what is pure and quick, where the profile is the usual one; else what it says."""
    examples = settings().max_examples
    return settings(max_examples=2000 if examples == settings.get_profile("ci").max_examples else examples)


@attrs.define(eq=False)
class Sent:
    """One item as the server makes it, and what became of it."""

    turn: int
    item_id: str
    bytes: int = 0
    """Sent so far: a chunk may end anywhere."""
    accepted: int = 0
    """Samples of the wire for which there was room."""
    overflowed: bool = False
    complete: bool = False


@attrs.define(eq=False)
class TurnSound:
    """A turn's sound at the device's rate, by a resampler of its own."""

    from_hz: int
    to_hz: int
    items: list[Sent] = attrs.Factory(list)
    ends: list[int] = attrs.Factory(list)
    """Where the sound of each item ends, at the device's rate."""
    given: int = 0
    taken: int = 0
    stream: StreamResampler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.stream = StreamResampler(self.from_hz, self.to_hz)

    @property
    def held_back(self) -> int:
        return (self.ends[-1] if self.ends else 0) - self.given

    def take(self, item: Sent, pcm: bytes) -> list[tuple[Sent, int]]:
        self.taken += len(pcm) // 2
        if not self.items or self.items[-1] is not item:
            self.items.append(item)
            self.ends.append(0)
        self.ends[-1] = self.taken * self.to_hz // self.from_hz
        return self._given(self.stream.convert(pcm))

    def finish(self) -> list[tuple[Sent, int]]:
        return self._given(self.stream.convert(b"", last=True)) if self.from_hz != self.to_hz else []

    def _given(self, pcm: bytes) -> list[tuple[Sent, int]]:
        values = samples_of(pcm).tolist()
        places = range(self.given, self.given + len(values))
        self.given += len(values)
        last = len(self.items) - 1
        return [
            (self.items[min(last, bisect.bisect_right(self.ends, place))], value)
            for place, value in zip(places, values, strict=True)
        ]


class Checked:
    """The buffer and the account."""

    def __init__(self, fade_ms: int, device_rate_hz: int = WIRE.rate_hz) -> None:
        self.device = AudioFormat("pcm16", device_rate_hz)
        self.converts = device_rate_hz != WIRE.rate_hz
        self.fade_samples = self.device.samples_of_ms(fade_ms)
        self.capacity = self.device.samples_of_ms(CAPACITY_MS)
        self.buffer = PlaybackBuffer(
            WIRE, device_rate_hz=device_rate_hz, prebuffer_ms=PREBUFFER_MS, prebuffer_bounds_ms=BOUNDS_MS,
            capacity_ms=CAPACITY_MS, fade_ms=fade_ms,
        )  # fmt: skip
        self.now = 0.0
        self.epoch = 1
        self.turns = TurnNumbers()
        self.server = ConversationItems()
        self.items: dict[str, Sent] = {}
        self.item_numbers: Counter[int] = Counter()
        self.sounds: dict[int, TurnSound] = {}
        self.queue: deque[tuple[Sent, int]] = deque()
        self.timeline: list[Sent | None] = []
        self.values: list[int] = []
        """Beside the timeline: what the queue gave, before any gain."""
        self.taken_back = self.refused = 0
        self.heard_until = self.retired = 0
        self.floor = self.ended = self.cleared = self.stale = self.overflow = self.underruns = self.inserted = 0
        self.flowing = False
        self.run = 0
        """Samples of sound since silence, or since an interruption."""
        self.quiet_for = self.level = self.sounding = 0
        self.gain = self.gain_target = 1.0
        self.gain_left = 0

    def apply(self, operation: Operation) -> None:
        match operation:
            case ("insert", response, byte_count):
                self.insert(response, byte_count)
            case ("next item", response, _):
                self.item_numbers[self.turn_of(response)] += 1
            case ("pull", count, _):
                self.pull(count)
            case ("end", back, _):
                self.end(self.turns.last - back)
            case ("interrupt", back, retires):
                self.interrupt(self.turns.last - back, bool(retires))
            case ("hold", held, _):
                self.buffer.held = bool(held)
            case ("duck", percent, ramp_ms):
                self.duck(percent / 100, ramp_ms)
            case ("look", unheard, _):
                self.look(unheard)
            case ("die", unheard, _):
                self.die(unheard)
            case ("wait", ms, _):
                self.now += ms / 1000
            case ("reconnect", _, _):
                self.reconnect()
        assert self.converts or len(self.queue) <= self.capacity + self.taken_back
        assert self.buffer.queued_ms == self.device.ms_of_samples(len(self.queue))
        assert BOUNDS_MS[0] <= self.buffer.statistics.prebuffer_ms <= BOUNDS_MS[1]

    # --- the server -------------------------------------------------------------------------------

    def turn_of(self, response: int) -> int:
        delta = ResponseOutputAudioDelta(response_id=f"r{response}", item_id="", delta=b"")
        turn = self.turns.turn_of(delta, self.epoch)
        assert turn is not None
        return turn

    def reconnect(self) -> None:
        """A new connection counts responses on, though it may use the same ids, and its server knows no items."""
        self.epoch += 1
        self.server = ConversationItems()

    def insert(self, response: int, byte_count: int) -> None:
        turn = self.turn_of(response)
        item_id = f"{self.epoch}/{turn}/{self.item_numbers[turn]}"
        item = self.items.setdefault(item_id, Sent(turn, item_id))
        whole = marked_samples(turn, (item.bytes + byte_count) // 2 + 1).astype("<i2").tobytes()
        samples = (item.bytes + byte_count) // 2 - item.bytes // 2
        first = item.bytes // 2 * 2
        piece, item.bytes = whole[item.bytes : item.bytes + byte_count], item.bytes + byte_count
        self.server_sends(item)
        outcome = self.buffer.insert(turn, item_id, 0, piece, self.now)
        room = self.capacity - len(self.queue)
        if turn <= self.floor:
            assert outcome is Insertion.STALE
            self.stale += byte_count // 2
        elif item.overflowed or self.device.samples_of_ms(WIRE.ms_of_samples(samples)) > room:
            assert outcome is Insertion.OVERFLOW
            item.overflowed = True
            self.overflow += samples
        else:
            assert outcome is Insertion.QUEUED
            item.accepted += samples
            self.inserted += samples
            if samples:
                self.sound(item, whole[first : first + 2 * samples])

    def server_sends(self, item: Sent) -> None:
        entry = self.server.find(item.item_id)
        if entry is None and item.bytes and item.item_id.startswith(f"{self.epoch}/"):
            entry = Entry(Item(id=item.item_id, type="message", role="assistant", content=[]), Sound(WIRE))
            self.server.add(entry)
        if entry is not None and entry.sound is not None and not entry.truncated:
            entry.sound.pcm.extend(bytes(item.bytes // 2 * 2 - len(entry.sound.pcm)))

    def sound(self, item: Sent, pcm: bytes) -> None:
        of_turn = self.sounds.setdefault(item.turn, TurnSound(WIRE.rate_hz, self.device.rate_hz))
        self.queue.extend(of_turn.take(item, pcm))
        if item.turn <= self.ended:
            self.queue.extend(self.sounds.pop(item.turn).finish())

    def end(self, turn: int) -> None:
        self.buffer.end(turn)
        self.ended = max(self.ended, turn)
        for ended in sorted(number for number in self.sounds if number <= self.ended):
            self.queue.extend(self.sounds.pop(ended).finish())
        for item in self.items.values():
            item.complete |= item.turn <= self.ended

    # --- interruptions ----------------------------------------------------------------------------

    def interrupt(self, turn: int, retires: bool) -> None:
        positions = [position for position in self.buffer.positions(0) if position.turn <= turn] if retires else []
        self.heard_until = len(self.timeline) if retires else self.heard_until
        discarded_ms = self.buffer.interrupt(turn)
        self.floor = max(self.floor, turn)
        kept = deque(entry for entry in self.queue if entry[0].turn > self.floor)
        held_back = sum(self.sounds.pop(gone).held_back for gone in sorted(self.sounds) if gone <= self.floor)
        assert discarded_ms == self.device.ms_of_samples(len(self.queue) - len(kept) + held_back)
        self.cleared += len(self.queue) - len(kept) + held_back
        self.queue = kept
        if self.sounding <= self.floor:
            self.flowing = self.flowing and bool(kept)
            self.run = 0
            self.gain = self.gain_target = 1.0
            self.gain_left = 0
        if retires:
            self.buffer.retire(turn)
            self.retired = max(self.retired, turn)
            self.tell_server(positions)

    def tell_server(self, positions: list[ItemPosition]) -> None:
        """Carry out the plan as the local server does, which refuses what the real one would."""
        known = [position for position in positions if position.item_id.startswith(f"{self.epoch}/")]
        complete = [item.item_id for item in self.items.values() if item.complete]
        for event in plan_truncation(known, complete_items=complete, cancel=False):
            match event:
                case ConversationItemTruncate(item_id=item_id, content_index=index, audio_end_ms=ms):
                    self.server.truncate(item_id, index, ms)
                case ConversationItemDelete(item_id=item_id):
                    self.server.delete(item_id)
                case _:
                    raise AssertionError(event)

    # --- the device -------------------------------------------------------------------------------

    def pull(self, count: int) -> None:
        before = self.buffer.statistics.pulled_samples
        enough = len(self.queue) >= self.device.samples_of_ms(self.buffer.statistics.prebuffer_ms)
        block = samples_of(self.buffer.pull(count))
        self.now += count / self.device.rate_hz
        assert len(block) == count
        sound = self.buffer.statistics.pulled_samples - before
        if sound:
            assert not self.buffer.held
            assert self.flowing or enough or self.queue[0][0].turn <= self.ended, "before the prebuffer was full"
        expected = [self.queue.popleft() for _ in range(sound)]
        assert all(item.turn > self.floor for item, _ in expected)
        self.check_sound(block[:sound].tolist(), [value for _, value in expected])
        self.timeline += [item for item, _ in expected] + [None] * (count - sound)
        self.values += [value for _, value in expected] + [0] * (count - sound)
        if sound:
            self.level, self.quiet_for, self.sounding = int(block[sound - 1]), 0, expected[-1][0].turn
        may_sound = not self.buffer.held and (sound or self.flowing)
        if self.fade_samples == 0 and may_sound and sound < count and self.sounding > self.ended:
            self.underruns += 1
        if not self.buffer.held:
            self.flowing = sound == count or (self.fade_samples > 0 and self.flowing and bool(self.queue))
        self.check_quiet(block[sound:].tolist())

    def duck(self, gain: float, ramp_ms: int) -> None:
        self.buffer.duck(gain, ramp_ms)
        self.gain_target, self.gain_left = gain, self.device.samples_of_ms(ramp_ms)
        self.gain = self.gain if self.gain_left else gain

    def check_sound(self, played: list[int], expected: list[int]) -> None:
        """Each sample as it came; scaled by the gain; and, while it fades in, anything between silence and that."""
        rounding = 2 if self.converts else 0  # soxr dithers 16-bit samples, each stream by its own dice
        for actual, value in zip(played, expected, strict=True):
            if self.gain_left:
                self.gain += (self.gain_target - self.gain) / self.gain_left
                self.gain_left -= 1
            self.run += 1
            wanted = value if self.gain == 1.0 else value * self.gain
            if self.run > self.fade_samples:
                assert abs(actual - wanted) <= rounding + (self.gain != 1.0)
            else:
                assert abs(actual) <= abs(wanted) + rounding + 1
                assert actual * wanted >= 0 or abs(actual) <= rounding

    def check_quiet(self, quiet: list[int]) -> None:
        """Silence may begin with a decay of what was played last: smaller and smaller values of its sign."""
        for value in quiet:
            self.run = 0
            self.quiet_for += 1
            assert abs(value) <= abs(self.level), "louder than what was played just before"
            assert value * self.level >= 0
            assert value == 0 or self.quiet_for <= self.fade_samples, "it fades too long"
            self.level = value

    def die(self, unheard: int) -> None:
        """The device dies with what it had not played: that is to be played again, and was not heard."""
        self.buffer.take_back(unheard)
        start = self.heard_until = max(self.heard_until, len(self.timeline) - unheard)
        on_its_way = zip(self.timeline[start:], self.values[start:], strict=True)
        lost = [(item, value) for item, value in on_its_way if item is not None]
        again = [(item, value) for item, value in lost if item.turn > self.floor]
        self.queue.extendleft(reversed(again))
        self.taken_back += len(again)
        self.refused += len(lost) - len(again)
        self.timeline[start:] = [None] * (len(self.timeline) - start)
        self.heard_until, self.level, self.run = len(self.timeline), 0, 0
        self.look(0)

    # --- the account ------------------------------------------------------------------------------

    def look(self, unheard: int) -> None:
        self.heard_until = max(self.heard_until, len(self.timeline) - unheard)
        heard = Counter(item.item_id for item in self.timeline[: self.heard_until] if item is not None)
        positions = {position.item_id: position for position in self.buffer.positions(unheard)}
        alive = [item for item in self.items.values() if item.turn > self.retired]
        received = {item.item_id for item in alive if item.accepted or item.overflowed}
        assert set(positions) <= received, "and no item that only an empty chunk was of"
        assert {item.item_id for item in alive if item.accepted} <= set(positions)
        for item_id, position in positions.items():
            item = self.items[item_id]
            assert (position.turn, position.content_index) == (item.turn, 0)
            accepted_ms = WIRE.ms_of_samples(item.accepted)
            assert position.heard_ms <= accepted_ms <= position.received_ms
            off_by = abs(position.heard_ms - self.device.ms_of_samples(heard[item_id]))
            assert off_by <= (1000 / WIRE.rate_hz + 2000 / self.device.rate_hz if self.converts else 0)
        self.check_finished(unheard)

    def check_finished(self, unheard: int) -> None:
        on_its_way = {item.turn for item in self.timeline[self.heard_until :] if item is not None}
        unplayed = on_its_way | {item.turn for item, _ in self.queue}
        for turn in range(1, self.turns.last + 1):
            waiting = any(number <= turn for number in unplayed)
            assert self.buffer.is_finished(turn, unheard) == (turn <= self.ended and not waiting)

    def check_statistics(self) -> None:
        on_the_timeline = sum(item is not None for item in self.timeline)
        pulled = on_the_timeline + self.refused
        statistics = self.buffer.statistics
        held_back = sum(of_turn.held_back for of_turn in self.sounds.values())
        assert self.converts or self.inserted == pulled + self.cleared + len(self.queue) + held_back
        assert statistics == replace(
            statistics,
            inserted_samples=self.inserted,
            pulled_samples=pulled,
            stale_samples=self.stale,
            cleared_samples=self.cleared,
            heard_samples=sum(item is not None for item in self.timeline[: self.heard_until]),
            overflow_samples=self.overflow,
            underruns=self.underruns if self.fade_samples == 0 else statistics.underruns,
            silence_samples=len(self.timeline) - on_the_timeline - self.taken_back - self.refused,
        )
        assert isinstance(statistics, BufferStatistics)

    def play_out(self) -> None:
        """Whatever was not interrupted comes out, down to the last sample, once the turns have ended."""
        self.apply(("end", 0, 0))
        self.apply(("hold", 0, 0))
        for _ in range(len(self.queue) // 50 + 4 + self.fade_samples // 50):
            self.apply(("pull", 50, 0))
        assert not self.queue
        self.apply(("look", 0, 0))
        assert self.buffer.is_finished(self.turns.last, 0)
        for position in self.buffer.positions(0):
            item = self.items[position.item_id]
            cut = item.overflowed or item.turn <= self.floor
            assert cut or position.heard_ms == position.received_ms, "all of it was heard"
        self.check_statistics()


def block_of(value: int, samples: int) -> bytes:
    """So many samples of one value."""
    return np.full(samples, value, "<i2").tobytes()
