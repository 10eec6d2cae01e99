from __future__ import annotations

import pytest

from picture.told import Told, barge_in
from trio_voice import events
from trio_voice.picture.scene import MOST_ENTRIES, Entry, Scene


def seen(told: Told) -> tuple[Scene, list[Entry]]:
    """The scene at the end, and what was handed out as finished, in order."""
    scene = Scene()
    return scene, [entry for event in told.events for entry in scene.apply(event)]


def test_each_thing_is_handed_out_once_when_it_is_finished() -> None:
    told = barge_in()
    told.ended(9.0)
    scene, finished = seen(told)
    assert [(entry.kind, entry.text) for entry in finished] == [
        ("user", "where is it"),
        ("agent", "It is on"),
        ("user", "stop"),
        ("agent", "Very well."),
    ]
    assert scene.ended == "the session ended"


def test_an_interrupted_answer_says_what_was_heard_of_it() -> None:
    scene, finished = seen(barge_in())
    cut = finished[1]
    assert (cut.cut, cut.heard_ms, cut.discarded_ms) == (True, 2000, 3000)
    assert scene.interruptions == 1


def test_who_speaks_now() -> None:
    scene = Scene()
    spoken = []
    for event in barge_in().events:
        scene.apply(event)
        spoken.append((event.name, scene.caller_speaks, scene.agent_speaks))
    assert ("playback_start", False, True) in spoken
    assert ("speech_start", True, True) in spoken
    assert ("interruption", False, False) in spoken
    assert spoken[-1] == ("playback_end", False, False)


def test_latency_is_from_the_end_of_speech_to_the_first_sample() -> None:
    scene, _ = seen(barge_in())
    assert scene.latencies_ms == pytest.approx([500, 500])


def test_a_tool_is_seen_while_it_runs_and_handed_out_when_it_returned() -> None:
    told = Told()
    told.call(1.0, "c", "lookup", '{"id":1}')
    scene, finished = seen(told)
    assert (scene.entries[0].text, scene.entries[0].output, finished) == ("lookup", None, [])
    told.returned(2.0, "c", "found", failed=True)
    scene, finished = seen(told)
    assert [(entry.output, entry.failed) for entry in finished] == [("found", True)]
    assert len(scene.entries) == 1


def test_an_agent_that_is_never_heard_is_handed_out_before_the_callers_next_words() -> None:
    told = Told()
    told.response(0.0, 1)
    told.agent(0.0, "a", "In writing only.")
    told.user(3.0, "u", "thanks")
    _, finished = seen(told)
    assert [entry.text for entry in finished] == ["In writing only.", "thanks"]


def test_sentences_after_the_cut_one_disappear() -> None:
    told = Told()
    told.response(0.0, 1)
    told.agent(0.0, "a", "First.")
    told.agent(0.0, "b", "Second.")
    told.playback(0.1, 1)
    told.cut(0.5, 1, "a", heard_ms=400)
    told.ended(1.0)
    scene, finished = seen(told)
    assert [entry.text for entry in finished] == ["First."]
    assert [entry.text for entry in scene.entries] == ["First."]


def test_a_cut_without_words_is_still_told() -> None:
    told = Told()
    told.cut(0.5, 1, None, discarded_ms=700)
    _, (cut,) = seen(told)
    assert (cut.text, cut.cut, cut.discarded_ms) == ("", True, 700)


def test_a_device_that_goes_and_comes_is_told_at_once() -> None:
    scene = Scene()
    lost = events.DeviceLost(at=1.0, kind="microphone", device="headset", reason="unplugged")
    restored = events.DeviceRestored(at=3.5, kind="microphone", device="headset", outage_ms=2500.0)
    told = [entry.text for event in (lost, restored) for entry in scene.apply(event)]
    assert told == ["microphone lost, and tried again: unplugged", "microphone back after 2.5 s"]


def test_errors_are_told_at_once() -> None:
    told = Told()
    told.error(0.5, "no such model")
    told.error(0.6, "no such model")
    _, finished = seen(told)
    assert [(entry.kind, entry.text) for entry in finished] == [("error", "no such model")] * 2


def test_an_endless_conversation_is_bounded() -> None:
    told = Told()
    for index in range(3 * MOST_ENTRIES):
        told.user(float(index), f"u{index}", f"line {index}")
    scene, finished = seen(told)
    assert len(scene.entries) == MOST_ENTRIES
    assert len(finished) == 3 * MOST_ENTRIES
