"""The conversation's side of tools: a completed function call leads to one run, one output and one record.

A part of the conversation's step, synchronous. The invariant: what a tool found is told the model once on each
connection, and asked to be spoken of once, unless its policy or the user wants silence.
"""

from __future__ import annotations

from typing import assert_never

import attrs
import msgspec
import trio
from msgspec.structs import replace

from trio_voice import events
from trio_voice.barge_in import BargeIn
from trio_voice.handoffs import Handoffs
from trio_voice.hosted_calls import HostedCalls
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, Item
from trio_voice.protocol.history import History
from trio_voice.tool_items import (
    ApprovalWanted,
    ApproverDecided,
    RunTool,
    ToolBegun,
    ToolNews,
    ToolProgressed,
    ToolResult,
    ToolStarted,
)
from trio_voice.tool_ledger import ToolLedger
from trio_voice.tracker import ConversationTracker, ToolUse


@attrs.define(eq=False)
class ToolCalls:
    """Every verb of it is synchronous."""

    outbox: Outbox
    tracker: ConversationTracker
    barge_in: BargeIn
    history: History
    ledger: ToolLedger = attrs.Factory(ToolLedger)
    hosted: HostedCalls = attrs.field(init=False)
    """Calls that the server makes itself: in the same ledger."""
    handoffs: Handoffs = attrs.field(init=False)
    """Set by the conductor: the two know each other."""
    progress: ToolProgressed | None = None
    """The newest word of a tool that runs, to be said aloud."""

    def __attrs_post_init__(self) -> None:
        self.hosted = HostedCalls(self.outbox, self.tracker, self.barge_in, self.ledger, agent=self._agent)

    def _agent(self) -> str:
        return self.handoffs.in_charge.agent.name

    def called(self, turn: int, item: Item) -> None:
        """A function call is complete: run it, once, unless its turn was interrupted before."""
        if item.status in ("incomplete", "in_progress") or not item.call_id or not self.ledger.begin(item.call_id):
            return
        if item.id and self.history.is_gone(item.id):
            self.ledger.spend(item.call_id)
            return
        call = RunTool(turn, item.call_id, item.name or "", item.arguments or "{}")
        if turn <= self.barge_in.floor:
            self.finish(_not_run(call, "cancelled: the answer was interrupted before the tool was started"))
            return
        refusal = self.handoffs.refusal(turn, call.call_id, call.tool)
        if refusal is not None:
            self.finish(_not_run(call, refusal))
            return
        try:
            self.outbox.run_tool(call)
        except trio.WouldBlock:
            self.handoffs.not_begun(call.call_id)
            self.finish(_not_run(call, "too many tools are waiting already; try again later"))

    def take(self, news: ToolNews) -> None:
        """What the executor says."""
        match news:
            case ToolStarted():
                self._started(news)
            case ApprovalWanted():
                self._approval_wanted(news)
            case ToolBegun():
                self._begun(news)
            case ToolProgressed():
                self._progressed(news)
            case ToolResult():
                if not self.handoffs.takes(news):
                    self.finish(news)
            case ApproverDecided():
                self.hosted.decided(news)
            case _:
                assert_never(news)

    def due_progress(self) -> str | None:
        """What is to be said of a tool's progress now that nobody speaks; None when there is nothing, or no more."""
        news, self.progress = self.progress, None
        if news is None or not self.ledger.is_open(news.call_id) or self._is_quiet(news):
            return None
        return news.text

    def _started(self, news: ToolStarted) -> None:
        now, turn, call_id, arguments = self.outbox.now, news.turn, news.call_id, news.arguments
        self.tracker.tool_changed(ToolUse(call_id, news.tool, arguments), now)
        self.outbox.emit(events.ToolCalled(at=now, turn=turn, call_id=call_id, tool=news.tool, arguments=arguments))

    def _approval_wanted(self, news: ApprovalWanted) -> None:
        self.outbox.emit(
            events.ToolApproval(
                at=self.outbox.now,
                turn=news.turn,
                call_id=news.call_id,
                tool=news.tool,
                arguments=news.arguments,
                agent=news.agent,
            )
        )

    def _begun(self, news: ToolBegun) -> None:
        """It goes on in the background: the call is answered, and what it finds will be a message."""
        if self.ledger.to_background(news.call_id, news.output):
            self._tell_output(news.call_id, news.output)
            if news.turn > self.barge_in.hushed and not self.ledger.is_forgotten(news.call_id):
                self.ledger.owed.add(news.call_id)

    def _progressed(self, news: ToolProgressed) -> None:
        news.taken = True
        if not self.ledger.is_open(news.call_id) or self.ledger.is_forgotten(news.call_id):
            return
        self.progress = replace(news)
        self.outbox.emit(
            events.ToolProgress(
                at=self.outbox.now, turn=news.turn, call_id=news.call_id, tool=news.tool, text=news.text
            )
        )

    def finish(self, result: ToolResult) -> None:
        """Tell the model, the record and the application. An answer is owed, unless somebody wanted silence."""
        forgotten = self.ledger.is_forgotten(result.call_id)
        if self.ledger.finish(result.call_id, result.output):
            self._tell_output(result.call_id, result.output)
            told = None if self._is_quiet(result) or result.turn <= self.barge_in.hushed else result.call_id
        elif self.ledger.finish_later(result.call_id):
            told = None if forgotten else self._tell_later(result)
            # The conversation has gone on since the call: who interrupted it did not speak of this.
            told = None if self._is_quiet(result) else told
        else:
            return
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
        if told is not None and not forgotten:
            self.ledger.owed.add(told)

    def _tell_output(self, call_id: str, output: str) -> None:
        if self.ledger.is_forgotten(call_id):
            return
        item = Item.function_call_output(call_id, output, id=self.history.new_id("output"))
        self.history.add(item)
        self.outbox.send(ConversationItemCreate(item=item))

    def _tell_later(self, result: ToolResult) -> str:
        """With an id of our own, and recorded at once: it survives a loss that comes before the server's echo."""
        item_id = self.history.new_id("result")
        ended = "has failed" if result.failed else "has finished"
        call = msgspec.json.encode(result.call_id).decode()
        text = f"The tool {result.tool} (call {call}), which worked in the background, {ended}: {result.output}"
        item = Item.system_text(text, id=item_id)
        self.history.add(item)
        self.outbox.send(ConversationItemCreate(item=item))
        return item_id

    def _is_quiet(self, news: ToolProgressed | ToolResult) -> bool:
        """Its policy wants silence."""
        interrupted = news.turn <= self.barge_in.floor
        return (isinstance(news, ToolResult) and news.quiet) or (news.quiet_if_interrupted and interrupted)


def _not_run(call: RunTool, reason: str) -> ToolResult:
    return ToolResult(call.turn, call.call_id, call.tool, f'{{"error": "{reason}"}}', failed=True, duration_ms=0.0)
