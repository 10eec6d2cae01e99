"""The beta's shape: what is sent validates in the typed package's types of it, and means the same when read back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from openai_oracle import missing_from_beta
from trio_voice.dialects import DIALECTS
from trio_voice.protocol import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    ClientEvent,
    ContentPart,
    ConversationItemCreate,
    ConversationItemDelete,
    InputAudioBufferAppend,
    Item,
    NoiseReduction,
    ResponseConfig,
    ResponseCreate,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    Tool,
    Transcription,
    TurnDetection,
    WireAudioFormat,
    beta,
    decode_client_event,
    decode_server_event,
    encode,
)
from trio_voice.protocol.server_events import (
    ConversationItemAdded,
    ConversationItemDone,
    ResponseAudioDelta,
    ResponseOutputAudioDelta,
)

UNSET = msgspec.UNSET
BETA, QWEN, XAI = DIALECTS["trio-voice-beta"], DIALECTS["qwen"], DIALECTS["xai"]


def or_absent(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(UNSET), values)


formats = st.sampled_from(
    [WireAudioFormat("audio/pcm", 24_000), WireAudioFormat("audio/pcmu"), WireAudioFormat("audio/pcma")]
)
tools = st.lists(
    st.builds(Tool, name=st.just("f"), description=st.text(max_size=5), parameters=st.just({"a": 1})), max_size=2
)
detections = st.one_of(
    st.none(),
    st.builds(TurnDetection, type=st.just("server_vad"), threshold=or_absent(st.floats(0, 1))),
    st.builds(TurnDetection, type=st.just("semantic_vad"), eagerness=st.sampled_from(["low", "auto"])),
)
inputs = st.builds(
    AudioInput,
    format=or_absent(formats),
    turn_detection=or_absent(detections),
    transcription=or_absent(st.builds(Transcription, model=st.just("whisper-1"), language=or_absent(st.just("en")))),
    noise_reduction=or_absent(st.builds(NoiseReduction, type=st.just("near_field"))),
)
outputs = st.builds(
    AudioOutput, format=or_absent(formats), voice=or_absent(st.just("alloy")), speed=or_absent(st.floats(0.25, 1.5))
)
settings: dict[str, Any] = {
    "instructions": or_absent(st.text(max_size=5)),
    "output_modalities": or_absent(st.sampled_from([["audio"], ["text"]])),
    "tools": or_absent(tools),
    "tool_choice": or_absent(st.sampled_from(["auto", "none"])),
    "max_output_tokens": or_absent(st.one_of(st.integers(1, 4096), st.just("inf"))),
}
sessions = st.builds(SessionConfig, audio=st.builds(AudioConfig, input=inputs, output=outputs), **settings)
responses = st.builds(
    ResponseConfig,
    audio=st.builds(AudioConfig, output=outputs.map(lambda output: msgspec.structs.replace(output, speed=UNSET))),
    metadata=or_absent(st.just({"a": "b"})),
    conversation=or_absent(st.just("none")),
    input=or_absent(st.just([Item.assistant_text("Hello.")])),
    **settings,
)
items = st.sampled_from(
    [
        Item.user_text("Hello."),
        Item.user_audio(b"\0\0"),
        Item.assistant_text("Hello."),
        Item.system_text("Hello."),
        Item.function_call("call_1", "f", "{}"),
        Item.function_call_output("call_1", "done"),
    ]
)
rewritten = st.one_of(
    st.builds(SessionUpdate, session=sessions),
    st.builds(ResponseCreate, response=or_absent(responses)),
    st.builds(ConversationItemCreate, item=items),
)


def read_back(frame: str) -> Any:
    return decode_client_event(beta.to_ga(frame, input_rate_hz=24_000, output_rate_hz=24_000))


@given(rewritten)
def test_what_is_sent_is_the_beta_s_and_means_the_same_when_read(event: ClientEvent) -> None:
    frame = BETA.frame(event)
    assert missing_from_beta(frame) == []
    assert without_empty(read_back(frame)) == without_empty(event)


def without_empty(event: ClientEvent) -> Any:
    """Parts in which nothing is set say nothing."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {name: cleaned(part) for name, part in value.items()}
            return {name: part for name, part in inner.items() if part != {} or name in ("arguments", "parameters")}
        return [cleaned(part) for part in value] if isinstance(value, list) else value

    return cleaned(msgspec.to_builtins(event))


@given(st.sampled_from([InputAudioBufferAppend(audio=b"\1\2"), ConversationItemDelete(item_id="item_1")]))
def test_what_both_shapes_write_alike_is_left_alone(event: ClientEvent) -> None:
    assert BETA.frame(event) == XAI.frame(event) == encode(event)


