"""Whatever an application does to the record, and whenever the socket is lost: the model knows what the record says."""

from __future__ import annotations

import json
from typing import Literal, TypeAlias

import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from kit import Call, call
from test_history_edits import PICTURE, heard, model_s_view
from trio_voice import ConnectionOptions, HistoryError, HistoryItem, RealtimeAgent, events, tool
from trio_voice.server import scripted
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Say, ScriptedBrain, Step

OPTIONS = ConnectionOptions(
    url="ws://memory/v1/realtime", model=None, max_reconnect_attempts=50, reconnect_delay_ms=200
)

Action: TypeAlias = tuple[
    Literal["inject", "picture", "edit", "delete", "reset", "text", "call", "interrupt", "drop", "wait", "await"], int
]

actions = st.tuples(
    st.sampled_from(
        [
            "inject",
            "picture",
            "edit",
            "edit",
            "delete",
            "delete",
            "reset",
            "text",
            "text",
            "call",
            "interrupt",
            "drop",
            "drop",
            "wait",
            "await",
        ]
    ),
    st.integers(0, 20),
)


@tool
async def weather() -> str:
    """The weather."""
    await trio.sleep(0.3)
    return "rain"


def answer(request: ResponseRequest) -> list[Step]:
    asked = request.items[-1] if request.items else None
    if asked is not None and asked.text.startswith("call"):
        return [scripted.Call("weather")]
    return [Say("one two three four five six", 600)]


async def act(on: Call, action: Action, number: int) -> None:
    do, which = action
    session, items = on.session, on.session.history
    try:
        match do:
            case "inject":
                await session.inject(("user", "assistant", "system")[which % 3], f"note {number}")
            case "picture":
                await session.inject("user", "", images=[PICTURE])
            case "edit" if items:
                await session.edit_item(items[which % len(items)].id, f"edited {number}")
            case "delete" if items:
                await session.delete_item(items[which % len(items)].id)
            case "reset":
                await session.reset_history()
            case "text":
                await session.send_text(f"text {number}")
            case "call":
                await session.send_text(f"call {number}")
            case "interrupt":
                await session.interrupt()
            case "drop":
                await on.drop()
            case "wait":
                await trio.sleep(which / 20)
            case "await":
                await trio.sleep(5)
    except HistoryError:
        pass  # it is being said, or is no message


@given(st.lists(actions, min_size=1, max_size=14))
@settings(max_examples=25, deadline=None)
def test_the_model_knows_what_the_record_says(drawn: list[Action]) -> None:
    trio.run(converse, drawn, clock=MockClock(autojump_threshold=0))


async def converse(drawn: list[Action]) -> None:
    brain = ScriptedBrain(answer)
    async with call(brain, RealtimeAgent(tools=[weather]), connection=OPTIONS, listening=False) as on:
        display: list[HistoryItem] = []

        def follow(event: events.HistoryChanged) -> None:
            ids = [item.id for item in display]
            assert (event.item.id in ids) == (event.change != "added")
            if event.change != "added":
                display.pop(ids.index(event.item.id))
            if event.change != "deleted":
                ids = [item.id for item in display]
                display.insert(ids.index(event.after) + 1 if event.after else 0, event.item)

        on.session.on("history", follow)
        for number, action in enumerate(drawn):
            await act(on, action, number)
        await trio.sleep(8)
        before = heard(on.session)
        await on.session.send_text("And?")
        await trio.sleep(8)
        assert model_s_view(brain) == [*before, ("user", "And?")]
        assert on.errors() == []
        assert display == list(on.session.history)
        exported = json.loads(json.dumps(on.session.export()))
    brain = ScriptedBrain(answer)
    async with call(brain, connection=OPTIONS, listening=False, history=exported) as on:
        assert on.session.export()["items"] == exported["items"]
        before = heard(on.session)
        await on.session.send_text("And then?")
        await trio.sleep(3)
        assert model_s_view(brain) == [*before, ("user", "And then?")]
