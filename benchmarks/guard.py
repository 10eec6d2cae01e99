"""The regression guard: a few ratios to the floor, measured in half a minute, that a doubling of the work breaks.

Ratios, not times, since machines differ and tests run beside others; CPU rather than lateness, since CPU is what other
work on the machine changes least. The bounds are wide: what they catch is one decode too many, a copy of everything, a
task where there was none, not some percent. Each figure is the best of a few rounds: a disturbance only ever adds.
"""

from __future__ import annotations

import attrs
from rich.console import Console

from benchmarks import load, processes
from benchmarks.figures import Figure, Options, Outcome
from benchmarks.load import FLOOR, LoadPlan

SESSIONS = 10
SECONDS = 2.0
ROUNDS = 3
CPU_BOUND = 1.9
"""Of 10 sessions that speak and hear, as a multiple of the floor."""
DOWN_CPU_BOUND = 1.25
"""Of the same that only hear, a second's sound at a time: what is done to each byte outweighs what is done to each
event. It is 0.75 to 1.0; reading each message once more with the standard library's json is over the bound."""


def run_guard(console: Console, options: Options) -> Outcome:
    plan = LoadPlan(rounds=1 if options.quick else ROUNDS, seconds=SECONDS, counts=(SESSIONS,))
    both = held(CPU_BOUND, plan, options, "down_ms=100", microphone=True)
    down = held(DOWN_CPU_BOUND, plan, options, "down_ms=50&pieces=10", microphone=False)
    figures = [
        Figure(f"CPU ÷ floor, {SESSIONS} sessions", both, aim=CPU_BOUND),
        Figure(f"CPU ÷ floor, {SESSIONS} sessions that only hear", down, aim=DOWN_CPU_BOUND),
    ]
    return Outcome({"plan": attrs.asdict(plan), "cpu_ratio": both, "down_cpu_ratio": down}, figures)


def held(bound: float, plan: LoadPlan, options: Options, query: str, *, microphone: bool) -> float:
    """The ratio; when it is over its bound, the better of two, since a busy moment is no regression."""
    once = ratio(plan, options, query, microphone=microphone)
    return once if once <= bound else min(once, ratio(plan, options, query, microphone=microphone))


def ratio(plan: LoadPlan, options: Options, query: str, *, microphone: bool) -> float:
    """Ours to the floor, of the least that each took in any round."""
    least: dict[str, float] = {}
    with processes.load_server() as server:
        for number in range(plan.rounds):
            for variant in plan.variants if number % 2 == 0 else plan.variants[::-1]:
                options.progress(f"guard: round {number + 1} of {plan.rounds}, {variant}")
                measured = load.one_round(
                    server, variant, query, sessions=SESSIONS, seconds=plan.seconds, microphone=microphone
                )
                least[variant] = min(measured.cpu_s, least.get(variant, measured.cpu_s))
    return least["session"] / least[FLOOR]
