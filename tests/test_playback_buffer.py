from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from playback_model import Checked, Operation, block_of, operations, thorough
from trio_voice.audio import AudioFormat, StreamResampler, samples_of
from trio_voice.errors import ConfigError
from trio_voice.playback_buffer import Insertion, PlaybackBuffer
from trio_voice.server.scripted import marked_samples

EIGHT_KHZ = AudioFormat("pcm16", 8_000)
PREBUFFER_MS, CAPACITY_MS = 4, 40
PREBUFFER_SAMPLES = 32


def marked(turn: int, count: int, start: int = 0) -> bytes:
    return marked_samples(turn, count, start).astype("<i2").tobytes()


def buffer_of(fade_ms: int = 0, prebuffer_ms: int = PREBUFFER_MS) -> PlaybackBuffer:
    return PlaybackBuffer(EIGHT_KHZ, prebuffer_ms=prebuffer_ms, capacity_ms=CAPACITY_MS, fade_ms=fade_ms)


@thorough()
@given(operations, st.sampled_from([0, 5]))
@example([("insert", 1, 80), ("pull", 40, 0), ("look", 0, 0), ("pull", 1, 0)], 0).via("dry just after a look")
@example([("insert", 1, 240), ("pull", 10, 0), ("hold", 1, 0), ("pull", 90, 0), ("interrupt", 0, 1)], 5).via("held")
@example([("insert", 1, 9), ("next item", 1, 0), ("insert", 1, 9), ("insert", 1, 90)], 0).via("odd bytes")
@example([("insert", 1, 240), ("pull", 90, 0), ("look", 70, 0), ("die", 40, 0)], 0).via("dies in mid-piece")
@example([("insert", 1, 240), ("pull", 90, 0), ("interrupt", 0, 0), ("die", 40, 0)], 0).via("dies after a barge-in")
def test_whatever_happens_it_plays_what_it_may_in_order_and_accounts_for_all(plan: list[Operation], fade: int) -> None:
    checked = Checked(fade)
    for operation in plan:
        checked.apply(operation)
    checked.check_statistics()
    checked.play_out()


@given(operations, st.sampled_from([0, 5]), st.sampled_from([11_025, 16_000, 24_000, 48_000]))
def test_so_it_does_at_another_rate_and_nothing_of_an_old_turn_is_in_a_filter(
    plan: list[Operation], fade: int, rate_hz: int
) -> None:
    checked = Checked(fade, rate_hz)
    for operation in plan:
        checked.apply(operation)
    checked.check_statistics()
    checked.play_out()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 60))
