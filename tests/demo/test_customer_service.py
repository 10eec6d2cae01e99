"""The demonstration's agent against the offline dialogue, in writing: what the caller says leads to the right calls."""

from __future__ import annotations

import json

from trio_voice import ToolContext
from trio_voice.demo.caller import SCRIPT, texts
from trio_voice.demo.customer_service import AGENT
from trio_voice.protocol import Item
from trio_voice.server.speech.dialogue import Call, Say, reply

TOOLS = {function.name: function for function in AGENT.runnable}


async def answer(items: list[Item], text: str) -> tuple[list[Call], str]:
    """Say `text`; run the tools that are called; give the calls and all that was said in the end."""
    items.append(Item.user_text(text))
    calls, spoken = [], []
    while True:
        parts = reply(items, [function.wire_tool() for function in AGENT.runnable], AGENT.instructed(None)).parts
        for part in parts:
            match part:
                case Say(words):
                    spoken.append(words)
                    items.append(Item.assistant_text(words))
                case Call(name, arguments):
                    calls.append(part)
                    function, call_id = TOOLS[name], f"call_{len(items)}"
                    output = json.dumps(await function.call(ToolContext(None), arguments))
                    items += [
                        Item.function_call(call_id, name, arguments),
                        Item.function_call_output(call_id, output),
                    ]
        if not any(isinstance(part, Call) for part in parts):
            return calls, " ".join(spoken)


async def test_the_caller_s_lines_in_order() -> None:
    items = [Item.assistant_text("Hello! How can I help you?")]
    lines = [texts()[line.name] for line in SCRIPT]

    calls, said = await answer(items, lines[0])
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("lookup_order", {"order_id": "ORD-12345"})]
    assert "shipped" in said

    calls, said = await answer(items, lines[1])
    assert [call.name for call in calls] == ["schedule_callback"]
    assert json.loads(calls[0].arguments)["phone_number"] == "555-1234"
    assert "tomorrow morning" in said

    calls, said = await answer(items, lines[2])
    assert not calls
    assert "sorry" in said
    assert "look up an order" in said, "it says what it can do instead"

    calls, said = await answer(items, lines[3])
    assert not calls
    assert said.lower().startswith("one, two, three")

    calls, said = await answer(items, lines[4])
    assert [json.loads(call.arguments) for call in calls] == [{"department": "billing"}]
    assert "billing" in said

    calls, said = await answer(items, lines[5])
    assert not calls
    assert "goodbye" in said.lower()


async def test_an_unknown_order_is_admitted() -> None:
    assert "no order" in (await TOOLS["lookup_order"].call(ToolContext(None), '{"order_id": "ORD-00000"}'))["error"]
