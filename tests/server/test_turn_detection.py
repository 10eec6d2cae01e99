"""The turn detection state machine, alone."""

from __future__ import annotations

from hypothesis import given, strategies as st

from trio_voice.server.turn_detection import (
    MAX_UTTERANCE_MS,
    ONSET_WINDOWS,
    SPECULATION_MS,
    WINDOW_MS,
    IdleTimedOut,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    TurnDetection,
    TurnEvent,
    TurnRules,
)

probabilities = st.lists(st.sampled_from([0.0, 0.3, 0.4, 0.5, 1.0]), max_size=200)
rules = st.builds(
    TurnRules,
    threshold=st.just(0.5),
    prefix_padding_ms=st.integers(0, 1000),
    silence_duration_ms=st.integers(0, 1000),
    idle_timeout_ms=st.none() | st.integers(1000, 5000),
)


def run(detection: TurnDetection, *runs: tuple[float, int]) -> list[TurnEvent]:
    return [event for p, count in runs for _ in range(count) for event in detection.window(p)]


def test_an_utterance_starts_with_its_padding_and_stops_after_its_silence() -> None:
    detection = TurnDetection(TurnRules(prefix_padding_ms=64, silence_duration_ms=160))
    assert run(detection, (0.0, 10), (1.0, 5), (0.0, 5)) == [
        SpeechStarted(10 * WINDOW_MS - 64),
        SpeechPaused(10 * WINDOW_MS - 64, 18 * WINDOW_MS),
        SpeechStopped(10 * WINDOW_MS - 64, 20 * WINDOW_MS),
    ]


def test_a_click_is_no_speech() -> None:
    assert run(TurnDetection(TurnRules()), (0.0, 5), (1.0, ONSET_WINDOWS - 1), (0.0, 5)) == []


def test_a_pause_that_does_not_hold_is_resumed_and_the_utterance_goes_on() -> None:
    detection = TurnDetection(TurnRules(silence_duration_ms=500))
    events = run(detection, (1.0, 5), (0.0, 4), (1.0, 5), (0.0, 20))
    assert [type(event) for event in events] == [
        SpeechStarted,
        SpeechPaused,
        SpeechResumed,
        SpeechPaused,
        SpeechStopped,
    ]


def test_padding_never_reaches_into_the_utterance_before() -> None:
    detection = TurnDetection(TurnRules(prefix_padding_ms=1000, silence_duration_ms=96))
    events = run(detection, (1.0, 3), (0.0, 3), (1.0, 3))
    first_stop = next(event for event in events if isinstance(event, SpeechStopped))
    second_start = [event for event in events if isinstance(event, SpeechStarted)][1]
    assert second_start.start_ms == first_stop.end_ms


def test_speech_between_the_thresholds_goes_on_but_does_not_begin() -> None:
    detection = TurnDetection(TurnRules(silence_duration_ms=96))
    assert run(detection, (0.4, 20)) == []
    assert [type(event) for event in run(detection, (1.0, 2), (0.4, 20))] == [SpeechStarted]


def test_a_speaker_without_end_is_cut() -> None:
    detection = TurnDetection(TurnRules())
    events = run(detection, (1.0, MAX_UTTERANCE_MS // WINDOW_MS + 1))
    assert [type(event) for event in events] == [SpeechStarted, SpeechStopped]


def test_idleness_counts_from_when_the_response_was_played_and_ends_once() -> None:
    detection = TurnDetection(TurnRules(idle_timeout_ms=1000))
    detection.response_played_at(320)
    events = run(detection, (0.0, 100))
    assert events == [IdleTimedOut(320, 1344)]


def test_who_speaks_is_not_idle() -> None:
    detection = TurnDetection(TurnRules(idle_timeout_ms=1000, silence_duration_ms=96))
    detection.response_played_at(0)
    assert IdleTimedOut not in [type(event) for event in run(detection, (1.0, 10), (0.0, 100))]


@given(rules, probabilities, st.sets(st.integers(0, 199)))
def test_utterances_alternate_in_order_and_never_overlap(
    rules: TurnRules, scores: list[float], restarts: set[int]
) -> None:
    detection = TurnDetection(rules)
    detection.response_played_at(0)
    end_of_last = 0
    speaking: int | None = None
    for index, score in enumerate(scores):
        if index in restarts:
            detection.restart(index * WINDOW_MS)
            end_of_last, speaking = index * WINDOW_MS, None
        for event in detection.window(score):
            match event:
                case SpeechStarted():
                    assert speaking is None
                    assert end_of_last <= event.start_ms <= (index + 1 - ONSET_WINDOWS) * WINDOW_MS
                    speaking = event.start_ms
                case SpeechPaused() | SpeechStopped():
                    assert event.start_ms == speaking
                    assert event.end_ms == (index + 1) * WINDOW_MS
                    if isinstance(event, SpeechStopped):
                        end_of_last, speaking = event.end_ms, None
                case IdleTimedOut():
                    assert speaking is None
                    assert end_of_last <= event.start_ms <= event.end_ms
                    end_of_last = event.end_ms
        assert detection.speaking == (speaking is not None)
        needed = detection.needed_from_ms
        assert needed <= detection.now_ms
        assert needed <= (speaking if speaking is not None else needed)


@given(rules, probabilities)
def test_what_is_needed_is_kept_for_whatever_starts_next(rules: TurnRules, scores: list[float]) -> None:
    detection = TurnDetection(rules)
    kept_from = 0
    for score in scores:
        for event in detection.window(score):
            if isinstance(event, SpeechStarted):
                assert event.start_ms >= kept_from
        kept_from = detection.needed_from_ms


@given(probabilities)
def test_a_stop_is_announced_by_a_pause_when_there_is_time_for_one(scores: list[float]) -> None:
    detection = TurnDetection(TurnRules(silence_duration_ms=SPECULATION_MS + 2 * WINDOW_MS))
    last: TurnEvent | None = None
    for score in scores:
        for event in detection.window(score):
            if isinstance(event, SpeechStopped):
                assert isinstance(last, SpeechPaused)
            if isinstance(event, SpeechResumed):
                assert isinstance(last, SpeechPaused)
            last = event
