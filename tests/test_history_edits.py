"""The application's hand in the record: what it puts in, edits and deletes, the model knows; lost sockets or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import pytest
import trio
from trio.testing import MockClock

from kit import Call, Peer, call, call_peer
from test_session_peer import created, done
from trio_voice import (
    ConfigError,
    ConnectionOptions,
    HistoryError,
    RealtimeAgent,
    RealtimeSession,
    SessionEnded,
    events,
    tool,
)
from trio_voice.protocol.edits import MAX_IMAGES_BYTES
from trio_voice.protocol.resume import CONTINUES
from trio_voice.server import scripted
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.server.server_settings import ServerSettings

OPTIONS = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
PICTURE = "data:image/png;base64,iVBORw0KGgo="

Words: TypeAlias = list[tuple[str, str]]


def model_s_view(brain: ScriptedBrain) -> Words:
    """What the model was last shown, but for the note that tells of a lost connection."""
    told = [(item.role or item.type, item.text or item.output or item.name or "") for item in brain.requests[-1].items]
    return [words for words in told if words[1] != CONTINUES]


def heard(session: RealtimeSession) -> Words:
    """What the session says that the model knows."""
    shown = [(item.role or item.kind, item.heard_text or item.output or item.name) for item in session.history]
    return [words for words in shown if words[1] != CONTINUES]


def called(session: RealtimeSession, text: str) -> str:
    """The id of the item that says `text`."""
    return next(item.id for item in session.history if item.text == text)


async def two_exchanges(on: Call) -> None:
    for question in ("First?", "Second?"):
        await on.session.send_text(question)
        await on.next(events.PlaybackEnd)


SAID = [("user", "First?"), ("assistant", "One."), ("user", "Second?"), ("assistant", "Two.")]


async def inject(session: RealtimeSession) -> Words:
    await session.inject("system", "The user is in a hurry.")
    return [*SAID, ("system", "The user is in a hurry.")]


async def edit_first(session: RealtimeSession) -> Words:
    await session.edit_item(called(session, "First?"), "Before?")
    return [("user", "Before?"), *SAID[1:]]


async def edit_middle(session: RealtimeSession) -> Words:
    await session.edit_item(called(session, "One."), "Three.")
    return [SAID[0], ("assistant", "Three."), *SAID[2:]]


async def delete(session: RealtimeSession) -> Words:
    await session.delete_item(called(session, "One."))
    return [SAID[0], *SAID[2:]]


async def reset(session: RealtimeSession) -> Words:
    await session.reset_history()
    return []


async def several(session: RealtimeSession) -> Words:
    made = await session.inject("user", "A note.", images=[PICTURE])
    await edit_first(session)
    await session.delete_item(called(session, "Second?"))
    await session.edit_item(made, "Another note.")
    return [("user", "Before?"), SAID[1], SAID[3], ("user", "Another note.")]


VERBS: list[Callable[[RealtimeSession], Awaitable[Words]]] = [inject, edit_first, edit_middle, delete, reset, several]


@pytest.mark.parametrize("lost", ["never", "before", "after", "in between"])
@pytest.mark.parametrize("verb", VERBS, ids=[verb.__name__ for verb in VERBS])
async def test_what_is_done_to_the_record_the_model_knows(
    autojump_clock: MockClock,
    verb: Callable[[RealtimeSession], Awaitable[Words]],
    lost: Literal["never", "before", "after", "in between"],
) -> None:
    brain = ScriptedBrain([Say("One.", 200), Say("Two.", 200), Say("Three.", 200)])
    async with call(brain, connection=OPTIONS, listening=False) as on:
        await two_exchanges(on)
        if lost == "before":
            await on.drop()
            await on.next(events.Reconnecting)
            assert on.session.connection_state.value == "reconnecting"
        if lost == "in between":
            await on.drop()  # nobody has noticed yet
        expected = await verb(on.session)
        if lost == "after":
            await on.drop()
        if lost != "never":
            await on.next(events.Connected)
        assert heard(on.session) == expected
        await on.session.send_text("And?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [*expected, ("user", "And?")]
        assert heard(on.session) == [*expected, ("user", "And?"), ("assistant", "Three.")]
        assert on.errors() == []


# --- while something is said, or runs -----------------------------------------------------------------


@pytest.mark.parametrize("made", ["being made", "made, being played"])
async def test_what_is_being_said_cannot_be_changed_and_the_answer_goes_on(
    autojump_clock: MockClock, made: str
) -> None:
    settings = ServerSettings(burst=1.0) if made == "being made" else ServerSettings()
    async with call(ScriptedBrain([Say("A long answer.", 2000)]), settings=settings, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(0.5)
        (item,) = on.session.history
        with pytest.raises(HistoryError, match="still being said"):
            await on.session.delete_item(item.id)
        with pytest.raises(HistoryError, match="still being said"):
            await on.session.edit_item(item.id, "Nothing.")
        await on.next(events.PlaybackEnd)
        assert heard(on.session) == [("assistant", "A long answer.")]
        await on.session.delete_item(item.id)
        assert on.session.history == ()
        assert on.errors() == []


async def test_what_was_interrupted_can_be_changed(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("one two three four", 2000), Say("Yes.", 100)])
    async with call(brain, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.session.interrupt()
        (item,) = on.session.history
        assert (item.text, item.heard_text, item.truncated) == ("one two three four", "one two", True)
        await on.session.edit_item(item.id, "one")
        await on.session.send_text("Go on.")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("assistant", "one"), ("user", "Go on.")]
        (first, *_) = on.session.history
        assert (first.heard_text, first.truncated) == ("one", False)
        assert on.errors() == []


async def test_a_reset_silences_the_agent_and_nothing_of_it_is_left(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("A long answer.", 5000), Say("Yes.", 100)])
    async with call(brain, listening=False) as on:
        await on.session.send_text("Talk.")
        await on.next(events.PlaybackStart)
        await trio.sleep(0.5)
        await on.session.reset_history()
        assert on.session.history == ()
        assert (await on.next(events.Interruption)).cause == "manual"
        await trio.sleep(10)
        assert on.session.history == ()
        assert on.session.transcript() == []
        assert [turn.interrupted for turn in on.session.turns()] == [True]
        await on.session.send_text("Who are you?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("user", "Who are you?")]
        assert on.errors() == []


async def test_an_answer_that_had_not_begun_is_not_given_to_a_conversation_that_was_forgotten(
    autojump_clock: MockClock,
) -> None:
    brain = ScriptedBrain([Say("Late.", 1000), Say("Yes.", 100)], think_ms=1000)
    async with call(brain, listening=False) as on:
        await on.session.send_text("Talk.")
        await on.session.reset_history()
        await trio.sleep(10)
        assert on.turns_heard() == []
        assert on.session.history == ()
        await on.session.send_text("Who are you?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("user", "Who are you?")]


async def test_an_answer_that_was_awaited_in_an_outage_is_not_asked_for_after_a_reset(
    autojump_clock: MockClock,
) -> None:
    brain = ScriptedBrain([Say("Late.", 1000)], think_ms=1000)
    async with call(brain, connection=OPTIONS, listening=False) as on:
        await on.session.send_text("Talk.")
        await on.next(events.ResponseStart)
        await on.drop()
        await on.next(events.Reconnecting)
        await on.session.reset_history()
        await on.next(events.Connected)
        await trio.sleep(10)
        assert len(brain.requests) == 1
        assert on.session.history == ()
        assert on.session.state.value == "connected"


async def test_what_is_injected_interrupts_nothing(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("A long answer.", 2000), Say("Yes.", 100)])
    async with call(brain, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.inject("system", "It rains.", respond=True)
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.interruption_count == 0
        expected = [("assistant", "A long answer."), ("system", "It rains.")]
        assert model_s_view(brain) == expected
        assert heard(on.session) == [*expected, ("assistant", "Yes.")]


async def test_an_answer_to_what_was_injected_in_an_outage_is_asked_for_after_it_once(
    autojump_clock: MockClock,
) -> None:
    brain = ScriptedBrain([Say("It does.", 100)])
    async with call(brain, connection=OPTIONS, listening=False) as on:
        await on.drop()
        await on.next(events.Reconnecting)
        await on.session.inject("user", "It rains.", respond=True)
        await on.next(events.PlaybackEnd)
        await trio.sleep(10)
        assert len(brain.requests) == 1
        assert model_s_view(brain) == [("user", "It rains.")]
        (turn,) = on.session.turns()
        assert (turn.user_transcript, turn.agent_transcript) == ("It rains.", "It does.")
        assert turn.latency_ms is not None


async def test_what_the_user_said_may_be_deleted_before_its_words_are_known(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Yes.", 100), Say("Pardon?", 100)], ["A secret."], hear_ms=5000)
    async with call(brain, connection=OPTIONS) as on:
        await on.speak()
        said = await on.next(events.HistoryChanged)
        assert (said.change, said.item.role, said.item.text) == ("added", "user", "")
        await on.session.delete_item(said.item.id)
        await on.next(events.PlaybackEnd)
        await trio.sleep(10)
        assert [line.text for line in on.session.transcript()] == ["Yes."]
        told = [event.text for event in on.events._queue if isinstance(event, events.Transcript)]
        assert "A secret." not in told
        await on.drop()
        await on.next(events.Connected)
        await on.session.send_text("Hello?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("assistant", "Yes."), ("user", "Hello?")]


@pytest.mark.parametrize("how", ["delete", "reset"])
@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
async def test_a_running_tool_whose_call_is_gone_runs_on_and_the_model_is_not_told(
    autojump_clock: MockClock, how: str, lost: bool
) -> None:
    released, runs = trio.Event(), []

    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        runs.append("begun")
        await released.wait()
        runs.append("done")
        return "ordered"

    brain = ScriptedBrain([[scripted.Call("order_pizza")], Say("Hello.", 100)])
    async with call(brain, RealtimeAgent(tools=[order_pizza]), connection=OPTIONS, listening=False) as on:
        await on.session.send_text("A pizza.")
        await on.next(events.ToolCalled)
        _, ordered = on.session.history
        if how == "delete":
            await on.session.delete_item(ordered.id)
        else:
            await on.session.reset_history()
        if lost:
            await on.drop()
            await on.next(events.Connected)
        released.set()
        assert (await on.next(events.ToolFinished)).output == "ordered"
        await trio.sleep(10)
        left = [] if how == "reset" else [("user", "A pizza.")]
        assert heard(on.session) == left
        assert len(brain.requests) == 1, "an answer was asked for to a result that nobody is told"
        (turn,) = on.session.turns()
        assert [use.output for use in turn.tool_calls] == ["ordered"]
        await on.session.send_text("Hello?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [*left, ("user", "Hello?")]
        assert on.errors() == []
    assert runs == ["begun", "done"]


@pytest.mark.parametrize("which", ["function_call", "function_call_output"])
@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
async def test_a_call_and_its_result_go_together(autojump_clock: MockClock, which: str, lost: bool) -> None:
    @tool
    async def weather() -> str:
        """The weather."""
        return "rain"

    brain = ScriptedBrain([[scripted.Call("weather")], Say("It rains.", 100), Say("Hello.", 100)])
    async with call(brain, RealtimeAgent(tools=[weather]), connection=OPTIONS, listening=False) as on:
        await on.session.send_text("Weather?")
        await on.next(events.PlaybackEnd)
        assert [item.kind for item in on.session.history] == [
            "message",
            "function_call",
            "function_call_output",
            "message",
        ]
        item = next(item for item in on.session.history if item.kind == which)
        assert item.output == ("rain" if which == "function_call_output" else "")
        with pytest.raises(HistoryError, match="only messages can be edited"):
            await on.session.edit_item(item.id, "sun")
        if lost:
            await on.drop()
        await on.session.delete_item(item.id)
        if lost:
            await on.next(events.Connected)
        await on.session.send_text("Hello?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [("user", "Weather?"), ("assistant", "It rains."), ("user", "Hello?")]
        assert on.errors() == []


async def test_the_model_is_told_the_order_that_the_record_has_after_a_loss_in_mid_sentence(
    autojump_clock: MockClock,
) -> None:
    """What is being heard is told the new connection only when it was; in its place, not at the end."""
    brain = ScriptedBrain([Say("A long answer.", 2000), Say("Yes.", 100)])
    async with call(brain, connection=OPTIONS, listening=False) as on:
        await on.session.send_text("Talk.")
        await on.next(events.ResponseEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.session.inject("user", "A note.")
        await on.next(events.PlaybackEnd)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        expected = [("user", "Talk."), ("assistant", "A long answer."), ("user", "A note.")]
        assert model_s_view(brain) == expected
        assert heard(on.session)[:3] == expected
        assert on.errors() == []


# --- what is refused ------------------------------------------------------------------------------


async def test_what_there_is_not_cannot_be_changed(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([]), listening=False) as on:
        for attempt in (on.session.delete_item("x"), on.session.edit_item("x", "y")):
            with pytest.raises(HistoryError, match="no item 'x'"):
                await attempt
        made = await on.session.inject("user", "Hello.")
        await on.session.delete_item(made)
        with pytest.raises(HistoryError, match="no item"):
            await on.session.delete_item(made)
    with pytest.raises(SessionEnded):
        await on.session.inject("user", "Hello.")
    assert on.session.history == ()


@pytest.mark.parametrize(
    ("role", "text", "images", "why"),
    [
        ("agent", "Hello.", [], "role='agent'"),
        ("user", " ", [], "needs words"),
        ("system", "Look.", [PICTURE], "images are for the user"),
        ("user", "Look.", ["https://example.org/cat.png"], r"images\[0\] is no data URL"),
        ("user", "Look.", [PICTURE, "data:image/gif;base64,R0lGOD=="], r"images\[1\]"),
        ("user", "\ud800", [], "not Unicode"),
    ],
)
async def test_a_message_that_no_server_would_take_is_not_sent(
    autojump_clock: MockClock, role: Any, text: str, images: list[str], why: str
) -> None:
    async with call(ScriptedBrain([]), listening=False) as on:
        with pytest.raises(ConfigError, match=why):
            await on.session.inject(role, text, images=images)
        with pytest.raises(ConfigError, match="needs words"):
            await on.session.edit_item("x", " ")
        assert on.session.history == ()


async def test_pictures_up_to_the_limit_arrive_and_more_are_refused(autojump_clock: MockClock) -> None:
    head = "data:image/jpeg;base64,"
    largest = head + "A" * (MAX_IMAGES_BYTES - len(head))
    brain = ScriptedBrain([Say("A cat.", 100), Say("Still.", 100)])
    async with call(brain, connection=OPTIONS, listening=False) as on:
        with pytest.raises(ConfigError, match="make them smaller"):
            await on.session.inject("user", "What is it?", images=[largest + "A"])
        await on.session.inject("user", "What is it?", images=[largest], respond=True)
        await on.next(events.PlaybackEnd)
        for request in range(2):
            (item, *_) = brain.requests[request].items
            assert [part.type for part in item.parts] == ["input_text", "input_image"]
            assert item.parts[1].image_url == largest
            if request == 0:
                await on.drop()
                await on.next(events.Connected)
                await on.session.respond()
                await on.next(events.PlaybackEnd)
        assert on.session.history[0].images == (largest,)
        assert on.errors() == []


async def test_a_call_that_is_being_made_cannot_be_changed_and_one_of_a_forgotten_answer_is_not_run(
    autojump_clock: MockClock,
) -> None:
    runs = []

    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        runs.append("begun")
        return "ordered"

    refused = trio.Event()
    item = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "order_pizza", "arguments": ""}
    peers: list[Peer] = []

    async def serve(peer: Peer) -> None:
        peers.append(peer)
        await peer.configure()
        await peer.receive("response.create")
        await peer.send(created("r1"), {"type": "response.output_item.added", "response_id": "r1", "item": item})
        await refused.wait()
        await peer.receive("conversation.item.delete")
        whole = item | {"arguments": "{}", "status": "completed"}
        await peer.send({"type": "response.output_item.done", "response_id": "r1", "item": whole}, done("r1"))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(tools=[order_pizza])) as on:
        await on.session.respond()
        assert (await on.next(events.HistoryChanged)).item.kind == "function_call"
        with pytest.raises(HistoryError, match="still being said"):
            await on.session.delete_item("f1")
        refused.set()
        await on.session.reset_history()
        await trio.sleep(10)
        assert on.session.history == ()
    assert runs == []
    assert "conversation.item.create" not in peers[0].types(), "an output without a call"
