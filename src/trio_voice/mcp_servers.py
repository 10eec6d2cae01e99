"""Where an agent's MCP tools come from: servers that the model's side calls (hosted), and servers that we run or reach.

Core ring: values, and what tools are called when several servers bring them. `mcp_client.py` talks to the local ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs
from msgspec import UNSET

from trio_voice.errors import ConfigError
from trio_voice.protocol.items import Tool

Approval: TypeAlias = Literal["always", "never"]
CONNECTOR = re.compile(r"connector_[a-z]+")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LABELS = "it is a letter and up to 63 letters, digits, _ or -"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
LONGEST_NAME = 64


def _names(given: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(given, str):
        raise ConfigError(f"a list is wanted, not the text {given!r}; write [{given!r}]")
    return None if given is None else tuple(given)


def _words(given: Iterable[str]) -> tuple[str, ...]:
    return _names(given) or ()


def _pairs(given: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    if given is None:
        return ()
    pairs = given.items() if isinstance(given, Mapping) else given
    return tuple((str(name), str(value)) for name, value in pairs)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check_url(owner: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    _require(good, f"{owner}: {url!r} is no address of an MCP server; it looks like https://HOST/mcp")


@attrs.frozen
class HostedMcpTool:
    """The tools of an MCP server that the Realtime server itself calls; put it among an agent's `tools`.

    The server lists them when it is configured (`McpToolsListed`), calls them without our doing (`ToolCalled`,
    `ToolFinished`), and asks first where `require_approval` says so (`ToolApproval`).

    Raises: `ConfigError` for what no server would take.
    """

    server_label: str
    """What the model and events call the server."""
    server_url: str | None = None
    connector_id: str | None = None
    """A connector of OpenAI's, such as `connector_googlecalendar`, in place of a URL."""
    authorization: str | None = attrs.field(default=None, repr=False)
    """An OAuth access token for it."""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs, repr=False)
    """Sent by the Realtime server with each request to the MCP server; a mapping will do."""
    allowed_tools: tuple[str, ...] | None = attrs.field(default=None, converter=_names)
    """None: all of them."""
    require_approval: Approval | Mapping[Approval, Iterable[str]] = "always"
    """`always`, `never`, or the names of the tools of either kind: `{"never": ["search"]}`; others need approval."""
    server_description: str | None = None

    def __attrs_post_init__(self) -> None:
        owner = f"HostedMcpTool {self.server_label!r}"
        _require(
            bool(_LABEL.fullmatch(self.server_label)),
            f"{owner}: the label cannot be; {_LABELS}",
        )
        _require(
            (self.server_url is None) != (self.connector_id is None),
            f"{owner} needs either server_url or connector_id, and not both",
        )
        if self.server_url is not None:
            _check_url(owner, self.server_url)
        if self.connector_id is not None:
            _require(
                bool(CONNECTOR.fullmatch(self.connector_id)),
                f"{owner}: connector_id={self.connector_id!r} is none; they look like connector_googlecalendar",
            )
            _require(
                bool(self.authorization), f"{owner}: a connector needs authorization, the user's OAuth access token"
            )
        _require(
            self.allowed_tools != (), f"{owner}: allowed_tools is empty; None allows all, else leave the server out"
        )
        wanted = self.require_approval
        if isinstance(wanted, str):
            _require(
                wanted in ("always", "never"),
                f"{owner}: require_approval={wanted!r} is not known; it is 'always', 'never' or names by either",
            )
            return
        _require(
            bool(wanted) and set(wanted) <= {"always", "never"},
            f"{owner}: require_approval has the keys {sorted(wanted)}; they are 'always' and 'never'",
        )
        for names in wanted.values():
            _names(names)

    @property
    def name(self) -> str:
        return self.server_label

    def wire_tool(self) -> Tool:
        approval: str | dict[str, Any]
        if isinstance(self.require_approval, str):
            approval = self.require_approval
        else:
            approval = {kind: {"tool_names": list(names)} for kind, names in self.require_approval.items()}
        return Tool(
            type="mcp",
            server_label=self.server_label,
            server_url=self.server_url or UNSET,
            server_description=self.server_description or UNSET,
            connector_id=self.connector_id or UNSET,
            authorization=self.authorization or UNSET,
            headers=dict(self.headers) or UNSET,
            allowed_tools=list(self.allowed_tools) if self.allowed_tools is not None else UNSET,
            require_approval=approval,
        )


