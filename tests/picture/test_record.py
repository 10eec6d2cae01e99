from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from picture.told import STARTED_AT, Told, barge_in
from trio_voice import events
from trio_voice.picture.layout import Span
from trio_voice.picture.record import Recording, recording_of


def record(told: Told, duration_s: float = 10.0) -> Recording:
    return recording_of(told.events, started_at=STARTED_AT, ended_at=STARTED_AT + duration_s)


def seconds(*values: float) -> object:
    return pytest.approx(values, abs=1e-6)


def test_caller_is_placed_by_the_audio_position_and_takes_the_words_in_order() -> None:
    caller = record(barge_in()).caller
    assert [(span.start_s, span.end_s) for span in caller] == [seconds(1.0, 2.5), seconds(5.0, 6.5)]
    assert [span.words for span in caller] == ["where is it", "stop"]


def test_audio_positions_count_from_when_listening_began() -> None:
    told = Told()
    told.listening(2.0)
    told.speech(3.3, 1000, 4.5, 2000)
    (span,) = record(told).caller
    assert (span.start_s, span.end_s) == seconds(3.0, 4.0)


def test_an_audio_position_that_restarts_with_a_new_connection_is_placed_near_its_event() -> None:
    told = Told()
    told.listening(0.0)
    told.speech(1.3, 1000, 2.5, 2000)
    told.speech(8.4, 300, 9.5, 1000)
    first, second = record(told).caller
    assert (first.start_s, first.end_s) == seconds(1.0, 2.0)
    assert (second.start_s, second.end_s) == seconds(8.0, 8.7)


def test_lines_given_exactly_replace_the_server_s_account() -> None:
    lines = [(1.2, 2.2, "exactly this")]
    recording = recording_of(barge_in().events, started_at=STARTED_AT, ended_at=STARTED_AT + 10, caller_lines=lines)
    (span,) = recording.caller
    assert (span.start_s, span.end_s, span.words) == (1.2, 2.2, "exactly this")


def test_the_waveform_shows_where_speech_begins_and_ends() -> None:
    pcm = np.zeros(10 * 8000, np.int16)
    pcm[int(1.3 * 8000) : int(2.0 * 8000)] = 9000
    recording = recording_of(
        barge_in().events, started_at=STARTED_AT, ended_at=STARTED_AT + 10, caller_pcm=pcm, rate_hz=8000
    )
    assert (recording.caller[0].start_s, recording.caller[0].end_s) == pytest.approx((1.3, 2.0), abs=0.011)
    assert recording.latencies[0].latency_ms == pytest.approx(1500, abs=11)


def test_agent_is_shown_as_heard_and_its_unheard_rest_apart() -> None:
    recording = record(barge_in())
    first, second = recording.agent
    assert (first.start_s, first.end_s, first.words, first.interrupted) == (3.5, 5.5, "It is on", True)
    assert (second.start_s, second.end_s, second.words, second.interrupted) == (7.5, 8.5, "Very well.", False)
    (ghost,) = recording.discarded
    assert (ghost.start_s, ghost.end_s, ghost.words) == (5.5, 8.5, "its way to you now.")


def test_items_after_the_cut_one_were_not_heard_at_all() -> None:
    told = Told()
    told.response(0.0, 1)
    told.agent(0.0, "a", "First sentence.")
    told.agent(0.0, "b", "Second sentence.")
    told.playback(0.5, 1)
    told.agent(1.0, "a", "First", truncated=True)
    told.cut(1.0, 1, "a", heard_ms=500, discarded_ms=2000)
    recording = record(told)
    assert recording.agent[0].words == "First"
    assert recording.discarded[0].words == "sentence. Second sentence."


def test_an_answer_cut_before_its_first_sample_is_only_a_ghost() -> None:
    told = Told()
    told.response(0.0, 1)
    told.agent(0.0, "a", "Never.")
    told.cut(0.2, 1, None, discarded_ms=800)
    recording = record(told)
    assert recording.agent == ()
    assert recording.discarded[0].words == "Never."
    assert recording.interruptions[0].heard_ms == 0


def test_latency_is_from_the_callers_end_to_the_agents_first_sample_with_the_models_part() -> None:
    first, second = record(barge_in()).latencies
    assert (first.latency_ms, first.response_ms) == seconds(1000, 600)
    assert (second.latency_ms, second.response_ms) == seconds(1000, 700)
    assert record(barge_in()).mean_latency_ms == pytest.approx(1000)


def test_a_caller_who_goes_on_before_the_answer_has_one_latency_not_two() -> None:
    told = Told()
    told.listening(0.0)
    told.speech(0.4, 100, 1.5, 1000)
    told.speech(2.4, 2000, 3.5, 3000)
    told.playback(4.0, 1, 5.0)
    (latency,) = record(told).latencies
    assert (latency.start_s, latency.end_s) == seconds(3.0, 4.0)


