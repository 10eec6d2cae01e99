"""What a long conversation keeps: the newest turns and what is open, and nothing else."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kit import Call, Peer, call, call_peer
from test_history_edits import OPTIONS, heard, model_s_view
from test_session_peer import created, delta, done
from trio_voice import (
    ConfigError,
    HistoryItem,
    RealtimeAgent,
    RealtimeSession,
    events,
    handoff,
    tool,
)
from trio_voice.conversation_parts import Parts
from trio_voice.protocol import ConversationItemDelete, history
from trio_voice.server import scripted
from trio_voice.server.scripted import Say, ScriptedBrain


async def ask(on: Call, *questions: str) -> None:
    for question in questions:
        await on.session.send_text(question)
        await on.next(events.PlaybackEnd)


def said(*numbers: int) -> list[tuple[str, str]]:
    return [words for n in numbers for words in (("user", f"Question {n}"), ("assistant", f"Answer {n}."))]


def answers(count: int) -> ScriptedBrain:
    return ScriptedBrain([Say(f"Answer {n}.", 300) for n in range(1, count + 1)])


QUESTIONS = [f"Question {n}" for n in range(1, 30)]


# --- what is kept ---------------------------------------------------------------------------------


async def test_the_newest_turns_are_kept_with_their_items(autojump_clock: MockClock) -> None:
    async with call(answers(5), listening=False, history_turns=3) as on:
        await ask(on, *QUESTIONS[:5])
        assert heard(on.session) == said(3, 4, 5)
        assert [turn.id for turn in on.session.turns()] == [3, 4, 5]
        assert [turn.user_transcript for turn in on.session.turns()] == QUESTIONS[2:5]
        assert [line.text for line in on.session.transcript()] == [words for _, words in said(3, 4, 5)]
        with pytest.raises(ConfigError, match="turn 2 is forgotten; the oldest that is kept is 3"):
            on.session.annotate(2, mood="cross")
        on.session.annotate(3, mood="cross")
        assert on.session.turns()[0].metadata == {"mood": "cross"}
    assert on.session.metrics.turn_count == 5


async def test_without_a_number_all_is_kept(autojump_clock: MockClock) -> None:
    async with call(answers(5), listening=False) as on:
        await ask(on, *QUESTIONS[:5])
        assert heard(on.session) == said(1, 2, 3, 4, 5)
        assert on.session.export()["forgotten_turns"] == 0


@pytest.mark.parametrize("turns", [0, 1, -3, 2.5, True, "all"])
def test_a_number_that_cannot_be_is_refused(turns: Any) -> None:
    with pytest.raises(ConfigError, match=r"history_turns=.*at least 2"):
        RealtimeSession(RealtimeAgent(), history_turns=turns)


async def test_the_server_is_told_nothing_and_a_new_connection_only_what_is_kept(autojump_clock: MockClock) -> None:
    brain = answers(6)
    async with call(brain, listening=False, history_turns=2, protocol=True, connection=OPTIONS) as on:
        await ask(on, *QUESTIONS[:5])
        assert model_s_view(brain) == [*said(1, 2, 3, 4), ("user", "Question 5")]
        assert not any(isinstance(event, ConversationItemDelete) for event in on.sent)
        await on.drop()
        await on.next(events.Connected)
        await ask(on, "Question 6")
        assert model_s_view(brain) == [*said(4, 5), ("user", "Question 6")]
        assert on.errors() == []


async def test_a_display_that_follows_the_events_shows_what_is_kept(autojump_clock: MockClock) -> None:
    shown: dict[str, HistoryItem] = {}
    gone: list[str] = []

    def follow(event: events.HistoryChanged) -> None:
        if event.change in ("deleted", "forgotten"):
            shown.pop(event.item.id)
            gone.append(f"{event.change} {event.item.text}")
        else:
            shown[event.item.id] = event.item

    async with call(answers(4), listening=False, history_turns=2) as on:
        on.session.on("history", follow)
        await ask(on, *QUESTIONS[:4])
        await trio.sleep(1)
        assert list(shown.values()) == list(on.session.history)
    assert gone == [f"forgotten {words}" for _, words in said(1, 2)]


# --- what is still open ---------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["answer", "background"])
async def test_a_turn_whose_tool_runs_is_kept_until_it_has_answered(autojump_clock: MockClock, result: Any) -> None:
    released = trio.Event()

    @tool(result=result, timeout_s=1000)
    async def order_pizza() -> str:
        """Order a pizza."""
        await released.wait()
        return "ordered"

    first: list[scripted.Reply] = [[scripted.Call("order_pizza")]]
    first += [Say("It is under way.", 100)] if result == "background" else []
    rest = [Say(f"Answer {n}.", 300) for n in range(2, 8)]
    brain = ScriptedBrain([*first, *rest])
    async with call(brain, RealtimeAgent(tools=[order_pizza]), listening=False, history_turns=2) as on:
        await on.session.send_text("A pizza.")
        await trio.sleep(2)  # nobody interrupts the call
        await ask(on, *QUESTIONS[1:4])
        assert [turn.id for turn in on.session.turns()] == [1, 3, 4]
        kept = heard(on.session)
        assert kept[:2] == [("user", "A pizza."), ("function_call", "order_pizza")]
        assert kept[-4:] == said(3, 4)
        released.set()
        assert (await on.next(events.ToolFinished)).output == "ordered"
        await on.next(events.PlaybackEnd)
        assert any("ordered" in words for _, words in model_s_view(brain))
        await ask(on, "Question 6", "Question 7")
        assert [turn.id for turn in on.session.turns()] == [5, 6]
        assert on.session.metrics.tool_call_count == 1
        assert ("user", "A pizza.") not in heard(on.session)


async def test_a_call_that_waits_for_approval_is_kept(autojump_clock: MockClock) -> None:
    @tool(needs_approval=True, timeout_s=1000)
    async def order_pizza() -> str:
        """Order a pizza."""
        return "ordered"

    brain = ScriptedBrain([[scripted.Call("order_pizza")], *(Say(f"Answer {n}.", 300) for n in range(2, 8))])
    async with call(brain, RealtimeAgent(tools=[order_pizza]), listening=False, history_turns=2) as on:
        await on.session.send_text("A pizza.")
        call_id = (await on.next(events.ToolApproval)).call_id
        await ask(on, *QUESTIONS[1:5])
        assert ("function_call", "order_pizza") in heard(on.session)
        assert await on.session.approve(call_id)
        assert (await on.next(events.ToolFinished)).output == "ordered"


async def test_a_call_and_its_output_go_together(autojump_clock: MockClock) -> None:
    """The output came two turns later: the call is kept as long as that, on a new connection too."""
    released = trio.Event()

    @tool(timeout_s=1000, result="silent")
    async def note() -> str:
        """Note it."""
        await released.wait()
        return "noted"

    brain = ScriptedBrain([[scripted.Call("note")], *(Say(f"Answer {n}.", 300) for n in range(2, 8))])
    agent = RealtimeAgent(tools=[note])
    async with call(brain, agent, listening=False, history_turns=2, connection=OPTIONS) as on:
        await on.session.send_text("Note it.")
        await on.next(events.ToolCalled)
        await ask(on, "Question 2", "Question 3")
        released.set()
        call_id = (await on.next(events.ToolFinished)).call_id
        await ask(on, "Question 4")
        assert parts_in(on).tools.ledger.results == {call_id: "noted"}
        pair = [("function_call", "note"), ("function_call_output", "noted")]
        assert [words for words in heard(on.session) if words in pair] == pair
        assert ("user", "Note it.") not in heard(on.session)
        await on.drop()
        await on.next(events.Connected)
        await ask(on, "Question 5")
        assert not any(words in pair for words in heard(on.session))
        await ask(on, "Question 6")
        assert on.errors() == []


async def test_an_answer_that_is_still_heard_is_kept(autojump_clock: MockClock) -> None:
    """The user goes on three times, and the first answer plays on: only `interrupt()` silences it, and what waits."""
    brain = ScriptedBrain([Say("one two three four five six seven eight", 60_000), *[Say("Yes.", 300)] * 4])
    async with call(brain, listening=False, history_turns=2) as on:
        await on.session.respond(interruptible=False)
        await on.next(events.PlaybackStart)
        for number in range(3):
            await on.session.inject("user", f"note {number}", respond=True)
            await trio.sleep(10)
        assert heard(on.session)[0] == ("assistant", "one two three four five six seven eight")
        await on.session.interrupt()
        assert [turn.id for turn in on.session.turns()] == [3, 4]
        metrics = on.session.metrics
        assert (metrics.turn_count, metrics.interruption_count, metrics.truncation_count) == (4, 1, 1)
        await on.session.send_text("Go on.")
        await on.next(events.PlaybackEnd)
        assert ("assistant", "one two three four") in model_s_view(brain), "the server keeps it, as it was heard"


def parts_in(on: Call) -> Parts:
    """The conversation's."""
    tracker = on.session.tracker
    return next(each for each in gc.get_objects() if isinstance(each, Parts) and each.view.tracker is tracker)


