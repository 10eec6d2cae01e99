"""Handoffs in the conversation: the model calls for another agent, and that one goes on.

A part of the conversation's step, synchronous. What the server is told comes in this order: the new agent's settings;
when it has taken them, what that agent is not to see is deleted; the output of the call; one response. The invariant:
the new agent is in charge from the step in which the server has taken its settings, the old one until then, and each
call is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs
import msgspec
from msgspec.structs import replace

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.agent_change import AgentChange, Change
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.answers import Answers
from trio_voice.errors import ConfigError
from trio_voice.history_edits import still_known
from trio_voice.logs import log
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemDelete
from trio_voice.protocol.history import History
from trio_voice.tool_items import ToolResult

if TYPE_CHECKING:
    from trio_voice.handoff_tools import Handoff

ANOTHER = "another handoff was called before this one; only one can be done at a time"
NOT_IN_CHARGE = "the conversation was handed over before this call; the agent in charge now may call for a handoff"


@attrs.define(eq=False)
class Handoffs:
    """`finish` delivers the result of a call."""

    outbox: Outbox
    history: History
    answers: Answers
    in_charge: AgentInCharge
    change: AgentChange
    finish: Callable[[ToolResult], None]
    pending: str | None = None
    """The call of the handoff that is being done: from the call until it has been answered."""
    _leads_to: Handoff | None = None
    _before: RealtimeAgent = attrs.field(init=False)
    """Who was in charge last."""
    _last_turn: int = 0
    """Of the agents before the one in charge."""
    _names: set[str] = attrs.Factory(set)
    """Of all handoffs that any agent so far could call."""

    def __attrs_post_init__(self) -> None:
        self._before = self.in_charge.agent
        self._names |= {handoff.name for handoff in self._before.handoffs}

    def refusal(self, turn: int, call_id: str, tool: str) -> str | None:
        """Why a call must not be run; None: it may. Of a handoff that may, note that it is under way."""
        if tool not in self._names:
            return None
        if turn <= self._last_turn:
            return NOT_IN_CHARGE
        handoff = next((handoff for handoff in self.in_charge.agent.handoffs if handoff.name == tool), None)
        if handoff is None:
            return None
        if self.pending is not None:
            return ANOTHER
        self.pending, self._leads_to = call_id, handoff
        return None

    def not_begun(self, call_id: str) -> None:
        """There was no room for the call."""
        if call_id == self.pending:
            self.pending = self._leads_to = None

    def takes(self, result: ToolResult) -> bool:
        """Whether a result has to wait until another agent is in charge."""
        handoff = self._leads_to
        if result.call_id != self.pending or handoff is None:
            return False
        self._leads_to = None
        if result.failed:
            self.pending = None
            return False
        try:
            agent, left_out = handoff.agent, self._left_out(handoff)
        except Exception as error:  # a filter is anyone's code
            log.exception("handoff.failed", handoff=handoff.name)
            self._failed(result, f"{type(error).__name__}: {error}")
            return True

        def answered(problem: ConfigError | None) -> None:
            if problem is not None:
                self._failed(result, str(problem))
                return
            known = [item_id for item_id in left_out if self.history.hide(item_id)]
            if handoff.input_filter is not None:
                self._leave_out(known)
            self.pending = None
            self.finish(result)

        self.change.ask(Change(agent, answered, result.call_id))
        return True

    def changed(self, call_id: str | None) -> None:
        """Another agent is in charge, by a handoff or by the application."""
        before, self._before = self._before, self.in_charge.agent
        if before is self._before:  # its settings were told again
            return
        self._last_turn = self.answers.speaking.turn if self.answers.speaking is not None else 0
        self._names |= {handoff.name for handoff in self._before.handoffs}
        self.outbox.emit(
            events.HandoffOccurred(
                at=self.outbox.now, from_agent=before.name, to_agent=self._before.name, call_id=call_id
            )
        )

    def _leave_out(self, item_ids: Sequence[str]) -> None:
        """At the server; and what was forgotten here, which the filter was not asked about."""
        forgotten, unknown = self.history.take_left_there()
        self.outbox.send_all([ConversationItemDelete(item_id=item_id) for item_id in (*forgotten, *item_ids)])
        if unknown:
            self.outbox.report(still_known(unknown), code=None, source="session")

    def _failed(self, result: ToolResult, why: str) -> None:
        self.pending = None
        output = msgspec.json.encode({"error": f"the handoff failed: {why}"}).decode()
        self.finish(replace(result, output=output, failed=True))

    def _left_out(self, handoff: Handoff) -> Sequence[str]:
        """The items that the new agent is not to see. What is still being said stays, and so do calls that were not
        answered yet; of a call and its output both go or neither."""
        if handoff.input_filter is None:
            return ()
        is_open = partial(self.answers.barge_in.is_open, speaking=self.answers.speaking)
        entries = [entry for entry in self.history if not entry.hidden and not is_open(entry.item_id)]
        answered = {entry.call_id for entry in entries if entry.kind == "function_call_output"}
        shown = [entry.shown() for entry in entries if entry.kind == "message" or entry.call_id in answered]
        kept = {item.id for item in handoff.input_filter(tuple(shown))}
        calls = {item.call_id for item in shown if item.call_id and item.id not in kept}
        return [item.id for item in shown if item.id not in kept or item.call_id in calls]
