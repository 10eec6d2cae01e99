"""The one logger of the package, and what identifies the session in each of its lines.

An application that has configured structlog gets every event its way. Otherwise they go to the standard library's
logger `trio_voice`, which says nothing below a warning and never writes to stdout: that belongs to the application.

The invariant: whatever a task of a session logs says whose it is. A `LogContext` is bound once, before the session's
tasks begin, and each of them inherits it; the conversation keeps it up to date. Nothing is logged for a frame or a
piece of sound.

structlog takes as long to import as Trio does (it looks for rich and asyncio), so `import trio_voice` leaves it out.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

from msgspec import Struct


class LogContext(Struct, eq=False):
    """What every line of a session has, as far as it is known. One for a session; its conversation writes."""

    agent: str = ""
    """The name of the agent in charge."""
    session: str = ""
    """The server's id of the session's first connection: it stays through reconnections."""
    epoch: int = 0
    """The number of the connection in use."""
    turn: int = 0
    """The newest response."""
    response: str = ""
    """Its id at the server."""

    def fields(self) -> dict[str, Any]:
        known = {
            "agent": self.agent,
            "session": self.session,
            "epoch": self.epoch,
            "turn": self.turn,
            "response": self.response,
        }
        return {name: value for name, value in known.items() if value}


_standard_logger = logging.getLogger("trio_voice")
_context: ContextVar[LogContext | None] = ContextVar("trio_voice_log_context", default=None)


def bind(context: LogContext) -> None:
    """This task, and those that it starts from here on, log for `context`."""
    _context.set(context)


def add_session(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: lines of your own, logged by tools and callbacks of a session, say whose they are.

    `structlog.configure(processors=[trio_voice.logs.add_session, …])`. Lines of this package have it without.
    """
    context = _context.get()
    if context is not None:
        for name, value in context.fields().items():
            event.setdefault(name, value)
    return event


class _Logger:
    """`log.info("turn.interrupted", turn=3)`: events are nouns in the past, with what identifies them as keys."""

    def __getattr__(self, method: str) -> Any:
        import structlog

        if structlog.is_configured():
            logger = structlog.get_logger("trio_voice")
        elif _standard_logger.isEnabledFor(getattr(logging, method.upper(), logging.ERROR)):
            logger = _standard_library()
        else:
            return _say_nothing  # before the line is made up: it may be an interruption that is told
        context = _context.get()
        return getattr(logger if context is None else logger.bind(**context.fields()), method)


def _say_nothing(event: str, **fields: object) -> None:
    pass


@functools.cache
def _standard_library() -> Any:
    import structlog

    return structlog.wrap_logger(
        _standard_logger,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
    )


log = _Logger()


def prepare() -> None:
    """Import structlog now, when nobody is waiting for a sample."""
    import structlog  # noqa: F401 - for its effect: the next import finds it loaded
