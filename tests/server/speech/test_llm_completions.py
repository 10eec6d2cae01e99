"""Items to chat messages, and streamed pieces to sentences."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, strategies as st

from trio_voice.protocol.items import Item, Tool
from trio_voice.server.speech.completions import (
    NO_OUTPUT_YET,
    Answer,
    LlmError,
    SentenceCutter,
    messages,
    request_body,
)


def test_a_call_is_followed_by_its_output_whatever_was_said_between() -> None:
    items = [
        Item.user_text("Where are my orders?"),
        Item.function_call("a", "lookup", '{"n":1}'),
        Item.function_call("b", "lookup", '{"n":2}'),
        Item.function_call_output("b", "two"),
        Item.user_text("Hello?"),
        Item.function_call_output("a", "one"),
        Item.assistant_text("Here."),
    ]
    written = messages(items, "Be kind.")
    assert [m["role"] for m in written] == ["system", "user", "assistant", "tool", "tool", "user", "assistant"]
    assert [call["id"] for call in written[2]["tool_calls"]] == ["a", "b"]
    assert [(m["tool_call_id"], m["content"]) for m in written[3:5]] == [("a", "one"), ("b", "two")]


def test_a_call_without_output_is_still_running() -> None:
    written = messages([Item.function_call("a", "f", "{}")], "")
    assert written[-1] == {"role": "tool", "tool_call_id": "a", "content": NO_OUTPUT_YET}


def test_what_was_not_heard_is_not_written() -> None:
    assert len(messages([Item.user_text(""), Item.assistant_text(" ")], "x")) == 1


def test_tools_without_parameters_get_an_empty_object() -> None:
    body = request_body([], [Tool(name="stop"), Tool(type="mcp", server_label="m")], "", "tiny")
    assert [tool["function"] for tool in body["tools"]] == [
        {"name": "stop", "parameters": {"type": "object", "properties": {}}}
    ]
    assert "tools" not in request_body([], [], "", "tiny")


_calls = st.sampled_from("abc")
_items = st.lists(
    st.one_of(
        st.builds(Item.user_text, st.text(max_size=5)),
        st.builds(Item.assistant_text, st.text(max_size=5)),
        st.builds(Item.function_call, _calls, st.just("f"), st.just("{}")),
        st.builds(Item.function_call_output, _calls, st.text(max_size=5)),
    ),
    max_size=12,
)


@given(_items)
def test_every_call_is_answered_at_once(items: list[Item]) -> None:
    written = messages(items, "")
    for i, message in enumerate(written):
        if calls := message.get("tool_calls"):
            answers = written[i + 1 : i + 1 + len(calls)]
            assert [answer.get("tool_call_id") for answer in answers] == [call["id"] for call in calls]
        if message["role"] == "tool":
            assert written[i - 1]["role"] == "tool" or written[i - 1].get("tool_calls")
    json.dumps(written)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello. How are you?", ["Hello.", "How are you?"]),
        ("It costs 3.50 dollars. Really!", ["It costs 3.50 dollars.", "Really!"]),
        ("Dr. Jones is in. Wait.", ["Dr. Jones is in.", "Wait."]),
        ("<think>Hm. Well.</think>Yes. No.", ["Yes.", "No."]),
        ("<think>never closed", []),
        ("a < b. Fine.", ["a < b.", "Fine."]),
        ("**Bold** and `code`. Ok", ["Bold and code.", "Ok"]),
        ("One\n- two\n- three", ["One", "two", "three"]),
    ],
)
def test_sentences_are_the_same_however_they_come(text: str, sentences: list[str]) -> None:
    for size in (1, 2, 3, 7, len(text)):
        cutter = SentenceCutter()
        got = [s for i in range(0, len(text), size) for s in cutter.feed(text[i : i + size])] + cutter.flush()
        assert got == sentences, size


@given(st.lists(st.text(alphabet="ab .!?<>think/\n*", max_size=6), max_size=10))
def test_words_are_neither_lost_nor_doubled(pieces: list[str]) -> None:
    cutter = SentenceCutter()
    got = [s for piece in pieces for s in cutter.feed(piece)] + cutter.flush()
    whole = "".join(pieces)
    if "think" not in whole and "*" not in whole:
        assert " ".join(got).split() == whole.split()


@given(st.one_of(st.text(max_size=30), st.sampled_from(["[]", "{}", '{"choices":[3]}', '{"choices":[{"delta":4}]}'])))
def test_any_payload_is_read_or_refused(payload: str) -> None:
    with contextlib.suppress(LlmError):  # any other error fails the test
        Answer().feed(payload)
