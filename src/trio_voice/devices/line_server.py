"""Lines that come in over HTTP: the page of `browser.py`, served, and the media streams of `telephone.py`, accepted.

Edge, extra `[browser]`: hypercorn serves, starlette routes; both run on Trio. Each line is handled in a task of its
own. The invariant: when the far end goes, its handler is cancelled, and no handler outlives its line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from trio_voice.devices.browser import BrowserCall
from trio_voice.devices.remote_line import Line
from trio_voice.devices.telephone import TelephoneCall
from trio_voice.errors import DeviceError, EngineMissing
from trio_voice.logs import log

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.websockets import WebSocket

BrowserHandler: TypeAlias = Callable[[BrowserCall], Awaitable[None]]
TelephoneHandler: TypeAlias = Callable[[TelephoneCall], Awaitable[None]]

PAGE = Path(__file__).parent / "page"
MAX_MESSAGE_BYTES = 96_000
START_TIMEOUT_S = 10.0
LAST_WORDS_S = 1.0
NORMAL, BAD_MESSAGE, BROKEN = 1000, 1008, 1011


def browser_app(handle: BrowserHandler) -> Starlette:
    """An ASGI application for your own server, one that runs on Trio: the page at `/`, its line at `/line`.

    `handle(call)` is cancelled when the page goes. Mount it below any path.
    Raises: `EngineMissing` without the extra `[browser]`.
    """
    _check_extra()
    from starlette.applications import Starlette
    from starlette.routing import Mount, WebSocketRoute
    from starlette.staticfiles import StaticFiles

    async def line(socket: WebSocket) -> None:
        call = BrowserCall(socket.headers.get("user-agent", ""))
        await _hold(socket, call, lambda: handle(call), "the page was closed")

    return Starlette(routes=[WebSocketRoute("/line", line), Mount("/", StaticFiles(directory=PAGE, html=True))])


def telephone_app(handle: TelephoneHandler) -> Starlette:
    """The same for telephone calls: the provider's media stream at `/call`.

    `handle(call)` begins when the provider has said what the call is, and is cancelled when the caller hangs up.
    Raises: `EngineMissing` without the extra `[browser]`.
    """
    _check_extra()
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    async def line(socket: WebSocket) -> None:
        call = TelephoneCall()

        async def from_the_start() -> None:
            with trio.move_on_after(START_TIMEOUT_S):
                await call.started.wait()
            if not call.started.is_set():
                call.hang_up(f"no start event came within {START_TIMEOUT_S:g} s")
                return
            await handle(call)

        await _hold(socket, call, from_the_start, "the provider has closed the stream")

    return Starlette(routes=[WebSocketRoute("/call", line)])


async def serve(
    app: Starlette,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve it until cancelled; starts with its address as value.

    Browsers give the microphone only to pages of this machine or of an https address, and providers call only
    wss addresses: put a proxy with TLS in front.
    Raises: `OSError` when it cannot listen.
    """
    import hypercorn.trio
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{host}:{port}"]
    config.accesslog = config.errorlog = None
    config.websocket_max_message_size = MAX_MESSAGE_BYTES
    config.graceful_timeout = LAST_WORDS_S
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(hypercorn.trio.serve, app, config)
        task_status.started(addresses[0])


def _check_extra() -> None:
    try:
        import hypercorn  # noqa: F401 - only whether they are there
        import starlette  # noqa: F401 - the same
    except ImportError as missing:
        raise EngineMissing(f"{missing.name} is not installed: pip install 'trio-voice[browser]'") from None


async def _hold(socket: WebSocket, line: Line[Any], handle: Callable[[], Awaitable[None]], closed: str) -> None:
    """One line, from its first message to its last. `closed`: why it is gone when the far end has closed it."""
    await socket.accept()
    code = NORMAL

    async def write() -> None:
        async for message in line.outbound:
            await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message))

    async def read() -> None:
        nonlocal code
        try:
            while (message := await socket.receive())["type"] == "websocket.receive":
                received = message.get("bytes")
                line.received(received if received is not None else message["text"])
        except DeviceError as error:
            code = BAD_MESSAGE
            line.hang_up(str(error))
        line.hang_up(closed)

    async def end_when_gone(scope: trio.CancelScope) -> None:
        await line.gone.wait()
        scope.cancel()

    async with trio.open_nursery() as wires:
        wires.start_soon(write)
        wires.start_soon(read)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_when_gone, nursery.cancel_scope)
                await handle()
                nursery.cancel_scope.cancel()
            line.hang_up("the conversation is over")
        except* Exception:
            log.exception("line.failed")
            code = BROKEN
            line.hang_up("the conversation failed; the log of the server says why")
        finally:
            with trio.move_on_after(LAST_WORDS_S, shield=True):
                try:
                    await socket.close(code, line.reason[:120])
                except RuntimeError:
                    pass  # the far end has closed it already
            wires.cancel_scope.cancel()
