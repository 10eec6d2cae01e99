from __future__ import annotations

from hypothesis import given, strategies as st

from trio_voice.audio import PCM16_24K, AudioFormat
from trio_voice.playback_buffer import ItemPosition, PlaybackBuffer
from trio_voice.protocol import ConversationItemDelete, ConversationItemTruncate, ResponseCancel
from trio_voice.protocol.truncation import plan_truncation


def at(item_id: str, heard_ms: float, received_ms: float, content_index: int = 0) -> ItemPosition:
    return ItemPosition(1, item_id, content_index, received_ms=received_ms, heard_ms=heard_ms)


def truncate(item_id: str, audio_end_ms: int, content_index: int = 0) -> ConversationItemTruncate:
    return ConversationItemTruncate(item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms)


def delete(item_id: str) -> ConversationItemDelete:
    return ConversationItemDelete(item_id=item_id)


@st.composite
def item_positions(draw: st.DrawFn) -> list[ItemPosition]:
    """Items in playing order: heard whole, then at most one in part, then not begun."""
    positions = []
    reached = draw(st.integers(0, 5))
    for index in range(draw(st.integers(0, 5))):
        received = draw(st.integers(1, 240_000))
        heard = received if index < reached else 0
        if index == reached:
            heard = draw(st.integers(0, received))
        to_ms = PCM16_24K.ms_of_samples
        positions.append(at(f"item {index}", to_ms(heard), to_ms(received), draw(st.integers(0, 1))))
    return positions


@given(item_positions(), st.sets(st.sampled_from([f"item {n}" for n in range(5)])), st.booleans())
def test_each_item_is_remembered_as_it_was_heard(
    positions: list[ItemPosition], complete: set[str], cancel: bool
) -> None:
    plan = plan_truncation(positions, complete_items=complete, cancel=cancel)
    assert sum(isinstance(event, ResponseCancel) for event in plan) == cancel
    cuts = {event.item_id: event for event in plan if isinstance(event, ConversationItemTruncate)}
    gone = {event.item_id for event in plan if isinstance(event, ConversationItemDelete)}
    assert len(plan) == cancel + len(cuts) + len(gone), "one event for an item, and nothing else"
    assert cuts.keys() | gone <= {position.item_id for position in positions}
    for position in positions:
        if position.heard_ms == position.received_ms and position.item_id in complete:
            assert position.item_id not in cuts.keys() | gone
        elif position.heard_ms < 1:
            assert position.item_id in gone
        else:
            cut = cuts[position.item_id]
            assert 1 <= cut.audio_end_ms <= position.heard_ms
            assert position.heard_ms - cut.audio_end_ms < 1
            assert cut.audio_end_ms <= position.received_ms
            assert cut.content_index == position.content_index


@given(st.integers(1, 50_000), st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]))
def test_all_heard_is_all_heard_however_the_milliseconds_round(samples: int, rate_hz: int) -> None:
    buffer = PlaybackBuffer(AudioFormat("pcm16", rate_hz), prebuffer_ms=0)
    buffer.insert(1, "item", 0, bytes(2 * samples), 0.0)
    buffer.pull(samples // 3)
    buffer.pull(samples)
    assert plan_truncation(buffer.positions(0), complete_items={"item"}, cancel=False) == []


def test_the_first_of_two_queued_items_is_truncated_and_the_second_deleted() -> None:
    plan = plan_truncation([at("a", 500, 2000), at("b", 0, 2000)], complete_items={"a", "b"}, cancel=False)
    assert plan == [truncate("a", 500), delete("b")]


def test_the_second_item_is_truncated_when_the_first_was_heard() -> None:
    plan = plan_truncation([at("a", 2000, 2000), at("b", 12.9, 2000)], complete_items={"a", "b"}, cancel=False)
    assert plan == [truncate("b", 12)]


def test_before_its_first_sound_an_item_is_deleted_and_never_truncated_at_zero() -> None:
    assert plan_truncation([at("a", 0.9, 2000)], complete_items=(), cancel=True) == [ResponseCancel(), delete("a")]


def test_nothing_is_sent_when_all_was_heard() -> None:
    assert plan_truncation([at("a", 2000, 2000)], complete_items={"a"}, cancel=False) == []


def test_all_that_came_was_heard_but_more_was_to_come() -> None:
    assert plan_truncation([at("a", 1999.99, 1999.99)], complete_items=(), cancel=False) == [truncate("a", 1999)]


def test_it_is_never_beyond_what_was_received() -> None:
    """A device that reports more than it was given must not make the server refuse the truncation."""
    assert plan_truncation([at("a", 2100, 2000)], complete_items=(), cancel=False) == [truncate("a", 2000)]


def test_messages_without_any_sound_are_deleted_and_others_left_alone() -> None:
    positions = [at("heard", 100, 200)]
    plan = plan_truncation(positions, complete_items=(), unheard_items=["heard", "silent"], cancel=False)
    assert plan == [truncate("heard", 100), delete("silent")]


def test_an_item_without_sound_is_not_touched_by_an_interruption() -> None:
    """Text-restored items have no position: nothing may be said of them, even if they are complete."""
    assert plan_truncation([], complete_items={"restored"}, cancel=False) == []


def test_a_second_part_not_begun_does_not_delete_what_was_heard_of_the_first() -> None:
    positions = [at("a", 800, 800, 0), at("a", 0, 700, 1), at("b", 0, 10, 0), at("b", 0, 10, 1)]
    plan = plan_truncation(positions, complete_items={"a", "b"}, cancel=False)
    assert plan == [truncate("a", 800, 0), delete("b")]
