"""The application's hand in the conversation's record: items put in, edited, deleted, all of them forgotten.

A part of the conversation's step, synchronous. The invariant: after each step the server has been told what the record
says, or a resume will tell it; and nothing of a deleted item comes back, neither its words nor a tool's result.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct

from trio_voice.answers import Answers
from trio_voice.asking import Asking
from trio_voice.barge_in import BargeIn
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import HistoryError
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, ConversationItemDelete, ResponseCreate
from trio_voice.protocol.edits import DeleteItem, EditItem, HistoryEdit, Inject, ResetHistory, message
from trio_voice.protocol.history import Entry
from trio_voice.resumption import Resumption
from trio_voice.tool_ledger import ToolLedger


def still_known(count: int) -> str:
    """What is said where not all could be deleted."""
    return f"{count} items that were forgotten long ago (history_turns) stay with the server until the next connection"


class HistoryEdits(Struct, eq=False):
    outbox: Outbox
    view: ConversationView
    barge_in: BargeIn
    ledger: ToolLedger
    asking: Asking
    answers: Answers
    resumption: Resumption

    def carry_out(self, edit: HistoryEdit, *, may_ask: bool) -> str | None:
        """The id of the item that was made, empty where none was; None when `edit` has to wait.

        `may_ask`: a response may be asked for.
        Raises: `HistoryError` for an item that cannot be changed.
        """
        match edit:
            case Inject():
                return self._inject(edit) if may_ask or not edit.respond else None
            case EditItem():
                return self._edit(edit)
            case DeleteItem(item_id):
                self._delete_whole(self._entry(item_id))
                return ""
            case ResetHistory():
                return self._reset()
            case _:
                assert_never(edit)

    def _inject(self, edit: Inject) -> str:
        now, tracker, asks = self.outbox.now, self.view.tracker, edit.respond and edit.role == "user"
        item_id = self.view.history.new_id("injected")
        item = edit.item(item_id)
        if asks:
            tracker.user_began(now)
        self.view.history.add(item)
        tracker.item_seen(item_id, now)
        self.outbox.send(ConversationItemCreate(item=item))
        if asks:
            tracker.user_ended(now, 0.0)
        if edit.respond:
            self.answers.cancel_when_created = None
            self.asking.respond(ResponseCreate())
        return item_id

    def _edit(self, edit: EditItem) -> str:
        """The new item behind the old one, then the old one away: so it stands where the old one stood."""
        entry, history = self._entry(edit.item_id), self.view.history
        if entry.kind != "message":
            raise HistoryError(
                f"item {edit.item_id!r} is a {entry.kind}: only messages can be edited; delete it instead"
            )
        new_id = history.new_id("edited")
        item = message(entry.role, edit.text, entry.images, new_id)
        told = edit.item_id not in history.untold
        before = edit.item_id if told else history.told_before(edit.item_id)
        made = history.add(item, after=edit.item_id)
        if made is not None:
            made.at, made.exchange = entry.at, entry.exchange
        self.view.tracker.item_replaced(edit.item_id, new_id)
        self.outbox.send(ConversationItemCreate(item=item, previous_item_id=before))
        self._delete(entry, replaced_by=new_id)
        return new_id

    def _reset(self) -> str | None:
        """What is said falls silent first: how much of it was heard has to be known before it can be forgotten."""
        if not self.answers.interrupt("manual", whole=True) and self.view.connected:
            awaited = self.answers.arbiter.asked or self.view.phase is SessionState.PROCESSING
            self.answers.cancel_when_created = "manual" if awaited else None
        if self.barge_in.under_way:
            return None
        history = self.view.history
        told, unknown = history.take_left_there()
        told += [entry.item_id for entry in history if entry.item_id not in history.untold]
        for entry in list(history):
            self._forget_call(entry)
            history.delete(entry.item_id)
        self.outbox.send_all([ConversationItemDelete(item_id=item_id) for item_id in told])
        if unknown:
            self.outbox.report(still_known(unknown), code=None, source="session")
        self.resumption.response_owed = False
        self.ledger.response_asked()
        self.resumption.requests.clear()
        if not self.view.connected:
            self.answers.settle()
        return ""

    def _entry(self, item_id: str) -> Entry:
        """Raises: `HistoryError` unless the item is there, and is no more being said."""
        entry = self.view.history.get(item_id)
        if entry is None:
            raise HistoryError(f"the conversation has no item {item_id!r}; `session.history` has those that there are")
        making = entry.kind == "function_call" and not entry.final and self.answers.arbiter.active
        if making or self.barge_in.is_open(item_id, self.answers.speaking):
            raise HistoryError(
                f"item {item_id!r} is still being said: interrupt() first, or wait until it was heard (`PlaybackEnd`)"
            )
        return entry

    def _delete_whole(self, entry: Entry) -> None:
        """A call and its result go together: a server knows neither without the other."""
        self._forget_call(entry)
        partners = [other for other in self.view.history if entry.call_id and other.call_id == entry.call_id]
        for each in partners or [entry]:
            self._delete(each)

    def _forget_call(self, entry: Entry) -> None:
        if entry.call_id:
            self.ledger.forget(entry.call_id)

    def _delete(self, entry: Entry, *, replaced_by: str | None = None) -> None:
        told = entry.item_id not in self.view.history.untold
        self.view.history.delete(entry.item_id, replaced_by=replaced_by)
        self.ledger.owed.discard(entry.item_id)
        if told:
            self.outbox.send(ConversationItemDelete(item_id=entry.item_id))
