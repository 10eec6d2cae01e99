from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_voice.protocol import ContentPart, Item, server_events as on
from trio_voice.protocol.history import History, cut_at_share

words = st.lists(st.text("abcdefghij,.!?é'", min_size=1, max_size=9), max_size=12)
texts = st.builds(lambda parts, gap: gap.join(parts), words, st.sampled_from([" ", "  ", "\n", "\t"]))
shares = st.floats(-0.5, 1.5, allow_nan=False)


@given(texts, shares)
def test_a_cut_gives_whole_words_from_the_beginning(text: str, share: float) -> None:
    kept = cut_at_share(text, share)
    assert text.startswith(kept)
    assert kept.split() == text.split()[: len(kept.split())]
    if share < 1:
        assert len(kept) <= len(text) * max(share, 0.0)
        next_words = text[len(kept) :].split()
        if next_words:
            end = text.index(next_words[0], len(kept)) + len(next_words[0])
            assert end > int(len(text) * max(share, 0.0)), "a word was heard whole and is lost"


@given(texts, shares, shares)
def test_who_hears_longer_hears_no_less(text: str, one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert cut_at_share(text, longer).startswith(cut_at_share(text, shorter))


@pytest.mark.parametrize(
    ("text", "share", "kept"),
    [
        ("one two three", 0.0, ""),
        ("one two three", 0.1, ""),
        ("one two three", 3 / 13, "one"),
        ("one two three", 0.5, "one"),
        ("one two three", 0.99, "one two"),
        ("one two three", 1.0, "one two three"),
        ("one two three", 1.0001, "one two three"),
        ("one\ntwo", 0.8, "one"),
        ("", 0.5, ""),
        ("今日は天気がいいですね。", 0.5, "今日は天気が"),
        ("สวัสดีครับ", 0.6, "สวัสดี"),
    ],
)
def test_cuts(text: str, share: float, kept: str) -> None:
    assert cut_at_share(text, share) == kept


# --- from server events ---------------------------------------------------------------------------


def message(item_id: str, role: str = "assistant", text: str = "") -> Item:
    kind = "output_text" if role == "assistant" else "input_text"
    return Item(type="message", id=item_id, role=role, content=[ContentPart(kind, text=text)] if text else [])


def added(item_id: str, previous: str | None = None, role: str = "assistant") -> on.ConversationItemAdded:
    return on.ConversationItemAdded(previous_item_id=previous, item=message(item_id, role))


def spoken(item_id: str, delta: str) -> on.ResponseOutputAudioTranscriptDelta:
    return on.ResponseOutputAudioTranscriptDelta(response_id="r", item_id=item_id, delta=delta)


def spoken_whole(item_id: str, transcript: str) -> on.ResponseOutputAudioTranscriptDone:
    return on.ResponseOutputAudioTranscriptDone(response_id="r", item_id=item_id, transcript=transcript)


def history_of(*events: object) -> History:
    history = History()
    for event in events:
        history.apply(event)
    return history


def texts_of(history: History) -> list[tuple[str, str]]:
    return [(entry.item_id, entry.text) for entry in history]


def test_words_gather_from_deltas() -> None:
    history = history_of(added("a"), spoken("a", "good "), spoken("a", "morning"))
    (entry,) = history
    assert (entry.text, entry.heard_text, entry.spoken, entry.final) == ("good morning", "good morning", True, False)
    history.apply(spoken_whole("a", "good morning"))
    assert entry.final


def test_written_words_too() -> None:
    history = history_of(
        on.ResponseOutputTextDelta(item_id="a", delta="good "),
        on.ResponseOutputTextDone(item_id="a", text="good morning"),
    )
    (entry,) = history
    assert (entry.text, entry.spoken, entry.final) == ("good morning", False, True)


def test_items_stand_where_the_server_puts_them() -> None:
    history = history_of(added("a"), added("c", "a"), added("b", "a"), added("d", "c"), added("e", "unknown"))
    assert [entry.item_id for entry in history] == ["a", "b", "c", "d", "e"]
    assert len(history) == 5


@pytest.mark.parametrize("first", [spoken("a", "hello"), spoken_whole("a", "hello")])
def test_an_item_never_added_is_known_by_its_words(first: object) -> None:
    history = history_of(first)
    (entry,) = history
    assert (entry.kind, entry.role, entry.text) == ("message", "assistant", "hello")
    history.apply(added("a"))
    assert texts_of(history) == [("a", "hello")]


def test_the_final_transcript_only_ever_adds() -> None:
    longer = history_of(spoken("a", "good"), spoken_whole("a", "good morning"))
    shorter = history_of(spoken("a", "good morning"), spoken_whole("a", "good"))
    assert texts_of(longer) == texts_of(shorter) == [("a", "good morning")]


def test_an_item_that_is_described_again_keeps_the_words_streamed_so_far() -> None:
    item = on.ResponseOutputItemDone(response_id="r", item=message("a", text="good"))
    history = history_of(added("a"), spoken("a", "good morning"), item)
    assert texts_of(history) == [("a", "good morning")]


def test_what_the_user_said_is_corrected_by_the_whole_transcript() -> None:
    history = history_of(
        added("u", role="user"),
        on.ConversationItemInputAudioTranscriptionDelta(item_id="u", delta="wreck a nice "),
        on.ConversationItemInputAudioTranscriptionDelta(item_id="u", delta="beach"),
        on.ConversationItemInputAudioTranscriptionCompleted(item_id="u", transcript="recognise speech"),
    )
    (entry,) = history
    assert (entry.role, entry.text, entry.final, entry.spoken) == ("user", "recognise speech", True, True)


def test_a_call_and_its_output_are_kept() -> None:
    history = history_of(on.ResponseOutputItemAdded(item=Item.function_call("call_1", "weather", "", id="f")))
    history.apply(on.ResponseOutputItemDone(item=Item.function_call("call_1", "weather", '{"city":"Oslo"}', id="f")))
    history.add(Item.function_call_output("call_1", '"rain"', id="o"))
    call, output = history
    assert (call.kind, call.call_id, call.name, call.arguments) == (
        "function_call",
        "call_1",
        "weather",
        '{"city":"Oslo"}',
    )
    assert (output.kind, output.call_id, output.output) == ("function_call_output", "call_1", '"rain"')


LATE: list[object] = [
    spoken("a", " and more"),
    spoken_whole("a", "one two three four and more"),
    on.ResponseOutputTextDelta(item_id="a", delta=" and more"),
    on.ResponseOutputTextDone(item_id="a", text="one two three four and more"),
    added("a"),
    on.ConversationItemDone(previous_item_id="b", item=message("a", text="one two three four and more")),
    on.ConversationItemCreated(previous_item_id="b", item=message("a", text="one two three four and more")),
    on.ResponseOutputItemAdded(item=message("a", text="one two three four and more")),
    on.ResponseOutputItemDone(item=message("a", text="one two three four and more")),
    on.ConversationItemTruncated(item_id="a", audio_end_ms=500),
]


def started() -> History:
    return history_of(added("a"), spoken("a", "one two three four"), added("b", "a", role="user"))


def seen(history: History) -> list[tuple[str, str, str, bool]]:
    return [(entry.item_id, entry.text, entry.heard_text, entry.truncated) for entry in history]


@given(st.lists(st.sampled_from(LATE), max_size=8))
def test_after_a_cut_nothing_that_still_arrives_changes_what_was_heard(late: list[object]) -> None:
    history = started()
    entry = history.cut("a", 500, 1000)
    assert entry is not None
    assert (entry.heard_text, entry.truncated, entry.final) == ("one two", True, True)
    before = seen(history)
    for event in late:
        history.apply(event)
    assert seen(history) == before


@given(st.lists(st.sampled_from(LATE), max_size=8))
def test_a_deleted_item_does_not_come_back(late: list[object]) -> None:
    history = started()
    history.apply(on.ConversationItemDeleted(item_id="a"))
    for event in late:
        history.apply(event)
    assert [entry.item_id for entry in history] == ["b"]
    assert history.get("a") is None
    assert history.delete("a") is None, "twice is harmless"


def test_an_item_may_be_deleted_before_it_is_told_of() -> None:
    history = History()
    history.delete("a")
    history.apply(added("a"))
    history.apply(spoken("a", "hello"))
    assert len(history) == 0


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=5))
def test_a_second_cut_never_gives_words_back(cuts: list[tuple[float, float]]) -> None:
    history = started()
    kept = "one two three four"
    for heard_ms, received_ms in cuts:
        entry = history.cut("a", heard_ms, received_ms)
        assert entry is not None
        assert kept.startswith(entry.heard_text)
        kept = entry.heard_text


