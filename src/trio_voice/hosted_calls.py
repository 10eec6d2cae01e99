"""MCP servers that the Realtime server calls by itself: what it tells of them, and what it has to be allowed.

A part of the conversation's step, synchronous. The invariant: each of its calls is recorded once, from its beginning to
its output or its loss, and an approval is answered on the connection that asked for it or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import trio
from msgspec import Struct, field

from trio_voice import events
from trio_voice.barge_in import BargeIn
from trio_voice.channels import Command
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, Item, server_events as on
from trio_voice.tool_items import ApproverDecided, AskApprover
from trio_voice.tool_ledger import ToolLedger
from trio_voice.tracker import ConversationTracker, ToolUse

LOST = '{"error": "the connection was lost before the tool answered; it may have done what it was asked to do"}'
NOT_ASKED = '{"error": "not run: the connection was lost before it was approved; call it again if it is wanted"}'


class _Listing(Struct, eq=False):
    """What a server is asked for at its beginning."""

    server: str = ""
    tools: tuple[str, ...] = ()
    is_complete: bool = False
    is_known: bool = False
    """Its item is done: the tools are all there."""
    told: bool = False


class _Call(Struct, eq=False):
    turn: int
    tool: str = ""
    arguments: str = ""
    request_id: str = ""
    """Of the approval that it needed."""
    began_at: float | None = None
    is_over: bool = False
    told: bool = False


class HostedCalls(Struct, eq=False):
    outbox: Outbox
    tracker: ConversationTracker
    barge_in: BargeIn
    ledger: ToolLedger
    agent: Callable[[], str]
    """The name of who makes the calls."""
    _listings: dict[str, _Listing] = field(default_factory=dict)
    _calls: dict[str, _Call] = field(default_factory=dict)
    _asked: dict[str, _Call] = field(default_factory=dict)
    """By the id of the request: calls that wait for an approval."""
    _approved: dict[str, _Call] = field(default_factory=dict)
    """The same, of those that have it and have not begun."""
    _answers: int = 0
    _turn: int = 0
    """The one that the server spoke of last."""
    _turns: dict[str, int] = field(default_factory=dict)
    """Of items. Not every event of an item names its response."""

    def take(self, turn: int | None, event: object) -> bool:
        """What the server says. Returns whether a call has ended: perhaps there is something to speak of."""
        owed = len(self.ledger.owed)
        self._turn = self._turn if turn is None else turn
        match event:
            case (
                on.ConversationItemAdded()
                | on.ConversationItemCreated()
                | on.ConversationItemDone()
                | on.ResponseOutputItemAdded()
                | on.ResponseOutputItemDone()
            ):
                if event.item.type.startswith("mcp_") and event.item.id:
                    is_done = isinstance(event, on.ConversationItemDone | on.ResponseOutputItemDone)
                    self._turns.setdefault(event.item.id, self._turn)
                    self._item(event.item.id, event.item, is_done=is_done)
            case on.McpListToolsInProgress():
                self._listing(event.item_id)
                self._tell_listing(event.item_id, "in_progress")
            case on.McpListToolsCompleted():
                self._listing(event.item_id).is_complete = True
                self._listed(event.item_id)
            case on.McpListToolsFailed():
                self._tell_listing(event.item_id, "failed")
            case on.ResponseMcpCallArgumentsDone():
                self._call(event.item_id).arguments = event.arguments
            case on.ResponseMcpCallInProgress():
                self._begin(event.item_id)
            case on.ResponseMcpCallCompleted() | on.ResponseMcpCallFailed():
                self._begin(event.item_id)
                failed = isinstance(event, on.ResponseMcpCallFailed)
                self._over(event.item_id, '{"error": "the MCP server failed"}' if failed else "")
        return len(self.ledger.owed) > owed

    def judge(self, command: Command) -> bool:
        """The application approves or rejects. False when it is not about a call of these that waits."""
        if not self._decide(command.call_id, command.do == "approve", command.text):
            return False
        command.in_time = True
        command.done.set()
        return True

    def decided(self, news: ApproverDecided) -> None:
        """The session's approver has an answer."""
        self._decide(news.call_id, news.given, news.reason)

    def connection_gone(self) -> None:
        """The next server knows nothing of what this one was about to do. The model is told, and asked what now."""
        for request_id, call in self._asked.items():
            self._finish(request_id, call, NOT_ASKED, failed=True)
        for item_id, call in (*self._approved.items(), *self._calls.items()):
            if not call.is_over:
                self._finish(item_id, call, LOST, failed=True)
            elif call.began_at is not None and not call.told:
                self._tell(call.request_id or item_id, call, "", failed=False)
        for known in (self._asked, self._approved, self._calls, self._listings, self._turns):
            known.clear()

    # --- items ------------------------------------------------------------------------------------

    def _item(self, item_id: str, item: Item, *, is_done: bool) -> None:
        match item.type:
            case "mcp_list_tools":
                listing = self._listing(item_id)
                listing.server = item.server_label or listing.server
                listing.tools = tuple(str(tool.get("name", "")) for tool in item.tools or ()) or listing.tools
                listing.is_known = is_done
                self._listed(item_id)
            case "mcp_approval_request":
                if is_done and item_id not in self._asked and self.ledger.begin(item_id):
                    self._ask(item_id, _Call(self._turns[item_id], item.name or "", item.arguments or "{}"))
            case "mcp_call":
                call = self._call(item_id)
                call.tool, call.arguments = item.name or call.tool, item.arguments or call.arguments
                request_id = item.approval_request_id or ""
                if request_id in self._approved and call.began_at is None:
                    call.request_id, call.turn = request_id, self._approved.pop(request_id).turn
                output = msgspec.json.encode({"error": item.error}).decode() if item.error else item.output
                if isinstance(output, str):
                    self._said(item_id, output, failed=bool(item.error))
                    asked = self._approved.pop(request_id, None)
                    if asked is not None and self.ledger.finish(request_id, output):
                        # It began before it was allowed, under its own id: the application knows of both.
                        self._tell(request_id, asked, output, failed=bool(item.error))

    # --- what is kept -----------------------------------------------------------------------------

    def is_open(self, item_id: str) -> bool:
        """It has begun, and what it gave is not known yet."""
        call = self._calls.get(item_id)
        return call is not None and call.began_at is not None and not call.told

    def forget(self, item_id: str) -> None:
        self._calls.pop(item_id, None)
        self._turns.pop(item_id, None)
        if item_id in self._listings and self._listings[item_id].told:
            del self._listings[item_id]

    # --- listings ---------------------------------------------------------------------------------

    def _listing(self, item_id: str) -> _Listing:
        return self._listings.setdefault(item_id, _Listing())

    def _listed(self, item_id: str) -> None:
        listing = self._listings[item_id]
        if listing.is_complete and listing.is_known and not listing.told:
            listing.told = True
            self._tell_listing(item_id, "completed")

    def _tell_listing(self, item_id: str, status: Literal["in_progress", "completed", "failed"]) -> None:
        listing = self._listing(item_id)
        told = events.McpToolsListed(at=self.outbox.now, server=listing.server, status=status, tools=listing.tools)
        self.outbox.emit(told)

    # --- calls ------------------------------------------------------------------------------------

    def _call(self, item_id: str) -> _Call:
        return self._calls.setdefault(item_id, _Call(self._turns.get(item_id, self._turn)))

    def _begin(self, item_id: str) -> None:
        """The server makes the call, or has made it."""
        call = self._call(item_id)
        if call.began_at is None and self._is_new(item_id, call):
            call.began_at = self.outbox.now
            self._called(item_id, call)

    def _is_new(self, item_id: str, call: _Call) -> bool:
        """A call that was approved goes on under the id of its request, as the application knows it."""
        if call.request_id:
            return self.ledger.results.get(call.request_id, "") is None
        return self.ledger.begin(item_id)

    def _called(self, call_id: str, call: _Call) -> None:
        if not call.request_id:
            now = self.outbox.now
            self.tracker.tool_changed(ToolUse(call_id, call.tool, call.arguments), now)
            self.outbox.emit(
                events.ToolCalled(at=now, turn=call.turn, call_id=call_id, tool=call.tool, arguments=call.arguments)
            )

    def _over(self, item_id: str, output: str) -> None:
        """It has ended; what it gave comes with its item, and the server has it already: no reason to wait."""
        call = self._call(item_id)
        if not call.is_over:
            call.is_over = True
            call_id = call.request_id or item_id
            if self.ledger.finish(call_id, output) and call.turn > self.barge_in.hushed:
                self.ledger.owed.add(call_id)
                self.ledger.arrived(call_id)

    def _said(self, item_id: str, output: str, *, failed: bool) -> None:
        """The item of the call has its output."""
        call = self._call(item_id)
        self._begin(item_id)
        self._over(item_id, output)
        if call.began_at is not None and not call.told:
            call.told = True
            call_id = call.request_id or item_id
            self.ledger.amend(call_id, output)
            self._tell(call_id, call, output, failed=failed)

    def _finish(self, call_id: str, call: _Call, output: str, *, failed: bool) -> None:
        """It ends otherwise than by the server's word."""
        call_id = call.request_id or call_id
        if self.ledger.finish(call_id, output):
            if call.turn > self.barge_in.hushed:
                self.ledger.owed.add(call_id)
            self._tell(call_id, call, output, failed=failed)

    def _tell(self, call_id: str, call: _Call, output: str, *, failed: bool) -> None:
        now = self.outbox.now
        duration_ms = (now - call.began_at) * 1000 if call.began_at is not None else 0.0
        self.tracker.tool_finished(ToolUse(call_id, call.tool, call.arguments, output, failed, duration_ms), now)
        self.outbox.emit(
            events.ToolFinished(
                at=now,
                turn=call.turn,
                call_id=call_id,
                tool=call.tool,
                output=output,
                failed=failed,
                duration_ms=duration_ms,
            )
        )

    # --- approvals --------------------------------------------------------------------------------

    def _ask(self, request_id: str, call: _Call) -> None:
        self._asked[request_id] = call
        self._called(request_id, call)
        asked = events.ToolApproval(
            at=self.outbox.now,
            turn=call.turn,
            call_id=request_id,
            tool=call.tool,
            arguments=call.arguments,
            agent=self.agent(),
        )
        self.outbox.emit(asked)
        try:
            self.outbox.run_tool(AskApprover(asked))
        except trio.WouldBlock:
            self._decide(request_id, False, "too many tools are waiting already")

    def _decide(self, request_id: str, given: bool, reason: str) -> bool:
        call = self._asked.pop(request_id, None)
        if call is None:
            return False
        self._answers += 1
        answer = Item.mcp_approval_response(
            request_id, given, id=f"approval_{self._answers}", reason=reason or msgspec.UNSET
        )
        self.outbox.send(ConversationItemCreate(item=answer))
        if given:
            call.request_id = request_id
            self._approved[request_id] = call
        else:
            told = "not approved" + (f": {reason}" if reason else "")
            self._finish(request_id, call, msgspec.json.encode({"error": told}).decode(), failed=True)
        return True
