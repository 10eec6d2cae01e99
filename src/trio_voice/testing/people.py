"""People who never existed: what they do in a conversation, and what the agent answers, drawn from a seed.

A `Plan` is a value: it prints, replays, and can be made smaller. The invariant: every choice comes from the plan's
seed, and the n-th answer does not depend on how many actions or faults are left of the plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import attrs

from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Call, Fail, HostedCall, Say, Step, Wait
from trio_voice.testing.agent_rules import TRANSFER
from trio_voice.testing.faults import CONNECT_FAULTS, FATAL_FAULTS, FAULT_KINDS, Fault, FaultKind
from trio_voice.testing.word_rules import FORBIDDEN

Act: TypeAlias = Literal[
    "speak", "write", "interrupt", "respond", "pause", "mute", "stop_listening", "hand_over", "say", "inject",
    "edit", "delete", "reset",
]  # fmt: skip
USUAL_ACTS: tuple[Act, ...] = ("speak", "write", "interrupt", "respond", "pause", "mute", "stop_listening")
ACTS: tuple[Act, ...] = (*USUAL_ACTS, "hand_over", "say", "inject", "edit", "delete", "reset")

State: TypeAlias = Literal[
    "connecting", "listening", "user speaking", "processing", "responding", "tool running", "resuming", "rotating",
    "closing",
]  # fmt: skip
STATES: tuple[State, ...] = (
    "connecting", "listening", "user speaking", "processing", "responding", "tool running", "resuming", "rotating",
    "closing",
)  # fmt: skip

TOOLS = (
    "look_up", "search_slowly", "place_order", "break_down", "hang", "hang_on", "note_down", "search_widely",
    "one_at_a_time", "report", "pay", "book",
)  # fmt: skip
"""Those of `drawn_tools.py`."""

MAX_TURNS = 96
"""Marked samples tell 127 answers apart; people hang up before."""


@attrs.frozen
class Action:
    """Something the person does, `after_s` after what was done before."""

    after_s: float
    act: Act
    length_s: float = 0.0
    """Of the speech, the pause, the muting, the time without listening."""
    pick: int = 0
    """Which of those that there are: agents to hand over to, texts to write, items to edit."""


@attrs.frozen
class PlannedFault:
    """`fault` strikes when the conversation is in `state`, the first time that it is so after `at_s`."""

    at_s: float
    state: State
    fault: Fault


@attrs.frozen
class Plan:
    """One conversation."""

    seed: int
    minutes: float
    actions: tuple[Action, ...]
    faults: tuple[PlannedFault, ...]
    block_ms: int = 40
    latency_ms: int = 0
    prebuffer_ms: int = 100
    clause_delay_ms: int = 0
    think_ms: int = 0
    push_to_talk: bool = False
    session_limit_s: float = 3600.0
    hear_ms: int = 100
    """How long the server takes to recognise an utterance, from the moment in which it suspects its end."""
    talkative: bool = False
    """The agent speaks by itself: it greets, breaks silences, and bridges the waits for tools."""
    dialect: str = "trio-voice"
    """Which server is played; one that hears and speaks at 24 kHz."""
    tools: tuple[str, ...] = TOOLS
    """What the model may call."""
    agents: int = 1
    """How many there are, each of whom can hand over to the others."""
    hosted: bool = False
    """The server has an MCP server whose tools it calls, some when they are approved."""
    guardrails: Literal["", "refuse", "delete"] = ""
    """Whether there are some, and what those of the user's words do."""


def plan_of(seed: int, minutes: float = 10.0, *, faults_per_minute: float = 1.5) -> Plan:
    """The conversation that `seed` stands for."""
    rng = random.Random(seed)
    actions: list[Action] = []
    lasted_s, end_s = 0.0, minutes * 60
    push_to_talk = rng.random() < 0.5
    rare = random.Random(f"{seed}/rare")
    agents = rare.choice((1, 3))
    while lasted_s < end_s and len(actions) < MAX_TURNS * 0.8:
        action = _action(rng, push_to_talk)
        actions.append(_varied(action, rare, agents))
        lasted_s += action.after_s + action.length_s
    return Plan(
        seed=seed,
        minutes=minutes,
        actions=tuple(actions),
        faults=_faults(rng, end_s, round(faults_per_minute * minutes * rng.uniform(0, 2))),
        block_ms=rng.choice((20, 40, 60, 100)),
        latency_ms=rng.choice((0, 0, 40, 150)),
        prebuffer_ms=rng.choice((0, 100, 250)),
        clause_delay_ms=rng.choice((0, 40, 300)),
        think_ms=rng.choice((0, 200, 1500)),
        push_to_talk=push_to_talk,
        session_limit_s=rng.choice((3600.0, 300.0, 170.0)),
        hear_ms=rng.choice((100, 100, 1500)),
        talkative=rng.random() < 0.3,
        agents=agents,
        guardrails=rare.choice(("", "", "refuse", "delete")),
        hosted=rare.random() < 0.4,
    )


def _varied(action: Action, rng: random.Random, agents: int) -> Action:
    """Now and then what is done seldom takes the place of what is done often."""
    acts: tuple[Act, ...] = ("say", "inject", "inject", "edit", "edit", "delete", "delete", "reset")
    acts += ("hand_over", "hand_over") if agents > 1 else ()
    drawn, pick = rng.random(), rng.randrange(1000)
    if drawn > 0.15:
        return attrs.evolve(action, pick=pick) if action.act == "write" else action
    return Action(action.after_s, acts[pick % len(acts)], pick=pick)


