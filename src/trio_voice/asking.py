"""What is asked of the server: texts of the user, and responses, one at a time; some of them nobody may interrupt.

A part of the conversation's step, synchronous. The invariant: from the request of a response that may not be
interrupted until it was heard, the server neither interrupts nor answers by itself.
"""

from __future__ import annotations

import attrs
from msgspec import UNSET

from trio_voice.conversation_view import ConversationView
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, Item, ResponseConfig, ResponseCreate
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.server_detection import ServerDetection


@attrs.define(eq=False)
class Asking:
    outbox: Outbox
    view: ConversationView
    arbiter: ResponseArbiter
    detection: ServerDetection
    _marked: int = 0

    def respond(self, request: ResponseCreate) -> None:
        """Ask now, or when the response under way is over."""
        allowed = self.arbiter.request(request)
        if allowed is not None:
            self.outbox.send(allowed)

    def write(self, text: str) -> None:
        """Say something for the user. With an id of our own, and recorded at once: it survives a loss that comes before
        the server's echo."""
        item_id = self.view.history.new_id("text")
        item = Item.user_text(text, id=item_id)
        self.view.history.add(item)
        self.view.tracker.item_seen(item_id, self.outbox.now)
        self.outbox.send(ConversationItemCreate(item=item))

    def speak(self, instructions: str | None, *, interruptible: bool = True) -> None:
        """Ask for an answer without a word from the user."""
        config = ResponseConfig(instructions=instructions) if instructions is not None else UNSET
        if interruptible:
            self.respond(ResponseCreate(response=config))
            return
        update = self.detection.hold()
        if update is not None:
            self.outbox.send(update)
        self._marked += 1
        self.respond(ResponseCreate(event_id=f"uninterruptible_{self._marked}", response=config or ResponseConfig()))

    @property
    def begins_marked(self) -> bool:
        """The response that begins is one that may not be interrupted, as far as can be told."""
        return self.arbiter.asked and bool(self.arbiter.sent_id)

    def release(self) -> None:
        """The server interrupts and answers by itself again, unless more is to be heard."""
        update = None if self.arbiter.marked_due else self.detection.release()
        if update is not None:
            self.outbox.send(update)


def failure_of(details: object) -> str:
    """Why a response failed, as the server puts it."""
    error = getattr(details, "error", None)
    return getattr(error, "message", None) or getattr(error, "code", None) or "the server gave no reason"