def test_an_ended_turn_sounds_whole_even_if_shorter_than_the_prebuffer(chunks: list[int], block: int) -> None:
    buffer = buffer_of()
    position = 0
    for count in chunks:
        buffer.insert(1, "item", 0, marked(1, count, position), 0.0)
        position += count
    buffer.end(1)
    pulled = b"".join(buffer.pull(block) for _ in range(position // block + 1))
    assert pulled.rstrip(b"\0")[: 2 * position] == marked(1, position).rstrip(b"\0")
    assert buffer.statistics.underruns == 0


def test_an_unfinished_turn_waits_for_the_prebuffer() -> None:
    buffer = buffer_of()
    buffer.insert(1, "item", 0, marked(1, PREBUFFER_SAMPLES - 1), 0.0)
    assert not any(buffer.pull(20))
    buffer.insert(1, "item", 0, marked(1, 1, PREBUFFER_SAMPLES - 1), 0.0)
    assert buffer.pull(20) == marked(1, 20)


def test_late_audio_of_an_interrupted_turn_never_sounds() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, marked(1, 100), 0.0)
    buffer.pull(40)
    buffer.interrupt(1)
    assert buffer.insert(1, "item", 0, marked(1, 100, 100), 0.0) is Insertion.STALE
    buffer.end(1)
    buffer.pull(40)  # the fade
    assert not any(buffer.pull(200))


def test_the_fade_is_the_same_whatever_was_queued_behind_it() -> None:
    fades = set()
    for rest in (b"", marked(1, 200, 40), bytes(400)):
        buffer = buffer_of(fade_ms=5)
        buffer.insert(1, "item", 0, marked(1, 40) + rest, 0.0)
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
    buffer.insert(1, "item", 0, np.full(40, level, "<i2").tobytes(), 0.0)
    buffer.pull(40)
    buffer.interrupt(1)
    faded = samples_of(buffer.pull(41)).astype(int) * (1 if level > 0 else -1)
    assert faded.max() <= abs(level)
    assert faded.min() >= 0
    assert faded[-1] == 0


def test_interrupting_an_old_turn_does_not_touch_the_one_that_sounds() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(2, "item", 0, marked(2, 200), 0.0)
    buffer.pull(40)
    assert buffer.interrupt(1) == 0
    assert buffer.pull(40) == marked(2, 40, 40)


def test_the_next_turn_sounds_whole_after_an_interruption() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "first", 0, marked(1, 100), 0.0)
    buffer.pull(40)
    buffer.interrupt(1)
    buffer.interrupt(1)
    buffer.insert(2, "second", 0, marked(2, 100), 0.0)
    buffer.end(2)
    pulled = b"".join(buffer.pull(20) for _ in range(12))
    sound = np.trim_zeros(samples_of(pulled)[40:])  # after the decay of the first
    assert sound[40:100].tobytes() == marked(2, 60, 40), "all of it, as it came but for the 5 ms in which it fades in"


def test_a_residue_shorter_than_a_block_is_not_played_at_the_head_of_the_next_turn() -> None:
    for device_hz in (8_000, 24_000):
        buffer = PlaybackBuffer(EIGHT_KHZ, device_rate_hz=device_hz, prebuffer_ms=0, fade_ms=0)
        buffer.insert(1, "first", 0, block_of(9000, 401) + b"\x7f", 0.0)
        buffer.pull(150)
        buffer.interrupt(1)
        buffer.insert(2, "second", 0, block_of(-100, 400), 0.0)
        buffer.end(2)
        sound = samples_of(buffer.pull(400 * device_hz // 8_000))
        assert sound.max() <= 20, "nothing of the first, not even an echo in a filter"
        assert np.median(sound) == -100


def test_a_hold_goes_quiet_without_a_pop_and_loses_nothing() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, marked(1, 200), 0.0)
    buffer.pull(40)
    buffer.held = True
    quiet = samples_of(buffer.pull(80))
    assert 0 < quiet[0] <= 2 * 256 + 39
    assert not quiet[40:].any()
    buffer.held = False
    assert buffer.pull(100)[80:] == marked(1, 60, 80), "nothing was left out, and it fades in"


def test_an_interruption_during_a_hold_is_silent() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, marked(1, 200), 0.0)
    buffer.pull(40)
    buffer.held = True
    buffer.pull(80)
    buffer.interrupt(1)
    assert not any(buffer.pull(80))


def test_running_dry_between_two_blocks_is_an_underrun() -> None:
    buffer = buffer_of()
    buffer.insert(1, "item", 0, marked(1, 40), 0.0)
    buffer.pull(40)
    buffer.positions(0)
    buffer.pull(40)
    assert buffer.statistics.underruns == 1
    buffer.pull(40)
    assert buffer.statistics.underruns == 1


def test_a_retired_turn_is_out_of_the_account_for_good() -> None:
    buffer = buffer_of()
    for turn in (1, 2):
        buffer.insert(turn, f"item {turn}", 0, marked(turn, 40), 0.0)
        buffer.end(turn)
    buffer.pull(50)
    buffer.retire(1)
    (position,) = buffer.positions(0)
    assert (position.turn, position.heard_ms) == (2, EIGHT_KHZ.ms_of_samples(10))
    assert buffer.insert(1, "item 1", 0, marked(1, 40), 0.0) is Insertion.STALE


