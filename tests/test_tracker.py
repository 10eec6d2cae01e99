from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from trio_voice.protocol import ContentPart, Item, server_events as on
from trio_voice.protocol.history import History
from trio_voice.tracker import ConversationTracker, Readings, ToolUse, TranscriptLine
from trio_voice.usage import TokenUsage


class Talk:
    """A conversation told step by step to a tracker and a history, as the conversation actor does."""

    def __init__(self) -> None:
        self.history = History()
        self.tracker = ConversationTracker(self.history, started_at=100.0)

    def item(self, item_id: str, role: str, text: str, at: float) -> None:
        kind = "input_text" if role == "user" else "output_text"
        item = Item(type="message", id=item_id, role=role, content=[ContentPart(kind, text=text)])
        self.history.apply(on.ConversationItemDone(item=item))
        self.tracker.item_seen(item_id, at)

    def user(self, item_id: str, text: str, begins: float, ends: float) -> None:
        self.tracker.user_began(begins)
        self.tracker.user_ended(ends, (ends - begins) * 1000)
        self.item(item_id, "user", text, ends)

    def agent(self, item_id: str, text: str, begins: float, heard: float) -> None:
        self.tracker.response_began(begins)
        self.item(item_id, "assistant", text, begins)
        self.tracker.agent_heard(heard)


def two_turns() -> Talk:
    talk = Talk()
    talk.user("u1", "Where is my order?", 101.0, 102.0)
    talk.agent("a1", "One moment.", 102.2, 102.5)
    talk.agent("a2", "It is on its way.", 103.0, 103.5)
    talk.tracker.agent_played(105.0, 2500.0)
    talk.user("u2", "Thank you.", 106.0, 106.5)
    talk.agent("a3", "You are welcome.", 106.6, 106.9)
    talk.tracker.agent_played(108.0, 1000.0)
    return talk


def test_a_turn_is_what_the_user_said_and_all_that_came_back() -> None:
    first, second = two_turns().tracker.turns()
    assert (first.id, first.user_transcript, first.agent_transcript) == (
        1,
        "Where is my order?",
        "One moment. It is on its way.",
    )
    assert (first.started_at, first.ended_at, first.user_audio_ms, first.agent_audio_ms) == (101, 106, 1000, 2500)
    assert (second.id, second.user_transcript, second.agent_transcript) == (2, "Thank you.", "You are welcome.")
    assert second.ended_at is None


def test_latency_is_from_the_end_of_speech_to_the_first_sample_of_the_answer() -> None:
    talk = two_turns()
    first, second = talk.tracker.turns()
    assert first.latency_ms == pytest.approx(500)
    assert second.latency_ms == pytest.approx(400)
    metrics = talk.tracker.metrics(110.0, Readings({"frames": 3}))
    assert metrics.average_latency_ms == pytest.approx(450)
    assert (metrics.started_at, metrics.duration_s, metrics.turn_count) == (100, 10, 2)
    assert (metrics.audio_duration_ms, metrics.interruption_count, dict(metrics.dropped)) == (3500, 0, {"frames": 3})


def test_an_empty_conversation_has_figures_too() -> None:
    talk = Talk()
    talk.tracker.close(101.0)
    metrics = talk.tracker.metrics(101.0, Readings())
    assert (metrics.turn_count, metrics.average_latency_ms, metrics.audio_duration_ms) == (0, None, 0)
    assert talk.tracker.turns() == []
    assert talk.tracker.transcript() == []


def test_an_agent_that_greets_has_a_turn_without_a_latency() -> None:
    talk = Talk()
    talk.agent("a1", "Hello!", 100.5, 100.9)
    talk.user("u1", "Hi.", 102.0, 103.0)
    first, second = talk.tracker.turns()
    assert (first.agent_transcript, first.user_transcript, first.latency_ms) == ("Hello!", "", None)
    assert second.user_transcript == "Hi."


def test_a_pause_within_a_sentence_makes_another_turn_only_when_the_first_was_over() -> None:
    talk = Talk()
    talk.tracker.user_began(101.0)
    talk.tracker.user_began(101.5)
    assert len(talk.tracker.turns()) == 1
    talk.tracker.user_ended(102.0, 1000.0)
    talk.tracker.user_began(103.0)
    assert len(talk.tracker.turns()) == 2


def test_after_a_barge_in_the_transcript_holds_what_was_heard() -> None:
    talk = two_turns()
    talk.history.cut("a3", 500.0, 1000.0)
    talk.tracker.agent_interrupted(107.0)
    talk.user("u3", "Bye.", 107.0, 107.5)
    assert talk.tracker.transcript() == [
        TranscriptLine("user", "Where is my order?", 102.0),
        TranscriptLine("agent", "One moment.", 102.2),
        TranscriptLine("agent", "It is on its way.", 103.0),
        TranscriptLine("user", "Thank you.", 106.5),
        TranscriptLine("agent", "You are", 106.6, interrupted=True),
        TranscriptLine("user", "Bye.", 107.5),
    ]
    assert [turn.interrupted for turn in talk.tracker.turns()] == [False, True, False]
    assert talk.tracker.turns()[1].agent_transcript == "You are"
    assert talk.tracker.metrics(110.0, Readings()).interruption_count == 1


