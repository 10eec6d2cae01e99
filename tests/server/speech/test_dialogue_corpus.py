"""What people say, as a small recogniser writes it, and what must come of it.

Each line is one utterance of a conversation; ` | ` parts the user's turns. Expected is what the last turn
leads to: calls, or a piece of what is said.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_voice.protocol.items import Item, Tool
from trio_voice.server.speech.dialogue import Call, Part, Say, reply

STRING = {"type": "string"}


def tool(name: str, description: str, required: list[str], **properties: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": required}
    return Tool(name=name, description=description, parameters=parameters)


SERVICE = [
    tool("lookup_order", "Look up an order by its number.", ["order_id"], order_id={
        "type": "string", "description": "The order number, like ORD-12345."}),
    tool("schedule_callback", "Schedule a callback.", ["phone_number", "reason"], phone_number=STRING, reason=STRING,
         preferred_time={"anyOf": [STRING, {"type": "null"}], "default": None}),
    tool("transfer_to_department", "Transfer the caller to a department.", ["department"],
         department={"type": "string", "enum": ["billing", "technical", "sales", "returns"]}),
]  # fmt: skip
BARE = [Tool(name=t.name, parameters=t.parameters) for t in SERVICE]
HOME = [
    tool("get_weather", "Get the current weather for a city.", ["city"], city=STRING),
    tool("set_light", "Switch the light in a room.", ["room", "on"], room=STRING, on={"type": "boolean"},
         brightness={"type": "integer", "minimum": 0, "maximum": 100}),
    tool("book_table", "Book a table at the restaurant.", ["people", "day", "time"], people={"type": "integer"},
         day=STRING, time=STRING),
]  # fmt: skip
INSTRUCTIONS = "You are a customer service agent for Acme. Known orders: ORD-12345 and ORD-67890."


def talk(turns: str, tools: list[Tool]) -> tuple[Part, ...]:
    """Hold a conversation, answering every call with {}; the reply to the last turn."""
    items: list[Item] = []
    parts: tuple[Part, ...] = ()
    for n, turn in enumerate(turns.split(" | ")):
        items.append(Item.user_text(turn))
        parts = reply(items, tools, INSTRUCTIONS).parts
        for m, part in enumerate(parts):
            if isinstance(part, Say):
                items.append(Item.assistant_text(part.text))
            else:
                items.append(Item.function_call(f"c{n}.{m}", part.name, part.arguments))
                items.append(Item.function_call_output(f"c{n}.{m}", "{}"))
        if any(isinstance(part, Call) for part in parts):
            items.append(Item.assistant_text(reply(items, tools, INSTRUCTIONS).parts[0].text))  # type: ignore[union-attr]
    return parts


def order(*numbers: str) -> list[tuple[str, dict[str, Any]]]:
    return [("lookup_order", {"order_id": f"ORD-{number}"}) for number in numbers]


def to(department: str) -> list[tuple[str, dict[str, Any]]]:
    return [("transfer_to_department", {"department": department})]


def callback(phone: str, reason: str, when: str = "") -> list[tuple[str, dict[str, Any]]]:
    preferred = {"preferred_time": when} if when else {}
    return [("schedule_callback", {"phone_number": phone, "reason": reason, **preferred})]


ASKS_ORDER, ASKS_PHONE, ASKS_REASON = "order number?", "phone number?", "about?"

SERVICE_CORPUS: list[tuple[str, Any]] = [
    # an order, its number in every guise
    ("Where is my order ORD-12345?", order("12345")),
    ("Ord12345", order("12345")),
    ("ord. one two three four five.", order("12345")),
    ("Order won two three four five", order("12345")),
    ("Order won to three for five.", order("12345")),
    ("Look up order one two three four five, please.", order("12345")),
    ("What's the status of order 12345?", order("12345")),
    ("Can you check on order O R D 1 2 3 4 5?", order("12345")),
    ("Where's my order? Its number is or d 67890.", order("67890")),
    ("Track my package, order D dash six seven ate nine zero.", order("67890")),
    ("My order number is six seven eight nine oh", order("67890")),
    ("Order twelve three forty five", order("12345")),
    ("Hello, I'd like to know where my order one two three four five is.", order("12345")),
    ("orders 12345 and 67890", order("12345", "67890")),
    ("Order 99999 please", order("99999")),
    ("Order one, two, three, four, five.", order("12345")),
    ("Hello, can you tell me where my order is the number is 0.001, 2, 3, 4, 5.", order("12345")),
    ("Hello, can you tell me where my order is the number is 0RD1, 2, 3, 4, 5?", order("12345")),
    ("Has order 12345 shipped yet?", order("12345")),
    ("When will order ORD-67890 arrive?", order("67890")),
    ("Where is my order?", ASKS_ORDER),
    ("Can you track my package?", ASKS_ORDER),
    ("I'd like to check the status of my order.", ASKS_ORDER),
    ("My order hasn't arrived yet.", ASKS_ORDER),
    ("Where's my order? | Ord12345", order("12345")),
    ("Where's my order? | it's one two three four five", order("12345")),
    ("Where's my order? | Oh are dee, one two three four five.", order("12345")),
    ("Where's my order? | one two three | four five", order("12345")),
    ("Where's my order? | one two three four", "Did you say ORD-12345?"),
    ("Where's my order? | one two three four | yes", order("12345")),
    ("Where's my order? | one two three four | five", order("12345")),
    ("Where's my order? | one two three four | No, six seven eight nine zero.", order("67890")),
    ("Where's my order? | one two three four | no", ASKS_ORDER),
    ("Where's my order? | banana", "It looks like ORD-12345"),
    ("Where is order 12345? | And six seven eight nine zero?", order("67890")),
    ("Where is order 12345? | What about ORD-67890?", order("67890")),
    # a callback
    ("I need a callback.", ASKS_PHONE),
    ("Can somebody call me back?", ASKS_PHONE),
    ("Please schedule a call back", ASKS_PHONE),
    ("Give me a ring at 555-1234.", ASKS_REASON),
    ("Call me back. My number is 5551234.", ASKS_REASON),
    ("Call me back at five five five one two three four.", ASKS_REASON),
    ("Call me back at 555-1234 about my refund.", callback("555-1234", "refund")),
    ("Please call me at five five five won to three four because the box was broken.",
     callback("555-1234", "the box was broken")),
    ("Call me back at double five five, one two three four about my bill tomorrow morning.",
     callback("555-1234", "bill", "tomorrow morning")),
    ("Schedule a callback for tomorrow at three p.m. at 555-1234 about a billing question",
     callback("555-1234", "billing question", "tomorrow at 3 pm")),
    ("Schedule a callback for next Tuesday at half past two to 555 123 4567 regarding a damaged parcel.",
     callback("555-123-4567", "damaged parcel", "next Tuesday at 2:30")),
    ("I need a callback | five five five one two three four | about my refund", callback("555-1234", "refund")),
    ("I need a callback | 555 | 1234 | it's about my order", callback("555-1234", "order")),
    ("I need a callback | My number is 5551234 | The lamp is broken.", callback("555-1234", "The lamp is broken")),
    ("Call me back | what can you do | 555-1234", ASKS_REASON),
    ("Call me back | I have no idea", ASKS_PHONE),
    # a transfer
    ("Transfer me to billing.", to("billing")),
    ("Transfer me to the building department", to("billing")),
    ("Transform me to sales.", to("sales")),
    ("Put me through to tech support.", to("technical")),
    ("Connect me with a technician please", to("technical")),
    ("I'd like to speak to someone in sails.", to("sales")),
    ("I'd like to talk to somebody about my bill.", to("billing")),
    ("Can you transfer me to the return department?", to("returns")),
    ("I want to speak to a human", "Which department"),
    ("Transfer me please", "billing, technical, sales or returns?"),
    ("Transfer me please | Sales", to("sales")),
    ("Transfer me please | the cells department", to("sales")),
    ("Transfer me please | I want a refund", to("returns")),
    ("Transfer me please | um, the second one maybe", "Which department"),
    ("Can I get a refund?", "Should I transfer you to returns?"),
    ("Can I get a refund? | yes please", to("returns")),
    ("Can I get a refund? | no", "never mind"),
    # both
    ("Where is order 12345 and please transfer me to sales.", order("12345") + to("sales")),
    ("Transfer me to sales please, and where is order 67890?", to("sales") + order("67890")),
    ("Call me back about order 12345 at 555-1234.", callback("555-1234", "order 12345")),
    ("I need a callback at 555-1234 for billing issues.", callback("555-1234", "billing issues")),
    ("call me back | 555-1234 | to-morrow morning | a refund", callback("555-1234", "refund", "tomorrow morning")),
    ("call me back | 555-1234 | tomorrow morning", "What is it about?"),
    ("call me back | 555-1234 | tomorrow morning | a refund", callback("555-1234", "refund", "tomorrow morning")),
    ("Where's my order? | Actually, transfer me to sales.", to("sales")),
    ("I'd like to speak to someone about my order.", "Which department"),
    ("12345", "Should I look up an order, ORD-12345?"),
    # neither
    ("I want to cancel my order.", "I can't cancel that. I can look up an order"),
    ("What time is it?", "I'm sorry"),
    ("Where is my order? | never mind | Hello?", "I am here"),
    ("What's the weather like?", "I can't tell you about the weather. I can look up an order"),
    ("Can you sing me a song?", "I can't help with that. I can"),
    ("Who won the game last night?", "I'm sorry"),
    ("Hello.", "customer service agent for Acme"),
    ("Hi there", "I can look up an order"),
    ("What can you do?", "look up an order, schedule a callback or transfer you to a department"),
    ("Thank you very much.", "welcome"),
    ("Thanks, goodbye.", "Goodbye"),
    ("Stop.", "Okay."),
    ("Where's my order? | never mind", "never mind"),
    ("Where's my order? | stop | one two three four five", "Should I look up an order"),
    ("", "did not catch"),
    ("...", "did not catch"),
    ("Where's my order? | ", ASKS_ORDER),
    ("Count to five.", "One, two, three, four, five."),
    ("Can you count to 12?", "nine, ten. Eleven, twelve."),
    ("Please count from five to ten", "Five, six, seven, eight, nine. Ten."),
    ("count down from three", "Three, two, one"),
    ("Count to two hundred.", "I only count to one hundred"),
]  # fmt: skip

HOME_CORPUS: list[tuple[str, Any]] = [
    ("What's the weather in Paris?", [("get_weather", {"city": "Paris"})]),
    ("what is the weather like in new york today", [("get_weather", {"city": "New York"})]),
    ("Will it rain in London tomorrow?", [("get_weather", {"city": "London"})]),
    ("weather please | Berlin.", [("get_weather", {"city": "Berlin"})]),
    ("Turn on the kitchen light.", [("set_light", {"room": "kitchen", "on": True})]),
    ("Turn off the light in the bedroom", [("set_light", {"room": "bedroom", "on": False})]),
    ("Switch on the lamp in the hall with brightness seventy.",
     [("set_light", {"room": "hall", "on": True, "brightness": 70})]),
    ("Set the living room lights to fifty percent | on",
     [("set_light", {"room": "living room", "on": True, "brightness": 50})]),
    ("Turn on the kitchen light with brightness 500", [("set_light", {"room": "kitchen", "on": True})]),
    ("Book a table for two at seven on Friday.", [("book_table", {"people": 2, "day": "Friday", "time": "7:00"})]),
    ("I want to reserve a table for four people next Tuesday at half past six in the evening",
     [("book_table", {"people": 4, "day": "next Tuesday", "time": "6:30 pm"})]),
    ("book a table | for people | tomorrow | seven thirty p.m.",
     [("book_table", {"people": 4, "day": "tomorrow", "time": "7:30 pm"})]),
    ("Book a table.", "How many people?"),
    ("Where is my order?", "tell you the current weather for a city"),
]  # fmt: skip


def check(parts: tuple[Part, ...], expected: Any) -> None:
    calls = [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, Call)]
    if isinstance(expected, str):
        assert calls == []
        assert expected in " ".join(part.text for part in parts if isinstance(part, Say))
    else:
        assert calls == expected


@pytest.mark.parametrize(("turns", "expected"), SERVICE_CORPUS)
def test_customer_service(turns: str, expected: Any) -> None:
    check(talk(turns, SERVICE), expected)


@pytest.mark.parametrize(("turns", "expected"), HOME_CORPUS)
def test_other_tools(turns: str, expected: Any) -> None:
    check(talk(turns, HOME), expected)


@pytest.mark.parametrize(("turns", "expected"), [c for c in SERVICE_CORPUS if isinstance(c[1], list)])
def test_tools_without_descriptions(turns: str, expected: Any) -> None:
    check(talk(turns, BARE), expected)
