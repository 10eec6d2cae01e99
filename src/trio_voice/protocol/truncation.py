"""From heard positions to the events that make the model remember what was heard, and no more.

Core ring: pure. The server makes sound faster than it is heard and cannot know what a WebSocket client has played,
so this is the client's duty. Every queued item is covered: the one being heard is truncated where it was cut, those
not begun are deleted, and what was heard whole is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from trio_voice.playback_buffer import ItemPosition
from trio_voice.protocol.client_events import (
    ClientEvent,
    ConversationItemDelete,
    ConversationItemTruncate,
    ResponseCancel,
)


def plan_truncation(
    positions: Iterable[ItemPosition],
    *,
    complete_items: Collection[str],
    unheard_items: Iterable[str] = (),
    cancel: bool,
) -> list[ClientEvent]:
    """What to send after an interruption, in order.

    `positions`: of every item that had sound, from the playback buffer. `complete_items`: ids of items of which the
    server will send no more sound. `unheard_items`: ids of the interrupted turn's messages that had no sound at all.
    `cancel`: whether a response is active and the server does not cancel it by itself.
    """
    events: list[ClientEvent] = [ResponseCancel()] if cancel else []
    placed = set()
    for position in positions:
        placed.add(position.item_id)
        heard_ms = min(int(position.heard_ms), int(position.received_ms))
        if heard_ms <= 0:
            events.append(ConversationItemDelete(item_id=position.item_id))
        elif position.heard_ms < position.received_ms or position.item_id not in complete_items:
            events.append(
                ConversationItemTruncate(
                    item_id=position.item_id, content_index=position.content_index, audio_end_ms=heard_ms
                )
            )
    events.extend(ConversationItemDelete(item_id=item_id) for item_id in unheard_items if item_id not in placed)
    return events