@attrs.frozen(kw_only=True)
class _LocalServer:
    """What both kinds of local server have. Needs the extra `[mcp]`."""

    name: str = ""
    """In events, errors, and in front of a tool's name that another server has too."""
    allowed_tools: tuple[str, ...] | None = attrs.field(default=None, converter=_names)
    """As the server names them. None: all of them."""
    timeout_s: float = 60.0
    """For one call; after it the model is told that the tool took too long."""
    start_timeout_s: float = 15.0
    """Until the server has said which tools it has. Longer, and the session does not begin."""

    def _check(self, owner: str) -> None:
        _require(
            bool(_LABEL.fullmatch(self.name)),
            f"{owner}: name={self.name!r} cannot be; {_LABELS}",
        )
        _require(0 < self.timeout_s <= 3600, f"{owner}: timeout_s={self.timeout_s} is outside 0..3600; 60 is usual")
        _require(
            0 < self.start_timeout_s <= 600,
            f"{owner}: start_timeout_s={self.start_timeout_s} is outside 0..600; 15 is usual",
        )
        _require(
            self.allowed_tools != (), f"{owner}: allowed_tools is empty; None allows all, else leave the server out"
        )


def _label_of(text: str) -> str:
    cleaned = _NOT_IN_NAMES.sub("_", text).lstrip("_-0123456789")[:LONGEST_NAME]
    return cleaned or "mcp"


def _host_of(url: str) -> str:
    _check_url("McpServerHttp", url)
    return urlsplit(url).hostname or ""


@attrs.frozen(kw_only=True)
class McpServerStdio(_LocalServer):
    """An MCP server that the session runs as a process of its own, and ends with itself.

    One that dies is started again, with growing pauses; meanwhile its tools answer with an error. It inherits `PATH`,
    `HOME` and a few more of our environment, not the rest: give it what it needs in `env`.

    Raises: `ConfigError` for settings that cannot work.
    """

    command: str = attrs.field(kw_only=False)
    args: tuple[str, ...] = attrs.field(default=(), converter=_words, kw_only=False)
    env: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs, repr=False, kw_only=False)
    """Added to what it inherits; a mapping will do."""
    cwd: str | None = attrs.field(default=None, converter=attrs.converters.optional(str))
    name: str = attrs.Factory(lambda self: _label_of(PurePath(self.command).stem), takes_self=True)
    """By default the command's."""

    def __attrs_post_init__(self) -> None:
        _require(bool(self.command), "McpServerStdio needs a command, the program that it runs")
        texts = (self.command, *self.args, *(word for pair in self.env for word in pair))
        _require(
            not any("\0" in text for text in texts),
            f"McpServerStdio {self.name!r}: command, args and env must be without NUL, which no program takes",
        )
        self._check(f"McpServerStdio {self.command!r}")


@attrs.frozen(kw_only=True)
class McpServerHttp(_LocalServer):
    """An MCP server that is reached by streamable HTTP.

    One that fails is connected to again, with growing pauses; meanwhile its tools answer with an error.

    Raises: `ConfigError` for settings that cannot work.
    """

    url: str = attrs.field(kw_only=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs, repr=False, kw_only=False)
    """Sent with each request: `{"Authorization": "Bearer …"}`; a mapping will do."""
    name: str = attrs.Factory(lambda self: _label_of(_host_of(self.url)), takes_self=True)
    """By default the host's."""

    def __attrs_post_init__(self) -> None:
        _check_url("McpServerHttp", self.url)
        self._check(f"McpServerHttp {self.url!r}")


McpServer: TypeAlias = McpServerStdio | McpServerHttp


@attrs.frozen
class ListedTool:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: dict[str, Any] = attrs.field(repr=False)


def offered_name(tool: str, server: str, taken: Collection[str]) -> str | None:
    """What the model calls `tool` of `server`: its own name, or behind its server's where `taken` has that already.

    None when both are taken. Letters that no tool's name may have become `_`.
    """
    own = _NOT_IN_NAMES.sub("_", tool)[:LONGEST_NAME]
    prefixed = _NOT_IN_NAMES.sub("_", f"{server}_{tool}")[:LONGEST_NAME]
    return next((name for name in (own, prefixed) if name and name not in taken), None)