def test_an_interruption_is_that_of_the_turn_that_was_answered_not_of_the_one_that_interrupts() -> None:
    """Playback tells where it stopped after the user has begun to speak."""
    talk = two_turns()
    talk.tracker.user_began(107.0)
    talk.tracker.agent_interrupted(107.01)
    talk.tracker.agent_played(107.01, 300.0)
    assert [turn.interrupted for turn in talk.tracker.turns()] == [False, True, False]
    assert [turn.agent_audio_ms for turn in talk.tracker.turns()] == [2500, 1300, 0]


def test_an_answer_nobody_heard_is_in_no_transcript() -> None:
    talk = two_turns()
    talk.history.delete("a3")
    assert talk.tracker.turns()[1].agent_transcript == ""
    assert "You are welcome." not in [line.text for line in talk.tracker.transcript()]


def test_words_that_come_late_belong_to_the_turn_in_which_the_item_began() -> None:
    talk = Talk()
    talk.tracker.user_began(101.0)
    talk.tracker.user_ended(102.0, 1000.0)
    talk.item("u1", "user", "", 102.0)
    talk.agent("a1", "Yes.", 102.5, 102.6)
    talk.tracker.user_began(104.0)
    talk.history.apply(on.ConversationItemInputAudioTranscriptionCompleted(item_id="u1", transcript="Are you there?"))
    talk.tracker.item_seen("u1", 104.5)
    assert [turn.user_transcript for turn in talk.tracker.turns()] == ["Are you there?", ""]


def test_a_tool_that_ends_in_a_later_turn_belongs_to_the_one_that_called() -> None:
    talk = two_turns()
    talk.tracker.tool_changed(ToolUse("call_1", "refund", '{"order": 1}'), 107.0)
    talk.user("u3", "Hm.", 109.0, 109.5)
    talk.tracker.tool_finished(ToolUse("call_1", "refund", "", "done", duration_ms=2000.0), 110.0)
    assert [turn.tool_calls for turn in talk.tracker.turns()] == [
        (),
        (ToolUse("call_1", "refund", '{"order": 1}', "done", duration_ms=2000.0),),
        (),
    ]
    assert talk.tracker.metrics(110.0, Readings()).tool_call_count == 1


def test_a_tool_that_was_never_begun_is_recorded_when_it_is_answered() -> None:
    talk = two_turns()
    talk.tracker.tool_finished(ToolUse("call_9", "fly", "{}", "no such tool", failed=True), 110.0)
    assert talk.tracker.turns()[-1].tool_calls[0].failed


def test_closing_ends_the_last_turn_once() -> None:
    talk = two_turns()
    talk.tracker.close(120.0)
    talk.tracker.close(130.0)
    assert [turn.ended_at for turn in talk.tracker.turns()] == [106, 120]


happenings = st.lists(st.sampled_from(["began", "ended", "response", "heard", "played", "interrupted", "item"]))


@given(happenings)
def test_turns_follow_each_other_without_gap_and_lose_nothing(plan: list[str]) -> None:
    talk = Talk()
    at = 100.0
    played = items = 0
    for happening in plan:
        at += 1.0
        match happening:
            case "began":
                talk.tracker.user_began(at)
            case "ended":
                talk.tracker.user_ended(at, 500.0)
            case "response":
                talk.tracker.response_began(at)
            case "heard":
                talk.tracker.agent_heard(at)
            case "played":
                talk.tracker.agent_played(at, 10.0)
                played += 1
            case "interrupted":
                talk.tracker.agent_interrupted(at)
            case _:
                items += 1
                talk.item(f"item {items}", "user", f"word{items}", at)
    turns = talk.tracker.turns()
    assert [turn.id for turn in turns] == list(range(1, len(turns) + 1))
    for turn, following in pairwise(turns):
        assert turn.ended_at == following.started_at
    assert sum(turn.agent_audio_ms for turn in turns) == 10.0 * played
    words = " ".join(turn.user_transcript for turn in turns).split()
    assert words == [f"word{number}" for number in range(1, items + 1)]
    assert [line.text for line in talk.tracker.transcript()] == words
    assert all(turn.latency_ms is None or turn.latency_ms >= 0 for turn in turns)


def test_a_turn_is_open_until_its_account_was_taken() -> None:
    tracker = two_turns().tracker
    assert tracker.is_open(1, answering=False)
    assert [turn.id for turn in tracker.take_turns_over()] == [1]
    assert not tracker.is_open(1, answering=False)
    assert tracker.is_open(2, answering=True), "the answer is still to be heard"


@given(st.sets(st.integers(1, 2)))
def test_totals_are_the_same_whatever_is_forgotten(forgotten: set[int]) -> None:
    whole, kept = two_turns().tracker, two_turns().tracker
    for tracker in (whole, kept):
        tracker.tool_changed(ToolUse("c1", "lookup", "{}", duration_ms=30.0), 108.5)
        tracker.agent_interrupted(108.5)
        tracker.false_alarm(108.5)
        tracker.response_used(0, TokenUsage(text_in=3, audio_out=5), 108.5)
    for turn in forgotten:
        kept.forget(turn, of_earlier_session=False)
    assert kept.metrics(110.0, Readings()) == whole.metrics(110.0, Readings())
    assert {turn.id for turn in kept.turns()} == {1, 2} - forgotten
