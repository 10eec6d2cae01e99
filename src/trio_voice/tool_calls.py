"""The conversation's side of tools: a completed function call leads to one run, one output and one record."""

from __future__ import annotations

import attrs
import trio

from trio_voice import events
from trio_voice.barge_in import BargeIn
from trio_voice.channels import RunTool, ToolResult, ToolStarted
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, Item
from trio_voice.tool_ledger import ToolLedger
from trio_voice.tracker import ConversationTracker, ToolUse


@attrs.define(eq=False)
class ToolCalls:
    """Every verb of it is synchronous."""

    outbox: Outbox
    tracker: ConversationTracker
    barge_in: BargeIn
    ledger: ToolLedger = attrs.Factory(ToolLedger)

    def called(self, turn: int, item: Item) -> None:
        """A function call is complete: run it, once, unless its turn was interrupted before."""
        if item.status in ("incomplete", "in_progress") or not item.call_id or not self.ledger.begin(item.call_id):
            return
        if item.id and self.barge_in.history.is_deleted(item.id):
            self.ledger.forget(item.call_id)
            return
        call = RunTool(turn, item.call_id, item.name or "", item.arguments or "{}")
        if turn <= self.barge_in.floor:
            self.finished(_not_run(call, "cancelled: the user interrupted before the tool was started"))
            return
        try:
            self.outbox.run_tool(call)
        except trio.WouldBlock:
            self.finished(_not_run(call, "too many tools are waiting already; try again later"))

    def started(self, news: ToolStarted) -> None:
        now, turn, call_id, arguments = self.outbox.now, news.turn, news.call_id, news.arguments
        self.tracker.tool_changed(ToolUse(call_id, news.tool, arguments), now)
        self.outbox.emit(events.ToolCalled(at=now, turn=turn, call_id=call_id, tool=news.tool, arguments=arguments))

    def finished(self, result: ToolResult) -> None:
        """Tell the model, the record and the application. An answer is owed, unless the user wanted silence."""
        if not self.ledger.finish(result.call_id, result.output):
            return
        self._tell_model(result)
        use = ToolUse(result.call_id, result.tool, "", result.output, result.failed, result.duration_ms)
        self.tracker.tool_finished(use, self.outbox.now)
        self.outbox.emit(
            events.ToolFinished(
                at=self.outbox.now,
                turn=result.turn,
                call_id=result.call_id,
                tool=result.tool,
                output=result.output,
                failed=result.failed,
                duration_ms=result.duration_ms,
            )
        )
        if result.turn > self.barge_in.hushed and not self.ledger.is_forgotten(result.call_id):
            self.ledger.answer_owed = True

    def _tell_model(self, result: ToolResult) -> None:
        if self.ledger.is_forgotten(result.call_id):
            return
        history = self.barge_in.history
        output = Item.function_call_output(result.call_id, result.output, id=history.new_id("output"))
        history.add(output)
        self.outbox.send(ConversationItemCreate(item=output))


def _not_run(call: RunTool, reason: str) -> ToolResult:
    return ToolResult(call.turn, call.call_id, call.tool, f'{{"error": "{reason}"}}', failed=True, duration_ms=0.0)
