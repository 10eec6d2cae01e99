"""Which tools the model may call at present: those of the agent in charge, and what its local MCP servers have.

A part of the conversation's step, synchronous. The invariant: what the server was told of is what the executor runs,
for every turn that begins after the server has taken it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from trio_voice import events
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.mcp_tools import McpTools
from trio_voice.outbox import Outbox
from trio_voice.protocol import SessionUpdate
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_items import OfferTools


class ToolOffer(Struct, eq=False):
    outbox: Outbox
    in_charge: AgentInCharge
    detection: ServerDetection
    _told: int = 0

    def take(self, news: McpTools, turn: int) -> None:
        """A local MCP server has other tools than before, or is gone and being started again. `turn`: the newest."""
        status: Literal["failed", "completed"] = "completed" if news.failure is None else "failed"
        names = tuple(tool.name for tool in news.tools)
        now, server, reason = self.outbox.now, news.server.name, news.failure
        self.outbox.emit(events.McpToolsListed(at=now, server=server, status=status, tools=names, reason=reason))
        if self._retool():
            self.run_after(turn)

    def agent_changed(self, turn: int) -> None:
        """Another agent is in charge. What its servers have may have changed since it was asked for."""
        self.run_after(turn)
        self._retool()

    def run_after(self, turn: int) -> None:
        """Calls of later turns are for these."""
        self.outbox.run_tool(OfferTools(turn, self.in_charge.equipped.runnable, self.in_charge.agent))

    def _retool(self) -> bool:
        """Tell the server of tools that it does not know. In an outage the next configuration does."""
        config = self.in_charge.retooled()
        if config is not None and self.outbox.is_open:
            self._told += 1
            self.detection.said_more()
            self.outbox.send(SessionUpdate(event_id=f"tools_{self._told}", session=config))
        return config is not None
