"""What the session, and the supervisor, may see of the conversation. Written by the conversation alone."""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec import Struct, field

from trio_voice.config import SessionState
from trio_voice.logs import LogContext
from trio_voice.protocol.history import History
from trio_voice.tracker import ConversationTracker, Readings


class ConversationView(Struct, eq=False):
    """For reading."""

    history: History
    tracker: ConversationTracker
    phase: SessionState = SessionState.INITIALIZING
    """Where the conversation stands, paused or not."""
    paused: bool = False
    session_id: str = ""
    ready: trio.Event = field(default_factory=trio.Event)
    """The server has taken the configuration."""
    connected: bool = False
    """A server is there that has taken the configuration."""
    dropped_control: int = 0
    """Events for a server that was not there."""
    lost_utterances: int = 0
    """What the user said and a lost connection took with it."""
    turn_in_progress: bool = False
    """Somebody speaks, or an answer or a tool's result is awaited."""
    awaiting_server: bool = False
    """The server owes a response, or the rest of one."""
    log_context: LogContext = field(default_factory=LogContext)
    readings: Callable[[], Readings] = Readings
    """What the parts of the session have counted; the session's, and for the conversation to read."""
    readings_told: Readings = field(default_factory=Readings)
    """As they were when a turn was last over."""

    @property
    def state(self) -> SessionState:
        return SessionState.PAUSED if self.paused else self.phase
