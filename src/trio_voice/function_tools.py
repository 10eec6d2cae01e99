"""Functions the model may call: `@tool` turns a typed function with a docstring into a schema and back.

Core ring: pure. msgspec makes the schema from the annotations and validates what the model sends against the same
annotations, so the two cannot disagree.
"""

from __future__ import annotations

import copy
import inspect
import re
import typing
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, overload

import attrs
import msgspec

from trio_voice.errors import ConfigError, ToolSchemaError
from trio_voice.protocol.items import Tool

OnInterrupt = Literal["finish", "cancel"]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@attrs.frozen
class FunctionTool:
    """A function as the model sees it (`name`, `description`, `parameters`) and as we call it."""

    function: Callable[..., Any] = attrs.field(repr=False)
    name: str
    description: str
    parameters: dict[str, Any] = attrs.field(repr=False)
    arguments_type: type[msgspec.Struct] = attrs.field(repr=False)
    timeout_s: float = 60.0
    """After this the model is told that the tool took too long. A thread cannot be killed: a plain function goes on
    in its thread, unheard."""
    on_interrupt: OnInterrupt = "finish"
    """When the user talks over the turn that called it: `finish` and report, or `cancel` and say so. A plain function
    always finishes."""

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def wire_tool(self) -> Tool:
        return Tool(name=self.name, description=self.description, parameters=self.parameters)

    def arguments(self, text: str) -> dict[str, Any]:
        """The keyword arguments in the model's JSON `text`, validated and converted.

        Raises: `msgspec.ValidationError` or `msgspec.DecodeError` saying what is wrong with it.
        """
        decoded = msgspec.json.decode(text or "{}", type=self.arguments_type, strict=False)
        return {name: getattr(decoded, name) for name in decoded.__struct_fields__}


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    on_interrupt: OnInterrupt = "finish",
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    on_interrupt: OnInterrupt = "finish",
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Offer a function to the model. Async functions run on Trio, plain ones in a worker thread.

    The model reads the docstring: its first paragraph describes the tool, and `Args:` (or `:param name:`) each
    parameter. Any type that msgspec can read from JSON will do: `Literal`, enums, optional values, lists,
    dataclasses, attrs classes, `Annotated[int, msgspec.Meta(ge=1)]`.

    Raises: `ToolSchemaError` when a parameter has no annotation or one that JSON cannot carry.
    """

    def make(function: Callable[..., Any]) -> FunctionTool:
        tool_name = name or getattr(function, "__name__", None)
        if tool_name is None:
            raise ToolSchemaError(f"{function!r} has no name of its own; offer it with @tool(name=…)")
        if not _NAME.fullmatch(tool_name):
            raise ConfigError(f"tool name {tool_name!r}: 1 to 64 letters, digits, _ or - are allowed")
        summary, described = _read_docstring(inspect.getdoc(function) or "")
        arguments_type = _arguments_type(function, tool_name, described)
        return FunctionTool(
            function,
            tool_name,
            description or summary or tool_name.replace("_", " "),
            _schema(arguments_type, tool_name),
            arguments_type,
            timeout_s,
            on_interrupt,
        )

    return make if function is None else make(function)


def _arguments_type(function: Callable[..., Any], tool_name: str, described: dict[str, str]) -> type[msgspec.Struct]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ToolSchemaError(f"tool {tool_name!r}: an annotation names something unknown ({error})") from error
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ToolSchemaError(
                f"tool {tool_name!r}: a model calls by name, so {parameter} cannot be offered; name each parameter"
            )
        if parameter.name not in hints:
            raise ToolSchemaError(f"tool {tool_name!r}: parameter {parameter.name!r} needs a type annotation")
        annotation = hints[parameter.name]
        if parameter.name in described:
            annotation = Annotated[annotation, msgspec.Meta(description=described[parameter.name])]
        default = parameter.default
        if isinstance(default, list | dict | set | bytearray):
            default = msgspec.field(default_factory=partial(copy.deepcopy, default))
        fields.append(
            (parameter.name, annotation) if default is parameter.empty else (parameter.name, annotation, default)
        )
    return msgspec.defstruct(f"{tool_name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)


def _schema(arguments_type: type[msgspec.Struct], tool_name: str) -> dict[str, Any]:
    try:
        (schema,), definitions = msgspec.json.schema_components([arguments_type])
    except TypeError as error:
        raise ToolSchemaError(f"tool {tool_name!r}: a parameter's type cannot be put into JSON ({error})") from error
    own = definitions.pop(schema["$ref"].rpartition("/")[2])
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": own["properties"],
        "required": own["required"],
    }
    parameters["additionalProperties"] = False
    if definitions:
        parameters["$defs"] = definitions
    return parameters


_GOOGLE_PARAMETER = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_SPHINX_PARAMETER = re.compile(r"^:param\s+(?:[\w\[\], |]+\s+)?(\w+):\s*(.*)$")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):\s*$")


def _read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The text before any section, and what is said of each parameter."""
    summary: list[str] = []
    described: dict[str, str] = {}
    section, parameter = "", ""
    for line in docstring.splitlines():
        if heading := _SECTION.match(line):
            section, parameter = heading[1], ""
        elif sphinx := _SPHINX_PARAMETER.match(line):
            section, parameter = "Sphinx", sphinx[1]
            described[parameter] = sphinx[2].strip()
        elif section in ("Args", "Arguments", "Parameters") and (google := _GOOGLE_PARAMETER.match(line)):
            parameter = google[1]
            described[parameter] = google[2].strip()
        elif parameter and line.startswith(" ") and line.strip():
            described[parameter] = f"{described[parameter]} {line.strip()}".strip()
        elif not section:
            summary.append(line)
    return " ".join(" ".join(summary).split()), described