def test_tools_last_from_call_to_result_and_one_without_a_result_to_the_end() -> None:
    told = Told()
    told.call(1.0, "c1", "lookup", '{"id": 1}')
    told.returned(2.5, "c1", "found", failed=True)
    told.call(3.0, "c2", "wait", "{}")
    first, second = record(told).tools
    assert (first.name, first.start_s, first.end_s, first.output, first.failed) == ("lookup", 1.0, 2.5, "found", True)
    assert (second.name, second.start_s, second.end_s, second.output) == ("wait", 3.0, 10.0, None)


def test_how_fast_the_agent_fell_silent_is_said_only_where_the_callers_onset_is_known() -> None:
    assert record(barge_in()).interruptions[0].after_onset_ms is None
    lines = [(5.25, 6.5, "stop")]
    recording = recording_of(barge_in().events, started_at=STARTED_AT, ended_at=STARTED_AT + 10, caller_lines=lines)
    assert recording.interruptions[0].after_onset_ms == pytest.approx(250)


def test_typed_words_are_a_moment_of_the_caller() -> None:
    told = Told()
    told.user(2.0, "typed", "by hand")
    (span,) = record(told).caller
    assert (span.start_s, span.end_s, span.words) == (2.0, 2.0, "by hand")


def test_nothing_happened() -> None:
    assert record(Told(), 0.0).duration_s == 0
    assert record(Told(), 0.0).mean_latency_ms is None


def coughed(alarm_at_s: float, *, interrupts: bool = False) -> Recording:
    """A question, a cough of 0.3 s during the answer, and another question."""
    told = Told()
    told.listening(0.0)
    told.speech(0.5, 500, 1.5, 1500)
    told.user(1.5, "user_1", "where is it")
    told.playback(2.0, 1)
    told.events += sorted(_cough(alarm_at_s, interrupts=interrupts), key=lambda event: event.at)
    told.speech(6.2, 6000, 7.5, 7000)
    told.user(7.5, "user_2", "thank you")
    return record(told, 10.0)


def _cough(alarm_at_s: float, *, interrupts: bool) -> list[events.SessionEvent]:
    told = Told()
    told.speech(3.2, 3000, 3.9, 3300)
    told.alarm(alarm_at_s)
    if interrupts:
        told.cut(3.6, 1, None)
    return told.events


@pytest.mark.parametrize("alarm_at_s", [3.85, 3.1], ids=["by the server", "by the microphone, first"])
def test_a_false_alarm_is_no_turn_of_the_caller_and_takes_no_words(alarm_at_s: float) -> None:
    recording = coughed(alarm_at_s)
    assert [(span.start_s, span.words) for span in recording.caller] == [(0.5, "where is it"), (6.0, "thank you")]
    (alarm,) = recording.false_alarms
    assert [alarm.start_s, alarm.end_s] == pytest.approx([3.0, 3.3])


def test_what_began_as_a_false_alarm_and_interrupts_is_the_caller_s_turn() -> None:
    recording = coughed(3.4, interrupts=True)
    assert recording.false_alarms == ()
    assert [span.start_s for span in recording.caller] == [0.5, 3.0, 6.0]


MOMENTS = st.floats(0, 20)
SESSION_EVENTS = st.one_of(
    st.builds(events.FalseAlarm, at=MOMENTS, turn=st.integers(1, 3)),
    st.builds(events.ListeningStarted, at=MOMENTS),
    st.builds(events.SpeechStart, at=MOMENTS, audio_ms=st.integers(0, 30_000)),
    st.builds(events.SpeechEnd, at=MOMENTS, audio_ms=st.integers(0, 30_000)),
    st.builds(events.ResponseStart, at=MOMENTS, turn=st.integers(1, 3), response_id=st.just("r")),
    st.builds(events.PlaybackStart, at=MOMENTS, turn=st.integers(1, 3)),
    st.builds(events.PlaybackEnd, at=MOMENTS, turn=st.integers(1, 3)),
    st.builds(
        events.Interruption, at=MOMENTS, turn=st.integers(1, 3), cause=st.sampled_from(["speech", "manual"]),
        item_id=st.sampled_from([None, "a", "b"]), heard_ms=st.integers(0, 999), discarded_ms=st.integers(0, 999),
    ),
    st.builds(
        events.Transcript, at=MOMENTS, role=st.sampled_from(["user", "agent"]), item_id=st.sampled_from("ab"),
        delta=st.just(""), text=st.text(max_size=9), final=st.booleans(), truncated=st.booleans(),
    ),
    st.builds(
        events.ToolCalled, at=MOMENTS, turn=st.just(1), call_id=st.sampled_from("cd"), tool=st.just("t"),
        arguments=st.just("{}"),
    ),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(SESSION_EVENTS, max_size=25), st.floats(0, 15))
def test_whatever_is_told_every_span_lies_within_the_conversation(told: list[events.SessionEvent], end: float) -> None:
    told.sort(key=lambda event: event.at)
    recording = recording_of(told, started_at=0.0, ended_at=end)
    spans: list[Span] = [*recording.caller, *recording.agent, *recording.tools, *recording.latencies]
    spans += recording.false_alarms
    for span in spans:
        assert 0 <= span.start_s <= span.end_s <= end
    for mark in recording.interruptions:
        assert 0 <= mark.at_s <= end
