"""The simulation's rules of agents, of the words they must not say, and of the record: each is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from simulated import TALK, Patch, planned, quiet as quiet, rules
from trio_voice.agent_change import AgentChange
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.handoffs import Handoffs
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
