"""Functions the model may call: `@tool` turns a typed function with a docstring into a tool.

Core ring: pure. The schema and the check of the arguments are in `tool_schema.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, overload

import attrs

from trio_voice.agent_tool import AgentTool, NeedsApproval, OnError, OnInterrupt, ResultPolicy, ToolContext
from trio_voice.errors import ConfigError, ToolSchemaError
from trio_voice.tool_schema import Parameters, parameters_of, read_docstring

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@attrs.frozen(kw_only=True)
class FunctionTool(AgentTool):
    """A function as the model sees it (`name`, `description`, `parameters`) and as we call it."""

    function: Callable[..., Any] = attrs.field(repr=False)
    accepted: Parameters = attrs.field(repr=False)

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def check(self, arguments: str) -> None:
        self.accepted.read(arguments)

    def arguments(self, text: str) -> dict[str, Any]:
        """The keyword arguments in the model's JSON `text`, checked and converted, without the context.

        Raises: `ToolArgumentsError` saying what is wrong with it, and what is allowed.
        """
        return self.accepted.read(text)

    async def call(self, context: ToolContext[Any], arguments: str) -> Any:
        keywords = self.arguments(arguments) | dict.fromkeys(self.accepted.contexts, context)
        if self.is_async:
            return await self.function(**keywords)
        value = await context.in_thread(partial(self.function, **keywords))
        # A plain function around an async one gives a coroutine.
        return await value if inspect.isawaitable(value) else value


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    on_interrupt: OnInterrupt = "finish",
    max_concurrency: int | None = None,
    needs_approval: NeedsApproval = False,
    result: ResultPolicy = "answer",
    on_error: OnError | None = None,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    on_interrupt: OnInterrupt = "finish",
    max_concurrency: int | None = None,
    needs_approval: NeedsApproval = False,
    result: ResultPolicy = "answer",
    on_error: OnError | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Offer a function to the model. Async functions run on Trio, plain ones in a worker thread.

    The model reads the docstring: its first paragraph describes the tool, and `Args:` (or `:param name:`) each
    parameter. Any type that msgspec can read from JSON will do: `Literal`, enums, optional values, lists,
    dataclasses, attrs classes, `Annotated[int, msgspec.Meta(ge=1)]`. A parameter annotated `ToolContext[…]` is given
    the context of the call. The other arguments are those of `AgentTool`.

    Raises: `ToolSchemaError` when a parameter has no annotation or one that JSON cannot carry; `ConfigError` for an
    option that cannot be.
    """

    def make(function: Callable[..., Any]) -> FunctionTool:
        tool_name = name or getattr(function, "__name__", None)
        if tool_name is None:
            raise ToolSchemaError(f"{function!r} has no name of its own; offer it with @tool(name=…)")
        if not _NAME.fullmatch(tool_name):
            raise ConfigError(f"tool name {tool_name!r}: 1 to 64 letters, digits, _ or - are allowed")
        summary, described = read_docstring(inspect.getdoc(function) or "")
        accepted = parameters_of(function, tool_name, described)
        return FunctionTool(
            function=function,
            accepted=accepted,
            name=tool_name,
            description=description or summary or tool_name.replace("_", " "),
            parameters=accepted.schema,
            timeout_s=timeout_s,
            on_interrupt=on_interrupt,
            max_concurrency=max_concurrency,
            needs_approval=needs_approval,
            result=result,
            on_error=on_error,
        )

    return make if function is None else make(function)
