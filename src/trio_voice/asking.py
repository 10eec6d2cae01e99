"""What is asked of the server: texts of the user, and responses, one at a time; some of them nobody may interrupt.

A part of the conversation's step, synchronous. The invariant: from the request of a response that may not be
interrupted until it was heard, the server neither interrupts nor answers by itself.
"""

from __future__ import annotations

from msgspec import UNSET, Struct

from trio_voice.conversation_view import ConversationView
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, Item, Maybe, ResponseConfig, ResponseCreate
from trio_voice.protocol.turns import UNINTERRUPTIBLE, ResponseArbiter, is_marked
from trio_voice.protocol.verbatim import verbatim, words_of
from trio_voice.server_detection import ServerDetection


class Asking(Struct, eq=False):
    outbox: Outbox
    view: ConversationView
    arbiter: ResponseArbiter
    detection: ServerDetection
    answers: bool = True
    """False: the session only writes down what the user says, and a server gives no answers in it."""
    filling: ResponseCreate | None = None
    """The newest request of `fill`."""
    _made: int = 0

    def respond(self, request: ResponseCreate) -> None:
        """Ask now, or when the response under way is over."""
        allowed = self.arbiter.request(request) if self.answers else None
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
        self._request(config, interruptible=interruptible)

    def say(self, text: str, *, interruptible: bool = True) -> None:
        """Have exactly this said."""
        self._request(saying(text), interruptible=interruptible)

    def fill(self, text: str = "", *, instructions: str | None = None) -> None:
        """Have exactly this said, or something by `instructions`, for the moment only.

        It is not owed to anybody: a lost connection takes it along, and so does whatever else is said first.
        """
        config = saying(text) if instructions is None else ResponseConfig(instructions=instructions)
        self.filling = self.worded(config)
        self.respond(self.filling)

    def withdraw(self) -> None:
        """What `fill` asked for is not wanted any more, if it has not begun."""
        if self.filling is not None:
            self.arbiter.forget(self.filling)

    def again(self, request: ResponseCreate) -> None:
        """Ask another server for what the one before was asked for."""
        if is_marked(request):
            self._hold()
        self.respond(request)

    def _request(self, config: Maybe[ResponseConfig], *, interruptible: bool) -> None:
        if interruptible:
            self.respond(self.worded(config) if config else ResponseCreate())
            return
        self._hold()
        self.respond(self.worded(config or ResponseConfig(), UNINTERRUPTIBLE))

    def worded(self, config: ResponseConfig, kind: str = "worded_") -> ResponseCreate:
        """A request of its own kind, which no other can stand for: with an id, by which a refusal tells it."""
        self._made += 1
        return ResponseCreate(event_id=f"{kind}{self._made}", response=config)

    def _hold(self) -> None:
        update = self.detection.hold()
        if update is not None:
            self.outbox.send(update)

    @property
    def verbatim(self) -> bool:
        """The response that was asked for last says words that were given to it: it tells nothing that tools found."""
        config = self.arbiter.sent.response if self.arbiter.sent is not None else UNSET
        return words_of(config.instructions or "") is not None if config else False

    @property
    def begins_verbatim(self) -> bool:
        """The response that begins is such a one: it answers nothing, as far as can be told."""
        return self.arbiter.asked and self.verbatim

    @property
    def begins_marked(self) -> bool:
        """The response that begins is one that may not be interrupted, as far as can be told."""
        return self.arbiter.asked and self.arbiter.sent_marked

    def release(self) -> None:
        """The server interrupts and answers by itself again, unless more is to be heard."""
        update = None if self.arbiter.marked_due else self.detection.release()
        if update is not None:
            self.outbox.send(update)


def saying(text: str) -> ResponseConfig:
    """What asks for exactly these words."""
    return ResponseConfig(instructions=verbatim(text), tool_choice="none")


def failure_of(details: object) -> str:
    """Why a response failed, as the server puts it."""
    error = getattr(details, "error", None)
    return getattr(error, "message", None) or getattr(error, "code", None) or "the server gave no reason"
