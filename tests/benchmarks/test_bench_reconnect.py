"""The reconnect benchmark measures what it says. How large its figures are is not for a test to say."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `benchmarks` is no part of what gets installed

from benchmarks import reconnect

pytestmark = pytest.mark.skipif(
    not time.get_clock_info("perf_counter").implementation.startswith("clock_gettime(CLOCK_MONOTONIC"),
    reason="times are compared between processes, which needs Linux's CLOCK_MONOTONIC",
)


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its processes find `benchmarks`."""
    monkeypatch.chdir(Path(__file__).parents[2])


def test_every_reset_was_survived_and_nothing_was_heard_of_it() -> None:
    result = reconnect.measure(reconnect.Plan(resets=3, exchanges=1))
    assert result.resets == 3
    assert 0 < result.connected_p50_ms <= result.connected_p99_ms
    assert 0 < result.uplink_p50_ms <= result.uplink_p99_ms
    assert result.gap_ms == 0


def test_a_client_that_fails_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "CLIENT", "benchmarks.no_such_client")
    with pytest.raises(RuntimeError, match="the client failed"):
        reconnect.measure(reconnect.Plan(resets=1, exchanges=0))
