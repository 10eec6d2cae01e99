from __future__ import annotations

import datetime
import enum
import json
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Required, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st
from openai.types.realtime import RealtimeFunctionTool

from trio_voice.errors import ConfigError, ToolArgumentsError, ToolSchemaError
from trio_voice.function_tools import FunctionTool, tool


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Topping:
    name: str
    grams: int = 10


@attrs.define
class Address:
    street: str
    number: int


@tool
def order(
    size: Size,
    crust: Literal["thin", "thick"],
    address: Address,
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1,
    note: str | None = None,
    toppings: list[Topping] = [],  # noqa: B006 - what a user may well write
    extras: dict[str, float] = {},  # noqa: B006
) -> str:
    """Order a pizza.

    It arrives warm.

    Args:
        size: How big it is.
        count (int): How many,
            of the same kind.
        note: Anything else.

    Returns:
        The order's number.
    """
    return f"{size} {crust} {address} {count} {note} {toppings} {extras}"


def properties(function: FunctionTool) -> dict[str, Any]:
    shown: dict[str, Any] = function.parameters["properties"]
    return shown


def test_a_function_becomes_a_schema_that_json_can_carry() -> None:
    wire = order.wire_tool()
    schema = order.parameters
    assert (wire.type, wire.name, wire.parameters) == ("function", "order", schema)
    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["size", "crust", "address"]
    shown = properties(order)
    assert list(shown) == ["size", "crust", "address", "count", "note", "toppings", "extras"]
    assert sorted(shown["crust"]["enum"]) == ["thick", "thin"]
    assert shown["count"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "default": 1,
        "description": "How many, of the same kind.",
    }
    assert {"type": "null"} in shown["note"]["anyOf"]
    assert shown["toppings"]["type"] == "array"
    assert shown["extras"]["additionalProperties"] == {"type": "number"}


def references(schema: object) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"]} if "$ref" in schema else set()
        return own.union(*(references(value) for value in schema.values()))
    return set().union(*(references(value) for value in schema)) if isinstance(schema, list) else set()


def test_every_reference_leads_to_a_definition() -> None:
    named = references(order.parameters)
    assert named == {f"#/$defs/{name}" for name in ("Size", "Address", "Topping")}
    assert set(order.parameters["$defs"]) == {"Size", "Address", "Topping"}
    assert sorted(order.parameters["$defs"]["Size"]["enum"]) == ["large", "small"]


def test_arguments_come_back_as_what_the_annotations_say() -> None:
    text = json.dumps(
        {
            "size": "small",
            "crust": "thin",
            "address": {"street": "Storgata", "number": "7"},
            "count": "3",
            "toppings": [{"name": "olives"}],
        }
    )
    assert order.arguments(text) == {
        "size": Size.SMALL,
        "crust": "thin",
        "address": Address("Storgata", 7),
        "count": 3,
        "note": None,
        "toppings": [Topping("olives", 10)],
        "extras": {},
    }


def test_a_mutable_default_is_not_shared_between_calls() -> None:
    text = '{"size":"small","crust":"thin","address":{"street":"S","number":1}}'
    order.arguments(text)["toppings"].append("left over")
    assert order.arguments(text)["toppings"] == []


class Point(msgspec.Struct):
    x: int
    near: Point | None = None


class Route(TypedDict, total=False):
    """A way."""

    via: list[Point]
    to: Required[Literal["home", "work"]]


class Pair(NamedTuple):
    first: int
    second: str = "none"


class Weekday(enum.IntEnum):
    MONDAY = 1
    TUESDAY = 2


def _struct(value: Point, route: Route, pair: Pair = Pair(1)) -> None: ...  # noqa: B008 - frozen


def _enums(size: Size = Size.SMALL, day: Weekday | None = None) -> None: ...


def _nested(boxes: dict[str, list[Topping]], address: Address = Address("Storgata", 7)) -> None: ...  # noqa: B008


def _dates(day: datetime.date, at: datetime.datetime, ident: uuid.UUID) -> None: ...