# --- fading in and ducking ------------------------------------------------------------------------


def levels(buffer: PlaybackBuffer, count: int) -> list[int]:
    return [int(value) for value in samples_of(buffer.pull(count))]


def test_after_a_hold_the_rest_rises_in_a_straight_line() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, block_of(4000, 200), 0.0)
    assert levels(buffer, 40) == [4000] * 40, "where nothing was cut nothing fades in"
    buffer.held = True
    buffer.pull(40)
    buffer.held = False
    assert levels(buffer, 60) == [100 * step for step in range(1, 41)] + [4000] * 20


def test_after_an_underrun_too() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "item", 0, block_of(4000, 40), 0.0)
    buffer.pull(120)
    buffer.insert(1, "item", 0, block_of(4000, 80), 0.0)
    assert levels(buffer, 41) == [100 * step for step in range(1, 41)] + [4000]


def test_after_the_end_of_a_turn_the_next_one_begins_as_it_is() -> None:
    buffer = buffer_of(fade_ms=5)
    buffer.insert(1, "first", 0, block_of(4000, 40), 0.0)
    buffer.end(1)
    buffer.pull(120)
    buffer.insert(2, "second", 0, block_of(4000, 40), 0.0)
    assert levels(buffer, 40) == [4000] * 40


def test_without_a_fade_every_sample_is_as_it_came() -> None:
    buffer = buffer_of(fade_ms=0)
    buffer.insert(1, "item", 0, marked(1, 200), 0.0)
    buffer.pull(40)
    buffer.held = True
    assert not any(buffer.pull(40))
    buffer.held = False
    assert buffer.pull(40) == marked(1, 40, 40)
    buffer.interrupt(1)
    buffer.insert(2, "next", 0, marked(2, 40), 0.0)
    assert buffer.pull(40) == marked(2, 40)


def test_ducking_goes_down_and_up_in_straight_lines_and_loses_nothing() -> None:
    buffer = buffer_of()
    buffer.insert(1, "item", 0, block_of(1000, 300), 0.0)
    buffer.duck(0.2, ramp_ms=1)
    assert levels(buffer, 10) == [900, 800, 700, 600, 500, 400, 300, 200, 200, 200]
    buffer.duck(1.0, ramp_ms=1)
    assert levels(buffer, 10) == [300, 400, 500, 600, 700, 800, 900, 1000, 1000, 1000]
    (position,) = buffer.positions(0)
    assert position.heard_ms == 20 / 8


def test_what_follows_an_interruption_is_not_ducked() -> None:
    buffer = buffer_of()
    buffer.insert(1, "first", 0, block_of(1000, 100), 0.0)
    buffer.pull(10)
    buffer.duck(0.0, ramp_ms=0)
    assert levels(buffer, 10) == [0] * 10
    buffer.interrupt(1)
    buffer.insert(2, "second", 0, block_of(1000, 100), 0.0)
    assert levels(buffer, 10) == [1000] * 10


@pytest.mark.parametrize("gain", [-0.1, 1.1, float("nan")])
def test_a_gain_that_would_clip_is_refused(gain: float) -> None:
    with pytest.raises(ConfigError, match=r"outside 0\.\.1"):
        buffer_of().duck(gain, 0)


# --- chunks and rates -----------------------------------------------------------------------------


