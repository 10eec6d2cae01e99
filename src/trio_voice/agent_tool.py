"""What a tool is to everyone but its author: the base of functions, handoffs and the tools of MCP servers.

Core ring: pure. The executor gives each call a `ToolContext`, and knows nothing of tools but what is here.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import attrs

from trio_voice.errors import ConfigError
from trio_voice.protocol.items import Tool

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent

C = TypeVar("C")
T = TypeVar("T")

OnInterrupt: TypeAlias = Literal["finish", "cancel", "finish_silently"]
ResultPolicy: TypeAlias = Literal["answer", "silent", "background"]


async def _in_place(function: Callable[[], Any]) -> Any:
    return function()


@attrs.frozen(eq=False)
class ToolContext(Generic[C]):
    """What a tool may know of its call: a parameter annotated with it is given one, and the model never sees it.

    `ToolContext[MyContext]` says which type the session's `context` has. In a test of a tool one is made by hand:
    `ToolContext(my_context)`.
    """

    context: C
    """The application's own object, as it was given to the session."""
    call_id: str = "call_0"
    tool: str = ""
    turn: int = 0
    """Of the response that made the call."""
    agent: RealtimeAgent | None = attrs.field(default=None, repr=False)
    """Who made the call; None only where no session is."""
    _tell: Callable[[str], None] = attrs.field(default=lambda text: None, repr=False)
    _thread: Callable[[Callable[[], Any]], Awaitable[Any]] = attrs.field(default=_in_place, repr=False)

    def progress(self, text: str) -> None:
        """Say how it is going: the agent says `text` aloud, word for word, as soon as nobody else speaks.

        Never waits; from a worker thread too. Of several that wait only the newest is said, and none once the call has
        been answered.
        """
        self._tell(text)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a plain function in one of the session's worker threads.

        Cancellation: at once; the function goes on in its thread, whose end nobody waits for.
        """
        result: T = await self._thread(function)
        return result


@attrs.frozen
class Silent:
    """A result that the model is told without being asked to speak of it."""

    value: Any


def silent(value: Any) -> Silent:
    """Return this from a tool: the model is told `value`, and no response is asked for."""
    return Silent(value)


NeedsApproval: TypeAlias = bool | Callable[[ToolContext[Any], dict[str, Any]], bool]
OnError: TypeAlias = Callable[[ToolContext[Any], Exception], str]


def _positive(tool: AgentTool, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigError(f"tool {tool.name!r}: {attribute.name}={value} must be more than 0")


def _one_of(*allowed: str) -> Callable[[AgentTool, attrs.Attribute[Any], str], None]:
    def check(tool: AgentTool, attribute: attrs.Attribute[Any], value: str) -> None:
        if value not in allowed:
            raise ConfigError(f"tool {tool.name!r}: {attribute.name}={value!r} is none of {', '.join(allowed)}")

    return check


@attrs.frozen(kw_only=True)
class AgentTool(abc.ABC):
    """Something the model may call. A subclass says in `call` what happens then."""

    name: str
    description: str
    parameters: dict[str, Any] = attrs.field(repr=False)
    """A JSON schema of an object."""
    timeout_s: float = attrs.field(default=60.0, validator=_positive)
    """After this the model is told that the tool took too long. An approval is waited for as long, and no longer."""
    on_interrupt: OnInterrupt = attrs.field(default="finish", validator=_one_of("finish", "cancel", "finish_silently"))
    """When the turn that called it is interrupted: `finish`, and the model answers with the result; `cancel`, and the
    model is told so; `finish_silently`, and the model is told the result and is not asked to speak of it."""
    max_concurrency: int | None = attrs.field(default=None, validator=_positive)
    """How many calls of it run at once; more wait, first come, first served. None: any number."""
    needs_approval: NeedsApproval = False
    """Whether somebody has to agree before it runs: always, or for the calls for which a function says so."""
    result: ResultPolicy = attrs.field(default="answer", validator=_one_of("answer", "silent", "background"))
    """`answer`: when all calls have ended, the model is asked to speak of them. `silent`: it is told, and not asked.
    `background`: it is told at once that the work has begun; the result comes later, as a message, with a response."""
    on_error: OnError | None = attrs.field(default=None, repr=False)
    """Puts what went wrong into the words that the model is told. None: the kind of the error and its message."""

    def wire_tool(self) -> Tool:
        """As the server is told of it."""
        return Tool(name=self.name, description=self.description, parameters=self.parameters)

    def check(self, arguments: str) -> None:  # noqa: B027 - nothing to check unless a subclass knows better
        """Before anything is done, anyone asked or the model told that it has begun.

        Raises: `ToolArgumentsError` when the model's arguments do not fit.
        """

    @abc.abstractmethod
    async def call(self, context: ToolContext[Any], arguments: str) -> Any:
        """Do it; `arguments` is the model's JSON text. Text is told the model as it is, anything else as JSON.

        Raises: anything; the model is told. `ToolArgumentsError` when the arguments do not fit.
        Cancellation: at the timeout, at an interruption with the policy `cancel`, and when the session ends.
        """
