"""Words, numbers, times and slots, each alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_voice.protocol.items import Tool
from trio_voice.server.speech.identifiers import email, phone
from trio_voice.server.speech.moments import find_moment
from trio_voice.server.speech.phrases import deed, question
from trio_voice.server.speech.schema import Kind, Slot, ToolForm, form_of, label
from trio_voice.server.speech.slots import accepts, fill, yes_or_no
from trio_voice.server.speech.words import digit_runs, distance, hear, likeness, number_words, numbers_in, stem


def slot(name: str, schema: dict[str, Any] | None = None, required: bool = True) -> Slot:
    properties = {name: schema or {"type": "string"}}
    form = form_of(Tool(name="t", parameters={"properties": properties, "required": [name] if required else []}))
    assert form is not None
    return form.slots[0]


def value(one: Slot, said: str, *, asked: bool = False) -> Any:
    found = fill([one], hear(said), asked=one.name if asked else None)
    return found[one.name].value if one.name in found else None


# --- words --------------------------------------------------------------------------------------------------


@given(st.integers(0, 999))
def test_a_number_spoken_is_the_number_heard(n: int) -> None:
    assert [number.value for number in numbers_in(hear(number_words(n)))] == [n]


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("two hundred and five", [205]),
        ("a dozen eggs and a couple of apples", [12, 2]),
        ("twelve thousand three hundred forty five", [12345]),
        ("1,250", [1250]),
        ("one two", [1, 2]),
        ("nothing here", []),
    ],
)
def test_numbers(said: str, values: list[int]) -> None:
    assert [number.value for number in numbers_in(hear(said))] == values


@given(st.text(alphabet="0123456789", min_size=1, max_size=12))
def test_digits_said_one_by_one_are_the_digits_heard(digits: str) -> None:
    runs = digit_runs(hear(" ".join(number_words(int(d)) for d in digits)))
    assert [run[0].text for run in runs] == [digits]


@given(st.text(alphabet="abc", max_size=6), st.text(alphabet="abc", max_size=6), st.text(alphabet="abc", max_size=6))
def test_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_words_that_sound_alike_are_near() -> None:
    assert likeness("sails", "sales") >= 0.9
    assert likeness("building", "billing") > 0.72
    assert likeness("weather", "returns") < 0.4


@pytest.mark.parametrize(
    "words", ["ship ships shipped shipping", "order orders ordered", "transfer transferring", "party parties"]
)
def test_endings_are_taken_off(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


@given(st.text())
def test_any_text_is_heard(text: str) -> None:
    heard = hear(text)
    assert all(heard.text[word.start : word.end] for word in heard.words)


# --- telephone, mail, identifiers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("555-1234", "555-1234"),
        ("my number is 5551234.", "555-1234"),
        ("five five five one two three four", "555-1234"),
        ("five five five won to three for", "555-1234"),
        ("double five five one two three four for a refund", "555-1234"),
        ("five five five, twelve thirty four", "555-1234"),
        ("call (555) 123-4567", "555-123-4567"),
        ("one five five five one two three four five six seven", "1-555-123-4567"),
        ("zero eight hundred five five five one", "08005551"),
        ("555", None),
        ("to for to for", None),
    ],
)
def test_telephone_numbers(said: str, number: str | None) -> None:
    found = phone(hear(said))
    assert (found.value if found else None) == number


@pytest.mark.parametrize("said", ["jo.b@example.com", "my mail is jo.b@example.com.", "jo dot b at example dot com"])
def test_mail(said: str) -> None:
    found = email(hear(said))
    assert found is not None
    assert found.value == "jo.b@example.com"


def test_the_letters_choose_between_shapes() -> None:
    one = slot("case_id", {"type": "string", "description": "Like ORD-12345 or INV-00001."})
    assert value(one, "invoice i n v one two three four five") == "INV-12345"
    assert value(one, "o r d one two three four five") == "ORD-12345"


def test_an_identifier_without_a_known_shape() -> None:
    one = slot("ticket_id")
    assert value(one, "ticket A B one two three") == "AB123"
    assert value(one, "ticket TK-99") == "TK-99"
    assert value(one, "no ticket") is None


# --- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "when"),
    [
        ("tomorrow morning", "tomorrow morning"),
        ("at three pm", "3 pm"),
        ("at 3:30 p.m.", "3:30 pm"),
        ("next Tuesday", "next Tuesday"),
        ("on monday at ten in the morning", "Monday at 10 am"),
        ("half past two tomorrow", "tomorrow at 2:30"),
        ("quarter to one", "12:45"),
        ("five o'clock", "5:00"),
        ("at noon", "noon"),
        ("after five", "after 5:00"),
        ("in twenty minutes", "in 20 minutes"),
        ("in an hour", "in an hour"),
        ("the day after tomorrow", "the day after tomorrow"),
        ("on the fifth of May at seven", "May 5 at 7:00"),
        ("March 3rd", "March 3"),
        ("at five five five one two three four", None),
        ("good morning", None),
        ("the billing department", None),
    ],
)
def test_times(said: str, when: str | None) -> None:
    moment = find_moment(hear(said))
    assert (moment.text if moment else None) == when


def test_a_bare_hour_is_a_time_only_when_asked() -> None:
    assert find_moment(hear("three")) is None
    moment = find_moment(hear("three"), asked=True)
    assert moment is not None
    assert moment.text == "3:00"


# --- choices, switches, amounts, words ----------------------------------------------------------------------

DEPARTMENT = slot("department", {"type": "string", "enum": ["billing", "technical", "sales", "returns"]})


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("billing", "billing"), ("the building department", "billing"), ("my bill", "billing"),
        ("tech support", "technical"), ("a technician", "technical"), ("sails", "sales"), ("I want to buy", "sales"),
        ("return", "returns"), ("a refund", "returns"), ("the kitchen", None), ("yes", None),
    ],
)  # fmt: skip
def test_choices(said: str, choice: str | None) -> None:
    assert value(DEPARTMENT, said) == choice


def test_choices_that_are_not_text() -> None:
    size = slot("size", {"enum": [1, 2, True]})
    assert value(size, "number two") == 2
    assert not accepts(size, 1.0)


@pytest.mark.parametrize(
    ("said", "on"), [("turn it on", True), ("switch off", False), ("lights on please", True), ("on Monday", None)]
)
def test_switches(said: str, on: bool | None) -> None:
    assert value(slot("on", {"type": "boolean"}), said) is on


def test_yes_and_no() -> None:
    wrap = slot("gift_wrap", {"type": "boolean"})
    assert value(wrap, "with gift wrap") is True
    assert value(wrap, "without gift wrap") is False
    assert value(wrap, "no", asked=True) is False
    assert value(wrap, "hello") is None
    assert yes_or_no(hear("Yeah, that one.")) is True
    assert yes_or_no(hear("hm")) is None


@pytest.mark.parametrize(
    ("said", "people"), [("for four people", 4), ("a table for to", 2), ("for for people", 4), ("a party of six", 6)]
)
def test_people(said: str, people: int) -> None:
    assert value(slot("people", {"type": "integer"}), said) == people


def test_amounts_keep_their_limits() -> None:
    brightness = slot("brightness", {"type": "integer", "minimum": 0, "maximum": 100})
    assert value(brightness, "brightness fifty percent") == 50
    assert value(brightness, "brightness five hundred") is None
    assert value(slot("price", {"type": "number"}), "3.5 dollars") == 3.5


@pytest.mark.parametrize(
    ("said", "asked", "why"),
    [
        ("call me about my refund", False, "refund"),
        ("because the box was broken, please", False, "the box was broken"),
        ("call me", False, None),
        ("um, it's about the delivery", True, "delivery"),
        ("My parcel is late.", True, "My parcel is late"),
    ],
)
def test_reasons(said: str, asked: bool, why: str | None) -> None:
    assert value(slot("reason"), said, asked=asked) == why


@pytest.mark.parametrize(
    ("schema", "said", "fits"),
    [
        ({"type": "string", "maxLength": 5}, "code one two three four five", "12345"),
        ({"type": "string", "maxLength": 4}, "code one two three four five", None),
        ({"type": "string", "minLength": 6}, "code one two three four five", None),
        ({"type": "string", "pattern": "^[A-Z]"}, "code one two three four five", None),
        ({"type": "string", "pattern": "("}, "code one two three four five", "12345"),
        ({"type": "integer", "multipleOf": 5}, "code twelve", None),
        ({"type": "integer", "multipleOf": 5}, "code fifteen", 15),
        ({"type": "integer", "exclusiveMinimum": 15}, "code fifteen", None),
    ],
)
def test_a_value_that_the_schema_forbids_is_no_value(schema: dict[str, Any], said: str, fits: Any) -> None:
    assert value(slot("code", schema), said) == fits


def test_a_list_is_filled_with_one() -> None:
    tags = slot("cities", {"type": "array", "items": {"type": "string"}})
    assert tags.in_list
    assert value(tags, "Paris", asked=True) == "Paris"


# --- schemas and phrases ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "schema", "kind"),
    [
        ("order_id", {"type": "string"}, Kind.IDENTIFIER),
        ("phone_number", {"type": "string"}, Kind.PHONE),
        ("phoneNumber", {"type": "string"}, Kind.PHONE),
        ("when", {"type": ["string", "null"]}, Kind.MOMENT),
        ("date", {"type": "string"}, Kind.DAY),
        ("reason", {"anyOf": [{"type": "string"}, {"type": "null"}]}, Kind.REASON),
        ("city", {}, Kind.NAME),
        ("on", {"type": "boolean"}, Kind.BOOLEAN),
        ("level", {"const": "high"}, Kind.CHOICE),
    ],
)
def test_kinds(name: str, schema: dict[str, Any], kind: Kind) -> None:
    assert slot(name, schema).kind is kind


def test_references_are_followed() -> None:
    parameters = {
        "properties": {"department": {"$ref": "#/$defs/Department"}},
        "required": ["department"],
        "$defs": {"Department": {"enum": ["billing", "sales"]}},
    }
    form = form_of(Tool(name="t", parameters=parameters))
    assert form is not None
    assert form.slots[0].choices == ("billing", "sales")


@pytest.mark.parametrize(
    ("name", "description", "says"),
    [
        ("lookup_order", "", "look up an order"),
        ("transfer_to_department", "", "transfer you to a department"),
        ("lookup_order", "Looks up an order by its id.", "look up an order"),
        ("get_weather", "Get the weather for a city", "tell you the weather for a city"),
        ("x", "Transfer the customer to a department. Use with care.", "transfer you to a department"),
        ("setLight", "Long text that starts with no verb at all", "set a light"),
    ],
)
def test_deeds(name: str, description: str, says: str) -> None:
    assert deed(ToolForm(name, description, ())) == says


def test_questions() -> None:
    assert question(slot("order_id")) == "What is your order number?"
    assert question(slot("people", {"type": "integer"})) == "How many people?"
    assert question(DEPARTMENT) == "Which department: billing, technical, sales or returns?"
    assert label("phone_number") == "phone number"
