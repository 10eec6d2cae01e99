"""What a session leaves: what it used and what was noted; its record, of which another session begins."""

from __future__ import annotations

import gc
import json
import sys
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kit import call
from test_history_edits import OPTIONS, PICTURE, called, heard, model_s_view, two_exchanges
from trio_voice import ConfigError, HistoryItem, Prices, RealtimeAgent, RealtimeSession, events, tool
from trio_voice.channels import CONTROL_CAPACITY
from trio_voice.protocol import ResponseDone
from trio_voice.protocol.resume import NEVER_RUN
from trio_voice.server import scripted
from trio_voice.server.scripted import Say, ScriptedBrain

# --- what is told ---------------------------------------------------------------------------------


async def test_a_display_that_follows_the_events_shows_the_history(autojump_clock: MockClock) -> None:
    @tool
    async def weather() -> str:
        """The weather."""
        return "rain"

    brain = ScriptedBrain(
        [[scripted.Call("weather")], Say("It rains.", 400), Say("one two three four", 2000)], ["Weather?", "Stop!"]
    )
    shown: dict[str, HistoryItem] = {}
    changes: list[tuple[str, str]] = []

    def follow(event: events.HistoryChanged) -> None:
        changes.append((event.change, event.item.heard_text or event.item.kind))
        if event.change == "deleted":
            assert shown.pop(event.item.id)
        else:
            assert (event.item.id in shown) == (event.change == "changed")
            shown[event.item.id] = event.item

    async with call(brain, RealtimeAgent(tools=[weather]), connection=OPTIONS) as on:
        on.session.on("history", follow)
        await on.speak()
        await on.next(events.PlaybackEnd)
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.session.interrupt()
        await on.drop()
        await on.next(events.Connected)
        note = await on.session.inject("user", "A note.")
        await on.session.edit_item(note, "Another.")
        await on.session.delete_item(called(on.session, "Weather?"))
        await trio.sleep(1)
        assert {id: item.heard_text or item.kind for id, item in shown.items()} == {
            item.id: item.heard_text or item.kind for item in on.session.history
        }
        assert ("changed", "one two") in changes
        assert [item.at for item in on.session.history] == sorted(item.at for item in on.session.history)
    assert len(changes) < 20, "more than a few events for each item"


async def test_a_background_tool_whose_call_is_gone_is_not_spoken_of(autojump_clock: MockClock) -> None:
    released = trio.Event()

    @tool(result="background")
    async def order_pizza() -> str:
        """Order a pizza."""
        await released.wait()
        return "ordered"

    brain = ScriptedBrain([[scripted.Call("order_pizza")], Say("It is under way.", 100), Say("Hello.", 100)])
    async with call(brain, RealtimeAgent(tools=[order_pizza]), listening=False) as on:
        await on.session.send_text("A pizza.")
        await on.next(events.PlaybackEnd)
        ordered = next(item for item in on.session.history if item.kind == "function_call")
        await on.session.delete_item(ordered.id)
        released.set()
        assert (await on.next(events.ToolFinished)).output == "ordered"
        await trio.sleep(10)
        expected = [("user", "A pizza."), ("assistant", "It is under way.")]
        assert heard(on.session) == expected
        await on.session.send_text("Hello?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [*expected, ("user", "Hello?")]
        assert on.errors() == []


# --- usage and notes ------------------------------------------------------------------------------


async def test_what_is_used_is_counted_for_each_turn_and_in_all(autojump_clock: MockClock) -> None:
    prices = Prices(text_in=4, text_out=16, audio_in=32, audio_out=64, transcription_minute=0.006)
    brain = ScriptedBrain([Say("One.", 1000), Say("A long answer.", 5000)], ["First?"])
    async with call(brain, prices=prices, protocol=True) as on:
        reported: list[Any] = []
        await on.speak()
        while len(reported) < 2:
            event = (await on.next(events.ServerEventReceived)).event
            if isinstance(event, ResponseDone):
                reported.append(event.response.usage)
                if len(reported) == 1:
                    await on.session.send_text("Second?")
        first, second = on.session.turns()
        assert first.usage.tokens_in == reported[0].input_tokens
        assert first.usage.audio_out == reported[0].output_token_details.audio_tokens == 20
        assert first.usage.transcription_s > 0.8
        assert second.usage.audio_out == 100
        metrics = on.session.metrics
        assert metrics.usage == first.usage + second.usage
        assert metrics.cost == prices.cost(metrics.usage)
        assert metrics.cost


async def test_what_an_interrupted_answer_used_belongs_to_its_turn(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say("One.", 1000), scripted.Wait(3000), Say("More.", 1000)], Say("Two.", 1000)], ["Stop!"])
    async with call(brain) as on:
        await on.session.send_text("Talk.")
        await on.next(events.PlaybackStart)
        await on.speak()
        await on.next(events.Interruption)
        await on.next(events.PlaybackEnd)
        first, second = on.session.turns()
        assert (first.usage.audio_out, second.usage.audio_out) == (20, 20)


