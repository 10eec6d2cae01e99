"""The simulation's rules of the record, and of what is edited in it: each is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulated import Patch, planned, quiet as quiet, rules
from trio_voice.connections import Connections
from trio_voice.history_edits import HistoryEdits
from trio_voice.protocol import Item
from trio_voice.protocol.edits import message
from trio_voice.resumption import Resumption
from trio_voice.testing import conversing
from trio_voice.testing.people import Action, Plan, PlannedFault

EDITING = (
    Action(0.5, "respond"),
    *[Action(3.0, "write", pick=pick) for pick in range(3)],
    *[Action(4.0, "inject", pick=pick) for pick in (1, 2, 3)],
    *[Action(2.0, "edit", pick=pick) for pick in (0, 3)],
    *[Action(2.0, "delete", pick=pick) for pick in (2, 5)],
    *[Action(3.0, "write", pick=pick) for pick in range(2)],
)
RESET = (planned("reset", "listening", 20.0),)


def the_server_is_not_told_of_deletions(patch: Patch) -> None:
    def delete(self: HistoryEdits, entry: Any, *, replaced_by: str | None = None) -> None:
        self.view.history.delete(entry.item_id, replaced_by=replaced_by)

    patch.setattr(HistoryEdits, "_delete", delete)


def the_session_does_not_delete(patch: Patch) -> None:
    patch.setattr(HistoryEdits, "_delete_whole", lambda self, entry: None)


def an_edit_keeps_the_old_words(patch: Patch) -> None:
    """At both ends."""

    def old(role: str, text: str, images: tuple[str, ...], item_id: str) -> Item:
        return message(role, "as it was", images, item_id)

    patch.setattr("trio_voice.history_edits.message", old)


def a_new_connection_is_told_in_another_order(patch: Patch) -> None:
    create = Resumption._create
    patch.setattr(Resumption, "_create", lambda self, told: create(self, told[::-1]))


def a_new_connection_is_told_nothing(patch: Patch) -> None:
    patch.setattr(Resumption, "_create", lambda self, told: None)


def the_session_forgets_what_was_put_in(patch: Patch) -> None:
    resume = Connections._resume_conversation

    def forgetful(self: Connections) -> None:
        for entry in list(self.parts.view.history):
            if entry.item_id.startswith("injected"):
                self.parts.view.history.delete(entry.item_id)
        resume(self)

    patch.setattr(Connections, "_resume_conversation", forgetful)


def what_was_deleted_comes_back(patch: Patch) -> None:
    """On the next connection, at both ends."""
    delete, tell = HistoryEdits._delete, Resumption._tell_everything
    deleted: list[Any] = []

    def noting(self: HistoryEdits, entry: Any, *, replaced_by: str | None = None) -> None:
        deleted.append(entry)
        delete(self, entry, replaced_by=replaced_by)

    def restoring(self: Resumption, unfinished: set[str]) -> None:
        for entry in deleted:
            self.view.history._gone.pop(entry.item_id, None)
            self.view.history.restore(entry)
        deleted.clear()
        tell(self, unfinished)

    patch.setattr(HistoryEdits, "_delete", noting)
    patch.setattr(Resumption, "_tell_everything", restoring)


RECORD_BROKEN: list[tuple[str, Callable[[Patch], None]]] = [
    ("the same record", the_server_is_not_told_of_deletions),
    ("the same record", a_new_connection_is_told_in_another_order),
    ("the same record", a_new_connection_is_told_nothing),
    ("edits last", the_session_does_not_delete),
    ("edits last", an_edit_keeps_the_old_words),
    ("edits last", the_session_forgets_what_was_put_in),
    ("edits last", what_was_deleted_comes_back),
]


def edited(*faults: PlannedFault) -> Plan:
    return Plan(3, 0.5, EDITING, faults, push_to_talk=True, tools=("look_up",))


@pytest.mark.parametrize("faults", [(), RESET], ids=["undisturbed", "reset"])
def test_the_rules_hold_of_an_edited_record(faults: tuple[PlannedFault, ...]) -> None:
    outcome = conversing.converse(edited(*faults))
    assert rules(outcome) == set()
    assert outcome.edits >= 6


def test_the_rules_hold_after_all_was_forgotten() -> None:
    forgetful = Plan(3, 0.5, (*EDITING, Action(1.0, "reset"), *EDITING), (), push_to_talk=True)
    assert rules(conversing.converse(forgetful)) == set()


@pytest.mark.parametrize(("rule", "break_it"), RECORD_BROKEN, ids=[f"{b[0]}: {b[1].__name__}" for b in RECORD_BROKEN])
def test_a_broken_rule_of_the_record_is_found(rule: str, break_it: Callable[[Patch], None], monkeypatch: Patch) -> None:
    break_it(monkeypatch)
    assert rule in rules(conversing.converse(edited()))