def is_unplayed(parts: Parts, item_id: str) -> Callable[[], None]:
    parts.barge_in.complete_items[item_id] = 99
    return parts.barge_in.complete_items.clear


def is_held_back(parts: Parts, item_id: str) -> Callable[[], None]:
    parts.barge_in.unrestored.add(item_id)
    return parts.barge_in.unrestored.clear


def is_wordless(parts: Parts, item_id: str) -> Callable[[], None]:
    parts.utterances._wordless[item_id] = b"sound"
    return partial(parts.utterances.words_known, item_id)


def is_unconfirmed(parts: Parts, item_id: str) -> Callable[[], None]:
    event = ConversationItemDelete(item_id=item_id)
    parts.outbox.unconfirmed = {f"conversation.item.truncated {item_id}": event}
    return parts.outbox.unconfirmed.clear


def is_called_there(parts: Parts, item_id: str) -> Callable[[], None]:
    hosted = parts.tools.hosted
    hosted._call(item_id).began_at = 0.0
    return partial(setattr, hosted._call(item_id), "told", True)


def is_owed(parts: Parts, item_id: str) -> Callable[[], None]:
    parts.tools.ledger.owed.add(item_id)
    parts.arbiter.asked = True  # it cannot be spoken of yet
    return parts.tools.ledger.owed.clear


