"""What was said, and what of it was heard: the conversation's items as the client knows them.

Core ring: pure. Fed with server events in wire order; cut by the conversation where the sound was cut. The
invariant: an assistant's words that nobody heard are not in `heard_text`, and words that were heard are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, TypeAlias

import attrs
from msgspec import Struct

from trio_voice.protocol import server_events as on
from trio_voice.protocol.items import Item

_UNSPACED = (
    ("\u0e00", "\u0fff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3000", "\u30ff"),
    ("\u3400", "\u9fff"),
    ("\uff00", "\uffef"),
)
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
    if not _may_be_cut_at(text[cut]):
        while cut and not _may_be_cut_at(text[cut - 1]):
            cut -= 1
    return text[:cut].rstrip()


def _may_be_cut_at(letter: str) -> bool:
    return letter.isspace() or any(first <= letter <= last for first, last in _UNSPACED)


Change: TypeAlias = Literal["added", "changed", "deleted", "forgotten"]

REMEMBERED_IDS = 256
"""Of items that are gone: late news of them is told from news of others. A server that speaks of an older one makes it
anew."""
LEFT_THERE_CAPACITY = 4096
"""Of ids, for the day on which all that a server knows is to be deleted. A connection of an hour has fewer."""


@attrs.frozen
class HistoryItem:
    """One item of the conversation, as it stood when it was looked at."""

    id: str
    kind: str
    """`message`, `function_call`, `function_call_output`, or whatever else the server has."""
    role: str = ""
    """Of a message: `user`, `assistant` or `system`."""
    text: str = ""
    """All the words, as far as they are known."""
    heard_text: str = ""
    """The words that reached the user: all of them, unless the item was interrupted."""
    truncated: bool = False
    """Words were lost to an interruption."""
    spoken: bool = False
    """The words came with sound."""
    images: tuple[str, ...] = ()
    """Of a user's message: pictures, as data URLs."""
    call_id: str = ""
    name: str = ""
    """Of a function call: the tool."""
    arguments: str = ""
    output: str = ""
    at: float = 0.0
    """When it first appeared, in seconds on Trio's clock."""


class Entry(Struct, eq=False):
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
    images: tuple[str, ...] = ()
    at: float | None = None
    """When it first appeared; None until somebody with a clock has said so."""
    hidden: bool = False
    """The model no longer knows of it; the application's record does."""
    exchange: int = 0
    """The `ConversationTurn` in which it appeared; 0 and below in a session before this one, the last of them 0."""
    behind: str = ""
    """What stands right before it at the server of this connection, and was forgotten here."""

    @property
    def heard_text(self) -> str:
        """The words that reached the user; all of them unless the item was interrupted."""
        return cut_at_share(self.text, self.heard_share)

    @property
    def truncated(self) -> bool:
        """Words were lost to an interruption."""
        return self.heard_share < 1.0

    def shown(self) -> HistoryItem:
        """What the application sees of it."""
        return HistoryItem(
            id=self.item_id,
            kind=self.kind,
            role=self.role,
            text=self.text,
            heard_text=self.heard_text,
            truncated=self.truncated,
            spoken=self.spoken,
            images=self.images,
            call_id=self.call_id,
            name=self.name,
            arguments=self.arguments,
            output=self.output,
            at=self.at or 0.0,
        )


class _Gone(Struct, frozen=True):
    stood: str | None
    """The item that stands in its place, or before it; empty for the head, None where nothing is known."""
    answered: str = ""
    """The call that it was the output of."""


