"""One local MCP server of a session: connected, asked for its tools, called, and connected again when it fails.

Edge, beside the signal path; with `mcp_process.py` the only import of the mcp package, which the extra `[mcp]`
installs. The package's contexts are cancel scopes, so each connection is entered and left in one task, and its calls
run in tasks beside it.
The invariant: whatever the server does, each call is answered and the session goes on.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import trio

from trio_voice.channels import InboxItem, offer
from trio_voice.errors import ConfigError, McpServerError, cause_of
from trio_voice.logs import log
from trio_voice.mcp_process import ServerProcess, transport
from trio_voice.mcp_servers import ListedTool, McpServer, McpServerStdio
from trio_voice.mcp_tools import McpCall, McpToolbox, McpTools
from trio_voice.restart_policy import Attempts, Backoff

if TYPE_CHECKING:
    from mcp import Client

HEALTHY_AFTER_S = 10.0
BACKOFF = Backoff(max_attempts=10**9, first_delay_s=0.5, multiplier=2.0)
"""It never gives up: the conversation goes on without these tools."""
MOST_PAGES = 100
"""Of a listing of tools: a server whose pages do not end is not to hold up the session for ever."""
_MISSING = (
    "agents with mcp_servers need the mcp package, which is not installed ({reason}). Install it: "
    "pip install 'trio-voice[mcp]'"
)


async def start(
    servers: Iterable[McpServer],
    toolbox: McpToolbox,
    reports: trio.MemorySendChannel[InboxItem],
    nursery: trio.Nursery,
    rng: random.Random,
) -> None:
    """Run all of `servers` in `nursery`. Returns when the tools of each are in `toolbox`.

    Raises: `McpServerError` for one that does not start, `ConfigError` without the extra `[mcp]`.
    """
    await trio.to_thread.run_sync(_load)  # most of a second, in which others may go on

    async def begin(server: McpServer, calls: trio.MemoryReceiveChannel[McpCall]) -> None:
        try:
            await nursery.start(run, server, calls, toolbox, reports.clone(), rng)
        except BaseException:
            toolbox.forget(server)
            raise

    try:
        async with trio.open_nursery() as starting:
            for server in servers:
                starting.start_soon(begin, server, toolbox.open(server))
    except ExceptionGroup as group:
        raise cause_of(group) from None


def _load() -> None:
    try:
        import mcp  # noqa: F401 - for its effect: the next import finds it loaded
    except ImportError as error:
        raise ConfigError(_MISSING.format(reason=error)) from error


async def run(
    server: McpServer,
    calls: trio.MemoryReceiveChannel[McpCall],
    toolbox: McpToolbox,
    reports: trio.MemorySendChannel[InboxItem],
    rng: random.Random,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep `server` connected until cancelled. Started once its tools are in `toolbox`.

    Raises: `McpServerError` when it does not start the first time. Later failures are told in `reports`.
    Cancellation: ends its process, within a second.
    Closes: `reports`.
    """
    keeper = _Keeper(server, toolbox, reports, task_status)
    attempts = Attempts(HEALTHY_AFTER_S)
    with reports, calls:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.hand_out, calls)
            while True:
                began_at = trio.current_time()
                life = _Life()
                await keeper.live(life)
                if not keeper.started:
                    raise McpServerError(keeper.told_of(life))
                log.warning("mcp_server.lost", server=server.name, reason=life.reason, said=life.process.said[-500:])
                offer(reports, McpTools(server, failure=keeper.told_of(life)))
                attempt = attempts.next(trio.current_time() - began_at)
                await trio.sleep(BACKOFF.delay_s(attempt, rng) or 0.0)


@attrs.define(eq=False)
class _Life:
    """One connection to a server, from its start to its end."""

    process: ServerProcess = attrs.Factory(ServerProcess)
    reason: str = ""
    """Why it ended."""
    gone: trio.Event = attrs.Factory(trio.Event)
    changed: trio.Event = attrs.Factory(trio.Event)
    """The server says that it has other tools now."""

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.gone.set()