OPEN = [is_unplayed, is_held_back, is_wordless, is_unconfirmed, is_called_there, is_owed]


@pytest.mark.parametrize("open_up", OPEN, ids=[each.__name__ for each in OPEN])
async def test_a_turn_of_which_an_item_is_open_is_kept(
    autojump_clock: MockClock, open_up: Callable[[Parts, str], Callable[[], None]]
) -> None:
    async with call(answers(3), listening=False, history_turns=2) as on:
        await ask(on, *QUESTIONS[:2])
        parts = parts_in(on)
        close = open_up(parts, on.session.history[1].id)
        await on.session.send_text("Question 3")
        assert heard(on.session)[:4] == said(1, 2)
        assert [turn.id for turn in on.session.turns()] == [1, 2, 3]
        close()
        await on.session.mute()
        assert heard(on.session)[:2] == said(2)
        assert [turn.id for turn in on.session.turns()] == [2, 3]


async def test_a_turn_whose_answer_the_server_has_not_ended_is_kept(autojump_clock: MockClock) -> None:
    """It was interrupted, and what it used is told late: by then the user has said two things more."""
    used = done("r1", "cancelled")
    used["response"]["usage"] = {"input_tokens": 5, "output_tokens": 7}
    go_on = trio.Event()

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 2000))
        await trio.sleep(0.5)
        for number in range(3):
            spoken = {"item_id": f"said_{number}"}
            await peer.send({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1000 * number, **spoken})
            await trio.sleep(0.5)
            await peer.send(
                {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 1000 * number + 500, **spoken}
            )
            await trio.sleep(0.5)
        await go_on.wait()
        await peer.send(used)
        await peer.drain()

    async with call_peer(serve, history_turns=2) as on:
        await on.next(events.SpeechEnd)
        await on.next(events.SpeechEnd)
        await on.next(events.SpeechEnd)
        assert [(turn.id, turn.interrupted) for turn in on.session.turns()] == [(1, True), (3, False), (4, False)]
        go_on.set()
        await on.next(events.ResponseEnd)
        assert [(turn.id, turn.usage.tokens_in) for turn in on.session.turns()] == [(3, 0), (4, 0)]
        metrics = on.session.metrics
        assert (metrics.usage.tokens_in, metrics.usage.tokens_out, metrics.interruption_count) == (5, 7, 1)


