"""The barge-in benchmark measures what it says. How large its figures are is not for a test to say."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `benchmarks` is no part of what gets installed

from benchmarks import barge_in

pytestmark = [
    pytest.mark.timeout(180),  # six processes, in real time
    pytest.mark.skipif(
        not time.get_clock_info("perf_counter").implementation.startswith("clock_gettime(CLOCK_MONOTONIC"),
        reason="times are compared between processes, which needs Linux's CLOCK_MONOTONIC",
    ),
]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its processes find `benchmarks`."""
    monkeypatch.chdir(Path(__file__).parents[2])


def test_every_interruption_is_learned_of_and_nothing_stale_comes_after_it() -> None:
    floor, *of_the_runtime = barge_in.measure(barge_in.Plan(times=1))
    assert (floor.variant, floor.interruptions, floor.callback_p50_ms) == ("floor", 1, None)
    for result in of_the_runtime:
        assert result.interruptions == result.whole_answers == 1
        assert result.stale_bytes == result.speaker_stale_samples == 0
        assert result.callback_p50_ms is not None
        assert result.listener_p50_ms > 0
    assert floor.stale_bytes > 0, "what has no turn floor takes late sound for sound"


def test_a_client_that_fails_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barge_in, "CLIENT", "benchmarks.no_such_client")
    with pytest.raises(RuntimeError, match="the client failed"):
        barge_in.measure(barge_in.Plan(times=1))