class History:
    """The items in their order. `apply` each server event; then look."""

    def __init__(self) -> None:
        self.untold: set[str] = set()
        """Items that the server of this connection has not been told of, as they say nothing, or not yet."""
        self.changes: dict[str, tuple[Change, Entry]] = {}
        """What has become of which item since `take_changes`."""
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self.exchange = 0
        """In which new items appear."""
        self._gone: dict[str, _Gone] = {}
        """By id, the newest last: items that were deleted or forgotten."""
        self._last_behind = ""
        """The `behind` of what will come at the end."""
        self._left_there: dict[str, None] = {}
        """Items that were forgotten here, and that the server of this connection knows; the newest last."""
        self._left_there_count = 0
        self._output_of: dict[str, str] = {}
        self._unplaced: set[str] = set()
        """Items at the end for want of a better place: the server has not said yet where they stand."""
        self._made: dict[str, int] = {}

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
                after = previous if isinstance(previous, str) else None
                self._place(event.item.id or "", after)
                entry = self._take(event.item, after=after)
                self._unplaced.discard(event.item.id or "")
                return entry
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
                self._note("changed", entry)
                return entry
            case on.ConversationItemDeleted(item_id=item_id):
                hidden = self._entries.get(item_id)
                return hidden if hidden is not None and hidden.hidden else self.delete(item_id)
        return None

    def add(self, item: Item, *, after: str | None = None) -> Entry | None:
        """Take in an item that we are about to create; it carries an id of our own."""
        entry = self._take(item, after=after)
        if entry is not None:
            entry.final = True
            self._unplaced.discard(entry.item_id)
        return entry

    def restore(self, entry: Entry, exchange: int = 0) -> None:
        """Put an item of an earlier session at the end."""
        entry.exchange = exchange
        self._entries[entry.item_id] = entry
        self._order.append(entry.item_id)
        if entry.kind == "function_call_output":
            self._output_of[entry.call_id] = entry.item_id
        self._note("added", entry)

    def cut(self, item_id: str, heard_ms: float, received_ms: float) -> Entry | None:
        """Record that only `heard_ms` of the `received_ms` of this item's sound was heard."""
        entry = self._entries.get(item_id)
        if entry is not None:
            entry.heard_share = min(entry.heard_share, heard_ms / received_ms if received_ms else 0.0)
            entry.cut = entry.final = True
            self._note("changed", entry)
        return entry

    def forget(self, item_id: str) -> None:
        """Keep an item no more. The server is not told: what stands behind it there still does."""
        entry = self._entries[item_id]
        is_known = item_id not in self.untold
        behind = item_id if self._is_told(item_id) else ""
        self._remove(entry, "forgotten", self.before(item_id) or "", behind)
        if is_known:
            self._left_there[item_id] = None
            self._left_there_count += 1
            if len(self._left_there) > LEFT_THERE_CAPACITY:
                del self._left_there[next(iter(self._left_there))]

    def take_left_there(self) -> tuple[list[str], int]:
        """What was forgotten here and has to be deleted there, once; and of how much more the id is not known."""
        left, unknown = list(self._left_there), self._left_there_count - len(self._left_there)
        self._left_there, self._left_there_count = {}, 0
        return left, unknown

    def told(self, item_ids: Collection[str]) -> None:
        """A new connection's server knows these items, and no others."""
        self.untold = self._entries.keys() - item_ids
        self._last_behind, self._left_there, self._left_there_count = "", {}, 0
        for entry in self:
            entry.behind = ""

    def hide(self, item_id: str) -> bool:
        """The server is to forget an item, and is not told of it again: a deletion that it confirms is its own.

        Returns whether it knows of the item, and has to be told to forget it.
        """
        entry = self._entries.get(item_id)
        told = entry is not None and item_id not in self.untold
        if item_id in self._left_there:
            del self._left_there[item_id]
            self._left_there_count -= 1
            told = True
        if entry is not None:
            entry.hidden = True
            self.untold.add(item_id)
        return told

    def delete(self, item_id: str, *, replaced_by: str | None = None) -> Entry | None:
        """Forget an item; events about it that are still on their way do not bring it back."""
        stood = replaced_by or self.before(item_id) or ""
        entry = self._entries.get(item_id)
        if entry is None:
            self._bury(item_id, _Gone(None))
        else:
            self._remove(entry, "deleted", stood)
        return entry

    def is_gone(self, item_id: str) -> bool:
        """It was deleted, or forgotten."""
        return item_id in self._gone

    def output_of(self, call_id: str) -> Entry | None:
        """What a tool has answered, if it has."""
        return self._entries.get(self._output_of.get(call_id, ""))

    def close_calls(self, output: str, *, running: Collection[str]) -> None:
        """Calls without an answer will have none, but for the `running` ones: `output` is their answer."""
        for entry in list(self):
            if entry.kind == "function_call" and entry.call_id not in running and not self.output_of(entry.call_id):
                item = Item.function_call_output(entry.call_id, output, id=self.new_id("output"))
                self.add(item, after=entry.item_id)

    def before(self, item_id: str) -> str | None:
        """The item that this one follows; None for the first, and for one that there is not."""
        position = self._order.index(item_id) if item_id in self._entries else 0
        return self._order[position - 1] if position else None

    def told_before(self, item_id: str) -> str:
        """The nearest item before this one that the server knows of; `root` where it would be the first.

        Not the tools of an MCP server: a new connection lists them before it is told what there was.
        """
        before = self._entries[item_id].behind
        for other in reversed(self._order[: self._order.index(item_id)]):
            before = before or (other if self._is_told(other) else self._entries[other].behind)
        return before or "root"

    def new_id(self, kind: str) -> str:
        """An id of our own that no item has or had."""
        while True:
            self._made[kind] = self._made.get(kind, 0) + 1
            item_id = f"{kind}_{self._made[kind]}"
            if item_id not in self._entries and item_id not in self._gone:
                return item_id

    def take_changes(self) -> list[tuple[Change, Entry]]:
        """What has become of the items since this was last asked, once for each item."""
        changes, self.changes = self.changes, {}
        return list(changes.values())

    # --- inside -----------------------------------------------------------------------------------

    def _at(self, item_id: str, kind: str, role: str, after: str | None = None) -> Entry:
        entry = self._entries.get(item_id)
        if entry is None:
            entry = Entry(item_id, kind, role, exchange=self.exchange)
            if item_id in self._gone:
                return entry
            self._entries[item_id] = entry
            self._note("added", entry)
            position = self._position_behind(after)
            if position == len(self._order):
                entry.behind, self._last_behind = self._last_behind, ""
            self._order.insert(position, item_id)
            if after is None:
                self._unplaced.add(item_id)
        return entry

    def _place(self, item_id: str, after: str | None) -> None:
        """The server says where an item stands that came at the end, behind others that we had put there meanwhile."""
        if item_id in self._unplaced and after is not None:
            self._unplaced.discard(item_id)
            if item_id in self._entries and after != item_id:
                self._order.remove(item_id)
                self._order.insert(self._position_behind(after), item_id)
                self._note("changed", self._entries[item_id])

    def _position_behind(self, item_id: str | None) -> int:
        """Where what follows that item belongs, or follows what stood there before; the end where nothing is known."""
        while item_id is not None and item_id in self._gone:
            item_id = self._gone[item_id].stood
        if item_id == "":
            return 0
        return self._order.index(item_id) + 1 if item_id in self._entries else len(self._order)

    def _take(self, item: Item, after: str | None) -> Entry | None:
        if not item.id:
            return None
        item_id = item.id
        if item.type == "function_call_output" and item.call_id:  # one answer to a call, whatever id it is echoed with
            item_id = self._output_of.setdefault(item.call_id, item_id)
        entry = self._at(item_id, item.type, item.role or "", after)
        entry.call_id = item.call_id or item.approval_request_id or entry.call_id
        entry.name = item.name or entry.name
        entry.arguments, entry.output = item.arguments or entry.arguments, item.output or entry.output
        # The words streamed so far may be ahead of the item as the server describes it: only ever gain.
        if len(item.text) > len(entry.text) and not entry.cut:
            entry.text = item.text
        entry.spoken = entry.spoken or any(part.kind in ("output_audio", "input_audio") for part in item.parts)
        entry.images = entry.images or tuple(part.image_url for part in item.parts if part.image_url)
        if item.type != "message" and item.status == "completed" and not entry.final:
            entry.final = True
            self._note("changed", entry)
        return entry

    def _finish(self, item_id: str, text: str, *, spoken: bool) -> Entry:
        entry = self._at(item_id, "message", "assistant")
        if len(text) >= len(entry.text) and not entry.cut:
            entry.text = text
        entry.spoken, entry.final = spoken, True
        self._note("changed", entry)
        return entry

    def _is_told(self, item_id: str) -> bool:
        """What is told anew can stand behind it."""
        return item_id not in self.untold and self._entries[item_id].kind != "mcp_list_tools"

    def _remove(self, entry: Entry, change: Change, stood: str, behind: str = "") -> None:
        item_id, position = entry.item_id, self._order.index(entry.item_id)
        behind = behind or entry.behind
        if position + 1 == len(self._order):
            self._last_behind = behind or self._last_behind
        else:
            following = self._entries[self._order[position + 1]]
            following.behind = following.behind or behind
        del self._entries[item_id], self._order[position]
        self.untold.discard(item_id)
        self._unplaced.discard(item_id)
        self._bury(item_id, _Gone(stood, entry.call_id if entry.kind == "function_call_output" else ""))
        self._note(change, entry)

    def _bury(self, item_id: str, gone: _Gone) -> None:
        self._gone.setdefault(item_id, gone)
        while len(self._gone) > REMEMBERED_IDS:
            oldest = next(iter(self._gone))
            call_id = self._gone.pop(oldest).answered
            if self._output_of.get(call_id) == oldest:
                del self._output_of[call_id]

    def _note(self, change: Change, entry: Entry) -> None:
        is_gone = change in ("deleted", "forgotten")
        if not is_gone and entry.item_id in self._gone:
            return
        earlier = self.changes.get(entry.item_id)
        if earlier is None:
            self.changes[entry.item_id] = (change, entry)
        elif is_gone and earlier[0] == "added":
            del self.changes[entry.item_id]
        elif earlier[0] != "added":
            self.changes[entry.item_id] = (change, entry)
