"""The simulation's rules of agents, of the words they must not say, and of calls of the server: each is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from simulated import TALK, Patch, planned, quiet as quiet, rules
from trio_voice.agent_change import AgentChange
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.answers import Answers
from trio_voice.asking import Asking
from trio_voice.guarding import Guarding
from trio_voice.handoffs import Handoffs
from trio_voice.hosted_calls import HostedCalls
from trio_voice.protocol import ResponseConfig
from trio_voice.server.hosted_mcp import HostedMcp
from trio_voice.testing import conversing
from trio_voice.testing.people import Action, Plan, PlannedFault
from trio_voice.tool_calls import ToolCalls


def the_old_agent_stays(patch: Patch) -> None:
    """The server is told, and the session goes on as if it had not been."""
    patch.setattr(AgentInCharge, "take_over", lambda self, agent, config: None)


def nobody_tells_the_server(patch: Patch) -> None:
    """The new agent is in charge, and the server has the settings of the old one."""

    def at_once(self: AgentChange, change: Any) -> None:
        self.in_charge.take_over(change.agent, self.in_charge.successor(change.agent))
        self.took_over(change)
        change.answered(None)

    patch.setattr(AgentChange, "ask", at_once)


def the_first_agent_is_configured_again(patch: Patch) -> None:
    """After each loss."""
    configuration = AgentInCharge.configuration
    first: dict[int, Any] = {}

    def again(self: AgentInCharge) -> Any:
        return first.setdefault(id(self), configuration(self))

    patch.setattr(AgentInCharge, "configuration", again)


def a_handoff_is_told_twice(patch: Patch) -> None:
    changed = Handoffs.changed

    def twice(self: Handoffs, call_id: str | None) -> None:
        before = self._before
        changed(self, call_id)
        self._before = before
        changed(self, call_id)

    patch.setattr(Handoffs, "changed", twice)


def a_handoff_fails_after_it_was_done(patch: Patch) -> None:
    finish = ToolCalls.finish

    def failing(self: ToolCalls, result: Any) -> None:
        finish(self, replace(result, failed=True))

    patch.setattr(ToolCalls, "finish", failing)


HANDOFF_SEED = 15
WORDS_SEED = 8
SHOP_SEED = 3
HANDOVERS = (*TALK[:4], Action(4.0, "hand_over", pick=1), *TALK[4:], Action(4.0, "hand_over", pick=2), *TALK)
LATE_RESET = (planned("reset", "listening", 25.0),)


def between_agents(*faults: PlannedFault) -> Plan:
    return Plan(HANDOFF_SEED, 0.5, HANDOVERS, faults, push_to_talk=True, tools=("look_up",), agents=3)


HANDOFFS_BROKEN: list[tuple[str, Callable[[Patch], None], tuple[PlannedFault, ...]]] = [
    ("one agent in charge", the_old_agent_stays, ()),
    ("one agent in charge", nobody_tells_the_server, ()),
    ("one agent in charge", the_first_agent_is_configured_again, LATE_RESET),
    ("handed over once", a_handoff_is_told_twice, ()),
    ("handed over once", a_handoff_fails_after_it_was_done, ()),
]


@pytest.mark.parametrize("faults", [(), LATE_RESET], ids=["undisturbed", "reset"])
def test_the_rules_hold_between_agents(faults: tuple[PlannedFault, ...]) -> None:
    outcome = conversing.converse(between_agents(*faults))
    assert rules(outcome) == set()
    assert outcome.handoffs >= 4


@pytest.mark.parametrize(
    ("rule", "break_it", "faults"), HANDOFFS_BROKEN, ids=[f"{b[0]}: {b[1].__name__}" for b in HANDOFFS_BROKEN]
)
def test_a_broken_rule_of_handoffs_is_found(
    rule: str, break_it: Callable[[Patch], None], faults: tuple[PlannedFault, ...], monkeypatch: Patch
) -> None:
    break_it(monkeypatch)
    assert rule in rules(conversing.converse(between_agents(*faults)))


# --- words ----------------------------------------------------------------------------------------


def a_trip_silences_nobody(patch: Patch) -> None:
    interrupt = Answers.interrupt
    patch.setattr(
        Answers, "interrupt", lambda self, cause, **more: cause != "guardrail" and interrupt(self, cause, **more)
    )


def nothing_is_said_instead(patch: Patch) -> None:
    patch.setattr(Guarding, "_owe", lambda self, trip, told: None)


def it_is_said_instead_twice(patch: Patch) -> None:
    ask = Guarding.ask

    def twice(self: Guarding) -> None:
        owed = self.owed
        ask(self)
        if owed is not None and self.owed is None and self._requested is not None:
            self.asking.respond(self.asking.worded(self._requested.response or ResponseConfig()))

    patch.setattr(Guarding, "ask", twice)


def a_trip_is_told_again(patch: Patch) -> None:
    tell = Guarding._tell
    patch.setattr(Guarding, "_tell", lambda *news, **more: (tell(*news, **more), tell(*news, **more)))


def nobody_looks(patch: Patch) -> None:
    patch.setattr(Guarding, "_said", lambda self, turn, item_id, *, final: None)


def what_is_refused_is_sent(patch: Patch) -> None:
    patch.setattr(Guarding, "admits", lambda self, command: True)


def what_is_to_be_said_is_lost(patch: Patch) -> None:
    patch.setattr(Asking, "say", lambda self, text, *, interruptible=True: None)


def what_is_to_be_said_is_said_again(patch: Patch) -> None:
    say = Asking.say

    def twice(self: Asking, text: str, *, interruptible: bool = True) -> None:
        say(self, text, interruptible=interruptible)
        say(self, text, interruptible=interruptible)

    patch.setattr(Asking, "say", twice)


WORDS = (
    Action(0.5, "respond"),
    *[Action(5.0, "write", pick=pick) for pick in (0, 4, 1, 2)],
    Action(5.0, "say"),
    *[Action(6.0, "respond")] * 8,
    Action(45.0, "say"),
    Action(45.0, "respond"),
)

WORDS_BROKEN: list[tuple[str, Callable[[Patch], None]]] = [
    ("zero stale samples", a_trip_silences_nobody),
    ("replaced once", nothing_is_said_instead),
    ("replaced once", it_is_said_instead_twice),
    ("told once", a_trip_is_told_again),
    ("what must not be said", nobody_looks),
    ("refused is not sent", what_is_refused_is_sent),
    ("said once", what_is_to_be_said_is_lost),
    ("said once", what_is_to_be_said_is_said_again),
]


def looked_at(*faults: PlannedFault) -> Plan:
    return Plan(WORDS_SEED, 0.5, WORDS, faults, push_to_talk=True, tools=("look_up",), guardrails="refuse")


@pytest.mark.parametrize("faults", [(), LATE_RESET], ids=["undisturbed", "reset"])
def test_the_rules_hold_of_words(faults: tuple[PlannedFault, ...]) -> None:
    outcome = conversing.converse(looked_at(*faults))
    assert rules(outcome) == set()
    assert outcome.trips >= 4
    assert outcome.said == 2


@pytest.mark.parametrize(("rule", "break_it"), WORDS_BROKEN, ids=[f"{b[0]}: {b[1].__name__}" for b in WORDS_BROKEN])
def test_a_broken_rule_of_words_is_found(rule: str, break_it: Callable[[Patch], None], monkeypatch: Patch) -> None:
    break_it(monkeypatch)
    assert rule in rules(conversing.converse(looked_at()))


# --- calls of the server's own --------------------------------------------------------------------


def an_answer_is_given_twice(patch: Patch) -> None:
    decide = HostedCalls._decide

    def twice(self: HostedCalls, request_id: str, given: bool, reason: str) -> bool:
        call = self._asked.get(request_id)
        decided = decide(self, request_id, given, reason)
        if call is not None:
            self._asked[request_id] = call
            decide(self, request_id, given, reason)
        return decided

    patch.setattr(HostedCalls, "_decide", twice)


def an_answer_is_lost(patch: Patch) -> None:
    patch.setattr(
        HostedCalls, "_decide", lambda self, request_id, given, reason: bool(self._asked.pop(request_id, None))
    )


def all_is_let_through(patch: Patch) -> None:
    decide = HostedCalls._decide
    patch.setattr(HostedCalls, "_decide", lambda self, request_id, given, reason: decide(self, request_id, True, ""))


def what_was_asked_on_another_connection_is_answered_on_this(patch: Patch) -> None:
    gone = HostedCalls.connection_gone

    def keeping(self: HostedCalls) -> None:
        asked, self._asked = self._asked, {}
        gone(self)
        self._asked = asked

    patch.setattr(HostedCalls, "connection_gone", keeping)


def the_server_makes_a_call_again(patch: Patch) -> None:
    run = HostedMcp._run

    async def again(self: HostedMcp, *call: Any) -> None:
        await run(self, *call)
        await run(self, *call)

    patch.setattr(HostedMcp, "_run", again)


SHOPPING = (Action(0.5, "respond"), *[Action(4.0, "write", pick=pick) for pick in range(16)])
SHOP_RESETS = tuple(planned("reset", "listening", at_s) for at_s in (12.0, 25.0, 40.0))

HOSTED_BROKEN: list[tuple[str, Callable[[Patch], None], tuple[PlannedFault, ...]]] = [
    ("answered once", an_answer_is_given_twice, ()),
    ("answered once", an_answer_is_lost, ()),
    ("approved first", all_is_let_through, ()),
    ("answered once", what_was_asked_on_another_connection_is_answered_on_this, SHOP_RESETS),
    ("tool once", the_server_makes_a_call_again, ()),
]


def shopping(*faults: PlannedFault) -> Plan:
    return Plan(SHOP_SEED, 0.5, SHOPPING, faults, push_to_talk=True, tools=("look_up",), hosted=True)


@pytest.mark.parametrize("faults", [(), SHOP_RESETS], ids=["undisturbed", "resets"])
def test_the_rules_hold_of_hosted_calls(faults: tuple[PlannedFault, ...]) -> None:
    outcome = conversing.converse(shopping(*faults))
    assert rules(outcome) == set()
    assert outcome.approvals >= 2
    assert outcome.hosted_calls >= 3


@pytest.mark.parametrize(
    ("rule", "break_it", "faults"), HOSTED_BROKEN, ids=[f"{b[0]}: {b[1].__name__}" for b in HOSTED_BROKEN]
)
def test_a_broken_rule_of_hosted_calls_is_found(
    rule: str, break_it: Callable[[Patch], None], faults: tuple[PlannedFault, ...], monkeypatch: Patch
) -> None:
    break_it(monkeypatch)
    assert rule in rules(conversing.converse(shopping(*faults)))
