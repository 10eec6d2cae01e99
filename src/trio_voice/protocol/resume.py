"""What a new connection has to be told, so that the conversation goes on as if nothing had happened.

Core ring: pure. The protocol has no resume of its own: the items are created again, as text. Assistant messages are
restored as they were heard; calls with their results; an utterance whose words are not known yet with its sound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from trio_voice.protocol.client_events import ConversationItemCreate
from trio_voice.protocol.edits import message
from trio_voice.protocol.history import Entry, History
from trio_voice.protocol.items import Item

CONTINUES = (
    "The connection was lost for a moment and is restored. The conversation above goes on: do not greet or introduce "
    "yourself again, and keep to the language spoken so far."
)
NEVER_RUN = '{"error": "not run: the connection was lost"}'


def replay(
    history: History,
    *,
    results: Mapping[str, str | None] = MappingProxyType({}),
    unfinished: Collection[str] = (),
    wordless: Mapping[str, bytes] = MappingProxyType({}),
) -> list[ConversationItemCreate]:
    """The events that restore `history`, oldest item first, each item with its id.

    `results`: by id, what calls gave that the server makes itself; `unfinished`: ids of items that are still being
    heard, left out until it is known how much of them was; `wordless`: by item id, the sound of what the user said and
    no words are known of. What says nothing is left out.
    """
    calls = [entry for entry in history if entry.kind == "mcp_call"]
    superseded = {entry.call_id for entry in calls if entry.call_id != entry.item_id}
    answered = {entry.call_id for entry in history if entry.kind == "function_call_output" and not entry.hidden}
    items: list[Item] = []
    for entry in history:
        if entry.item_id in unfinished or entry.hidden or entry.item_id in superseded:
            continue
        items += _items(entry, results, wordless, answered)
    return [ConversationItemCreate(item=item) for item in items]


def _items(
    entry: Entry, results: Mapping[str, str | None], wordless: Mapping[str, bytes], answered: Collection[str]
) -> list[Item]:
    match entry.kind:
        case "message":
            return _message(entry, wordless)
        case "function_call":
            return [Item.function_call(entry.call_id, entry.name, entry.arguments, id=entry.item_id)]
        case "function_call_output":
            return [Item.function_call_output(entry.call_id, entry.output, id=entry.item_id)]
        case "mcp_call" | "mcp_approval_request":
            return _hosted(entry, results, answered)
    return []


def _message(entry: Entry, wordless: Mapping[str, bytes]) -> list[Item]:
    if entry.item_id in wordless:
        return [Item.user_audio(wordless[entry.item_id], id=entry.item_id)]
    text = entry.heard_text.strip()
    if not text and not entry.images:
        return []
    return [message(entry.role, text, entry.images, entry.item_id)]


def _hosted(entry: Entry, results: Mapping[str, str | None], answered: Collection[str]) -> list[Item]:
    """A call that the server made itself, or asked for: as a call of ours, since none of its own can be created.

    What it gave has an item of its own from the second time on.
    """
    call_id = entry.call_id or entry.item_id
    call = Item.function_call(call_id, entry.name, entry.arguments, id=entry.item_id)
    if call_id in answered:
        return [call]
    output = results.get(call_id) or results.get(entry.item_id) or entry.output or NEVER_RUN
    return [call, Item.function_call_output(call_id, output)]
