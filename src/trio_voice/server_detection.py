"""What the server does by itself when the user speaks: as it was told, and has acknowledged.

Core ring: pure. While a response may not be interrupted the server is told to leave everything to us; events that it
sent before it took that in must still be read the old way. The invariant: `interrupts` and `answers` are what held at
the server when it sent the event that is being looked at.
"""

from __future__ import annotations

import attrs
from msgspec import Struct
from msgspec.structs import replace

from trio_voice.protocol import AudioConfig, AudioInput, SessionConfig, SessionUpdate, TurnDetection


class _Told(Struct, frozen=True):
    """What an update said that the server has not acknowledged."""

    own: TurnDetection | None
    held: bool
    is_change: bool = False


@attrs.define(eq=False)
class ServerDetection:
    """`own` is the turn detection of the session's configuration; None: there is none."""

    own: TurnDetection | None
    held: bool = False
    """The server was told to do nothing by itself."""
    _there: _Told = attrs.field(init=False)
    _unacknowledged: list[_Told] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self._there = _Told(self.own, self.held)

    @property
    def interrupts(self) -> bool:
        """It has cancelled its response when it reports speech."""
        own = self._there.own
        return own is not None and not self._there.held and own.interrupt_response is not False

    @property
    def answers(self) -> bool:
        """It begins a response when an utterance is over."""
        own = self._there.own
        return own is not None and not self._there.held and own.create_response is not False

    def connected(self) -> None:
        """A server has taken the configuration: nothing else was said to it yet."""
        self.held = False
        self._there = _Told(self.own, held=False)
        self._unacknowledged.clear()

    def acknowledged(self) -> bool:
        """A `session.updated` of this connection, after the first. Returns whether it is about a `change`."""
        if not self._unacknowledged:
            return False
        self._there = self._unacknowledged.pop(0)
        return self._there.is_change

    def said_more(self) -> None:
        """The server is told something that has nothing to do with this, and will acknowledge it in its turn."""
        self._unacknowledged.append(_Told(self.own, self.held))

    def not_taken(self) -> None:
        """The server has refused the oldest update that it had not acknowledged, one of `said_more`."""
        if self._unacknowledged:
            self._unacknowledged.pop(0)

    def change(self, own: TurnDetection | None) -> TurnDetection | None:
        """Another agent takes over: what its configuration has to say just now. One change at a time."""
        self.own = own
        self._unacknowledged.append(_Told(own, self.held, is_change=True))
        return _silenced(own) if own is not None and self.held else own

    def refused(self, own: TurnDetection | None) -> SessionUpdate | None:
        """The server did not take the change: `own` holds as before. Returns what undoes an update made since."""
        self._unacknowledged = [told for told in self._unacknowledged if not told.is_change]
        self.own = own
        if own is None or not self._unacknowledged:
            return None
        return self._tell(_silenced(own) if self.held else _explicit(own))

    def hold(self) -> SessionUpdate | None:
        """Tell the server to leave interrupting and answering to us. None: it does already."""
        if self.own is None or self.held:
            return None
        if self.own.interrupt_response is False and self.own.create_response is False:
            return None
        self.held = True
        return self._tell(_silenced(self.own))

    def release(self) -> SessionUpdate | None:
        """As configured again."""
        if self.own is None or not self.held:
            return None
        self.held = False
        return self._tell(_explicit(self.own))

    def _tell(self, detection: TurnDetection) -> SessionUpdate:
        self._unacknowledged.append(_Told(self.own, self.held))
        audio = AudioConfig(input=AudioInput(turn_detection=detection))
        return SessionUpdate(session=SessionConfig(audio=audio))


def _silenced(own: TurnDetection) -> TurnDetection:
    return replace(own, interrupt_response=False, create_response=False)


def _explicit(own: TurnDetection) -> TurnDetection:
    """What is absent stays as it is at the server, so both are said."""
    interrupts, answers = own.interrupt_response is not False, own.create_response is not False
    return replace(own, interrupt_response=interrupts, create_response=answers)
