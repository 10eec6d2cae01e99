from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_voice.jitter import JitterEstimator

BOUNDS_MS = (40.0, 400.0)
PIECE_MS = 20.0


def taught(delays_ms: list[float], initial_ms: float = 100, pieces_s: float = PIECE_MS / 1000) -> JitterEstimator:
    """An estimator that has heard one turn in real time, each piece so much later than it was due."""
    jitter = JitterEstimator(initial_ms, BOUNDS_MS)
    for number, delay_ms in enumerate([0.0, *delays_ms]):
        jitter.observe(1, number * pieces_s + delay_ms / 1000, PIECE_MS)
    return jitter


def test_it_begins_with_what_it_was_told() -> None:
    assert JitterEstimator(100, BOUNDS_MS).prebuffer_ms == 100


def test_the_formula_by_hand() -> None:
    jitter = JitterEstimator(100, BOUNDS_MS)
    assert jitter.observe(1, 10.0, PIECE_MS) == 0
    assert jitter.jitter_ms == pytest.approx(25 * 15 / 16)
    assert jitter.observe(1, 10.1, PIECE_MS) == pytest.approx(80), "100 ms after the first, 20 ms of sound after it"
    mean = 80 / 16
    deviation = 25 * 15 / 16 + ((80 - mean) - 25 * 15 / 16) / 16
    assert jitter.jitter_ms == pytest.approx(deviation)
    assert jitter.prebuffer_ms == pytest.approx(mean + 4 * deviation)


def test_sound_on_time_leads_to_the_shortest() -> None:
    assert taught([0.0] * 60).prebuffer_ms == BOUNDS_MS[0]


def test_a_server_ahead_of_real_time_has_no_jitter_however_unevenly_it_sends() -> None:
    jitter = JitterEstimator(100, BOUNDS_MS)
    for number in range(60):
        assert jitter.observe(1, number // 10 * 0.19, PIECE_MS) == 0, "ten pieces, 200 ms, at once each 190 ms"
    assert jitter.prebuffer_ms == BOUNDS_MS[0]


def test_uneven_sound_leads_to_as_much_as_bridges_it() -> None:
    uneven = [float(number * 37 % 120) for number in range(100)]
    assert max(uneven) <= taught(uneven).prebuffer_ms <= 300
    assert taught(uneven + [0.0] * 200).prebuffer_ms == BOUNDS_MS[0], "and it is forgotten again"


def test_a_pause_of_the_sender_counts_once() -> None:
    jitter = taught([0.0] * 60)
    after_pause_ms = jitter.observe(1, 61 * 0.02 + 3.0, PIECE_MS)
    assert after_pause_ms == pytest.approx(3000)
    assert jitter.observe(1, 62 * 0.02 + 3.0, PIECE_MS) == pytest.approx(0, abs=1e-6)
    assert jitter.prebuffer_ms < 150


def test_each_turn_is_measured_from_its_own_beginning() -> None:
    jitter = taught([0.0] * 60)
    assert jitter.observe(2, 1000.0, PIECE_MS) == 0


@given(
    st.lists(st.tuples(st.integers(1, 3), st.floats(0, 1e6), st.floats(0, 10_000)), max_size=50),
    st.floats(0, 400),
    st.floats(0, 1600),
)
def test_it_stays_between_its_bounds_and_is_the_same_each_time(
    pieces: list[tuple[int, float, float]], low: float, more: float
) -> None:
    """Also when the clock of the arrivals jumps back."""
    told = []
    for _ in range(2):
        jitter = JitterEstimator(low + more / 2, (low, low + more))
        for turn, arrived_at, duration_ms in pieces:
            assert jitter.observe(turn, arrived_at, duration_ms) >= 0
            assert low <= jitter.prebuffer_ms <= low + more
        told.append((jitter.prebuffer_ms, jitter.jitter_ms))
    assert told[0] == told[1]
