"""Which turn an event belongs to, and which response may be asked for next.

Core ring: pure. A *turn* is one response of the model, numbered in the order in which the wire first named it,
through all connections of a conversation; the turn floor is a number on this scale.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, field

from trio_voice.protocol.client_events import ResponseCreate
from trio_voice.protocol.server_events import ResponseCreated, ResponseDone

REMEMBERED_TURNS = 64
"""How many responses are remembered by id. The protocol runs one at a time; out-of-band ones add a few."""


class TurnNumbers:
    """Numbers responses from 1 up, as their ids appear.

    A server that leaves out `response.created` loses nothing: the first event that names a response counts. Ids are
    those of one connection, its *epoch*: another may use them again, and the two may live at the same time.
    """

    def __init__(self) -> None:
        self._turns: dict[tuple[int, str], int] = {}
        self._last = 0

    @property
    def last(self) -> int:
        """The newest turn, 0 before the first."""
        return self._last

    def turn_of(self, event: object, epoch: int = 1) -> int | None:
        """The turn of a server event of that connection, or None when it belongs to no response."""
        response_id = _response_id(event)
        if not response_id:
            # Some servers name no response in a delta: it can only be the newest one.
            nameless = getattr(event, "response_id", None) == ""
            return max((turn for (of, _), turn in self._turns.items() if of == epoch and nameless), default=None)
        turn = self._turns.get((epoch, response_id))
        if turn is None:
            self._last += 1
            turn = self._turns[epoch, response_id] = self._last
            if len(self._turns) > REMEMBERED_TURNS:
                del self._turns[next(iter(self._turns))]
        return turn


def _response_id(event: object) -> str:
    if isinstance(event, ResponseCreated | ResponseDone):
        return event.response.id or ""
    return getattr(event, "response_id", None) or ""


UNINTERRUPTIBLE = "uninterruptible_"
"""What the id of a request begins with whose answer is to be heard whatever the user says."""


def is_marked(request: ResponseCreate) -> bool:
    """Whether its answer may not be interrupted."""
    return (request.event_id or "").startswith(UNINTERRUPTIBLE)


class ResponseArbiter(Struct):
    """Keeps to one response at a time in the conversation.

    `request` and the `on_…` methods return the event to send now, or None. A request made while a response is
    active waits for its end; several that wait become one, since one answer covers all that was said until then.
    """

    active: bool = False
    asked: bool = False
    """A `response.create` of ours is on its way."""
    _sent: ResponseCreate | None = None
    """The request that a refusal would be about: the server's own response may be created before it is refused."""
    _waiting: list[ResponseCreate] = field(default_factory=list)

    def request(self, event: ResponseCreate) -> ResponseCreate | None:
        if self.active or self.asked:
            if event.response is UNSET:
                self._drop_plain()
            self._waiting.append(event)
            return None
        self.asked, self._sent = True, event
        return event

    def on_created(self) -> None:
        self.active, self.asked = True, False

    def on_done(self) -> ResponseCreate | None:
        self.active, self.asked, self._sent = False, False, None
        return self.request(self._waiting.pop(0)) if self._waiting else None

    def is_refused(self, event_id: str | None) -> bool:
        """Whether a collision is about our request, and not about an answer that the server would have begun by itself
        while it makes the one that we asked for. `event_id`: of what was refused, as the server has it.
        """
        own_id = self._sent.event_id if self._sent is not None else None
        if own_id and event_id:
            return own_id == event_id
        return self.asked or not own_id

    def on_collision(self) -> None:
        """The server had begun a response of its own, and refused ours: ask again after it."""
        if self._sent is not None:
            if self._sent.response is UNSET:
                self._drop_plain()
            self._waiting.insert(0, self._sent)
        self.active, self.asked, self._sent = True, False, None

    def drop_waiting(self, *, but_marked: bool = False) -> None:
        """The user interrupted: what was going to be said is no longer wanted.

        `but_marked`: except those that are to be heard whatever the user says.
        """
        self._waiting = [waiting for waiting in self._waiting if but_marked and is_marked(waiting)]
        if not (but_marked and self.sent_marked):
            self._sent = None

    @property
    def sent(self) -> ResponseCreate | None:
        """The request on its way, or the one that the response under way was asked for with."""
        return self._sent

    @property
    def sent_marked(self) -> bool:
        """What was sent may not be interrupted."""
        return self._sent is not None and is_marked(self._sent)

    @property
    def marked_due(self) -> bool:
        """A request of which the answer may not be interrupted is on its way, or waits."""
        return (self.asked and self.sent_marked) or any(map(is_marked, self._waiting))

    @property
    def waits(self) -> bool:
        """A request waits for the end of the response under way."""
        return bool(self._waiting)

    def forget(self, request: ResponseCreate) -> None:
        """It waits, and is not wanted any more."""
        self._waiting = [waiting for waiting in self._waiting if waiting is not request]

    def unanswered(self, *, unheard: bool) -> list[ResponseCreate]:
        """What was asked for and is not answered; with `unheard`, what the response under way was asked for too."""
        on_its_way = self._sent is not None and (self.asked or (self.active and unheard))
        return [*([self._sent] if self._sent is not None and on_its_way else []), *self._waiting]

    def on_connection_lost(self) -> None:
        self.active, self.asked = False, False
        self.drop_waiting()

    def _drop_plain(self) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting.response is not UNSET]
