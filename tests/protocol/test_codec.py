"""Decoding never raises, names what was wrong, and encoding is its inverse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from trio_voice.protocol import (
    MAX_MESSAGE_BYTES,
    InputAudioBufferAppend,
    RemoteProtocolError,
    ResponseOutputAudioDelta,
    ResponseOutputTextDelta,
    SessionUpdate,
    UnknownEvent,
    decode_client_event,
    decode_server_event,
    encode,
)
from trio_voice.protocol.client_events import CLIENT_EVENTS
from trio_voice.protocol.codec import MAX_EXCERPT_CHARS, wire_name
from trio_voice.protocol.server_events import SERVER_EVENTS

DEEP = 100_000
TYPES = [*map(wire_name, SERVER_EVENTS), *map(wire_name, CLIENT_EVENTS)]


def audio_delta(delta: str) -> str:
    return f'{{"type":"response.output_audio.delta","event_id":"e7","item_id":"i","delta":{delta}}}'


WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty text": ("", "not JSON"),
    "empty bytes": (b"", "not JSON"),
    "cut off": ('{"type":"error"', "not JSON"),
    "two values": ('{"type":"x"} {}', "not JSON"),
    "byte order mark": ('\ufeff{"type":"x"}', "not JSON"),
    "NaN": ('{"type":"input_audio_buffer.speech_started","audio_start_ms":NaN}', "not JSON"),
    "lone escaped surrogate": ('{"type":"x","a":"\\ud800\\u0000"}', "not JSON"),
    "lone surrogate": ('{"type":"x","a":"\ud800"}', "not UTF-8"),
    "lone surrogate in a known type": (audio_delta('"\ud800"'), "not UTF-8"),
    "other bytes": (b"\xff\xfe\x00\x01", "not UTF-8"),
    "other bytes in the type": (b'{"type":"\xff"}', "not UTF-8"),
    "array": ("[]", "JSON object"),
    "null": ("null", "JSON object"),
    "string": ('"error"', "JSON object"),
    "deep array": ("[" * DEEP, "JSON object"),
    "no type": ("{}", "no `type`"),
    "number for a type": ('{"type":1}', "`type` is not a string"),
    "null for a type": ('{"type":null}', "`type` is not a string"),
    "missing field": ('{"type":"rate_limits.updated"}', "`rate_limits`"),
    "missing nested field": (
        '{"type":"response.done","response":{"output":[{}]}}',
        "`type` - at `$.response.output[0]`",
    ),
    "wrong type": (audio_delta("1"), "got `int` - at `$.delta`"),
    "wrong nested type": (
        '{"type":"response.output_item.done","item":{"type":"function_call","arguments":{}}}',
        "$.item.arguments",
    ),
    "bad base64": (audio_delta('"###"'), "base64 encoded string - at `$.delta`"),
    "unpadded base64": (audio_delta('"AAA"'), "base64"),
    "null audio": (audio_delta("null"), "$.delta"),
    "deep unknown field": ('{"type":"error","x":' + "[" * DEEP, "too deep"),
    "deep known field": (
        '{"type":"session.created","session":{"tracing":' + '{"a":' * DEEP + "1" + "}" * (DEEP + 2),
        "too deep",
    ),
    "deep unknown event": ('{"type":"x","x":' + "[" * DEEP + "]" * DEEP + "}", "too deep"),
    "huge integer": (
        '{"type":"conversation.item.truncated","item_id":"i","audio_end_ms":1%s}' % ("0" * 5000),
        "out of range",
    ),
    "error that says nothing": ('{"type":"error","error":[]}', "$.error"),
    "20 MiB": ("x" * (20 * 1024 * 1024), f"limit of {MAX_MESSAGE_BYTES} bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    raw, reason = WRONG[name]
    error = decode_server_event(raw)
    assert isinstance(error, RemoteProtocolError)
    assert reason in error.reason
    assert len(error.raw) <= MAX_EXCERPT_CHARS
    error.raw.encode()


def test_an_error_names_the_event_it_is_about() -> None:
    error = decode_server_event(audio_delta("1"))
    assert isinstance(error, RemoteProtocolError)
    assert (error.type, error.event_id) == ("response.output_audio.delta", "e7")


def test_a_client_is_told_what_was_wrong_and_nothing_is_mended() -> None:
    error = decode_client_event('{"type":"session.update","event_id":"c1","session":{"instructions":7}}')
    assert isinstance(error, RemoteProtocolError)
    assert "$.session.instructions" in error.reason
    assert error.event_id == "c1"


def test_the_limit_counts_bytes_and_is_inclusive() -> None:
    frame = encode(ResponseOutputTextDelta(item_id="i", delta="é" * 100))
    length = len(frame.encode())
    for raw in (frame, frame.encode()):
        assert isinstance(decode_server_event(raw, max_bytes=length), ResponseOutputTextDelta)
        over = decode_server_event(raw, max_bytes=length - 1)
        assert isinstance(over, RemoteProtocolError)
        assert "longer than the limit" in over.reason


def test_a_frame_over_the_limit_is_not_parsed() -> None:
    frame = audio_delta('"AAAA"')
    assert isinstance(decode_server_event(frame), ResponseOutputAudioDelta)
    assert isinstance(decode_server_event(frame, max_bytes=10), RemoteProtocolError)
    assert isinstance(decode_client_event(frame, max_bytes=10), RemoteProtocolError)


@pytest.mark.parametrize("decode", [decode_server_event, decode_client_event])
def test_an_unknown_type_is_kept_whole(decode: Any) -> None:
    raw = '{"type":"session.weather","sun":[1,"é"]}'
    assert decode(raw) == UnknownEvent("session.weather", raw)
    assert decode(raw.encode()) == UnknownEvent("session.weather", raw)


def test_each_side_knows_only_the_other_sides_events() -> None:
    assert isinstance(decode_server_event(encode(InputAudioBufferAppend(audio=b""))), UnknownEvent)
    assert isinstance(decode_client_event(audio_delta('""')), UnknownEvent)


def test_of_a_type_given_twice_the_last_one_counts() -> None:
    raw = '{"type":"rate_limits.updated","type":"x","rate_limits":[]}'
    assert decode_server_event(raw) == UnknownEvent("x", raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for cls in (*SERVER_EVENTS, *CLIENT_EVENTS) for name in cls.__struct_fields__})
almost_events = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6).flatmap(
    lambda fields: st.sampled_from(TYPES).map(lambda type_: json.dumps({"type": type_, **fields}))
)


@settings(max_examples=300, deadline=None)
@given(raw=st.text() | st.binary() | json_values.map(json.dumps) | almost_events)
@example(raw='{"type":"error","error":{"message":"m","code":%s}}' % ("[" * 600 + "]" * 600))
@example(raw='{"type":"error","error":{"message":"m","code":%s}}' % ("9" * 5000))
@example(raw='{"type":"x","event_id":%s}' % ("[" * 5000 + "]" * 5000))
@example(raw='{"type":"error","error":{"message":"\\udc00"}}')
def test_decoding_never_raises(raw: str | bytes) -> None:
    for decode in (decode_server_event, decode_client_event):
        result = decode(raw)
        if isinstance(result, RemoteProtocolError):
            assert result.reason
        elif not isinstance(result, UnknownEvent):
            assert decode(encode(result)) == result


@given(sound=st.binary(max_size=200))
def test_audio_is_bytes_here_and_base64_on_the_wire(sound: bytes) -> None:
    delta = ResponseOutputAudioDelta(item_id="i", delta=sound)
    append = InputAudioBufferAppend(audio=sound)
    assert decode_server_event(encode(delta)) == delta
    assert decode_client_event(encode(append)) == append
    assert json.loads(encode(append))["audio"].isascii()


def test_a_session_without_settings_is_an_error_of_the_client() -> None:
    error = decode_client_event('{"type":"session.update"}')
    assert isinstance(error, RemoteProtocolError)
    assert "`session`" in error.reason
    assert isinstance(decode_client_event('{"type":"session.update","session":{}}'), SessionUpdate)
