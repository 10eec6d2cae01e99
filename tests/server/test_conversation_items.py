"""Items, their order, and what of them was heard."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_voice.audio import AudioFormat
from trio_voice.protocol.items import ContentPart, Item
from trio_voice.server.conversation_items import (
    Clause,
    ConversationItems,
    Entry,
    Sound,
    check_created,
    heard_words,
)
from trio_voice.server.refusals import Refused
from trio_voice.server.scripted import marked_samples


def message(item_id: str) -> Entry:
    return Entry(Item.user_text(item_id, id=item_id))


def spoken(item_id: str, *clauses: Clause) -> Entry:
    samples = sum(clause.samples for clause in clauses)
    text = "".join(clause.text for clause in clauses)
    item = Item(
        type="message",
        id=item_id,
        status="completed",
        role="assistant",
        content=[ContentPart("output_audio", transcript=text)],
    )
    sound = Sound(AudioFormat(), bytearray(marked_samples(0, samples).tobytes()), list(clauses))
    return Entry(item, sound)


def test_items_go_where_they_are_put() -> None:
    items = ConversationItems()
    assert items.add(message("a")) is None
    assert items.add(message("c")) == "a"
    assert items.add(message("b"), "a") == "a"
    assert items.add(message("first"), "root") is None
    assert [item.id for item in items.for_brain()] == ["first", "a", "b", "c"]
    assert items.previous_id("c") == "b"


@pytest.mark.parametrize(("item_id", "after", "param"), [("a", None, "item.id"), ("b", "nobody", "previous_item_id")])
def test_an_item_that_cannot_be_placed_changes_nothing(item_id: str, after: str | None, param: str) -> None:
    items = ConversationItems()
    items.add(message("a"))
    with pytest.raises(Refused) as refused:
        items.add(message(item_id), after)
    assert refused.value.param == param
    assert len(items) == 1


def test_a_brain_sees_the_heard_words_only() -> None:
    items = ConversationItems()
    items.add(spoken("s", Clause("One two.", 24_000), Clause(" Three four five six.", 48_000)))
    items.truncate("s", 0, 2100)
    [seen] = items.for_brain()
    assert seen.text == "One two. Three four"
    kept = items.retrieve("s").parts[0]
    assert not kept.transcript
    assert isinstance(kept.audio, bytes)
    assert len(kept.audio) == 2 * 24 * 2100


def test_what_was_not_heard_at_all_is_not_seen() -> None:
    items = ConversationItems()
    items.add(spoken("s", Clause("Nobody heard this", 24_000)))
    items.truncate("s", 0, 0)
    assert items.for_brain() == []


@pytest.mark.parametrize(
    ("item_id", "index", "ms", "code"),
    [
        ("nobody", 0, 0, "item_truncate_invalid_item_id"),
        ("u", 0, 0, "invalid_value"),
        ("t", 0, 0, "unsupported_content_type"),
        ("s", 1, 0, "invalid_value"),
        ("s", 0, 1001, "invalid_value"),
        ("s", 0, -1, "invalid_value"),
    ],
)
def test_what_cannot_be_truncated_is_refused(item_id: str, index: int, ms: int, code: str) -> None:
    items = ConversationItems()
    items.add(message("u"))
    items.add(Entry(Item.assistant_text("written", id="t")))
    items.add(spoken("s", Clause("one second", 24_000)))
    with pytest.raises(Refused) as refused:
        items.truncate(item_id, index, ms)
    assert refused.value.code == code
    assert items.for_brain()[-1].text == "one second"


@given(st.text(alphabet="ab ", max_size=30), st.integers(1, 1000), st.integers(0, 1100), st.integers(0, 1100))
def test_heard_words_are_a_growing_beginning_cut_between_words(
    text: str, samples: int, first: int, second: int
) -> None:
    less, more = (heard_words(Clause(text, samples), heard) for heard in sorted((first, second)))
    assert text.startswith(more)
    assert more.startswith(less)
    rest = text[len(more) :]
    assert not rest or not more or rest[0] == " " or more[-1] == " "
    assert heard_words(Clause(text, samples), samples) == text


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5))
def test_truncating_again_only_takes_away(cuts: list[int]) -> None:
    items = ConversationItems()
    items.add(spoken("s", Clause("One two three.", 36_000), Clause(" Four five.", 36_000)))
    length = 3000
    words = "One two three. Four five."
    for cut in cuts:
        if cut > length:
            with pytest.raises(Refused):
                items.truncate("s", 0, cut)
            continue
        items.truncate("s", 0, cut)
        length = cut
        seen = "".join(item.text for item in items.for_brain())
        assert words.startswith(seen)
        words = seen


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (Item(type="nonsense"), "item.type"),
        (Item(type="message", role="robot", content=[]), "item.role"),
        (Item(type="message", role="user"), "item.content"),
        (Item(type="function_call_output", call_id="c"), "item.output"),
        (
            Item(type="message", role="assistant", content=[ContentPart("output_audio", audio=b"")]),
            "item.content[0].type",
        ),
        (Item(type="message", role="user", content=[ContentPart("input_text")]), "item.content[0].text"),
    ],
)
def test_an_item_that_is_none_is_refused(item: Item, param: str) -> None:
    with pytest.raises(Refused) as refused:
        check_created(item)
    assert refused.value.param == param
