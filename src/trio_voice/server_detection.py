"""What the server does by itself when the user speaks: as it was told, and has acknowledged.

Core ring: pure. While a response may not be interrupted the server is told to leave everything to us; events that it
sent before it took that in must still be read the old way. The invariant: `interrupts` and `answers` are what held at
the server when it sent the event that is being looked at.
"""

from __future__ import annotations

from collections import deque

import attrs
from msgspec.structs import replace

from trio_voice.protocol import AudioConfig, AudioInput, SessionConfig, SessionUpdate, TurnDetection


@attrs.define(eq=False)
class ServerDetection:
    """`own` is the turn detection of the session's configuration; None: there is none."""

    own: TurnDetection | None
    held: bool = False
    """The server was told to do nothing by itself."""
    _held_there: bool = False
    _unacknowledged: deque[bool] = attrs.Factory(deque)

    @property
    def interrupts(self) -> bool:
        """It has cancelled its response when it reports speech."""
        return self.own is not None and not self._held_there and self.own.interrupt_response is not False

    @property
    def answers(self) -> bool:
        """It begins a response when an utterance is over."""
        return self.own is not None and not self._held_there and self.own.create_response is not False

    def connected(self) -> None:
        """A server has taken the configuration: nothing else was said to it yet."""
        self.held = self._held_there = False
        self._unacknowledged.clear()

    def acknowledged(self) -> None:
        """A `session.updated` of this connection, after the first."""
        if self._unacknowledged:
            self._held_there = self._unacknowledged.popleft()

    def hold(self) -> SessionUpdate | None:
        """Tell the server to leave interrupting and answering to us. None: it does already."""
        if self.own is None or self.held:
            return None
        if self.own.interrupt_response is False and self.own.create_response is False:
            return None
        self.held = True
        return self._tell(replace(self.own, interrupt_response=False, create_response=False))

    def release(self) -> SessionUpdate | None:
        """As configured again."""
        if self.own is None or not self.held:
            return None
        self.held = False
        # What is absent stays as it is, so both are said.
        interrupts, answers = self.own.interrupt_response is not False, self.own.create_response is not False
        return self._tell(replace(self.own, interrupt_response=interrupts, create_response=answers))

    def _tell(self, detection: TurnDetection) -> SessionUpdate:
        self._unacknowledged.append(self.held)
        audio = AudioConfig(input=AudioInput(turn_detection=detection))
        return SessionUpdate(session=SessionConfig(audio=audio))
