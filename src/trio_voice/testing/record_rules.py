"""What must hold of the record: the model, the session and whoever edited it agree, also after a lost connection.

Beside the other rules (`checks.py`). Looked at when all is at rest, by what the server's brain is shown then. The
invariant: it only looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from trio_voice.protocol.history import Entry, History
from trio_voice.protocol.items import Item

Key: TypeAlias = tuple[str, str]
"""Kind, and id: calls and outputs by that of the call."""
CALLS = ("function_call", "function_call_output")


@attrs.define(eq=False)
class RecordRules:
    wrong: Callable[[str, str], None]
    expected: dict[str, str] = attrs.Factory(dict)
    """By item id: words that the application has put in."""
    gone: set[str] = attrs.Factory(set)
    """Ids of items that it has taken out."""
    edits: int = 0
    """Those that were done."""

    def put_in(self, item_id: str, text: str) -> None:
        self.expected[item_id] = text

    def took_out(self, item_ids: Iterable[str]) -> None:
        for item_id in item_ids:
            self.gone.add(item_id)
            self.expected.pop(item_id, None)

    def compare(self, shown: Sequence[Item], history: History) -> None:
        """`shown`: what the model knows. Nothing is going on."""
        hosted = {each for entry in history if entry.kind.startswith("mcp_") for each in (entry.item_id, entry.call_id)}
        entries = {_key_of(entry): entry for entry in history if _is_told(entry, hosted)}
        items = {_key(item): item for item in shown if _is_looked_at(item, hosted)}
        if len(items) < sum(_is_looked_at(item, hosted) for item in shown):
            self.wrong("the same record", "the model knows something twice")
        loose = {_key_of(entry) for entry in history if entry.truncated}
        """Of what was cut each end keeps the words that it takes for heard."""
        for key in (entries.keys() ^ items.keys()) - loose:
            who = "the session" if key in entries else "the model"
            self.wrong("the same record", f"only {who} knows of {key}")
        common = [key for key in entries if key in items]
        if common != [key for key in items if key in entries]:
            self.wrong("the same record", f"the model has {list(items)}, the session {list(entries)}")
        for key in common:
            mine, theirs = entries[key].heard_text.strip(), items[key].text.strip()
            if key not in loose and key[0] == "message" and mine != theirs:
                self.wrong("the same record", f"{key}: {mine!r}, and the model has {theirs!r}")
        self._look_for_edits(items, history)

    def _look_for_edits(self, items: dict[Key, Item], history: History) -> None:
        for item_id, text in self.expected.items():
            entry, item = history.get(item_id), items.get(("message", item_id))
            if entry is None or entry.text != text:
                self.wrong("edits last", f"{text!r} is not in the record any more")
            elif not entry.hidden and (item is None or item.text != text):
                self.wrong("edits last", f"the model does not know {text!r}")
        known = {item.id for item in items.values()} | {entry.item_id for entry in history}
        back = sorted(self.gone.intersection(each for each in known if each))
        if back:
            self.wrong("edits last", f"{back} were taken out, and are there again")


def _key(item: Item) -> Key:
    return (item.type, (item.call_id if item.type in CALLS else item.id) or "")


def _key_of(entry: Entry) -> Key:
    return (entry.kind, entry.call_id if entry.kind in CALLS else entry.item_id)


def _is_looked_at(item: Item, hosted: set[str]) -> bool:
    """Calls that a server makes itself are others on each connection: `hosted_rules.py` has them."""
    return item.type == "message" or (item.type in CALLS and item.call_id not in hosted)


def _is_told(entry: Entry, hosted: set[str]) -> bool:
    if entry.hidden:
        return False
    if entry.kind == "message":
        return bool(entry.heard_text.strip() or entry.images)
    return entry.kind in CALLS and entry.call_id not in hosted
