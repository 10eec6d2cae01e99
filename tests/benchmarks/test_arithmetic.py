"""What the benchmark computes, from figures that are known."""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))  # `benchmarks` is no part of what gets installed

from benchmarks.downlink import Round, percentile, summarise
from benchmarks.machine import Ticks
from benchmarks.stamps import PCM_BYTES, STAMP_BYTES, Arrivals, stamped_base64

figures = st.lists(st.floats(0, 1e9), min_size=1, max_size=300)


@given(figures, st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_p50_and_p99_of_a_hundred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)


def test_a_round_is_compared_with_the_floor_of_the_same_round() -> None:
    # The machine was ten times slower in the second round, for both; in the third for the floor alone.
    floor = [Round([100.0] * 10, 50.0), Round([1000.0] * 10, 50.0), Round([1000.0] * 10, 50.0)]
    other = [Round([120.0] * 10, 100.0), Round([1500.0] * 10, 100.0), Round([120.0] * 10, 100.0)]
    result = {each.variant: each for each in summarise({"floor": floor, "other": other})}["other"]
    assert result.p50_ratio == pytest.approx(1.2)
    assert result.p50_ratio_range == pytest.approx((0.12, 1.5))
    assert result.p99_ratio == pytest.approx(1.5)
    assert result.cpu_ratio == pytest.approx(2.0)
    assert result.events == 30


def test_the_stamp_is_read_from_the_sound_itself() -> None:
    before_ns = time.perf_counter_ns()
    pcm = base64.b64decode(stamped_base64(), validate=True)
    sent_ns = int.from_bytes(pcm[:STAMP_BYTES], "little")
    assert len(pcm) == PCM_BYTES
    assert before_ns <= sent_ns <= time.perf_counter_ns()


def test_the_warm_up_is_not_counted() -> None:
    arrivals = Arrivals(warm_up=2, count=3)
    assert [arrivals.take(base64.b64decode(stamped_base64())) for _ in range(5)] == [False] * 4 + [True]
    assert len(arrivals.latencies_us) == 3
    assert all(latency >= 0 for latency in arrivals.latencies_us)


def test_damaged_sound_is_an_error() -> None:
    with pytest.raises(ValueError, match="4799 bytes"):
        Arrivals(warm_up=0, count=1).take(base64.b64decode(stamped_base64())[:-1])


def test_shares_of_processor_time() -> None:
    before, after = Ticks(total=1000, busy=100, stolen=10), Ticks(total=1200, busy=150, stolen=14)
    assert before.shares_until(after) == {"busy_percent": 25.0, "stolen_percent": 2.0}