def test_a_cut_of_an_unknown_item_is_harmless() -> None:
    history = started()
    assert history.cut("nothing", 1, 2) is None
    assert len(history) == 2


def test_a_cut_before_any_sound_leaves_no_words() -> None:
    history = started()
    entry = history.cut("a", 0, 0)
    assert entry is not None
    assert entry.heard_text == ""


def test_what_is_put_in_follows_what_was_said_and_not_the_tools_that_a_new_connection_has_listed() -> None:
    history = History()
    for item in (
        Item.user_text("One.", id="one"),
        Item(type="mcp_list_tools", id="listed"),
        Item.user_text("", id="two"),
    ):
        history.add(item)
    history.untold = {"two"}
    assert history.told_before("two") == "one"
    assert history.told_before("one") == "root"


def test_events_about_no_item_change_nothing() -> None:
    history = started()
    before = seen(history)
    assert history.apply(on.InputAudioBufferSpeechStarted()) is None
    assert history.apply(on.ConversationItemAdded(item=Item(type="message"))) is None
    assert history.apply(object()) is None
    assert seen(history) == before


def test_what_was_forgotten_here_can_be_deleted_at_the_server_once() -> None:
    history = started()
    history.forget("a")
    assert history.hide("a")
    assert not history.hide("a")
    history.forget("b")
    assert history.take_left_there() == (["b"], 0)
    assert not history.hide("b")