async def test_an_edited_item_is_forgotten_with_its_turn(autojump_clock: MockClock) -> None:
    async with call(answers(4), listening=False, history_turns=2) as on:
        await ask(on, *QUESTIONS[:2])
        await on.session.edit_item(on.session.history[0].id, "Edited")
        assert heard(on.session)[0] == ("user", "Edited")
        await ask(on, "Question 3")
        assert heard(on.session) == said(2, 3)


async def test_what_is_said_of_a_forgotten_turn_later_brings_nothing_back(autojump_clock: MockClock) -> None:
    """Neither its call, which is not run again, nor its items; and what it used is in the totals, once."""
    runs = 0

    @tool
    async def count() -> str:
        """Count."""
        nonlocal runs
        runs += 1
        return str(runs)

    call_item = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "count", "arguments": "{}"}
    called = {"type": "response.output_item.done", "response_id": "r1", "item": call_item | {"status": "completed"}}
    called_anew = called | {"item": call_item | {"id": "f2", "status": "completed"}}
    echo = {"type": "function_call_output", "id": "by_another_id", "call_id": "c1", "output": "1"}
    message = {"type": "message", "id": "said", "role": "user", "status": "completed"}
    message["content"] = [{"type": "input_audio", "transcript": None}]  # type: ignore[assignment]  # plain JSON
    words = {"item_id": "said", "content_index": 0, "transcript": "Once."}
    usage = {"type": "duration", "seconds": 2.0}
    heard_late = {"type": "conversation.item.input_audio_transcription.completed", **words, "usage": usage}
    used = done("r1")
    used["response"]["usage"] = {"input_tokens": 5, "output_tokens": 7}
    go_on = trio.Event()

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send({"type": "conversation.item.added", "item": message}, created("r1"), called, used)
        await go_on.wait()
        await peer.send(called, called_anew, used, heard_late)
        await peer.send(*({"type": "conversation.item.added", "item": item} for item in (message, call_item, echo)))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(tools=[count]), history_turns=2) as on:
        await on.next(events.ToolFinished)
        for number in range(3):
            await on.session.send_text(f"Text {number}")
        kept = heard(on.session)
        assert kept == [("user", "Text 1"), ("user", "Text 2")]
        go_on.set()
        await trio.sleep(1)
        assert runs == 1
        assert heard(on.session) == [*kept, ("function_call", "count")], "under another id it is another item"
        assert [turn.item_ids for turn in on.session.turns()] == [("text_2",), ("text_3",)]
        metrics = on.session.metrics
        assert (metrics.usage.other_in, metrics.usage.other_out, metrics.tool_call_count) == (5, 7, 1)
        assert metrics.usage.transcription_s == 2.0


