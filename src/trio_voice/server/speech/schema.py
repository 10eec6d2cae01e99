"""What a tool's JSON schema says about its parameters, as slots that spoken words can fill.

Beside `words` at the bottom of the offline dialogue. Invariant: a `Slot` is only made where the dialogue can
make a valid value; a tool that needs anything else (an object, say) gives no slots and is never called.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from .words import Heard, hear

if TYPE_CHECKING:
    from trio_voice.protocol.items import Tool

_EXAMPLE = re.compile(r"\b([A-Z]{1,8})([-_ #]?)([0-9]{2,12})\b")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.\s]+")


class Kind(enum.Enum):
    """What sort of words fill a slot."""

    CHOICE = "choice"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    PHONE = "phone"
    EMAIL = "email"
    IDENTIFIER = "identifier"
    DAY = "day"
    CLOCK = "clock"
    MOMENT = "moment"
    REASON = "reason"
    NAME = "name"


@attrs.frozen
class Shape:
    """How an identifier is written: `ORD-12345` is prefix `ORD`, joint `-`, five digits."""

    prefix: str
    joint: str
    digits: int


@attrs.frozen
class Slot:
    """One parameter of a tool."""

    name: str
    kind: Kind
    required: bool
    schema: Mapping[str, Any] = attrs.field(factory=dict)
    description: str = ""
    choices: tuple[Any, ...] = ()
    known: tuple[str, ...] = ()
    """Identifiers that the schema and the instructions mention."""
    shapes: tuple[Shape, ...] = ()
    in_list: bool = False
    """The schema wants a list; a value is wrapped in one."""

    @property
    def label(self) -> str:
        """The parameter as a person calls it: `order_id` is "order number"."""
        return label(self.name)


@attrs.frozen(eq=False)
class ToolForm:
    """A tool that the dialogue can call, and what it needs for that. Compared by identity."""

    name: str
    description: str
    slots: tuple[Slot, ...]

    @property
    def required(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.required)

    def slot(self, name: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.name == name), None)


@attrs.frozen
class Filled:
    """A value for a slot, the words it was read from, and whether to ask if it was meant."""

    value: Any
    used: frozenset[int]
    sure: bool = True
    others: tuple[Any, ...] = ()
    """Further values of the same kind in the same utterance ("12345 and 67890")."""
    marked: bool = False
    """Said with the letters of its identifier ("Ord12345"): it can be nothing else."""


def name_words(name: str) -> list[str]:
    """`lookupOrder` and `lookup_order` as words."""
    return [word.lower() for word in _CAMEL.split(name) if word]


def label(name: str) -> str:
    """A parameter's or a result's name as it is said aloud."""
    words = name_words(name)
    if words and words[-1] in {"id", "ids", "no", "num", "nr"}:
        words[-1] = "number"
    return " ".join(words) or "value"


def form_of(tool: Tool, instructions: str = "") -> ToolForm | None:
    """The form of `tool`, or None where it cannot be called by voice (no name, or needs a nested object)."""
    if tool.type != "function" or not isinstance(tool.name, str) or not tool.name:
        return None
    description = tool.description if isinstance(tool.description, str) else ""
    parameters: Mapping[str, Any] = tool.parameters if isinstance(tool.parameters, dict) else {}
    properties = _mapping(parameters.get("properties"))
    required = [name for name in _list(parameters.get("required")) if isinstance(name, str)]
    names = [name for name in properties if isinstance(name, str)]
    names += [name for name in dict.fromkeys(required) if name not in properties]
    slots: list[Slot] = []
    for name in names:
        raw = _mapping(properties.get(name, {}))
        slot = _slot(name, raw, name in required, names, parameters, f"{description}\n{instructions}")
        if slot is not None:
            slots.append(slot)
        elif name in required:
            return None
    return ToolForm(tool.name, description, tuple(slots))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow `$ref` and take the first alternative of a union that is not null."""
    outer = schema
    for _ in range(8):
        if isinstance(schema.get("$ref"), str):
            target: Any = root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = _mapping(target).get(step, {})
            schema = _mapping(target)
            continue
        options = _list(schema.get("anyOf")) or _list(schema.get("oneOf")) or _list(schema.get("allOf"))
        usable = [_mapping(option) for option in options if _mapping(option).get("type") != "null"]
        if not usable:
            break
        schema = usable[0]
    return {**outer, **schema}