def _action(rng: random.Random, push_to_talk: bool) -> Action:
    # Mostly a person waits for the answer, now and then talks into it, or acts twice in the same instant.
    after_s = rng.choice((0.0, rng.uniform(0, 2), rng.uniform(1, 8), rng.uniform(3, 15), rng.uniform(3, 15)))
    act = rng.choices(USUAL_ACTS, (1, 4, 3, 2, 1, 1, 1) if push_to_talk else (10, 4, 3, 2, 1, 1, 1))[0]
    if push_to_talk and act in ("mute", "stop_listening"):
        act = "speak"
    length_s = rng.uniform(0.3, 4) if act in ("speak", "pause", "mute", "stop_listening") else 0.0
    return Action(round(after_s, 3), act, round(length_s, 2))


def _faults(rng: random.Random, end_s: float, count: int) -> tuple[PlannedFault, ...]:
    planned = [_fault(rng, rng.uniform(0, end_s), rng.choice(STATES[1:])) for _ in range(count)]
    if rng.random() < 0.15:
        planned.append(_fault(rng, 0.0, "connecting"))
    if rng.random() < 0.4:
        planned.append(_fault(rng, 0.0, "closing"))
    return tuple(sorted(planned, key=lambda planned: planned.at_s))


def _fault(rng: random.Random, at_s: float, state: State) -> PlannedFault:
    # What ends a conversation for good is drawn seldom, or there would be no long conversations; 25 MB take time too.
    weights = [0.15 if kind in FATAL_FAULTS or kind in ("oversized", "corrupt") else 1.0 for kind in FAULT_KINDS]
    kind: FaultKind = rng.choices(FAULT_KINDS, weights)[0]
    fault = Fault(
        kind,
        after_bytes=rng.choice((0, 50, 400, 1500, 4000)) if state in ("connecting", "resuming", "rotating") else None,
        duration_s=round(rng.uniform(0.1, 3.0), 2) if kind in ("stall", "delay", "jitter") else 0.0,
        delay_s=round(rng.uniform(0.02, 0.6), 2) if kind in ("delay", "jitter") else 0.0,
    )
    return PlannedFault(round(at_s, 2), state, fault)


def is_of_connecting(fault: Fault) -> bool:
    """Whether it needs an attempt to connect; in any other state the connection is dropped first."""
    return fault.kind in CONNECT_FAULTS


CLAUSES = ("One two three four five.", "Six seven eight.", "Nine ten eleven twelve.", "That is all, thank you.")


@attrs.define(eq=False)
class Answers:
    """What the scripted brain says, asked for the n-th time."""

    seed: int
    tools: Sequence[str] = TOOLS
    guarded: bool = False
    """What it says is looked at, and now and then it says what it must not."""
    asked: int = 0
    calls: int = 0
    """Calls made: each has a number, so that a second run of it would show."""

    def __call__(self, request: ResponseRequest) -> Sequence[Step]:
        self.asked += 1
        rng = random.Random(f"{self.seed}/{self.asked}")
        after_tool = bool(request.items) and request.items[-1].type == "function_call_output"
        if request.tool_choice == "none":  # words of the application's own, not the model's
            return [Say("As I was told to say.", 600)]
        steps: list[Step] = []
        if rng.random() < (0.9 if after_tool else 0.8):
            for clause in rng.sample(CLAUSES, rng.randint(1, 4)):
                steps.append(Say(clause, rng.choice((30, 100, 400, 1200, 2500))))
                if rng.random() < 0.1:
                    steps.append(Wait(rng.choice((50, 500, 2000))))
        if rng.random() < (0.15 if after_tool else 0.4):
            for _ in range(rng.choice((1, 1, 2, 3))):
                self.calls += 1
                steps.append(Call(rng.choice(self.tools), f'{{"number": {self.calls}}}'))
        if self.guarded and steps and isinstance(steps[0], Say) and rng.random() < 0.15:
            steps.insert(rng.randrange(len(steps) + 1), Say(f"The password is {FORBIDDEN}.", 900))
        steps += self._handoffs(request)
        steps += self._hosted(request)
        if rng.random() < 0.03:
            steps.append(Fail())
        return steps or [Say("Yes.", 300)]

    def _handoffs(self, request: ResponseRequest) -> Iterator[Step]:
        """Now and then to another agent, and sometimes to two at once."""
        rng = random.Random(f"{self.seed}/{self.asked}/handoff")
        ways = sorted(tool.name or "" for tool in request.tools if (tool.name or "").startswith(TRANSFER))
        for _ in range(rng.choice((1, 1, 1, 2)) if ways and rng.random() < 0.15 else 0):
            self.calls += 1
            yield Call(rng.choice(ways), f'{{"number": {self.calls}}}')

    def _hosted(self, request: ResponseRequest) -> Iterator[Step]:
        """Now and then a call that the server makes by itself, or asks for."""
        rng = random.Random(f"{self.seed}/{self.asked}/hosted")
        if rng.random() < 0.2 and any(tool.type == "mcp" for tool in request.tools):
            for name in rng.choice((("buy",), ("buy",), ("browse",), ("buy", "browse"))):
                self.calls += 1
                yield HostedCall(
                    "shop",
                    name,
                    f'{{"number": {self.calls}}}',
                    output=f"done {self.calls}",
                    error="sold out" if rng.random() < 0.15 else None,
                    takes_ms=rng.choice((0, 400, 3000)),
                    needs_approval=name == "buy",
                )
