"""From the server's send to the PCM in the application's hands: trio-voice beside the floor, in one run.

The variants take turns, A B C A B C …, each round in a process of its own, in another order each time: what else
the machine does meets them all alike. The ratio is the claim: per round to the floor of the same round, and the
median of those. Absolute figures belong to one machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import attrs

from benchmarks import processes
from benchmarks.client import VARIANTS

FLOOR = "floor"
AIM_RATIO = 1.4
MARGIN_S = 30.0


@attrs.frozen
class Plan:
    """How much is measured."""

    rounds: int = 6
    warm_up: int = 40
    """Events of each round that are not counted."""
    count: int = 200
    interval_ms: int = 20
    """Between two events: long enough that none waits for the one before."""
    realtime: bool = False
    """Both sides run before all other processes, once warm."""

    def url(self, base: str) -> str:
        pace = f"warm_up={self.warm_up}&count={self.count}&interval_ms={self.interval_ms}"
        return f"{base}?{pace}&realtime={self.realtime:d}"

    @property
    def timeout_s(self) -> float:
        return (self.warm_up + self.count) * self.interval_ms / 1000 + MARGIN_S


QUICK = Plan(rounds=1, warm_up=10, count=40, interval_ms=5)


@attrs.frozen
class Round:
    """One variant's round: latencies in order of arrival."""

    latencies_us: Sequence[float]
    cpu_us_per_event: float


@attrs.frozen
class Result:
    """One variant over all rounds."""

    variant: str
    events: int
    p50_us: float
    p99_us: float
    cpu_us_per_event: float
    p50_ratio: float
    """To the floor of the same round; median over the rounds."""
    p50_ratio_range: tuple[float, float]
    p99_ratio: float
    """Of all rounds together: one round's p99 rests on a handful of events."""
    cpu_ratio: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def measure(plan: Plan, progress: Callable[[str], None] = lambda _: None) -> dict[str, list[Round]]:
    """Run all rounds of all variants; by variant, in order of the rounds."""
    rounds: dict[str, list[Round]] = {variant: [] for variant in VARIANTS}
    order = list(VARIANTS)
    with processes.paced_server() as base:
        for number in range(plan.rounds):
            for variant in order:
                progress(f"downlink: round {number + 1} of {plan.rounds}, {variant}")
                measured = processes.client(
                    variant,
                    plan.url(base),
                    count=plan.count,
                    warm_up=plan.warm_up,
                    realtime=plan.realtime,
                    timeout_s=plan.timeout_s,
                )
                rounds[variant].append(Round(measured["latencies_us"], measured["cpu_us_per_event"]))
            order = order[1:] + order[:1]
    return rounds


def summarise(rounds: dict[str, list[Round]]) -> list[Result]:
    """One result per variant, in the order of `rounds`; all need as many rounds as the floor."""
    floors = rounds[FLOOR]
    floor_p50s = [percentile(each.latencies_us, 50) for each in floors]
    floor_p99 = percentile([latency for each in floors for latency in each.latencies_us], 99)
    floor_cpu = statistics.median(each.cpu_us_per_event for each in floors)
    results = []
    for variant, measured in rounds.items():
        together = [latency for each in measured for latency in each.latencies_us]
        ratios = [percentile(each.latencies_us, 50) / floor for each, floor in zip(measured, floor_p50s, strict=True)]
        cpu = statistics.median(each.cpu_us_per_event for each in measured)
        p99 = percentile(together, 99)
        results.append(
            Result(
                variant=variant,
                events=len(together),
                p50_us=percentile(together, 50),
                p99_us=p99,
                cpu_us_per_event=cpu,
                p50_ratio=statistics.median(ratios),
                p50_ratio_range=(min(ratios), max(ratios)),
                p99_ratio=p99 / floor_p99,
                cpu_ratio=cpu / floor_cpu,
            )
        )
    return results