def _implicit(note: str = None, limit: Annotated[int, msgspec.Meta(ge=1)] = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


OFFERS = pydantic.TypeAdapter(RealtimeFunctionTool)


@pytest.mark.parametrize(
    ("function", "text", "expected"),
    [
        (
            _struct,
            '{"value": {"x": 1, "near": {"x": 2}}, "route": {"to": "home", "via": [{"x": 3}]}}',
            {"value": Point(1, Point(2)), "route": {"to": "home", "via": [Point(3)]}, "pair": Pair(1)},
        ),
        (_enums, '{"day": 2}', {"size": Size.SMALL, "day": Weekday.TUESDAY}),
        (
            _nested,
            '{"boxes": {"a": [{"name": "olives", "grams": 3}]}}',
            {"boxes": {"a": [Topping("olives", 3)]}, "address": Address("Storgata", 7)},
        ),
        (
            _dates,
            '{"day": "2026-11-26", "at": "2026-11-26T10:00:00", "ident": "12345678123456781234567812345678"}',
            {
                "day": datetime.date(2026, 11, 26),
                "at": datetime.datetime(2026, 11, 26, 10),
                "ident": uuid.UUID("12345678123456781234567812345678"),
            },
        ),
        (_implicit, '{"note": null, "limit": null}', {"note": None, "limit": None}),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_types_of_every_kind_are_offered_and_read(function: Any, text: str, expected: dict[str, Any]) -> None:
    offered = tool(function)
    schema = offered.parameters
    assert json.loads(json.dumps(schema)) == schema
    assert (schema["type"], "$ref" in schema) == ("object", False), "what OpenAI asks of the top"
    assert references(schema) <= {f"#/$defs/{name}" for name in schema.get("$defs", {})}
    OFFERS.validate_python({"type": "function", "name": offered.name, "parameters": schema})
    assert offered.arguments(text) == expected


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"size": "medium"}, 'size is one of: "large", "small"'),
        ({"crust": "stuffed"}, 'crust is one of: "thick", "thin"'),
        ({"count": 0}, '"minimum":1,"maximum":9'),
        ({"note": 7}, "note has to be"),
        ({"surprise": 1}, "there are: size, crust, address, count, note, toppings, extras"),
        ({"address": {"street": "S"}}, 'number has to be: {"type":"integer"}'),
        ({"toppings": [{"name": "olives", "grams": "some"}]}, "grams has to be"),
        ({"extras": {"salt": "much"}}, '{"type":"number"}'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_model_is_told_what_would_have_been_right(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ToolArgumentsError) as refused:
        order.arguments(json.dumps(BASE | changed))
    assert told in str(refused.value)


def test_a_missing_one_is_described() -> None:
    with pytest.raises(ToolArgumentsError, match=r'field `size`; size is one of: "large", "small"'):
        order.arguments('{"crust": "thin"}')


def test_a_string_in_annotated_describes_and_the_docstring_wins() -> None:
    @tool
    def weather(city: Annotated[str, "Where."], day: Annotated[str, "When."], hour: Annotated[int, "h"] = 0) -> None:
        """Tell the weather.

        Parameters
        ----------
        day : str
            On which day,
            in words.

        Returns
        -------
        str
            Words.
        """

    shown = properties(weather)
    assert weather.description == "Tell the weather."
    assert {name: parameter["description"] for name, parameter in shown.items()} == {
        "city": "Where.",
        "day": "On which day, in words.",
        "hour": "h",
    }


BASE = {"size": "small", "crust": "thin", "address": {"street": "S", "number": 1}}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"size": "medium"}, "medium"),
        ({"crust": "stuffed"}, "stuffed"),
        ({"count": 0}, ">= 1"),
        ({"count": "many"}, "int"),
        ({"surprise": 1}, "surprise"),
        ({"address": {"street": "S"}}, "number"),
        ({"toppings": {}}, "array"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_reason(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ToolArgumentsError, match=told):
        order.arguments(json.dumps(BASE | changed))


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ToolArgumentsError, match="size"):
        order.arguments('{"crust": "thin"}')