async def test_notes_are_kept_with_their_turn(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("One.", 200), Say("Two.", 200), Say("Three.", 200)])
    async with call(brain, listening=False, metadata={"customer": "ada"}) as on:
        with pytest.raises(ConfigError, match="no turn 0"):
            on.session.annotate(topic="none yet")
        await two_exchanges(on)
        on.session.annotate(topic="delivery", turn="a note may be called so")
        on.session.annotate(1, mood="cross")
        with pytest.raises(ConfigError, match="no turn 3"):
            on.session.annotate(3, mood="cross")
        with pytest.raises(ConfigError, match="JSON"):
            on.session.annotate(when=object())
        first, second = on.session.turns()
        assert first.metadata == {"mood": "cross"}
        assert second.metadata == {"topic": "delivery", "turn": "a note may be called so"}
        on.session.tracker.metadata["order"] = 7
        exported = json.loads(json.dumps(on.session.export()))
        assert exported["metadata"] == {"customer": "ada", "order": 7}
        assert [turn["metadata"] for turn in exported["turns"]] == [first.metadata, second.metadata]
        on.session.tracker.metadata["order"] = object()
        with pytest.raises(ConfigError, match="metadata"):
            on.session.export()


# --- one session after the other ------------------------------------------------------------------


async def exported_call() -> dict[str, Any]:
    """A conversation with a tool, an interruption, a picture and a lost connection."""

    @tool
    async def weather() -> str:
        """The weather."""
        return "rain"

    brain = ScriptedBrain(
        [[scripted.Call("weather")], Say("It rains.", 400), Say("one two three four", 2000), Say("Yes.", 100)],
        ["Weather?"],
    )
    async with call(brain, RealtimeAgent(tools=[weather]), connection=OPTIONS, metadata={"customer": "ada"}) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.session.interrupt()
        await on.drop()
        await on.next(events.Connected)
        await on.session.inject("user", "Look.", images=[PICTURE])
        await on.session.send_text("Well?")
        await on.next(events.PlaybackEnd)
        at_once = on.session.export()
    assert on.session.export()["items"] == at_once["items"]
    return on.session.export()


TALK = [
    ("user", "Weather?"),
    ("function_call", "weather"),
    ("function_call_output", "rain"),
    ("assistant", "It rains."),
    ("assistant", "one two"),
    ("user", "Look."),
    ("user", "Well?"),
    ("assistant", "Yes."),
]


@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
async def test_a_session_goes_on_with_the_conversation_of_an_earlier_one(autojump_clock: MockClock, lost: bool) -> None:
    exported = json.loads(json.dumps(await exported_call()))
    brain = ScriptedBrain([Say("Hello again.", 200), Say("Bye.", 200)], ["And?"])
    agent = RealtimeAgent(greets_first=True)
    async with call(brain, agent, connection=OPTIONS, history=exported, metadata={"call": 2}) as on:
        assert on.session.export()["items"] == exported["items"]
        assert on.session.tracker.metadata == {"customer": "ada", "call": 2}
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == TALK, "told before the greeting"
        if lost:
            await on.drop()
            await on.next(events.Connected)
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [*TALK, ("assistant", "Hello again."), ("user", "And?")]
        pictures = [part.image_url for item in brain.requests[-1].items for part in item.parts if part.image_url]
        assert pictures == [PICTURE]
        again = on.session.export()
        assert again["items"][: len(TALK)] == exported["items"]
        assert again["duration_s"] > exported["duration_s"]
        times = [item["at_s"] for item in again["items"]]
        assert times == sorted(times)
        assert [turn["agent_transcript"] for turn in again["turns"]] == ["Hello again.", "Bye."]
        ids = [item.id for item in on.session.history]
        assert len(set(ids)) == len(ids)
        assert on.errors() == []


async def test_items_of_our_own_do_not_take_the_ids_of_an_earlier_session_s(autojump_clock: MockClock) -> None:
    earlier = {"version": 1, "items": [{"id": "text_1", "kind": "message", "role": "user"}]}
    earlier["items"][0] |= {"text": "Before.", "heard_text": "Before."}  # type: ignore[index]  # plain JSON
    brain = ScriptedBrain([Say("Yes.", 100)])
    async with call(brain, listening=False, history=earlier) as on:
        await on.session.send_text("Now.")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("user", "Before."), ("user", "Now.")]
        assert on.errors() == []


