"""A function's parameters as the model is told of them, and the model's arguments as the function gets them.

Core ring: pure. msgspec makes the schema from the annotations and checks what the model sends against the same
annotations, so the two cannot disagree.
"""

from __future__ import annotations

import copy
import inspect
import re
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin

import attrs
import msgspec

from trio_voice.agent_tool import ToolContext
from trio_voice.errors import ToolArgumentsError, ToolSchemaError

ALLOWED_CHARS = 400
"""Of a schema in an answer to the model."""


@attrs.frozen
class Parameters:
    """Of a function: what JSON can carry, and where the context goes."""

    type: Any
    schema: dict[str, Any]
    contexts: tuple[str, ...] = ()
    """Parameters that are given the `ToolContext`."""

    def read(self, text: str) -> dict[str, Any]:
        """The keyword arguments in the model's JSON `text`, checked and converted.

        Raises: `ToolArgumentsError`: which is wrong, and what is allowed.
        """
        decoded = self.decode(text)
        return {name: getattr(decoded, name) for name in decoded.__struct_fields__}

    def decode(self, text: str) -> Any:
        """The model's JSON `text` as a value of `type`. Raises: `ToolArgumentsError`."""
        try:
            return msgspec.json.decode(text or "{}", type=self.type, strict=False)
        except msgspec.ValidationError as error:
            raise ToolArgumentsError(f"the arguments do not fit: {error}{self._allowed(str(error))}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise ToolArgumentsError(f"the arguments do not fit: they are no JSON object ({error})") from None

    def _allowed(self, complaint: str) -> str:
        """What would have been right in the place that msgspec complains of."""
        missing = re.search(r"missing required field `([^`]*)`", complaint)
        path = re.search(r" - at `\$([^`]*)`$", complaint)
        schema: Any = self.schema
        name = ""
        for step in re.findall(r"\.([^.\[]+)|(\[[^\]]*\])", path[1] if path else ""):
            schema = self._resolved(schema)
            if step[0]:
                name = step[0]
                schema = schema.get("properties", {}).get(name, schema.get("additionalProperties") or {})
            else:
                schema = schema.get("items") or schema.get("additionalProperties") or {}
        schema = self._resolved(schema)
        if missing is not None and missing[1] in schema.get("properties", {}):
            name, schema = missing[1], self._resolved(schema["properties"][missing[1]])
        elif "properties" in schema:
            return f"; there are: {', '.join(schema['properties']) or 'none'}"
        if "enum" in schema:
            return f"; {name or 'it'} is one of: {', '.join(msgspec.json.encode(v).decode() for v in schema['enum'])}"
        shown = msgspec.json.encode(schema).decode()
        return f"; {name or 'it'} has to be: {shown}" if schema and len(shown) <= ALLOWED_CHARS else ""

    def _resolved(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            return self._resolved(self.schema.get("$defs", {}).get(schema["$ref"].rpartition("/")[2]))
        options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
        return self._resolved(options[0]) if len(options) == 1 else schema


def parameters_of(function: Callable[..., Any], tool_name: str, described: dict[str, str]) -> Parameters:
    """`described`: what is said of each parameter.

    Raises: `ToolSchemaError`.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ToolSchemaError(f"tool {tool_name!r}: an annotation names something unknown ({error})") from error
    fields: list[Any] = []
    contexts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ToolSchemaError(
                f"tool {tool_name!r}: a model calls by name, so {parameter} cannot be offered; name each parameter"
            )
        if parameter.name not in hints:
            raise ToolSchemaError(f"tool {tool_name!r}: parameter {parameter.name!r} needs a type annotation")
        if ToolContext in (hints[parameter.name], get_origin(hints[parameter.name])):
            contexts.append(parameter.name)
        else:
            fields.append(_field(parameter, hints[parameter.name], described.get(parameter.name)))
    arguments_type = msgspec.defstruct(f"{tool_name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
    return Parameters(arguments_type, object_schema(arguments_type, tool_name), tuple(contexts))


def _field(parameter: inspect.Parameter, annotation: Any, description: str | None) -> Any:
    default = parameter.default
    if get_origin(annotation) is Annotated and description is None:
        description = next((extra for extra in get_args(annotation)[1:] if isinstance(extra, str)), None)
    if default is None and not _takes_none(annotation):
        annotation = annotation | None  # what a model sends for "nothing", where the default is nothing
    if description is not None:
        annotation = Annotated[annotation, msgspec.Meta(description=description)]
    if isinstance(default, list | dict | set | bytearray):
        default = msgspec.field(default_factory=partial(copy.deepcopy, default))
    if default is parameter.empty:
        return parameter.name, annotation
    return parameter.name, annotation, default


def _takes_none(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _takes_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_takes_none(option) for option in get_args(annotation))
    return annotation in (None, types.NoneType, Any) or None in get_args(annotation)


def object_schema(arguments_type: Any, tool_name: str) -> dict[str, Any]:
    """The JSON schema of a type whose JSON is an object. Raises: `ToolSchemaError`."""
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
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(parameters))
    return plain


_GOOGLE_PARAMETER = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_SPHINX_PARAMETER = re.compile(r"^:param\s+(?:[\w\[\], |]+\s+)?(\w+):\s*(.*)$")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):\s*$")
_NUMPY_SECTION = re.compile(r"^(Parameters|Returns|Raises|Yields|Examples|Notes)\n-{3,}$", re.MULTILINE)
_NUMPY_PARAMETER = re.compile(r"^(\w+)(?:\s*:.*)?$")


def read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The text before any section, and what is said of each parameter: after Google, Sphinx or NumPy."""
    summary: list[str] = []
    described: dict[str, str] = {}
    section, parameter = "", ""
    for line in _NUMPY_SECTION.sub(r"NumPy \1:", docstring).splitlines():
        if line.startswith("NumPy ") and line.endswith(":"):
            section, parameter = line.removesuffix(":"), ""
        elif heading := _SECTION.match(line):
            section, parameter = heading[1], ""
        elif sphinx := _SPHINX_PARAMETER.match(line):
            section, parameter = "Sphinx", sphinx[1]
            described[parameter] = sphinx[2].strip()
        elif section == "NumPy Parameters" and (numpy := _NUMPY_PARAMETER.match(line)):
            parameter = numpy[1]
            described[parameter] = ""
        elif section in ("Args", "Arguments", "Parameters") and (google := _GOOGLE_PARAMETER.match(line)):
            parameter = google[1]
            described[parameter] = google[2].strip()
        elif parameter and line.startswith(" ") and line.strip():
            described[parameter] = f"{described[parameter]} {line.strip()}".strip()
        elif not section:
            summary.append(line)
    return " ".join(" ".join(summary).split()), described
