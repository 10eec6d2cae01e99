"""Short simulated conversations, and what was wrong with them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from trio_voice.testing import conversing
from trio_voice.testing.faults import Fault
from trio_voice.testing.people import Action, Plan, PlannedFault

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What breaks on purpose need not be logged."""
    caplog.set_level(logging.CRITICAL + 1, "trio_voice")


TALK = (
    Action(0.5, "respond"),
    Action(1.2, "interrupt"),
    Action(1.0, "speak", 0.5),
    Action(2.5, "write"),
    Action(0.7, "interrupt"),
    Action(2.0, "speak", 0.5),
    Action(3.0, "write"),
    Action(3.0, "respond"),
)


def planned(kind: Any, state: Any, at_s: float = 3.0, **more: Any) -> PlannedFault:
    return PlannedFault(at_s, state, Fault(kind, **more))


def plan(*faults: PlannedFault, seed: int = 3, **more: Any) -> Plan:
    return Plan(seed, 0.5, TALK, faults, **{"push_to_talk": True, **more})


def rules(outcome: conversing.Outcome) -> set[str]:
    return {violation.rule for violation in outcome.violations}
