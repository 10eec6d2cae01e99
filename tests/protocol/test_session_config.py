"""Only present fields change a session, at every depth."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from openai.types.realtime import RealtimeSessionCreateRequest

from openai_oracle import examples
from trio_voice.protocol import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    SessionConfig,
    TurnDetection,
    WireAudioFormat,
    merged,
)

sessions = examples(RealtimeSessionCreateRequest).map(
    lambda fields: msgspec.json.decode(json.dumps(fields), type=SessionConfig)
)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

VAD = TurnDetection(type="server_vad", threshold=0.5, silence_duration_ms=500)
BEFORE = SessionConfig(
    instructions="Be brief.",
    audio=AudioConfig(
        input=AudioInput(format=WireAudioFormat("audio/pcm", rate=24_000), turn_detection=VAD),
        output=AudioOutput(voice="marin"),
    ),
)


def test_an_absent_field_stays_and_a_present_one_changes() -> None:
    after = merged(BEFORE, SessionConfig(audio=AudioConfig(output=AudioOutput(speed=1.2))))
    assert after.instructions == "Be brief."
    assert after.audio == AudioConfig(
        input=BEFORE.audio.input if BEFORE.audio else None, output=AudioOutput(voice="marin", speed=1.2)
    )


def input_after(change: AudioInput) -> AudioInput:
    audio = merged(BEFORE, SessionConfig(audio=AudioConfig(input=change))).audio
    assert audio
    assert audio.input
    return audio.input


def test_null_clears() -> None:
    assert input_after(AudioInput(turn_detection=None)).turn_detection is None
    assert merged(BEFORE, SessionConfig(instructions="")).instructions == ""


def test_the_same_kind_of_turn_detection_is_changed() -> None:
    after = input_after(AudioInput(turn_detection=TurnDetection(type="server_vad", threshold=0.9)))
    assert after.turn_detection == TurnDetection(type="server_vad", threshold=0.9, silence_duration_ms=500)


def test_another_kind_of_value_replaces_the_whole() -> None:
    semantic = TurnDetection(type="semantic_vad", eagerness="low")
    assert input_after(AudioInput(turn_detection=semantic)).turn_detection == semantic
    assert input_after(AudioInput(format=WireAudioFormat("audio/pcmu"))).format == WireAudioFormat("audio/pcmu")


@quick
@given(session=sessions)
def test_changing_nothing_and_changing_all_alike_give_the_session(session: SessionConfig) -> None:
    assert merged(session, SessionConfig()) == session
    assert merged(SessionConfig(), session) == session
    assert merged(session, session) == session


@quick
@given(before=sessions, update=sessions)
def test_what_an_update_says_holds_afterwards(before: SessionConfig, update: SessionConfig) -> None:
    after = merged(before, update)
    assert merged(after, update) == after
    told, kept = (json.loads(msgspec.json.encode(each)) for each in (update, after))
    assert holds(told, kept)
    untouched = json.loads(msgspec.json.encode(before)).keys() - told.keys()
    assert untouched <= kept.keys()


def holds(told: Any, kept: Any) -> bool:
    if isinstance(told, dict) and isinstance(kept, dict):
        return all(name in kept and holds(value, kept[name]) for name, value in told.items())
    return bool(told == kept)


@pytest.mark.parametrize(
    ("wire", "rate_hz"),
    [
        (WireAudioFormat("audio/pcm"), 24_000),
        (WireAudioFormat("audio/pcm", rate=16_000), 16_000),
        (WireAudioFormat("audio/pcmu"), 8_000),
        (WireAudioFormat("audio/pcma"), 8_000),
    ],
)
def test_a_format_knows_its_rate(wire: WireAudioFormat, rate_hz: int) -> None:
    assert wire.rate_hz == rate_hz
