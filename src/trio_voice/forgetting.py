"""What a long conversation keeps of itself: its newest turns, and whatever is still open.

A part of the conversation's step, synchronous. A turn is forgotten as a whole, with its items and its calls, and only
here: the server is told nothing. The invariant: nothing is forgotten of which something may still be heard, said, found
or confirmed; of what is kept nothing is different for what is not.
"""

from __future__ import annotations

from msgspec import Struct, field

from trio_voice.answers import Answers
from trio_voice.barge_in import BargeIn
from trio_voice.outbox import Outbox
from trio_voice.protocol.history import Entry, History
from trio_voice.tool_calls import ToolCalls
from trio_voice.tracker import ConversationTracker
from trio_voice.utterances import Utterances


class _Exchange(Struct, eq=False):
    """All that is kept of a turn."""

    id: int
    entries: list[Entry] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)


class Forgetting(Struct, eq=False):
    outbox: Outbox
    history: History
    tracker: ConversationTracker
    barge_in: BargeIn
    answers: Answers
    tools: ToolCalls
    utterances: Utterances
    turns: int
    """How many are kept, with the one under way."""
    _floor: int = 0
    """Turns at or below it are forgotten, but for those that are `_left`."""
    _left: list[_Exchange] = field(default_factory=list)
    """They were still open."""

    def __post_init__(self) -> None:
        self._floor = -self.turns

    def look(self) -> None:
        """After each step: forget what has become too old, and what was too old and is no longer open."""
        floor = self.tracker.newest - self.turns
        if floor > self._floor or not all(map(self._is_open, self._left)):
            self._floor = floor
            self._left = [exchange for exchange in self._up_to(floor) if not self._forget(exchange)]

    def _up_to(self, floor: int) -> list[_Exchange]:
        """What is kept of these turns. A call and its output are parts of the newer turn of the two: a server knows
        neither without the other."""
        newest: dict[str, int] = {}
        for entry in self.history:
            newest[_call_of(entry)] = max(entry.exchange, newest.get(_call_of(entry), entry.exchange))
        old = {turn: _Exchange(turn, calls=set(calls)) for turn, calls in self.tracker.calls_until(floor).items()}
        for entry in self.history:
            call = _call_of(entry)
            entry.exchange = newest[call] if call else entry.exchange
            if entry.exchange <= floor:
                exchange = old.setdefault(entry.exchange, _Exchange(entry.exchange))
                exchange.entries.append(entry)
                exchange.calls |= {call} if call else set()
        return list(old.values())

    def _forget(self, exchange: _Exchange) -> bool:
        """False when it is still open."""
        if self._is_open(exchange):
            return False
        for entry in exchange.entries:
            self.history.forget(entry.item_id)
            self.tracker.forget_item(entry.item_id)
            self.tools.hosted.forget(entry.item_id)
        kept = {_call_of(entry) for entry in self.history}
        for call_id in exchange.calls - kept:
            self.tools.ledger.spend(call_id)
        was_told = any(entry.kind == "message" for entry in exchange.entries)
        self.tracker.forget(exchange.id, of_earlier_session=was_told)
        return True

    # --- what is open -----------------------------------------------------------------------------

    def _is_open(self, exchange: _Exchange) -> bool:
        ledger = self.tools.ledger
        return (
            self.tracker.is_open(exchange.id, answering=self._answering)
            or any(ledger.is_open(call_id) or call_id in ledger.owed for call_id in exchange.calls)
            or any(self._is_item_open(entry.item_id) for entry in exchange.entries)
        )

    @property
    def _answering(self) -> bool:
        """Something of an answer is still to be made, to be heard, or to be reported."""
        barge_in = self.barge_in
        sounding = barge_in.is_sounding(self.answers.speaking) or bool(barge_in.complete_items)
        return sounding or barge_in.under_way or self.answers.arbiter.active

    def _is_item_open(self, item_id: str) -> bool:
        barge_in, unconfirmed = self.barge_in, self.outbox.unconfirmed or {}
        return (
            barge_in.is_open(item_id, self.answers.speaking)
            or item_id in barge_in.complete_items
            or item_id in barge_in.unrestored
            or item_id in self.tools.ledger.owed
            or item_id in self.utterances.wordless
            or self.tools.hosted.is_open(item_id)
            or any(key.endswith(f" {item_id}") for key in unconfirmed)
        )


def _call_of(entry: Entry) -> str:
    """The call that an item is about; empty for none. Where the server asks for approval it is named by that item."""
    return entry.call_id or (entry.item_id if entry.kind.startswith("mcp_") else "")