@given(st.binary(min_size=2, max_size=600), st.lists(st.integers(0, 50), max_size=30))
def test_samples_are_whole_wherever_the_chunks_are_cut(sound: bytes, cuts: list[int]) -> None:
    buffer = buffer_of()
    rest = sound
    for size in cuts:
        buffer.insert(1, "item", 0, rest[:size], 0.0)
        rest = rest[size:]
    buffer.insert(1, "item", 0, rest, 0.0)
    buffer.end(1)
    assert buffer.pull(len(sound) // 2) == sound[: len(sound) // 2 * 2]


def test_the_odd_byte_of_one_item_does_not_shift_another() -> None:
    buffer = buffer_of()
    buffer.insert(1, "first", 0, marked(1, 40) + b"\x7f", 0.0)
    buffer.insert(1, "second", 0, marked(1, 40, 40), 0.0)
    assert buffer.pull(80) == marked(1, 80)


def test_speech_that_does_not_fit_breaks_off_and_has_no_holes() -> None:
    buffer = buffer_of()
    capacity = EIGHT_KHZ.samples_of_ms(CAPACITY_MS)
    assert buffer.insert(1, "first", 0, marked(1, capacity), 0.0) is Insertion.QUEUED
    assert buffer.insert(1, "first", 0, marked(1, 80, capacity), 0.0) is Insertion.OVERFLOW
    buffer.pull(200)
    assert buffer.insert(1, "first", 0, marked(1, 80, capacity + 80), 0.0) is Insertion.OVERFLOW
    assert buffer.insert(1, "second", 0, marked(1, 80), 0.0) is Insertion.QUEUED, "there is room now"
    buffer.end(1)
    assert buffer.pull(capacity - 120)[-160:] == marked(1, 80)
    first, second = buffer.positions(0)
    assert (first.heard_ms, first.received_ms) == (CAPACITY_MS, CAPACITY_MS + 20), "the model must not take it as said"
    assert second.heard_ms == second.received_ms == 10


RATES = [8_000, 16_000, 24_000, 44_100, 48_000]


@given(
    st.sampled_from(RATES), st.sampled_from(RATES), st.lists(st.integers(1, 9000), min_size=1, max_size=4), st.data()
)
def test_at_any_rates_positions_are_of_the_item_s_own_sound(
    wire_hz: int, device_hz: int, lengths: list[int], data: st.DataObject
) -> None:
    """Several items of one turn, interrupted somewhere: to a sample of the device and one of the wire."""
    buffer = PlaybackBuffer(AudioFormat("pcm16", wire_hz), device_rate_hz=device_hz, prebuffer_ms=0)
    for number, samples in enumerate(lengths):
        buffer.insert(1, f"item {number}", 0, marked(1, samples), 0.0)
    buffer.end(1)
    pulled = data.draw(st.integers(0, sum(lengths) * device_hz // wire_hz))
    buffer.pull(pulled)
    left_ms, step_ms = pulled * 1000 / device_hz, 1000 / device_hz + 1000 / wire_hz
    for position, samples in zip(buffer.positions(0), lengths, strict=True):
        assert position.received_ms == samples * 1000 / wire_hz
        assert 0 <= position.heard_ms <= position.received_ms
        assert abs(position.heard_ms - min(position.received_ms, max(0.0, left_ms))) <= step_ms
        left_ms -= position.received_ms
    buffer.pull(sum(lengths) * device_hz // wire_hz + 2)
    assert all(position.heard_ms == position.received_ms for position in buffer.positions(0))


def test_a_turn_at_another_rate_is_one_stream_without_seams() -> None:
    buffer = PlaybackBuffer(EIGHT_KHZ, device_rate_hz=24_000, prebuffer_ms=0)
    time_s = np.arange(8_000) / 8_000
    tone = (8000 * np.sin(2 * np.pi * 300 * time_s)).astype("<i2").tobytes()
    for start in range(0, len(tone), 602):
        buffer.insert(1, f"item {start // 6020}", 0, tone[start : start + 602], 0.0)
    buffer.end(1)
    played = samples_of(buffer.pull(24_000)).astype(int)
    whole = samples_of(StreamResampler(8_000, 24_000).convert(tone, last=True)).astype(int)
    assert len(whole) == 24_000
    assert abs(played - whole).max() <= 3