async def test_a_call_without_a_result_is_told_as_one_that_was_not_run(autojump_clock: MockClock) -> None:
    item = {"id": "c", "kind": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    brain = ScriptedBrain([Say("Yes.", 100)])
    async with call(brain, listening=False, history={"version": 1, "items": [item]}) as on:
        await on.session.send_text("Now.")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [
            ("function_call", "weather"),
            ("function_call_output", NEVER_RUN),
            ("user", "Now."),
        ]
        assert heard(on.session)[:3] == model_s_view(brain)


@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
async def test_a_conversation_longer_than_the_control_channel_is_told_whole_and_forgotten_whole(
    autojump_clock: MockClock, lost: bool
) -> None:
    said = [f"{number}" for number in range(CONTROL_CAPACITY + 100)]
    items = [
        {"id": f"item_{word}", "kind": "message", "role": "user", "text": word, "heard_text": word} for word in said
    ]
    brain = ScriptedBrain([Say("Yes.", 100), Say("No.", 100)])
    async with call(brain, connection=OPTIONS, listening=False, history={"version": 1, "items": items}) as on:
        if lost:
            await on.drop()
            await on.next(events.Reconnecting)
            await on.next(events.Connected)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("user", word) for word in said]
        await on.session.reset_history()
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == []
        assert on.errors() == []
        assert len(on.links) == 1 + lost


async def test_a_history_that_is_none_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError, match=r"\$\.items\[0\]\.role"):
        RealtimeSession(
            RealtimeAgent(), history={"version": 1, "items": [{"id": "a", "kind": "message", "role": "agent"}]}
        )


@pytest.mark.parametrize(("with_tool", "limit_bytes"), [(False, 2700), (True, 5000)], ids=["words", "tool"])
async def test_what_a_turn_costs_to_keep(autojump_clock: MockClock, with_tool: bool, limit_bytes: int) -> None:
    """The figure in docs/howto/keep-and-edit-the-history.md."""

    @tool
    async def lookup(order: str) -> str:
        """Look an order up."""
        return "shipped, expected on Tuesday"

    words = "This is an answer of some twenty words, as an agent on the telephone would give it to any customer."
    turns = 60
    answer: list[scripted.Reply] = [[scripted.Call("lookup", '{"order": "ORD-1"}')]] if with_tool else []
    brain = ScriptedBrain([*answer, Say(words, 100)] * turns)
    async with call(brain, RealtimeAgent(tools=[lookup]), listening=False) as on:
        sizes = []
        for number in range(turns):
            await on.session.send_text(f"And what about the order number {number}, please?")
            await on.next(events.PlaybackEnd)
            view = on.session._view
            sizes.append(size_of(view.history) + size_of(view.tracker, but=view.history))
    assert (sizes[-1] - sizes[9]) / (turns - 10) < limit_bytes


def size_of(root: object, *, but: object = None) -> int:
    """The bytes of all that hangs on `root`."""
    seen, todo, size = {id(but)}, [root], 0
    while todo:
        value = todo.pop()
        if id(value) not in seen and not isinstance(value, type | ModuleType | FunctionType | MethodType):
            seen.add(id(value))
            size += sys.getsizeof(value)
            todo += gc.get_referents(value)
    return size


@pytest.mark.parametrize("how", ["delete", "edit", "reset"])
async def test_an_item_that_the_server_was_never_told_can_be_changed(autojump_clock: MockClock, how: str) -> None:
    """One without words is told nobody; then nothing has to be deleted there, and its place is behind another."""
    items = [
        {"id": f"m{number}", "kind": "message", "role": "user", "text": text, "heard_text": text}
        for number, text in enumerate(["", "Before.", "", "After."])
    ]
    brain = ScriptedBrain([Say("Yes.", 100)])
    async with call(brain, listening=False, history={"version": 1, "items": items}) as on:
        failures: list[events.ErrorReported] = []
        on.session.on("error", failures.append)
        expected = [("user", "Before."), ("user", "After.")]
        for item_id in ("m0", "m2") if how != "reset" else ():
            if how == "delete":
                await on.session.delete_item(item_id)
            else:
                await on.session.edit_item(item_id, f"edited {item_id}")
        if how == "edit":
            expected = [("user", "edited m0"), expected[0], ("user", "edited m2"), expected[1]]
        if how == "reset":
            await on.session.reset_history()
            expected = []
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == heard(on.session)[:-1] == expected
        assert failures == []