def _slot(
    name: str,
    raw: Mapping[str, Any],
    required: bool,
    siblings: list[str],
    root: Mapping[str, Any],
    context: str,
) -> Slot | None:
    schema = _resolve(raw, root)
    description = schema.get("description")
    description = description if isinstance(description, str) else ""
    kinds = schema.get("type")
    kinds = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else [kinds]
    kind = kinds[0] if kinds else None
    if kind == "array":
        items = {**_mapping(schema.get("items")), "description": description}
        limit = schema.get("minItems", 1)
        if isinstance(limit, int) and limit > 1:
            return None
        one = _slot(name, items, required, siblings, root, context)
        return attrs.evolve(one, in_list=True) if one is not None and not one.in_list else None
    choices = [c for c in _list(schema.get("enum")) if isinstance(c, (str, int, float, bool))]
    if isinstance(schema.get("const"), (str, int, float, bool)):
        choices = [schema["const"]]
    if "enum" in schema and not choices:
        return None
    if choices:
        return Slot(name, Kind.CHOICE, required, schema, description, tuple(choices))
    if kind in {"boolean", "integer", "number"}:
        return Slot(name, Kind(kind), required, schema, description)
    if kind not in {None, "string"} or (kind is None and "properties" in schema):
        return None
    samples = [s for s in (*_list(schema.get("examples")), schema.get("default")) if isinstance(s, str)]
    own = _EXAMPLE.findall("\n".join([description, *samples]))
    mentioned = own + [m for m in _EXAMPLE.findall(context) if not own or m[0] == own[0][0]]
    spoken_kind = _string_kind(name, description, schema, siblings, bool(own))
    if spoken_kind is not Kind.IDENTIFIER:
        return Slot(name, spoken_kind, required, schema, description)
    shapes = tuple(dict.fromkeys(Shape(p, j, len(d)) for p, j, d in mentioned))
    known = tuple(dict.fromkeys("".join(m) for m in mentioned))
    return Slot(name, spoken_kind, required, schema, description, (), known, shapes)


def _string_kind(
    name: str, description: str, schema: Mapping[str, Any], siblings: list[str], has_example: bool
) -> Kind:
    words = set(name_words(name))
    about: Heard = hear(description)
    said = words | set(about.norms)
    form = schema.get("format")
    if words & {"email", "mail"} or form == "email":
        return Kind.EMAIL
    if words & {"phone", "telephone", "mobile", "cell", "tel"}:
        return Kind.PHONE
    if form in {"date", "date-time", "time"}:
        return {"date": Kind.DAY, "time": Kind.CLOCK}.get(form, Kind.MOMENT)
    if words & {"day", "date", "weekday"} and not words & {"time"}:
        return Kind.DAY
    if words & {"time", "when", "hour", "datetime"}:
        has_day = any(set(name_words(other)) & {"day", "date"} for other in siblings if other != name)
        return Kind.CLOCK if has_day else Kind.MOMENT
    if has_example or words & {"id", "number", "code", "reference", "no", "num", "nr", "zip", "account"}:
        return Kind.PHONE if "phone" in said and not has_example else Kind.IDENTIFIER
    reasons = {"reason", "topic", "subject", "message", "note", "notes", "question", "issue", "problem"}
    reasons |= {
        "description",
        "comment",
        "comments",
        "query",
        "text",
        "details",
        "complaint",
        "feedback",
        "summary",
    }
    return Kind.REASON if words & reasons else Kind.NAME
