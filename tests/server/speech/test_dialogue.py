"""The dialogue as a function of the conversation: results, state from the items, and what holds for any input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from trio_voice.protocol.items import ContentPart, Item, Tool
from trio_voice.server.speech.dialogue import Call, Say, reply
from trio_voice.server.speech.words import terms

STRING = {"type": "string"}
LOOKUP = Tool(
    name="lookup_order",
    description="Look up an order by its number.",
    parameters={"type": "object", "properties": {"order_id": {**STRING, "description": "Like ORD-12345."}},
                "required": ["order_id"]},
)  # fmt: skip
TRANSFER = Tool(
    name="transfer_to_department",
    description="Transfer the caller to a department.",
    parameters={"type": "object", "properties": {"department": {"enum": ["billing", "sales"]}},
                "required": ["department"]},
)  # fmt: skip
TOOLS = [LOOKUP, TRANSFER]


def said(items: list[Item], tools: list[Tool] = TOOLS, instructions: str = "") -> str:
    parts = reply(items, tools, instructions).parts
    assert all(isinstance(part, Say) for part in parts), parts
    return " ".join(part.text for part in parts if isinstance(part, Say))


def spoken(text: str) -> Item:
    """A message of the assistant as its sound leaves it: only a transcript."""
    return Item(type="message", role="assistant", content=[ContentPart("output_audio", transcript=text)])


def called(output: str | None, call_id: str = "c", arguments: str = '{"order_id": "ORD-12345"}') -> list[Item]:
    call = Item.function_call(call_id, "lookup_order", arguments)
    return [call] if output is None else [call, Item.function_call_output(call_id, output)]


# --- greeting -----------------------------------------------------------------------------------------------


def test_greets_as_the_instructions_and_tools_say() -> None:
    text = said([], instructions="You are a support agent for Acme, and you are kind.")
    assert text == (
        "Hello! I am a support agent for Acme. I can look up an order or transfer you to a department. "
        "How can I help you?"
    )


def test_a_quoted_greeting_is_used() -> None:
    assert said([], instructions='Be kind. Greet the caller with "Welcome to Acme!" and wait.') == "Welcome to Acme!"


def test_without_tools_it_promises_little() -> None:
    assert "count" in said([], tools=[])
    assert "I'm sorry" in said([Item.user_text("Where is my order?")], tools=[])


# --- results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ('{"order_id":"ORD-12345","status":"shipped","carrier":"UPS","eta":"Tuesday"}',
         "Order ORD-12345 has been shipped with UPS, expected Tuesday."),
        ('{"order_id":"ORD-67890","status":"processing"}', "Order ORD-67890 is processing."),
        ('{"order_id":"ORD-1","status":"out for delivery","items":["lamp","book"]}',
         "Order ORD-1 is out for delivery, items lamp and book."),
        ('{"message":"Your order is on its way.","status":"ok"}', "Your order is on its way."),
        ('{"error":"Order not found"}',
         "I'm sorry, that did not work. Order not found. I tried order number ORD-12345."),
        ('{"error":{"code":404,"message":"no such order"},"order_id":"ORD-12345"}',
         "I'm sorry, that did not work. No such order. I tried order number ORD-12345."),
        ('{"success":false,"message":"The line is busy."}',
         "I'm sorry, that did not work. The line is busy. I tried order number ORD-12345."),
        ('{"status":"not_found"}', "I'm sorry, that did not work. Not found. I tried order number ORD-12345."),
        ('{"confirmation_number":"CB-7"}', "Confirmation number CB-7."),
        ("The order has shipped", "The order has shipped."),
        ('"shipped"', "Shipped."),
        ("null", "That is done."),
        ("{}", "That is done: order number ORD-12345."),
        ("[]", "I found nothing."),
        ("21.0", "21."),
        ('[{"id":1,"status":"shipped"},{"id":2,"status":"processing"}]',
         "I found 2. Number 1, status shipped. Number 2, status processing."),
    ],
)  # fmt: skip
def test_a_result_becomes_a_sentence(output: str, sentence: str) -> None:
    assert said([Item.user_text("Where is order 12345?"), *called(output)]) == sentence


def test_several_results_at_once() -> None:
    items = [Item.user_text("both"), Item.function_call("a", "lookup_order", "{}"),
             Item.function_call("b", "lookup_order", "{}"),
             Item.function_call_output("b", '{"order_id":"B-22","status":"processing"}'),
             Item.function_call_output("a", '{"order_id":"A-11","status":"shipped"}')]  # fmt: skip
    assert said(items) == "Order B-22 is processing. Order A-11 has been shipped."


def test_a_result_is_told_once() -> None:
    items = [Item.user_text("Where is order 12345?"), *called('{"status":"shipped"}'), spoken("It has shipped.")]
    assert "shipped" not in said([*items, Item.user_text("thanks")])
    assert "shipped" not in said(items)


def test_a_result_that_was_never_heard_is_told_again() -> None:
    items = [Item.user_text("Where is order 12345?"), *called('{"status":"shipped"}'), spoken("")]
    assert "shipped" in said(items)


def test_a_result_that_comes_after_another_request_is_told_with_it() -> None:
    items = [Item.user_text("Where is order 12345?"), *called('{"status":"shipped"}'),
             Item.user_text("And transfer me to sales.")]  # fmt: skip
    first, second = reply(items, TOOLS, "").parts
    assert isinstance(first, Say)
    assert "shipped" in first.text
    assert second == Call("transfer_to_department", '{"department": "sales"}')


def test_stop_drops_an_untold_result() -> None:
    items = [Item.user_text("Where is order 12345?"), *called('{"status":"shipped"}'), Item.user_text("Stop")]
    assert "shipped" not in said(items)


def test_the_same_call_is_not_made_twice_while_it_runs() -> None:
    items = [Item.user_text("Where is order 12345?"), *called(None), Item.user_text("Where is order 12345?")]
    assert said(items) == "I am still working on that. One moment, please."


def test_a_long_result_is_cut() -> None:
    assert len(said([Item.user_text("x"), *called(json.dumps({"message": "word " * 1000}))])) < 700


# --- state from the items -----------------------------------------------------------------------------------


def test_an_open_question_survives_a_barge_in_that_cut_it() -> None:
    items = [Item.user_text("Where is my order?"), spoken("What is"), Item.user_text("one two three four five")]
    assert reply(items, TOOLS, "").parts == (Call("lookup_order", '{"order_id": "ORD-12345"}'),)


def test_two_utterances_before_any_answer_are_one_request() -> None:
    items = [Item.user_text("Where is my order"), Item.user_text("one two three four five")]
    assert reply(items, TOOLS, "").parts == (Call("lookup_order", '{"order_id": "ORD-12345"}'),)


def test_repeats_the_whole_of_what_was_cut_short() -> None:
    told = "Order ORD-12345 has been shipped with UPS."
    output = '{"order_id":"ORD-12345","status":"shipped","carrier":"UPS"}'
    items = [
        Item.user_text("Where is order 12345?"),
        *called(output),
        spoken("Order ORD"),
        Item.user_text("Say that again."),
    ]
    assert said(items) == told
    assert said([*items, spoken("Order"), Item.user_text("Pardon?")]) == told


def test_repeats_words_that_were_not_its_own() -> None:
    items = [Item.user_text("Hello"), spoken("The shop opens at nine."), Item.user_text("What did you say?")]
    assert said(items) == "The shop opens at nine."


def test_asked_to_speak_with_nothing_new_it_asks_its_question_again() -> None:
    items = [Item.user_text("Where is my order?"), spoken("What is your order number?")]
    assert said(items) == "What is your order number?"


def test_system_items_are_not_the_user() -> None:
    assert said([Item.system_text("Where is order 12345?")]).startswith("Hello!")


def test_the_same_conversation_has_the_same_answer() -> None:
    items = [Item.user_text("Where is my order?"), Item.user_text("twelve three")]
    assert reply(items, TOOLS, "x") == reply(list(items), list(TOOLS), "x")


def test_identifiers_of_the_instructions_help() -> None:
    plain = Tool(name="lookup_order", parameters={"properties": {"order_id": STRING}, "required": ["order_id"]})
    items = [Item.user_text("Where is order one two three four five?")]
    assert reply(items, [plain], "Orders are named like ORD-67890.").parts == (
        Call("lookup_order", '{"order_id": "ORD-12345"}'),
    )
    assert reply(items, [plain], "").parts == (Call("lookup_order", '{"order_id": "12345"}'),)


def test_a_tool_that_needs_more_than_words_is_never_called() -> None:
    nested = Tool(name="place_order", parameters={"properties": {"order": {"type": "object"}}, "required": ["order"]})
    assert "I'm sorry" in said([Item.user_text("Place an order please")], [nested])


# --- anything -----------------------------------------------------------------------------------------------

_UTTERANCES = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            sorted(
                terms(
                    "where is my order one two three four five 12345 ord ORD-12345 to for won call me back about "
                    "at 555-1234 "
                    "tomorrow morning three pm half past transfer billing yes no stop repeat count "
                    "twenty double hundred "
                    "turn on off the kitchen light book a table people and - . , : next friday may 5th minus"
                )
            )
        ),
        max_size=9,
    ).map(" ".join),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "error", "message", "order_id", "department", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
_TYPES: list[dict[str, Any]] = [
    {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {},
    {"type": "integer", "minimum": 1, "maximum": 20}, {"type": "string", "enum": ["billing", "sales"]},
    {"enum": [1, 2, "three"]}, {"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"type": "object"}, {"$ref": "#/$defs/missing"},
    {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{5}$", "examples": ["ORD-12345"]}, {"type": "string", "maxLength": 6},
]  # fmt: skip
_NAMES = [
    "order_id",
    "phone_number",
    "reason",
    "preferred_time",
    "day",
    "department",
    "on",
    "people",
    "city",
    "email",
    "",
]


@st.composite
def _tool(draw: st.DrawFn) -> Tool:
    properties = draw(st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(_TYPES), max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    name = draw(st.sampled_from(["lookup_order", "callback", "transfer_to_department", "set_light", "x", ""]))
    description = draw(st.sampled_from(["", "Look up an order, like ORD-12345.", "Transfers the caller", "书 …"]))
    return Tool(name=name, description=description, parameters={"properties": properties, "required": required})


_ITEM = st.one_of(
    _UTTERANCES.map(Item.user_text),
    _UTTERANCES.map(Item.user_text),
    st.text(max_size=10).map(spoken),
    st.builds(Item.function_call, st.sampled_from("ab"), st.just("lookup_order"), _JSON.map(json.dumps)),
    st.builds(Item.function_call_output, st.sampled_from("ab"), _JSON.map(json.dumps) | st.text(max_size=10)),
    st.sampled_from(["mcp_call", "item_reference", "message", "function_call_output"]).map(lambda t: Item(type=t)),
)
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "null": (),
}  # fmt: skip


def satisfies(value: Any, schema: Mapping[str, Any]) -> bool:
    """A small independent judge of a value."""
    if "anyOf" in schema:
        return any(satisfies(value, option) for option in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and not any(isinstance(value, _PYTHON_TYPES[kind]) for kind in kinds):
        return False
    if isinstance(value, bool):
        return "boolean" in kinds or not kinds
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    return not isinstance(value, str) or len(value) <= schema.get("maxLength", len(value))


@settings(max_examples=300)
@given(st.lists(_ITEM, max_size=8), st.lists(_tool(), max_size=3), st.text(max_size=20))
def test_it_answers_anything_and_calls_only_what_fits(items: list[Item], tools: list[Tool], instructions: str) -> None:
    parts = reply(items, tools, instructions).parts
    assert parts
    for part in parts:
        if isinstance(part, Say):
            assert part.text.strip()
            part.text.encode()
            continue
        arguments = json.loads(part.arguments)
        candidates = [tool.parameters or {} for tool in tools if tool.name == part.name]
        assert any(
            set(p["required"]) <= set(arguments) <= set(p["properties"])
            and all(satisfies(value, p["properties"][name]) for name, value in arguments.items())
            for p in candidates
        ), part


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=4), _UTTERANCES)
def test_any_schema_at_all(parameters: dict[str, Any], utterance: str) -> None:
    for schema in (parameters, {"properties": parameters, "required": list(parameters)}):
        tool = Tool(name="lookup_order", parameters=schema)
        assert reply([Item.user_text(f"order {utterance}")], [tool], "").parts