@given(sessions)
def test_what_a_beta_server_reports_is_where_the_ga_has_it(session: SessionConfig) -> None:
    reported = SessionCreated(
        session=msgspec.structs.replace(session, id="sess_1", object="realtime.session", expires_at=7)
    )
    said = beta.server_event_from_ga(reported)
    assert isinstance(said, dict)
    read = decode_server_event(encode(said))
    assert isinstance(read, SessionCreated)
    assert (read.session.id, read.session.expires_at) == ("sess_1", 7)
    got, wanted = without_empty(read.session), without_empty(session)  # type: ignore[arg-type]  # structs of one shape
    for part in wanted.get("audio", {}).values():
        part.get("format", {}).pop("rate", None)  # the beta names none
    assert {name: got[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("setting", "value"),
    [("type", "realtime"), ("audio", {}), ("output_modalities", ["audio"]), ("max_output_tokens", 7), ("wrong", 1)],
)
def test_a_setting_of_the_ga_is_unknown_in_the_beta(setting: str, value: Any) -> None:
    frame = json.dumps({"type": "session.update", "session": {"instructions": "Hi.", setting: value}})
    with pytest.raises(beta.UnknownParameter, match=f"session.{setting}"):
        beta.to_ga(frame, input_rate_hz=24_000, output_rate_hz=24_000)


def test_qwen_s_tools_are_nested_and_read_back_as_they_were() -> None:
    event = SessionUpdate(session=SessionConfig(tools=[Tool(name="f", description="d", parameters={"a": 1})]))
    frame = QWEN.frame(event)
    assert json.loads(frame)["session"]["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}}}
    ]
    assert read_back(frame).session.tools == event.session.tools


@pytest.mark.parametrize(("dialect", "pcm", "rate_hz"), [("qwen", "pcm", 16_000), ("stepfun", "pcm16", 24_000)])
def test_the_beta_names_no_rate(dialect: str, pcm: str, rate_hz: int) -> None:
    heard = AudioInput(format=WireAudioFormat("audio/pcm", rate_hz))
    event = SessionUpdate(session=SessionConfig(audio=AudioConfig(input=heard, output=AudioOutput())))
    assert json.loads(DIALECTS[dialect].frame(event))["session"] == {"input_audio_format": pcm}


def test_xai_has_voice_and_turn_detection_at_the_top() -> None:
    audio = AudioConfig(input=AudioInput(turn_detection=None), output=AudioOutput(voice="eve", speed=1.5))
    event = SessionUpdate(session=SessionConfig(audio=audio))
    frame = XAI.frame(event)
    assert json.loads(frame)["session"] == {
        "type": "realtime",
        "voice": "eve",
        "turn_detection": None,
        "audio": {"input": {}, "output": {"speed": 1.5}},
        "resumption": {"enabled": True},
    }
    assert decode_client_event(beta.lowered(frame)) == event


@pytest.mark.parametrize(
    ("dialect", "model", "sent"),
    [
        ("openai", "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe"),
        ("xai", "gpt-4o-mini-transcribe", "grok-transcribe"),
        ("xai", "another", "another"),
        ("localai", "gpt-4o-mini-transcribe", None),
        ("localai", "another", None),
    ],
)
def test_the_default_transcription_model_is_the_server_s_own(dialect: str, model: str, sent: str | None) -> None:
    heard = AudioInput(transcription=Transcription(model=model, language="en"))
    event = SessionUpdate(session=SessionConfig(audio=AudioConfig(input=heard, output=AudioOutput())))
    session = json.loads(DIALECTS[dialect].frame(event))["session"]
    words = session["audio"]["input"]["transcription"]
    assert (words.get("model"), words["language"]) == (sent, "en")


def test_a_server_says_an_item_once_and_in_the_beta_s_words() -> None:
    item = Item(type="message", role="assistant", id="item_1", content=[ContentPart("output_audio", transcript="Hi.")])
    assert beta.server_event_from_ga(ConversationItemDone(item=item)) is None
    said = beta.server_event_from_ga(ConversationItemAdded(event_id="e", item=item))
    assert isinstance(said, dict)
    assert (said["type"], said["item"]["content"][0]["type"]) == ("conversation.item.created", "audio")
    spoken = beta.server_event_from_ga(ResponseOutputAudioDelta(item_id="item_1", delta=b"\1\2"))
    assert isinstance(spoken, ResponseAudioDelta)
    assert spoken.delta == b"\1\2"
