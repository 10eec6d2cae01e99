"""Every event that we can send validates against the openai package's types, and our server reads it back."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from openai_oracle import CLIENT_MODELS, examples, missing, validate
from trio_voice import protocol as p
from trio_voice.protocol import CLIENT_EVENTS, Item, decode_client_event, encode, wire_name

CLASSES = {wire_name(cls): cls for cls in CLIENT_EVENTS}
quick = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SENT: list[p.ClientEvent] = [
    p.SessionUpdate(event_id="e1", session=p.SessionConfig()),
    p.SessionUpdate(
        session=p.SessionConfig(
            instructions="Be brief.",
            output_modalities=["audio"],
            audio=p.AudioConfig(
                input=p.AudioInput(
                    format=p.WireAudioFormat("audio/pcm", rate=24_000),
                    noise_reduction=None,
                    transcription=p.Transcription(model="gpt-4o-mini-transcribe", language="en"),
                    turn_detection=p.TurnDetection(type="server_vad", threshold=0.5, silence_duration_ms=500),
                ),
                output=p.AudioOutput(format=p.WireAudioFormat("audio/pcmu"), voice="marin", speed=1.1),
            ),
            tools=[p.Tool(name="f", description="d", parameters={"type": "object", "properties": {}})],
            tool_choice="auto",
            max_output_tokens="inf",
            truncation={"type": "retention_ratio", "retention_ratio": 0.8},
        )
    ),
    p.SessionUpdate(
        session=p.SessionConfig(
            audio=p.AudioConfig(
                input=p.AudioInput(turn_detection=p.TurnDetection(type="semantic_vad", eagerness="low")),
                output=p.AudioOutput(voice=p.VoiceId("voice_1")),
            ),
            tools=[p.Tool(type="mcp", server_label="s", server_url="https://x", require_approval="never")],
            tool_choice={"type": "function", "name": "f"},
        )
    ),
    p.SessionUpdate(session=p.SessionConfig(audio=p.AudioConfig(input=p.AudioInput(turn_detection=None)))),
    p.InputAudioBufferAppend(audio=b"\0\1\2"),
    p.InputAudioBufferCommit(),
    p.InputAudioBufferClear(event_id="e2"),
    p.OutputAudioBufferClear(),
    p.ConversationItemCreate(item=Item.user_text("hello")),
    p.ConversationItemCreate(item=Item.assistant_text("hello", id="i1"), previous_item_id="root"),
    p.ConversationItemCreate(item=Item.system_text("The conversation continues.")),
    p.ConversationItemCreate(item=Item.function_call("c1", "f", "{}")),
    p.ConversationItemCreate(item=Item.function_call_output("c1", "42")),
    p.ConversationItemCreate(item=Item.mcp_approval_response("a1", True, id="i2", reason="asked")),
    p.ConversationItemRetrieve(item_id="i1"),
    p.ConversationItemTruncate(item_id="i1", audio_end_ms=1200),
    p.ConversationItemDelete(item_id="i1"),
    p.ResponseCreate(),
    p.ResponseCreate(
        response=p.ResponseConfig(
            conversation="none",
            input=[Item.user_text("hi")],
            metadata={"purpose": "guardrail"},
            output_modalities=["text"],
            audio=p.AudioConfig(output=p.AudioOutput(voice="cedar")),
            tools=[p.Tool(name="f", parameters={})],
            max_output_tokens=100,
        )
    ),
    p.ResponseCancel(),
    p.ResponseCancel(response_id="r1"),
]


def test_the_11_types_of_the_openai_package_are_ours_and_no_others() -> None:
    assert len(CLIENT_EVENTS) == 11
    assert set(CLASSES) == set(CLIENT_MODELS)
    assert {type(event) for event in SENT} == set(CLIENT_EVENTS), "an event has no example in SENT"


@pytest.mark.parametrize("event", SENT, ids=lambda event: type(event).__name__)
def test_what_we_send_is_valid_and_read_back(event: p.ClientEvent) -> None:
    text = encode(event)
    model = validate(text)
    assert unknown_fields(model) == [], "pydantic kept a field that the protocol does not have"
    assert decode_client_event(text) == event


@pytest.mark.parametrize("wire", sorted(CLIENT_MODELS))
@quick
@given(drawn=st.data())
def test_what_another_client_sends_survives(wire: str, drawn: st.DataObject) -> None:
    example = drawn.draw(examples(CLIENT_MODELS[wire]))
    event = decode_client_event(json.dumps(example))
    assert type(event) is CLASSES[wire], event
    text = encode(event)
    assert missing(example, json.loads(text)) == []
    validate(text)


@pytest.mark.parametrize("cls", CLIENT_EVENTS)
def test_a_class_is_named_after_its_wire_name_and_exported(cls: type[p.ClientEvent]) -> None:
    assert cls.__name__ == "".join(w.capitalize() for w in wire_name(cls).replace(".", "_").split("_"))
    assert getattr(p, cls.__name__) is cls


def test_what_was_not_set_is_not_sent() -> None:
    assert json.loads(encode(p.ResponseCreate())) == {"type": "response.create"}
    assert json.loads(encode(p.ConversationItemCreate(item=Item.user_text("x")))) == {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
    }


def unknown_fields(value: object) -> list[str]:
    """Names that the openai package's models took in as extra."""
    if isinstance(value, list):
        return [name for each in value for name in unknown_fields(each)]
    if not hasattr(value, "model_extra"):
        return []
    inner = [name for each in vars(value).values() for name in unknown_fields(each)]
    return [*(value.model_extra or {}), *inner]