@attrs.define(eq=False)
class _Keeper:
    server: McpServer
    toolbox: McpToolbox
    reports: trio.MemorySendChannel[InboxItem]
    task_status: trio.TaskStatus[None]
    started: bool = False
    _open: tuple[_Life, Client, trio.Nursery] | None = None
    """The life that takes calls at present, and where they run."""

    def told_of(self, life: _Life) -> str:
        said = f"; on stderr it said: {life.process.said}" if life.process.said else ""
        verb = "failed" if self.started else "did not start"
        return f"the MCP server {self.server.name!r} {verb}: {life.reason}{said}"

    # --- its connection ---------------------------------------------------------------------------

    async def live(self, life: _Life) -> None:
        """Connect, and stay so until the server is gone. Raises nothing but cancellation: see `life.reason`."""
        scope = trio.CancelScope(deadline=trio.current_time() + self.server.start_timeout_s)
        try:
            with scope:
                async with trio.open_nursery() as nursery, self._client(life) as client:
                    self._listed(await _all_tools(client))
                    scope.deadline = math.inf
                    self._open = (life, client, nursery)
                    if not self.started:
                        self.started = True
                        self.task_status.started()
                    nursery.start_soon(self._follow, life, client)
                    await life.gone.wait()
                    self._open = None
                    nursery.cancel_scope.cancel()
        except* Exception as group:  # of the package, of the network, of the server: any of them is its end
            life.end(_said_by(group))
        finally:
            self._open = None
        if scope.cancelled_caught and not life.reason:
            life.end(f"it did not answer within {self.server.start_timeout_s:g} s")

    @asynccontextmanager
    async def _client(self, life: _Life) -> AsyncIterator[Client]:
        import mcp_types
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        async def notice(message: object) -> None:
            await trio.lowlevel.checkpoint()
            if isinstance(message, mcp_types.ToolListChangedNotification):
                life.changed.set()

        known_as = mcp_types.Implementation(name="trio-voice", version=_version())
        if isinstance(self.server, McpServerStdio):
            messages = transport(self.server, life.process, life.end)
            async with Client(messages, message_handler=notice, client_info=known_as, cache=None) as client:
                yield client
            return
        async with create_mcp_http_client(headers=dict(self.server.headers)) as http:
            messages = streamable_http_client(self.server.url, http_client=http)
            async with Client(messages, message_handler=notice, client_info=known_as, cache=None) as client:
                yield client

    def _listed(self, tools: list[ListedTool]) -> None:
        allowed = self.server.allowed_tools
        for name in set(allowed or ()) - {tool.name for tool in tools}:
            log.warning("mcp_server.tool_missing", server=self.server.name, tool=name)
        kept = tuple(tool for tool in tools if allowed is None or tool.name in allowed)
        self.toolbox.listed[self.server] = kept
        offer(self.reports, McpTools(self.server, kept))

    async def _follow(self, life: _Life, client: Client) -> None:
        """Ask for the tools again whenever the server says that they have changed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, life, client)
            while True:
                await life.changed.wait()
                life.changed = trio.Event()
                self._listed(await _all_tools(client))

    async def _listen(self, life: _Life, client: Client) -> None:
        """Newer servers tell of changes only to those who listen; from others the news comes by itself."""
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        offered = client.server_capabilities.tools
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS and offered is not None and offered.list_changed:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    life.changed.set()

    # --- its calls --------------------------------------------------------------------------------

    async def hand_out(self, calls: trio.MemoryReceiveChannel[McpCall]) -> None:
        async for call in calls:
            if self._open is None:
                call.answer(
                    f"the MCP server {self.server.name!r} is not running; it is being started again", failed=True
                )
            else:
                life, client, nursery = self._open
                nursery.start_soon(self._call, life, client, call)

    async def _call(self, life: _Life, client: Client, call: McpCall) -> None:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED

        try:
            with call.scope:
                arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
                result = await client.call_tool(call.tool, arguments)
                call.answer(_text_of(result), failed=result.is_error)
        except msgspec.MsgspecError as error:
            call.answer(f"the arguments are no JSON object: {error}", failed=True)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                await life.gone.wait()
            else:
                call.answer(f"the MCP server {self.server.name!r} refused the call: {error}", failed=True)
        except Exception as error:  # of the network, or a result that is not what the tool's schema promises
            call.answer(f"the call failed: {type(error).__name__}: {error}", failed=True)
        finally:
            lost = life.reason or "the connection was lost"
            call.answer(
                f"the MCP server {self.server.name!r} was lost before it answered ({lost}); it may have done what it "
                "was asked to do",
                failed=True,
            )


async def _all_tools(client: Client) -> list[ListedTool]:
    tools: list[ListedTool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += [
            ListedTool(tool.name, tool.description or tool.title or tool.name, tool.input_schema) for tool in page.tools
        ]
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def _text_of(result: Any) -> str:
    """What the model is told: the texts; a structure that they do not show, as JSON; the rest by its kind."""
    parts = [_part(content) for content in result.content]
    structure = result.structured_content
    if structure is not None and not _shown(structure, parts):
        parts.append(msgspec.json.encode(structure).decode())
    return "\n".join(parts)


def _part(content: Any) -> str:
    match content.type:
        case "text":
            return str(content.text)
        case "image" | "audio":
            return f"[{content.type}, {content.mime_type}, {len(content.data) * 3 // 4} bytes: it cannot be shown here]"
        case "resource_link":
            return f"[resource {content.name}: {content.uri}]"
        case "resource":
            inner = content.resource
            text = getattr(inner, "text", None)
            return str(text) if text is not None else f"[resource {inner.uri}, {inner.mime_type or 'binary'}]"
    return f"[{content.type}]"


def _shown(structure: Any, parts: list[str]) -> bool:
    """Whether the texts say all of it: servers send both, for clients that read only one."""
    if isinstance(structure, dict) and set(structure) == {"result"}:
        inner = structure["result"]
        if isinstance(inner, str | int | float | bool) or inner is None:
            return bool(parts)
        structure = inner
    for text in ("\n".join(parts), f"[{','.join(parts)}]"):
        try:
            if text and msgspec.json.decode(text) == structure:
                return True
        except msgspec.DecodeError:
            continue
    return isinstance(structure, list) and parts == [str(value) for value in structure]


def _said_by(group: BaseExceptionGroup[Exception]) -> str:
    """The first error in a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _version() -> str:
    from importlib.metadata import version

    return version("trio-voice")
