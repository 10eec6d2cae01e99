"""`python -m trio_voice.testing.simulate --hours 10 --seed 1`: whole conversations in virtual time, all rules checked.

The outermost of the simulation: seeds in, a table out. Each conversation has a seed of its own, drawn from the first
one; `--only SEED` holds that one alone. A conversation that breaks a rule is made smaller, action by action and fault
by fault, while it still breaks the rule; the command then ends with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import attrs

from trio_voice.testing.conversing import Outcome, Wire, converse
from trio_voice.testing.faults import FAULT_KINDS, Fault, FaultKind
from trio_voice.testing.people import STATES, TOOLS, Action, Plan, PlannedFault, State, plan_of
from trio_voice.testing.spreading import devote_process, spread

SHRINKING_RUNS = 80
PROGRESS_S = 5.0
INTERRUPTED = 130
"""How a shell tells of Ctrl-C."""


@attrs.define(eq=False)
class Tally:
    """Everything so far, added up."""

    conversations: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    reconnects: int = 0
    rotations: int = 0
    interruptions: int = 0
    tools: Counter[str] = attrs.Factory(Counter)
    handoffs: int = 0
    approvals: int = 0
    hosted_calls: int = 0
    edits: int = 0
    trips: int = 0
    said: int = 0
    turns: int = 0
    ended_early: int = 0
    faults: Counter[FaultKind] = attrs.Factory(Counter)
    cells: Counter[tuple[FaultKind, State]] = attrs.Factory(Counter)
    rules: Counter[str] = attrs.Factory(Counter)
    """Violations."""

    def add(self, outcome: Outcome) -> None:
        self.conversations += 1
        self.virtual_s += outcome.virtual_s
        self.wall_s += outcome.wall_s
        self.reconnects += outcome.reconnects
        self.rotations += outcome.rotations
        self.interruptions += outcome.interruptions
        self.tools += outcome.tools
        self.handoffs += outcome.handoffs
        self.approvals += outcome.approvals
        self.hosted_calls += outcome.hosted_calls
        self.edits += outcome.edits
        self.trips += outcome.trips
        self.said += outcome.said
        self.turns += outcome.turns
        self.ended_early += bool(outcome.ended_by)
        self.faults += outcome.faults
        self.cells += outcome.cells
        self.rules.update(violation.rule for violation in outcome.violations)

    @property
    def speed(self) -> float:
        """Virtual seconds per wall second of one core."""
        return self.virtual_s / self.wall_s if self.wall_s else 0.0

    def line(self, hours: float, elapsed_s: float) -> str:
        """How far it is, of so many virtual hours."""
        done = min(1.0, self.virtual_s / 3600 / hours)
        left_s = elapsed_s / done - elapsed_s
        return (
            f"{done:4.0%}, about {left_s / 60:.0f} min left: "
            f"{self.conversations} conversations, {self.virtual_s / 3600:.2f} virtual hours, "
            f"{self.faults.total()} faults, {self.rules.total()} violations, {self.speed:.0f} virtual s per wall s"
        )

    def table(self) -> str:
        rows = [
            ("conversations", self.conversations), ("ended by a fault, as they must", self.ended_early),
            ("virtual hours", f"{self.virtual_s / 3600:.2f}"), ("answers", self.turns),
            ("interruptions", self.interruptions), ("tool calls", self.tools.total()),
            *((f"  {name}", self.tools[name]) for name in TOOLS),
            ("handoffs", self.handoffs), ("hosted calls approved or rejected", self.approvals),
            ("hosted calls", self.hosted_calls), ("guardrails tripped", self.trips), ("words given to say", self.said),
            ("edits of the record", self.edits),
            ("reconnects", self.reconnects), ("rotations", self.rotations), ("faults", self.faults.total()),
            *((f"  {kind}", self.faults[kind]) for kind in FAULT_KINDS),
            ("violations", self.rules.total()), *((f"  {rule}", count) for rule, count in self.rules.items()),
            ("virtual seconds per wall second and core", f"{self.speed:.0f}"),
        ]  # fmt: skip
        return "\n".join(f"{name:42} {value:>10}" for name, value in rows)

    def coverage(self) -> str:
        """How often each fault struck in each state, as a Markdown table."""
        lines = ["| fault | " + " | ".join(STATES) + " |", "|---" * (len(STATES) + 1) + "|"]
        for kind in FAULT_KINDS:
            counts = " | ".join(str(self.cells[kind, state]) for state in STATES)
            lines.append(f"| `{kind}` | {counts} |")
        return "\n".join(lines)


def seeds(master: int) -> Iterator[int]:
    """The seeds of the conversations, without end."""
    number = 0
    while True:
        yield int.from_bytes(hashlib.blake2b(f"{master}/{number}".encode(), digest_size=5).digest())
        number += 1


def shrink(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """A smaller plan for which `fails` still holds: fewer faults, fewer actions, nothing special."""

    runs = SHRINKING_RUNS

    def attempt(smaller: Plan) -> bool:
        nonlocal runs, plan
        if runs <= 0 or smaller == plan:
            return False
        runs -= 1
        if not fails(smaller):
            return False
        plan = smaller
        return True

    attempt(attrs.evolve(plan, faults=()))
    for part in ("actions", "faults"):
        size = len(getattr(plan, part))
        while size:
            start = 0
            while start < len(getattr(plan, part)):
                kept = getattr(plan, part)
                if not attempt(attrs.evolve(plan, **{part: kept[:start] + kept[start + size :]})):
                    start += size
            size //= 2
    plain = Plan(0, 0, (), ())
    for name in (
        "latency_ms", "prebuffer_ms", "clause_delay_ms", "think_ms", "block_ms", "session_limit_s", "hear_ms", "agents",
        "guardrails", "hosted",
    ):  # fmt: skip
        attempt(attrs.evolve(plan, **{name: getattr(plain, name)}))
    return plan


def simulate(
    hours: float,
    seed: int,
    *,
    minutes: float = 10.0,
    wire: Wire = "websocket",
    say: Callable[[str], None] = print,
    keep_going: bool = False,
    jobs: int = 1,
    tally: Tally | None = None,
) -> Tally:
    """Hold conversations for `hours` of virtual time. Stops at the first that breaks a rule, unless told otherwise.

    Spread over `jobs` processes it comes to the same. `tally`: what is added to, for whoever may not live to the end.
    """
    tally = tally or Tally()
    if hours <= 0:
        return tally
    began_at = said_at = time.monotonic()
    say(f"{hours:g} virtual hours from seed {seed} on, {jobs} at a time")
    plans = (plan_of(number, minutes) for number in seeds(seed))
    with closing(spread(partial(converse, wire=wire), plans, jobs)) as outcomes:
        for outcome in outcomes:
            tally.add(outcome)
            _tell(outcome, wire, say)
            if tally.virtual_s >= hours * 3600 or (outcome.violations and not keep_going):
                break
            if time.monotonic() - said_at > PROGRESS_S:
                said_at = time.monotonic()
                say(tally.line(hours, said_at - began_at))
    return tally


SWEEP = (
    Action(0.5, "respond"), Action(3.0, "write"), Action(4.0, "speak", 1.0), Action(3.0, "write"),
    Action(4.0, "interrupt"), Action(1.0, "speak", 1.0), Action(5.0, "respond"), Action(4.0, "write"),
)  # fmt: skip
SWEEP_SEEDS = 8
"""How many short conversations are tried until the fault has met the state: some answer without a tool, say."""


def sweep(
    *, wire: Wire = "websocket", say: Callable[[str], None] = print, jobs: int = 1, tally: Tally | None = None
) -> Tally:
    """Every fault in every state, each in a short conversation of its own."""
    tally = tally or Tally()
    cells = itertools.product(FAULT_KINDS, STATES)
    with closing(spread(partial(_sweep_cell, wire=wire), cells, jobs)) as cells_swept:
        for outcomes in cells_swept:
            for outcome in outcomes:
                tally.add(outcome)
                _tell(outcome, wire, say)
    return tally


def _sweep_cell(cell: tuple[FaultKind, State], *, wire: Wire) -> list[Outcome]:
    """Conversations until the fault has met the state."""
    kind, state = cell
    outcomes: list[Outcome] = []
    for seed in range(SWEEP_SEEDS):
        early = state in ("connecting", "resuming", "rotating")
        fault = Fault(kind, after_bytes=600 * seed if early else None, duration_s=2.0, delay_s=0.3)
        limit_s = 24.0 if state == "rotating" else 3600.0
        planned = PlannedFault(0.0 if early else 1.0, state, fault)
        plan = Plan(seed, 0.5, SWEEP, (planned,), think_ms=300, push_to_talk=seed % 2 == 0, session_limit_s=limit_s)
        outcomes.append(converse(plan, wire=wire))
        if outcomes[-1].cells[kind, state]:
            break
    return outcomes


def _tell(outcome: Outcome, wire: Wire, say: Callable[[str], None]) -> None:
    """Where a conversation broke a rule, say so and what is the least that breaks it."""
    if not outcome.violations:
        return
    plan = outcome.plan
    drawn = plan == plan_of(plan.seed, plan.minutes)
    named = f"--only {plan.seed} --conversation-minutes {plan.minutes:g}" if drawn else repr(plan)
    say(f"VIOLATION in the conversation {named}")
    for violation in outcome.violations[:10]:
        say(f"  {violation.at_s:9.3f} s  {violation.rule}: {violation.seen}")
    if SHRINKING_RUNS <= 0:
        return
    rule = outcome.violations[0].rule

    def fails(smaller: Plan) -> bool:
        return any(violation.rule == rule for violation in converse(smaller, wire=wire).violations)

    say(f"  made smaller: {shrink(plan, fails)}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trio_voice.testing.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wire", choices=("websocket", "direct"), default="websocket")
    parser.add_argument("--conversation-minutes", type=float, default=10.0)
    parser.add_argument("--only", type=int, metavar="SEED", help="hold the conversation of this seed alone")
    parser.add_argument("--coverage", action="store_true", help="print how often each fault struck in each state")
    parser.add_argument("--sweep", action="store_true", help="every fault in every state, in short conversations")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first violation")
    parser.add_argument(
        "--no-shrink", action="store_true", help="do not make a conversation smaller that breaks a rule"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="hold conversations in N processes at a time")
    chosen = parser.parse_args(arguments)
    if chosen.jobs < 1:
        parser.error("--jobs needs a number of processes: 1 or more")
    if chosen.no_shrink:
        global SHRINKING_RUNS
        SHRINKING_RUNS = 0
    tally, interrupted = Tally(), False
    say = partial(print, flush=True)
    try:
        if chosen.sweep:
            sweep(wire=chosen.wire, say=say, jobs=chosen.jobs, tally=tally)
        elif chosen.only is not None:
            outcome = converse(plan_of(chosen.only, chosen.conversation_minutes), wire=chosen.wire)
            tally.add(outcome)
            _tell(outcome, chosen.wire, say)
        else:
            simulate(
                chosen.hours,
                chosen.seed,
                minutes=chosen.conversation_minutes,
                wire=chosen.wire,
                say=say,
                keep_going=chosen.keep_going,
                jobs=chosen.jobs,
                tally=tally,
            )
    except* KeyboardInterrupt:  # alone, or in the group of a nursery
        interrupted = True
    print(tally.table())
    if chosen.coverage or chosen.sweep:
        print(tally.coverage())
    if interrupted:
        print("interrupted: the table is of what was done until then")
        return INTERRUPTED
    return 1 if tally.rules else 0


if __name__ == "__main__":
    devote_process()
    sys.exit(main())
