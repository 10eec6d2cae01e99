"""Every event of the real server is understood, and ours carry what the real server sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from openai_oracle import SERVER_MODELS, examples, missing, validate
from trio_voice import protocol as p
from trio_voice.protocol import BETA_SERVER_EVENTS, SERVER_EVENTS, decode_server_event, encode, wire_name

SHAPES = json.loads((Path(__file__).parent / "real-event-shapes.json").read_text())
CLASSES = {wire_name(cls): cls for cls in SERVER_EVENTS}
quick = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_the_46_types_of_the_openai_package_are_ours_and_no_others() -> None:
    assert len(SERVER_EVENTS) == 46
    assert set(CLASSES) == set(SERVER_MODELS)


@pytest.mark.parametrize("cls", SERVER_EVENTS + BETA_SERVER_EVENTS)
def test_a_class_is_named_after_its_wire_name_and_exported(cls: type[p.ServerEvent]) -> None:
    camel = "".join(word.capitalize() for word in wire_name(cls).replace(".", "_").split("_"))
    assert cls.__name__ == ("ErrorEvent" if camel == "Error" else camel)
    assert getattr(p, cls.__name__) is cls


@pytest.mark.parametrize("every_field", [True, False, None])
@pytest.mark.parametrize("wire", sorted(SERVER_MODELS))
@quick
@given(drawn=st.data())
def test_an_event_survives_decoding_and_encoding(wire: str, every_field: bool | None, drawn: st.DataObject) -> None:
    example = drawn.draw(examples(SERVER_MODELS[wire], every_field=every_field))
    event = decode_server_event(json.dumps(example))
    assert type(event) is CLASSES[wire], event
    text = encode(event)
    assert missing(example, json.loads(text)) == []
    validate(text)
    assert decode_server_event(text) == event


@pytest.mark.parametrize("wire", sorted(SERVER_MODELS))
@quick
@given(drawn=st.data())
def test_null_for_every_field_left_out_is_understood(wire: str, drawn: st.DataObject) -> None:
    """As servers do that dump the openai package's models."""
    model = SERVER_MODELS[wire]
    example = drawn.draw(examples(model, every_field=False))
    with_nulls = model.model_validate(example).model_dump_json()
    event = decode_server_event(with_nulls)
    assert type(event) is CLASSES[wire], event


@pytest.mark.parametrize("kind", sorted(SHAPES["always"]))
def test_every_field_the_real_server_always_sends_has_a_place(kind: str) -> None:
    cls = CLASSES[kind.split("|")[0]]
    lost = [path for path in SHAPES["always"][kind] if path != "type" and not has_place(cls, path)]
    assert lost == []


@pytest.mark.parametrize("wire", sorted(SHAPES["ever"]))
def test_every_field_ever_seen_has_a_place(wire: str) -> None:
    lost = [path for path in SHAPES["ever"][wire] if path != "type" and not has_place(CLASSES[wire], path)]
    assert lost == []


def has_place(annotation: Any, path: str) -> bool:
    """Whether a value at the dotted path would be kept by the type."""
    name, _, rest = path.partition(".")
    for arm in get_args(annotation) or [annotation]:
        if arm is Any or arm is dict or getattr(arm, "__origin__", None) is dict:
            return True
        if isinstance(arm, type) and issubclass(arm, msgspec.Struct):
            fields = {field.name: field.type for field in msgspec.structs.fields(arm)}
            if name.removesuffix("[]") not in fields:
                continue
            inner = fields[name.removesuffix("[]")]
            if name.endswith("[]"):
                lists = [a for a in get_args(inner) if getattr(a, "__origin__", None) is list]
                inner = get_args(lists[0] if lists else inner)[0]
            if not rest or has_place(inner, rest):
                return True
    return False


def test_has_place_can_say_no() -> None:
    assert not has_place(p.ResponseDone, "response.usage.nonsense")
    assert not has_place(p.ResponseDone, "response.output[].content[].nonsense")
    assert has_place(p.ResponseDone, "response.output[].content[].text")


ALWAYS_SENT: list[tuple[p.ServerEvent, str]] = [
    (p.ResponseOutputAudioDelta(event_id="e", response_id="r", item_id="i", delta=b"\0\0"), ""),
    (p.ResponseOutputAudioDone(event_id="e", response_id="r", item_id="i"), ""),
    (p.InputAudioBufferCommitted(event_id="e", item_id="i"), ""),
    (p.InputAudioBufferSpeechStarted(event_id="e", item_id="i"), ""),
    (p.ResponseOutputAudioTranscriptDone(event_id="e", response_id="r", item_id="i", transcript=""), ""),
    (
        p.ConversationItemAdded(
            event_id="e",
            item=p.Item(type="message", id="i", role="assistant", status="in_progress", content=[]),
        ),
        "message:assistant",
    ),
]


@pytest.mark.parametrize(("event", "kind"), ALWAYS_SENT)
def test_zeros_and_nulls_are_encoded_where_the_real_server_sends_them(event: p.ServerEvent, kind: str) -> None:
    fields = json.loads(encode(event))
    for path in SHAPES["always"][f"{wire_name(event)}|{kind}" if kind else wire_name(event)]:
        at = fields
        for name in path.split("."):
            assert name in at, path
            at = at[name]


def test_a_response_under_way_has_all_fields_but_those_of_its_session() -> None:
    event = p.ResponseCreated(event_id="e", response=p.Response(id="r", status="in_progress"))
    sent = set(json.loads(encode(event))["response"])
    always = {path.split(".")[1] for path in SHAPES["always"]["response.created|in_progress"] if "." in path}
    assert always - sent == {"audio", "output_modalities"}


BETA = {
    "response.audio.delta": (p.ResponseOutputAudioDelta, {"delta": "AAAA"}),
    "response.audio.done": (p.ResponseOutputAudioDone, {}),
    "response.audio_transcript.delta": (p.ResponseOutputAudioTranscriptDelta, {"delta": "hi"}),
    "response.audio_transcript.done": (p.ResponseOutputAudioTranscriptDone, {"transcript": "hi"}),
    "response.text.delta": (p.ResponseOutputTextDelta, {"delta": "hi"}),
    "response.text.done": (p.ResponseOutputTextDone, {"text": "hi"}),
}


@pytest.mark.parametrize("wire", sorted(BETA))
def test_a_beta_name_is_matched_as_its_ga_event(wire: str) -> None:
    ga_class, fields = BETA[wire]
    event = decode_server_event(json.dumps({"type": wire, "item_id": "i", **fields}))
    assert isinstance(event, ga_class)
    assert json.loads(encode(event)).items() >= fields.items()
    assert {wire_name(cls) for cls in BETA_SERVER_EVENTS} == set(BETA)


def test_what_only_orders_or_labels_may_be_left_out() -> None:
    event = decode_server_event('{"type":"response.output_audio.delta","item_id":"i","delta":"AQI="}')
    assert event == p.ResponseOutputAudioDelta(item_id="i", delta=b"\1\2")
    speech = decode_server_event('{"type":"input_audio_buffer.speech_started"}')
    assert isinstance(speech, p.InputAudioBufferSpeechStarted)
