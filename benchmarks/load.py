"""The way up, and many sessions in one process: trio-voice beside the floor, alternately, against one server.

*Uplink*: from the microphone's giving of a frame of 20 ms to the server's socket, and whether each frame arrived as it
was. *Capacity*: what 1 to 400 sessions in one process take, each hearing a piece of 100 ms and sending five frames of
20 ms all the time, and up to how many the sound is not late. The ratio is the claim: per round to the floor of the same
round, and the median of those.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from benchmarks import processes
from benchmarks.downlink import percentile
from benchmarks.load_client import FRAME_BYTES

FLOOR = "floor"
AIM_UPLINK_RATIO = 1.5
AIM_CPU_RATIO = 1.2
AIM_MEMORY_MB = 0.1
LATE_MS = 20.0
"""Sound that takes longer than this to the application, in one event of a hundred, is late."""
AT_SESSIONS = 25
"""Where CPU is compared."""
PACING = ("floor pacing", "session pacing")
"""What the stand-ins for microphones cost by themselves: timers, of which Trio's are the dearer. The frames of a real
microphone come from a thread or a socket."""
FRAME_CHARS = FRAME_BYTES * 4 // 3
MARGIN_S = 30.0
WARM_UP_FRAMES = 50


@attrs.frozen
class LoadPlan:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 5.0
    counts: tuple[int, ...] = (1, 10, 25, 50, 100, 200, 400)
    variants: tuple[str, ...] = (FLOOR, "session")
    realtime: bool = False


QUICK = LoadPlan(rounds=1, seconds=1.0, counts=(1, 25))
UPLINK_VARIANTS = (FLOOR, "bare", "session")


@attrs.frozen
class Round:
    """One process: what its sessions took."""

    sessions: int
    down_us: Sequence[float]
    up_us: Sequence[float]
    cpu_s: float
    """Per session and minute."""
    memory_mb: float
    """Per session."""
    exact_frames: int = 0
    other_frames: int = 0
    """Appends that were not one frame of 20 ms."""


@attrs.frozen
class Result:
    """One variant with so many sessions, over all rounds."""

    variant: str
    sessions: int
    p50_us: float
    p99_us: float
    p50_ratio: float
    cpu_s: float
    cpu_ratio: float
    memory_mb: float


def one_round(
    server: processes.LoadServer,
    variant: str,
    query: str,
    *,
    sessions: int,
    seconds: float,
    realtime: bool = False,
    microphone: bool = True,
    python: str | None = None,
) -> Round:
    """Run one process against `server`."""
    arguments = [variant, f"{server.base}?{query}", "--sessions", str(sessions), "--seconds", str(seconds)]
    arguments += [] if microphone else ["--no-microphone"]
    arguments += ["--realtime"] if realtime else []
    where = {} if python is None else {"python": python}
    measured = processes.run("benchmarks.load_client", *arguments, timeout_s=seconds + MARGIN_S, **where)
    up_us: list[float] = []
    exact = other = 0
    if "frames=1" in query:
        said: list[Any] = []
        while len(said) < sessions:  # one that spoke no word was the warm-up's
            one = server.said()
            if one["latencies_us"]:
                said.append(one)
        for one in said:
            up_us += one["latencies_us"][WARM_UP_FRAMES:]
            whole = one["sizes"].get(str(FRAME_CHARS), 0)
            exact, other = exact + whole, other + sum(one["sizes"].values()) - whole
    return Round(
        sessions,
        measured["latencies_us"],
        up_us,
        measured["cpu_s_per_session_minute"],
        measured["memory_mb_per_session"],
        exact,
        other,
    )


def measure_uplink(
    plan: LoadPlan, progress: Callable[[str], None], variants: Sequence[str] = UPLINK_VARIANTS
) -> dict[str, list[Round]]:
    """One session, which only speaks."""
    rounds: dict[str, list[Round]] = {variant: [] for variant in variants}
    order = list(variants)
    with processes.load_server() as server:
        for number in range(plan.rounds):
            for variant in order:
                progress(f"uplink: round {number + 1} of {plan.rounds}, {variant}")
                rounds[variant].append(
                    one_round(server, variant, "frames=1", sessions=1, seconds=plan.seconds, realtime=plan.realtime)
                )
            order = order[1:] + order[:1]
    return rounds


def measure_capacity(plan: LoadPlan, progress: Callable[[str], None]) -> dict[int, dict[str, list[Round]]]:
    """By number of sessions and by variant. Ends before the first number that one of them cannot hold at all."""
    found: dict[int, dict[str, list[Round]]] = {}
    with processes.load_server() as server:
        for count in plan.counts:
            try:
                found[count] = _at(count, plan, server, progress)
            except RuntimeError as late:
                progress(f"capacity: no further than this: {late}")
                break
    return found


def _at(
    count: int, plan: LoadPlan, server: processes.LoadServer, progress: Callable[[str], None]
) -> dict[str, list[Round]]:
    """Raises: `RuntimeError` when a process does not end in time."""
    order = [*plan.variants, *(PACING if count == AT_SESSIONS else ())]
    rounds: dict[str, list[Round]] = {variant: [] for variant in order}
    for number in range(plan.rounds):
        for variant in order:
            progress(f"capacity: {count} sessions, round {number + 1} of {plan.rounds}, {variant}")
            rounds[variant].append(
                one_round(server, variant, "down_ms=100", sessions=count, seconds=plan.seconds, realtime=plan.realtime)
            )
        order = order[1:] + order[:1]
    return rounds


def summarise(rounds: dict[str, list[Round]], *, up: bool) -> list[Result]:
    """One result per variant; all need as many rounds as the floor."""

    def of(each: Round) -> Sequence[float]:
        return each.up_us if up else each.down_us

    floors = rounds[FLOOR]
    results = []
    for variant, measured in rounds.items():
        if variant in PACING:
            continue
        ratios = [
            percentile(of(each), 50) / percentile(of(floor), 50) for each, floor in zip(measured, floors, strict=True)
        ]
        cpu_ratios = [each.cpu_s / floor.cpu_s for each, floor in zip(measured, floors, strict=True)]
        results.append(
            Result(
                variant=variant,
                sessions=measured[0].sessions,
                p50_us=statistics.median(percentile(of(each), 50) for each in measured),
                p99_us=statistics.median(percentile(of(each), 99) for each in measured),
                p50_ratio=statistics.median(ratios),
                cpu_s=statistics.median(each.cpu_s for each in measured),
                cpu_ratio=statistics.median(cpu_ratios),
                memory_mb=statistics.median(each.memory_mb for each in measured),
            )
        )
    return results


def cpu_ratio_without_pacing(rounds: dict[str, list[Round]]) -> float:
    """What is left of both sides when what their timers take alone is taken off; the median of the rounds."""
    floors, ours, floor_pacing, our_pacing = (rounds[name] for name in (FLOOR, "session", *PACING))
    return statistics.median(
        (our.cpu_s - our_timers.cpu_s) / (floor.cpu_s - floor_timers.cpu_s)
        for floor, our, floor_timers, our_timers in zip(floors, ours, floor_pacing, our_pacing, strict=True)
    )


def in_time(capacity: dict[int, list[Result]], variant: str) -> int:
    """With how many sessions at most the sound was not late."""
    fits = [
        count
        for count, results in capacity.items()
        for result in results
        if result.variant == variant and result.p99_us < LATE_MS * 1000
    ]
    return max(fits, default=0)
