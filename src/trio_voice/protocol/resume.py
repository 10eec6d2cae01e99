"""What a new connection has to be told, so that the conversation goes on as if nothing had happened.

Core ring: pure. The protocol has no resume of its own: the items are created again, as text. Assistant messages are
restored as they were heard; calls with their results; an utterance whose words are not known yet with its sound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from trio_voice.protocol.client_events import ClientEvent, ConversationItemCreate
from trio_voice.protocol.history import Entry, History
from trio_voice.protocol.items import Item

CONTINUES = (
    "The connection was lost for a moment and is restored. The conversation above goes on: do not greet or introduce "
    "yourself again, and keep to the language spoken so far."
)
NEVER_RUN = '{"error": "not run: the connection was lost"}'


def replay(
    history: History,
    results: Mapping[str, str | None],
    *,
    unfinished: Collection[str] = (),
    wordless: Mapping[str, bytes] = MappingProxyType({}),
) -> list[ClientEvent]:
    """The events that restore `history`, oldest item first. `results`: by call id, None for a tool still running;
    `unfinished`: ids of items that are still being heard, left out until it is known how much of them was; `wordless`:
    by item id, the sound of what the user said and no words are known of.

    Outputs are taken from `results` and stand right behind their calls; where a tool is still running the output
    follows when it is there. Items keep their ids, but for outputs, which get new ones.
    """
    events: list[ClientEvent] = []
    superseded = {entry.call_id for entry in history if entry.kind == "mcp_call"}
    for entry in list(history):
        if entry.item_id in unfinished or entry.hidden:
            continue
        match entry.kind, entry.role:
            case "message", _:
                events.extend(_message(entry, wordless))
            case "function_call", _:
                call = Item.function_call(entry.call_id, entry.name, entry.arguments, id=entry.item_id)
                events.append(ConversationItemCreate(item=call))
                output = results.get(entry.call_id, NEVER_RUN)
                if output is not None:
                    events.append(ConversationItemCreate(item=Item.function_call_output(entry.call_id, output)))
            case "function_call_output", _:
                history.delete(entry.item_id)
            case (("mcp_call" | "mcp_approval_request"), _) if entry.item_id not in superseded:
                events.extend(_hosted(entry, results))
    if events:
        events.append(ConversationItemCreate(item=Item.system_text(CONTINUES)))
    return events


def _message(entry: Entry, wordless: Mapping[str, bytes]) -> list[ClientEvent]:
    if entry.item_id in wordless:
        return [ConversationItemCreate(item=Item.user_audio(wordless[entry.item_id], id=entry.item_id))]
    text = entry.heard_text.strip()
    make = {"user": Item.user_text, "assistant": Item.assistant_text, "system": Item.system_text}.get(entry.role)
    if make is None or not text or text == CONTINUES:
        return []
    return [ConversationItemCreate(item=make(text, id=entry.item_id))]


def _hosted(entry: Entry, results: Mapping[str, str | None]) -> list[ClientEvent]:
    """A call that the server made itself, or asked for: as a call of ours, since none of its own can be created."""
    call_id = entry.call_id or entry.item_id
    call = Item.function_call(call_id, entry.name, entry.arguments, id=entry.item_id)
    output = Item.function_call_output(call_id, results.get(call_id) or results.get(entry.item_id) or NEVER_RUN)
    return [ConversationItemCreate(item=call), ConversationItemCreate(item=output)]
