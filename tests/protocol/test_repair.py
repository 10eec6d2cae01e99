"""Events of other servers that are nearly right are used, and nothing that carries meaning is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_voice import protocol as p
from trio_voice.protocol import decode_server_event


def decode(**fields: Any) -> Any:
    return decode_server_event(json.dumps(fields))


def test_barge_in_is_not_lost_to_a_fraction_of_a_millisecond() -> None:
    event = decode(type="input_audio_buffer.speech_started", audio_start_ms=12.5, item_id=None, event_id=7)
    assert event == p.InputAudioBufferSpeechStarted()


def test_the_end_of_a_response_is_not_lost_to_a_strange_bill() -> None:
    event = decode(
        type="response.done",
        response={"id": "r", "status": "cancelled", "usage": {"total_tokens": "many"}, "metadata": [1]},
    )
    assert isinstance(event, p.ResponseDone)
    assert (event.response.id, event.response.status) == ("r", "cancelled")


def test_a_flat_beta_session_opens_a_session() -> None:
    event = decode(
        type="session.created",
        session={
            "id": "s",
            "modalities": ["text", "audio"],
            "voice": "alloy",
            "input_audio_format": "pcm16",
            "turn_detection": None,
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
            "audio": {"input": {"format": "pcm16"}, "output": {"voice": "v"}},
            "expires_at": 1.5e9,
        },
    )
    assert isinstance(event, p.SessionCreated)
    assert event.session.id == "s"
    assert event.session.audio == p.AudioConfig(input=p.AudioInput(), output=p.AudioOutput(voice="v"))


@pytest.mark.parametrize(
    ("fields", "message", "code"),
    [
        ({"error": "boom", "code": 400}, "boom", "400"),
        ({"message": "boom"}, "boom", None),
        ({"error": {"message": "boom", "code": 1003}}, "boom", "1003"),
    ],
)
def test_an_error_of_any_shape_says_what_happened(fields: Any, message: str, code: str | None) -> None:
    event = decode(type="error", **fields)
    assert isinstance(event, p.ErrorEvent)
    assert (event.error.message, event.error.code) == (message, code)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "response.output_item.done", "item": {"type": "function_call", "arguments": {}}},
        {"type": "response.content_part.done", "item_id": "i", "part": {"text": 1}},
        {"type": "response.done", "response": {"output": [{"type": "message", "role": 1}]}},
        {"type": "response.output_text.delta", "item_id": "i", "delta": 5},
        {"type": "response.output_audio.delta", "item_id": 5, "delta": "AAAA"},
        {"type": "conversation.item.truncated", "item_id": "i", "audio_end_ms": 1.5},
    ],
)
def test_what_carries_meaning_is_an_error_and_not_dropped(fields: Any) -> None:
    assert isinstance(decode(**fields), p.RemoteProtocolError)
