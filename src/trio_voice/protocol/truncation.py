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
    parts: dict[str, list[ItemPosition]] = {}
    for position in positions:
        parts.setdefault(position.item_id, []).append(position)
    for item_id, of_item in parts.items():
        if item_id in complete_items and all(part.heard_ms >= part.received_ms for part in of_item):
            continue
        begun = [part for part in of_item if _whole_ms(part) > 0]
        if begun:  # of several spoken parts, the last one that was begun is where the item ends
            last = begun[-1]
            events.append(
                ConversationItemTruncate(
                    item_id=item_id, content_index=last.content_index, audio_end_ms=_whole_ms(last)
                )
            )
        else:
            events.append(ConversationItemDelete(item_id=item_id))
    events.extend(ConversationItemDelete(item_id=item_id) for item_id in unheard_items if item_id not in parts)
    return events


def _whole_ms(position: ItemPosition) -> int:
    return min(int(position.heard_ms), int(position.received_ms))
