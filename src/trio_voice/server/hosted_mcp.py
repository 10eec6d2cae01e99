"""MCP servers that the server itself calls, in one client's session: listed, asked for, called, as a brain plays them.

Between the connection and its brain; no MCP server is behind it. The invariant: what needs an approval does not begin
before the client has given it, and each call ends with one `completed` or `failed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import attrs
import trio
from msgspec.structs import replace

from trio_voice.protocol.items import Item, Tool
from trio_voice.protocol.server_events import (
    ConversationItemAdded,
    ConversationItemDone,
    McpListToolsCompleted,
    McpListToolsFailed,
    McpListToolsInProgress,
    ResponseMcpCallCompleted,
    ResponseMcpCallFailed,
    ResponseMcpCallInProgress,
)
from trio_voice.server.conversation_items import ConversationItems, Entry
from trio_voice.server.outbox import Outbox
from trio_voice.server.refusals import Refused


@attrs.frozen
class HostedCall:
    """A call that the server makes of a tool of an MCP server, and what comes of it; `arguments` is JSON as text."""

    server_label: str
    name: str
    arguments: str = "{}"
    output: str = ""
    error: str | None = None
    """The call fails with this."""
    takes_ms: float = 0
    needs_approval: bool = False


@runtime_checkable
class McpLister(Protocol):
    """A brain that knows what the MCP servers of a session have. For any other their listing fails."""

    async def list_mcp_tools(self, server: Tool) -> list[dict[str, Any]] | None:
        """The tools of `server` as the protocol has them; None: it cannot be reached."""


class HostedMcp:
    """One client's."""

    def __init__(self, brain: object, outbox: Outbox, nursery: trio.Nursery, items: ConversationItems) -> None:
        self._brain = brain
        self._outbox = outbox
        self._nursery = nursery
        self._items = items
        self._known: list[Tool] = []
        self._asked: dict[str, HostedCall] = {}

    def configured(self, tools: Sequence[Tool]) -> None:
        """The session has these tools now: servers that are new, or new in what is said of them, are listed."""
        servers = [tool for tool in tools if tool.type == "mcp"]
        new = [server for server in servers if server not in self._known]
        self._known = servers
        for server in new:
            item = Item(
                type="mcp_list_tools", id=self._outbox.ids.new("mcpl"), server_label=server.server_label, tools=[]
            )
            self._nursery.start_soon(self._list, server, self._added(item))

    async def _list(self, server: Tool, entry: Entry) -> None:
        self._outbox.emit(McpListToolsInProgress(item_id=entry.id))
        tools = await self._brain.list_mcp_tools(server) if isinstance(self._brain, McpLister) else None
        if tools is None:
            self._outbox.emit(McpListToolsFailed(item_id=entry.id))
            return
        if isinstance(server.allowed_tools, list):
            tools = [tool for tool in tools if tool["name"] in server.allowed_tools]
        entry.item = replace(entry.item, tools=tools)
        self._outbox.emit(McpListToolsCompleted(item_id=entry.id))
        self._done(entry)

    def begin(self, call: HostedCall, entry: Entry, output_index: int) -> None:
        """A response has called, or has asked whether it may."""
        if call.needs_approval:
            self._asked[entry.id] = call
        else:
            self._nursery.start_soon(self._run, call, entry, output_index)

    def answered(self, response: Item) -> None:
        """The client has approved or rejected. Raises: `Refused` when nobody asked, or it has answered before."""
        call = self._asked.pop(response.approval_request_id or "", None)
        if call is None:
            raise Refused(
                f"No approval is awaited under '{response.approval_request_id}'.", param="item.approval_request_id"
            )
        if response.approve:
            item = Item(
                type="mcp_call",
                id=self._outbox.ids.new("mcp"),
                name=call.name,
                arguments=call.arguments,
                server_label=call.server_label,
                approval_request_id=response.approval_request_id,
            )
            self._nursery.start_soon(self._run, call, self._added(item), 0)

    async def _run(self, call: HostedCall, entry: Entry, output_index: int) -> None:
        self._outbox.emit(ResponseMcpCallInProgress(item_id=entry.id, output_index=output_index))
        await trio.sleep(call.takes_ms / 1000)
        if call.error is None:
            entry.item = replace(entry.item, output=call.output)
            self._outbox.emit(ResponseMcpCallCompleted(item_id=entry.id, output_index=output_index))
        else:
            entry.item = replace(entry.item, error={"type": "tool_execution_error", "message": call.error})
            self._outbox.emit(ResponseMcpCallFailed(item_id=entry.id, output_index=output_index))
        self._done(entry)

    def _added(self, item: Item) -> Entry:
        entry = Entry(item)
        self._outbox.emit(ConversationItemAdded(previous_item_id=self._items.add(entry), item=item))
        return entry

    def _done(self, entry: Entry) -> None:
        previous_id = self._items.previous_id(entry.id)
        self._outbox.emit(ConversationItemDone(previous_item_id=previous_id, item=entry.item))