async def test_an_item_that_was_never_told_stands_behind_what_was_forgotten(autojump_clock: MockClock) -> None:
    """A noise without words is told to no new connection. Edited it is, and stands there where it stands here."""
    brain = ScriptedBrain([Say(f"Answer {n}.", 300) for n in (1, 2, 3)], [""])
    async with call(brain, history_turns=2, connection=OPTIONS) as on:
        await ask(on, "Question 1")
        await on.speak()
        await trio.sleep(2)
        noise = next(item.id for item in on.session.history if item.role == "user" and not item.text)
        await on.drop()
        await on.next(events.Connected)
        await ask(on, "Question 3")
        assert on.session.history[0].id == noise
        await on.session.edit_item(noise, "Hm.")
        await ask(on, "Question 4")
        answered = [("user", "Question 3"), ("assistant", "Answer 2."), ("user", "Question 4")]
        assert model_s_view(brain) == [*said(1), ("user", "Hm."), *answered]
        assert on.errors() == []


# --- when all is to be deleted --------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
async def test_a_reset_deletes_at_the_server_what_was_forgotten_here(autojump_clock: MockClock, lost: bool) -> None:
    brain = answers(6)
    async with call(brain, listening=False, history_turns=2, connection=OPTIONS) as on:
        failures: list[events.ErrorReported] = []
        on.session.on("error", failures.append)
        await ask(on, *QUESTIONS[:5])
        if lost:
            await on.drop()
            await on.next(events.Connected)
        await on.session.reset_history()
        await ask(on, "Question 6")
        assert model_s_view(brain) == [("user", "Question 6")]
        assert failures == [], "a new server is not asked to delete what it was never told"


async def test_what_a_reset_could_not_delete_is_reported(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LEFT_THERE_CAPACITY", 4)
    brain = answers(6)
    async with call(brain, listening=False, history_turns=2) as on:
        await ask(on, *QUESTIONS[:5])
        await on.session.reset_history()
        assert (await on.next(events.ErrorReported)).message.startswith("2 items that were forgotten")
        await ask(on, "Question 6")
        assert model_s_view(brain) == [*said(1), ("user", "Question 6")]


async def test_an_agent_that_is_to_see_less_does_not_see_what_was_forgotten(autojump_clock: MockClock) -> None:
    desk = RealtimeAgent("Desk", handoffs=[handoff(RealtimeAgent("Billing"), input_filter=lambda items: items[-1:])])
    brain = ScriptedBrain([*[Say("Yes.", 300)] * 4, [scripted.Call("transfer_to_billing")], Say("Billing.", 300)])
    async with call(brain, desk, listening=False, history_turns=2) as on:
        await ask(on, *QUESTIONS[:4], "Transfer me.")
        said_last = ["Transfer me.", "transfer_to_billing"]
        assert [words for _, words in model_s_view(brain)][:2] == said_last
        assert on.errors() == []


# --- export and import ----------------------------------------------------------------------------


async def test_an_export_says_how_many_turns_were_forgotten_and_an_import_goes_on_counting(
    autojump_clock: MockClock,
) -> None:
    async with call(answers(5), listening=False, history_turns=3) as on:
        await ask(on, *QUESTIONS[:5])
    exported = json.loads(json.dumps(on.session.export()))
    assert exported["forgotten_turns"] == 2
    brain = ScriptedBrain([Say("Answer 6.", 300), Say("Answer 7.", 300)])
    async with call(brain, listening=False, history=exported, history_turns=2) as on:
        assert heard(on.session) == said(4, 5)
        assert on.session.export()["forgotten_turns"] == 3
        await ask(on, "Question 6")
        assert model_s_view(brain) == [*said(4, 5), ("user", "Question 6")]
        assert heard(on.session) == said(5, 6)
        await ask(on, "Question 7")
        assert heard(on.session) == said(6, 7)
        assert on.session.export()["forgotten_turns"] == 5
        assert on.session.metrics.turn_count == 2
