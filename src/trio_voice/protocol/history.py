"""What was said, and what of it was heard: the conversation's items as the client knows them.

Core ring: pure. Fed with server events in wire order; cut by the conversation where the sound was cut. The
invariant: an assistant's words that nobody heard are not in `heard_text`, and words that were heard are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from trio_voice.protocol import server_events as on
from trio_voice.protocol.items import Item

_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
"""Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese: a cut at spaces would lose the whole sentence."""


def cut_at_share(text: str, share: float) -> str:
    """The whole words within the first `share` (0..1) of `text`.

    An estimate: it takes words to be spoken at an even pace, by their letters. A word cut in the middle counts as
    not heard; where a script sets no spaces between words, each letter stands for itself.
    """
    if share >= 1:
        return text
    cut = min(int(len(text) * max(0.0, share)), len(text) - 1)
    if cut <= 0:
        return ""
    if not text[cut].isspace() and not _UNSPACED.match(text[cut]):
        while cut and not text[cut - 1].isspace() and not _UNSPACED.match(text[cut - 1]):
            cut -= 1
    return text[:cut].rstrip()


@attrs.define(eq=False)
class Entry:
    """One item of the conversation."""

    item_id: str
    kind: str
    """`message`, `function_call`, `function_call_output`, or whatever else the server has."""
    role: str = ""
    text: str = ""
    """All the words, as far as they have been told."""
    spoken: bool = False
    """The words came with sound."""
    final: bool = False
    heard_share: float = 1.0
    cut: bool = False
    """It was interrupted: its words stand as they were then, whatever else still arrives."""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""

    @property
    def heard_text(self) -> str:
        """The words that reached the user; all of them unless the item was interrupted."""
        return cut_at_share(self.text, self.heard_share)

    @property
    def truncated(self) -> bool:
        """Words were lost to an interruption."""
        return self.heard_share < 1.0


class History:
    """The items in their order. `apply` each server event; then look."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._deleted: set[str] = set()

    def __iter__(self) -> Iterator[Entry]:
        return (self._entries[item_id] for item_id in self._order)

    def __len__(self) -> int:
        return len(self._order)

    def get(self, item_id: str) -> Entry | None:
        return self._entries.get(item_id)

    def apply(self, event: object) -> Entry | None:
        """Take in what a server event tells. Returns the entry that it changed, if any."""
        match event:
            case on.ConversationItemAdded() | on.ConversationItemCreated() | on.ConversationItemDone():
                previous = event.previous_item_id
                return self._take(event.item, after=previous if isinstance(previous, str) else None)
            case on.ResponseOutputItemAdded() | on.ResponseOutputItemDone():
                return self._take(event.item, after=None)
            case on.ResponseOutputAudioTranscriptDelta() | on.ResponseOutputTextDelta():
                entry = self._at(event.item_id, "message", "assistant")
                if not entry.cut:
                    entry.text += event.delta
                entry.spoken = isinstance(event, on.ResponseOutputAudioTranscriptDelta)
                return entry
            case on.ResponseOutputAudioTranscriptDone():
                return self._finish(event.item_id, event.transcript, spoken=True)
            case on.ResponseOutputTextDone():
                return self._finish(event.item_id, event.text, spoken=False)
            case on.ConversationItemInputAudioTranscriptionDelta():
                entry = self._at(event.item_id, "message", "user")
                entry.text += event.delta or ""
                return entry
            case on.ConversationItemInputAudioTranscriptionUpdated():
                entry = self._at(event.item_id, "message", "user")
                if not entry.final:
                    entry.text = event.transcript
                return entry
            case on.ConversationItemInputAudioTranscriptionCompleted():
                entry = self._at(event.item_id, "message", "user")
                entry.text, entry.spoken, entry.final = event.transcript, True, True
                return entry
            case on.ConversationItemDeleted():
                return self.delete(event.item_id)
        return None

    def add(self, item: Item) -> Entry | None:
        """Take in an item that we are about to create; it carries an id of our own."""
        return self._take(item, after=None)

    def cut(self, item_id: str, heard_ms: float, received_ms: float) -> Entry | None:
        """Record that only `heard_ms` of the `received_ms` of this item's sound was heard."""
        entry = self._entries.get(item_id)
        if entry is not None:
            entry.heard_share = min(entry.heard_share, heard_ms / received_ms if received_ms else 0.0)
            entry.cut = entry.final = True
        return entry

    def delete(self, item_id: str) -> Entry | None:
        """Forget an item; events about it that are still on their way do not bring it back."""
        self._deleted.add(item_id)
        entry = self._entries.pop(item_id, None)
        if entry is not None:
            self._order.remove(item_id)
        return entry

    def record_output(self, call_id: str, item_id: str, output: str) -> None:
        """A tool's result, as it was sent."""
        entry = self._at(item_id, "function_call_output", "")
        entry.call_id, entry.output, entry.final = call_id, output, True

    # --- inside -----------------------------------------------------------------------------------

    def _at(self, item_id: str, kind: str, role: str, after: str | None = None) -> Entry:
        entry = self._entries.get(item_id)
        if entry is None:
            entry = Entry(item_id, kind, role)
            if item_id in self._deleted:
                return entry
            self._entries[item_id] = entry
            position = self._order.index(after) + 1 if after in self._entries and after != item_id else None
            self._order.insert(len(self._order) if position is None else position, item_id)
        return entry

    def _take(self, item: Item, after: str | None) -> Entry | None:
        if not item.id:
            return None
        entry = self._at(item.id, item.type, item.role or "", after)
        entry.call_id, entry.name = item.call_id or entry.call_id, item.name or entry.name
        entry.arguments, entry.output = item.arguments or entry.arguments, item.output or entry.output
        # The words streamed so far may be ahead of the item as the server describes it: only ever gain.
        if len(item.text) > len(entry.text) and not entry.cut:
            entry.text = item.text
        entry.spoken = entry.spoken or any(part.kind in ("output_audio", "input_audio") for part in item.parts)
        return entry

    def _finish(self, item_id: str, text: str, *, spoken: bool) -> Entry:
        entry = self._at(item_id, "message", "assistant")
        if len(text) >= len(entry.text) and not entry.cut:
            entry.text = text
        entry.spoken, entry.final = spoken, True
        return entry
