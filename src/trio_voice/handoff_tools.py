"""Handoffs: other agents, offered to the model as tools. Calling one makes that agent go on with the conversation.

Core ring: pure. Here is what the model is told of a handoff, and what is done before it; the change of agents itself is
the conversation's (`handoffs.py`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import msgspec

from trio_voice.agent_tool import AgentTool, ToolContext
from trio_voice.errors import ConfigError, ToolSchemaError
from trio_voice.tool_schema import Parameters, object_schema

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent
    from trio_voice.protocol.history import HistoryItem

InputFilter: TypeAlias = "Callable[[Sequence[HistoryItem]], Iterable[HistoryItem]]"
"""Which of the items the new agent is to see."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@attrs.frozen(kw_only=True)
class Handoff(AgentTool):
    """An agent that the conversation may be handed over to; `handoff()` makes one."""

    target: RealtimeAgent | Callable[[], RealtimeAgent] = attrs.field(repr=False)
    accepted: Parameters = attrs.field(repr=False)
    wrapped: bool = False
    """The input is no object, and is a field of one, named `input`."""
    on_handoff: Callable[..., Any] | None = attrs.field(default=None, repr=False)
    input_filter: InputFilter | None = attrs.field(default=None, repr=False)

    @property
    def agent(self) -> RealtimeAgent:
        """Who takes over."""
        from trio_voice.agent import RealtimeAgent  # here: it imports this module

        agent = self.target if isinstance(self.target, RealtimeAgent) else self.target()
        if not isinstance(agent, RealtimeAgent):
            raise ConfigError(f"handoff {self.name!r} leads to {agent!r}, which is no RealtimeAgent")
        return agent

    def check(self, arguments: str) -> None:
        self.accepted.decode(arguments)

    async def call(self, context: ToolContext[Any], arguments: str) -> Any:
        given = self.accepted.decode(arguments)
        if self.on_handoff is not None:
            values = [context, given.input if self.wrapped else given]
            tell = partial(self.on_handoff, *values[: len(inspect.signature(self.on_handoff).parameters)])
            if inspect.iscoroutinefunction(self.on_handoff):
                await tell()
            else:
                value = await context.in_thread(tell)
                if inspect.isawaitable(value):
                    await value
        return {"assistant": self.agent.name}


def handoff(
    agent: RealtimeAgent | Callable[[], RealtimeAgent],
    *,
    tool_name: str | None = None,
    description: str | None = None,
    input_type: Any = None,
    on_handoff: Callable[..., Any] | None = None,
    input_filter: InputFilter | None = None,
) -> Handoff:
    """Offer `agent` to the model, to hand the conversation over to.

    `agent` may be a function that gives one, for two agents that name each other; then it needs a `tool_name`.
    `input_type`: what the model has to say with it, as any type that msgspec reads from JSON. `on_handoff(context)`, or
    with an `input_type` `on_handoff(context, input)`, plain or async, is called before: what it raises is told the
    model, and nothing is handed over. `input_filter` is a plain, quick function from the items of the conversation to
    those that the new agent is to see.

    Raises: `ConfigError` for what cannot be, `ToolSchemaError` for an `input_type` that JSON cannot carry.
    """
    from trio_voice.agent import RealtimeAgent  # here: it imports this module

    if not isinstance(agent, RealtimeAgent) and not callable(agent):
        raise ConfigError(f"a handoff leads to an agent, or to a function that gives one, not to {agent!r}")
    name = agent.name if isinstance(agent, RealtimeAgent) else None
    if tool_name is None:
        if name is None:
            raise ConfigError("a handoff to an agent that a function gives needs a tool_name=")
        tool_name = f"transfer_to_{_UNFIT.sub('_', name).strip('_').lower()}"[:64]
    if not _NAME.fullmatch(tool_name):
        raise ConfigError(f"tool name {tool_name!r}: 1 to 64 letters, digits, _ or - are allowed")
    if on_handoff is not None:
        taken = len(inspect.signature(on_handoff).parameters)
        if taken != (1 if input_type is None else 2):
            expected = "the ToolContext" if input_type is None else "the ToolContext and the input"
            raise ConfigError(
                f"handoff {tool_name!r}: on_handoff is called with {expected}, but takes {taken} arguments"
            )
    accepted, wrapped = _accepted(input_type, tool_name)
    return Handoff(
        target=agent,
        accepted=accepted,
        wrapped=wrapped,
        on_handoff=on_handoff,
        input_filter=input_filter,
        name=tool_name,
        description=description or f"Hand the conversation over to {name or tool_name.replace('_', ' ')}.",
        parameters=accepted.schema,
    )


def _accepted(input_type: Any, tool_name: str) -> tuple[Parameters, bool]:
    """What the model has to send, and whether the input is a field of it."""
    if input_type is None:
        nothing = msgspec.defstruct(f"{tool_name}_arguments", [])
        return Parameters(nothing, object_schema(nothing, tool_name)), False
    try:
        (schema,), definitions = msgspec.json.schema_components([input_type])
    except TypeError as error:
        raise ToolSchemaError(f"handoff {tool_name!r}: its input_type cannot be put into JSON ({error})") from error
    own = definitions.get(schema.get("$ref", "").rpartition("/")[2], {})
    names_itself = schema.get("$ref", "") in str(definitions)
    if "properties" in own and not names_itself:
        return Parameters(input_type, object_schema(input_type, tool_name)), False
    wrapper = msgspec.defstruct(f"{tool_name}_arguments", [("input", input_type)], forbid_unknown_fields=True)
    return Parameters(wrapper, object_schema(wrapper, tool_name)), True


def as_handoffs(given: Iterable[Handoff | RealtimeAgent]) -> tuple[Handoff, ...]:
    return tuple(one if isinstance(one, Handoff) else handoff(one) for one in given)
