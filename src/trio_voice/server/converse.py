"""The life of one connection's tasks, from the first event to the reason why it ended.

Between the socket (`listen.py`), given as two functions, and the session (`connection.py`). The invariant:
however it ends, every task it started is over when it returns, and what was said last is sent first for at
most `LAST_WORDS_S`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from trio_voice.protocol.items import ErrorDetail
from trio_voice.protocol.server_events import ErrorEvent
from trio_voice.server.brain import Brain
from trio_voice.server.connection import Connection, Opening
from trio_voice.server.outbox import Ids, Outbox
from trio_voice.server.played import PlayedDialect
from trio_voice.server.server_settings import ServerSettings

LAST_WORDS_S = 0.5


@attrs.frozen
class Ending:
    """Why a conversation is over, as a WebSocket close code says it."""

    code: int
    reason: str


CLIENT_LEFT = Ending(1000, "")
SESSION_EXPIRED = Ending(1001, "The session reached its maximum duration.")
TOO_SLOW = Ending(1008, "The client reads too slowly.")


async def converse(
    receive: Callable[[], Awaitable[str | bytes | None]],
    send: Callable[[str], Awaitable[None]],
    brain: Brain,
    settings: ServerSettings,
    opening: Opening,
) -> Ending:
    """Hold a session with the client behind `receive` (None: it left) and `send` (which may fail silently).

    Cancellation: ends the session at once; the caller closes the socket.
    """
    outbox = Outbox(Ids(settings.rng), PlayedDialect(settings.dialect))
    ending = CLIENT_LEFT
    sent_all = trio.Event()

    async def send_frames() -> None:
        while (frame := await outbox.take()) is not None:
            await send(frame)
        sent_all.set()

    async with trio.open_nursery() as nursery:

        async def finish(reason: Ending) -> None:
            nonlocal ending
            ending = reason
            outbox.close()
            with trio.move_on_after(LAST_WORDS_S):
                await sent_all.wait()
            nursery.cancel_scope.cancel()

        async def expire() -> None:
            await trio.sleep(settings.session_limit_s)
            minutes = settings.session_limit_s / 60
            message = f"Your session hit the maximum duration of {minutes:g} minutes."
            detail = ErrorDetail(type="invalid_request_error", code="session_expired", message=message)
            outbox.emit(ErrorEvent(error=detail))
            await finish(SESSION_EXPIRED)

        async def give_up() -> None:
            await outbox.overflowed.wait()
            await finish(TOO_SLOW)

        nursery.start_soon(send_frames)
        nursery.start_soon(expire)
        nursery.start_soon(give_up)
        connection = Connection(brain, outbox, nursery, settings, opening)
        while (raw := await receive()) is not None:
            await connection.handle(raw)
        nursery.cancel_scope.cancel()
    return ending