@pytest.mark.parametrize("text", ["{", "null", "[]", '"x"', "{}}", "not json"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ToolArgumentsError):
        order.arguments(text)


@given(st.text(max_size=40))
def test_arguments_of_any_text_are_refused_or_read_never_worse(text: str) -> None:
    @tool
    def search(query: str = "", limit: int = 3) -> None: ...

    try:
        read = search.arguments(text)
    except ToolArgumentsError:
        return
    assert isinstance(read["query"], str)
    assert isinstance(read["limit"], int)


@pytest.mark.parametrize("text", ["", "{}"])
def test_a_tool_without_parameters_takes_nothing(text: str) -> None:
    @tool
    async def now() -> str:
        """The time."""
        return ""

    assert now.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert now.arguments(text) == {}
    assert now.is_async
    assert not order.is_async


# --- what the model reads -------------------------------------------------------------------------


def test_the_docstring_describes_tool_and_parameters() -> None:
    assert order.description == "Order a pizza. It arrives warm."
    shown = properties(order)
    assert "How big it is." in json.dumps(shown["size"])
    assert shown["note"]["description"] == "Anything else."
    assert "description" not in shown["crust"]


def test_sphinx_fields_are_read_too() -> None:
    @tool
    def weather(city: str, days: int = 1) -> str:
        """Tell the weather.

        :param city: Where,
            as people call it.
        :param int days: How far ahead.
        :returns: Words.
        """
        return city * days

    assert weather.description == "Tell the weather."
    assert properties(weather)["city"]["description"] == "Where, as people call it."
    assert properties(weather)["days"]["description"] == "How far ahead."


def test_without_a_docstring_the_name_has_to_do() -> None:
    @tool
    def turn_off_lights(room: str) -> None: ...

    assert turn_off_lights.description == "turn off lights"


def test_what_is_said_at_the_decorator_wins() -> None:
    @tool(name="lights-off", description="Darkness.", timeout_s=2.5, on_interrupt="cancel")
    def turn_off_lights(room: str) -> None:
        """Something else."""

    assert (turn_off_lights.name, turn_off_lights.description) == ("lights-off", "Darkness.")
    assert (turn_off_lights.timeout_s, turn_off_lights.on_interrupt) == (2.5, "cancel")
    assert turn_off_lights.arguments('{"room": "hall"}') == {"room": "hall"}


# --- what cannot be offered -----------------------------------------------------------------------


def test_a_parameter_without_an_annotation_is_named() -> None:
    def vague(city) -> None:  # type: ignore[no-untyped-def]
        ...

    with pytest.raises(ToolSchemaError, match="'city' needs a type annotation"):
        tool(vague)


def _star(*cities: str) -> None: ...


def _double_star(**cities: str) -> None: ...


def _by_position(city: str, /) -> None: ...


@pytest.mark.parametrize("function", [_star, _double_star, _by_position])
def test_parameters_without_a_name_are_refused(function: Any) -> None:
    with pytest.raises(ToolSchemaError, match=r"calls by name, so .*cit.* cannot be offered"):
        tool(function)


def _complex(value: complex) -> None: ...


def _function(value: type[int]) -> None: ...


def _two_classes(value: Topping | Address) -> None: ...


@pytest.mark.parametrize("function", [_complex, _function, _two_classes])
def test_a_type_that_json_cannot_carry_is_refused(function: Any) -> None:
    with pytest.raises(ToolSchemaError, match="cannot be put into JSON"):
        tool(function)


def _full_list(items: list[int] = [1, 2]) -> None:  # noqa: B006
    ...


def _set_default(items: set[int] = {1}) -> None:  # noqa: B006
    ...


@pytest.mark.parametrize("function", [_full_list, _set_default])
def test_a_default_may_hold_something_and_is_not_shared(function: Any) -> None:
    offered = tool(function)
    (default,) = function.__defaults__
    given_first = offered.arguments("{}")["items"]
    assert given_first == default
    given_first.clear()
    assert offered.arguments("{}")["items"] == default


def test_an_annotation_of_something_unknown_is_refused() -> None:
    def lost(value: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        ...

    with pytest.raises(ToolSchemaError, match="Nowhere"):
        tool(lost)


@pytest.mark.parametrize("name", ["", "with space", "ü", "a" * 65, "dot.ted"])
def test_a_name_that_no_server_takes_is_refused(name: str) -> None:
    def fine() -> None: ...

    if name:
        with pytest.raises(ConfigError, match="1 to 64 letters"):
            tool(name=name)(fine)
    else:
        assert tool(name=name)(fine).name == "fine"


@pytest.mark.parametrize("name", ["a-b", "2fast", "class", "a" * 64])
def test_a_name_that_python_would_not_take_is_fine(name: str) -> None:
    def fine(city: str) -> None: ...

    made = tool(name=name)(fine)
    assert made.name == name
    assert list(properties(made)) == ["city"]
