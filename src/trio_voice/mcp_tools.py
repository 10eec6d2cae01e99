"""Tools of local MCP servers, as the executor and the model see them: a call goes to the server's task by a channel.

    tool executor ── McpCall ──> the server's task (`mcp_client.run`) ── McpTools ──> conversation

Actor ring: no import of the mcp package. The invariant: each call is answered, by the server or by its loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs
import trio
from msgspec import Struct, field

from trio_voice.agent import RealtimeAgent
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.agent_tool import AgentTool, ToolContext
from trio_voice.config import AgentCapability
from trio_voice.errors import McpServerError

if TYPE_CHECKING:
    from trio_voice.channels import InboxItem
    from trio_voice.mcp_servers import ListedTool, McpServer

CALLS_CAPACITY = 64


class McpCall(Struct, eq=False):
    """A call for the server's task. `answered` is set once; `failed`: `output` says why."""

    tool: str
    """As the server names it."""
    arguments: str
    output: str = ""
    failed: bool = False
    answered: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Of the request to the server; whoever gives the call up cancels it."""

    def answer(self, output: str, *, failed: bool = False) -> None:
        """The first answer counts."""
        if not self.answered.is_set():
            self.output, self.failed = output, failed
            self.answered.set()


class McpTools(Struct, frozen=True):
    """News of a local server: the tools that it has now. `failure`: it is gone, and is being started again."""

    server: McpServer
    tools: tuple[ListedTool, ...] = ()
    failure: str | None = None


@attrs.frozen(kw_only=True)
class McpTool(AgentTool):
    """One tool of a local server."""

    listed: ListedTool
    calls: trio.MemorySendChannel[McpCall] = attrs.field(eq=False, repr=False)

    async def call(self, context: ToolContext[Any], arguments: str) -> str:
        """Raises: `McpServerError` with what the server said, or why it did not answer."""
        call = McpCall(self.listed.name, arguments)
        try:
            self.calls.send_nowait(call)
        except trio.WouldBlock:
            raise McpServerError("too many calls of this server are waiting; try again later") from None
        try:
            await call.answered.wait()
        finally:
            call.scope.cancel()
        if call.failed:
            raise McpServerError(call.output)
        return call.output


class McpToolbox(Struct, eq=False):
    """Which tools the local servers of a session have at present. Each server's task writes its own; others read."""

    _in_charge: AgentInCharge = field(default_factory=lambda: AgentInCharge(RealtimeAgent()))
    _rng: random.Random = field(default_factory=random.Random)
    calls: dict[McpServer, trio.MemorySendChannel[McpCall]] = field(default_factory=dict)
    listed: dict[McpServer, tuple[ListedTool, ...]] = field(default_factory=dict)
    _home: tuple[trio.MemorySendChannel[InboxItem], trio.Nursery] | None = None
    """Where their news goes, and where they run."""

    def __post_init__(self) -> None:
        self._in_charge.equip = self.equip

    async def begin(self, reports: trio.MemorySendChannel[InboxItem], nursery: trio.Nursery) -> None:
        """Run the servers of the agent in charge in `nursery`. Raises: see `start`."""
        self._home = (reports, nursery)
        await self.start(self._in_charge.agent)

    async def start(self, agent: RealtimeAgent) -> None:
        """Run those servers of `agent` that do not run yet: before a server is told of it, which has to know the tools.
        Nothing happens before `begin`.

        Raises: `McpServerError` for one that does not start, `ConfigError` without the extra `[mcp]`.
        """
        servers = [server for server in servers_of(agent) if server not in self.calls]
        if servers and self._home is not None:
            from trio_voice import mcp_client  # here: its extra need not be there, and is slow to import

            await mcp_client.start(servers, self, *self._home, self._rng)

    def open(self, server: McpServer) -> trio.MemoryReceiveChannel[McpCall]:
        """The way of calls to a server; the receiving end is for its task."""
        self.calls[server], calls = trio.open_memory_channel[McpCall](CALLS_CAPACITY)
        return calls

    def forget(self, server: McpServer) -> None:
        """It did not start."""
        self.calls.pop(server).close()

    def close(self) -> None:
        for calls in self.calls.values():
            calls.close()

    def equip(self, agent: RealtimeAgent) -> RealtimeAgent:
        """The same agent, with what its servers have at present among its tools."""
        if not agent.mcp_servers:
            return agent
        tools = self.tools_for(agent.mcp_servers, [tool.name for tool in agent.offered])
        return attrs.evolve(agent, tools=(*agent.tools, *tools), mcp_servers=())

    def tools_for(self, servers: Iterable[McpServer], taken: Iterable[str]) -> tuple[McpTool, ...]:
        """The tools of `servers`, in their order, under names that are not `taken`."""
        from trio_voice.mcp_servers import offered_name

        names, tools = set(taken), []
        for server in servers:
            for listed in self.listed.get(server, ()):
                name = offered_name(listed.name, server.name, names)
                if name is None:
                    continue
                names.add(name)
                tools.append(
                    McpTool(
                        name=name,
                        description=listed.description,
                        parameters=listed.parameters,
                        timeout_s=server.timeout_s,
                        on_error=_said,
                        listed=listed,
                        calls=self.calls[server],
                    )
                )
        return tuple(tools)


def _said(context: ToolContext[Any], error: Exception) -> str:
    """What the model is told of a failure: what the server said of it, without the kind of our error."""
    return str(error)


def servers_of(agent: RealtimeAgent) -> tuple[McpServer, ...]:
    """The local servers of an agent, and of all to whom it may hand over, each once."""
    reached: list[RealtimeAgent] = [agent]
    servers: dict[McpServer, None] = {}
    for each in reached:
        servers |= dict.fromkeys(each.mcp_servers if each.can(AgentCapability.FUNCTION_CALLING) else ())
        for handoff in each.handoffs:
            if not any(handoff.agent is known for known in reached):
                reached.append(handoff.agent)
    return tuple(servers)
