"""Items read the same whatever dialect their content is written in."""

from __future__ import annotations

import msgspec

from trio_voice.protocol import ContentPart, Item


def test_the_words_of_a_message_are_its_text_or_its_transcript() -> None:
    spoken = Item(
        type="message",
        role="assistant",
        content=[ContentPart("output_audio", transcript="Hello, "), ContentPart("output_text", text="you")],
    )
    assert spoken.text == "Hello, you"
    assert Item.user_text("hi").text == "hi"
    assert Item.function_call_output("c", "42").text == ""
    assert Item(type="message", content=[ContentPart("input_audio", transcript=None)]).text == ""


def test_the_betas_content_is_known_by_its_ga_name() -> None:
    assert [ContentPart(t).kind for t in ("text", "audio", "input_text", "output_audio")] == [
        "output_text",
        "output_audio",
        "input_text",
        "output_audio",
    ]
    assert ContentPart().kind == ""


def test_absent_and_null_are_told_apart() -> None:
    raw = b'{"type":"message","id":null,"content":[]}'
    item = msgspec.json.decode(raw, type=Item)
    assert msgspec.json.encode(item) == raw
