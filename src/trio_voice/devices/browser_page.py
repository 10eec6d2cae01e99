"""The page of `browser.py`, served: each page that connects is a call, and each call is handled in a task of its own.

Edge, extra `[browser]`: hypercorn serves, starlette routes; both run on Trio. The invariant: when a page goes, its
handler is cancelled, and no handler outlives its page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import trio

from trio_voice.devices.browser import MAX_FRAME_BYTES, BrowserCall
from trio_voice.errors import DeviceError, EngineMissing
from trio_voice.logs import log

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.websockets import WebSocket

Handler: TypeAlias = Callable[[BrowserCall], Awaitable[None]]

PAGE = Path(__file__).parent / "page"
LAST_WORDS_S = 1.0
NORMAL, BAD_MESSAGE, BROKEN = 1000, 1008, 1011


def browser_app(handle: Handler) -> Starlette:
    """An ASGI application for your own server, one that runs on Trio: the page at `/`, its line at `/line`.

    `handle(call)` is cancelled when the page goes. Mount it below any path.
    Raises: `EngineMissing` without the extra `[browser]`.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Mount, WebSocketRoute
        from starlette.staticfiles import StaticFiles
    except ImportError as missing:
        raise EngineMissing(f"{missing.name} is not installed: pip install 'trio-voice[browser]'") from None

    async def line(socket: WebSocket) -> None:
        await _hold(socket, handle)

    return Starlette(routes=[WebSocketRoute("/line", line), Mount("/", StaticFiles(directory=PAGE, html=True))])


async def serve(
    handle: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the page until cancelled; starts with its address as value.

    Browsers give the microphone only to pages of this machine or of an https address: for others put a proxy with
    TLS in front.
    Raises: `EngineMissing` without the extra `[browser]`; `OSError` when it cannot listen.
    """
    app = browser_app(handle)
    import hypercorn.trio
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{host}:{port}"]
    config.accesslog = config.errorlog = None
    config.websocket_max_message_size = MAX_FRAME_BYTES
    config.graceful_timeout = LAST_WORDS_S

    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(hypercorn.trio.serve, app, config)
        task_status.started(addresses[0])


async def _hold(socket: WebSocket, handle: Handler) -> None:
    """One page, from its first message to its last."""
    await socket.accept()
    call = BrowserCall(socket.headers.get("user-agent", ""))
    code = NORMAL

    async def write() -> None:
        async for message in call.to_page:
            await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message))

    async def read() -> None:
        nonlocal code
        try:
            while (message := await socket.receive())["type"] == "websocket.receive":
                received = message.get("bytes")
                call.received(received if received is not None else message["text"])
        except DeviceError as error:
            code = BAD_MESSAGE
            call.hang_up(str(error))
        call.hang_up("the page was closed")

    async def end_when_gone(scope: trio.CancelScope) -> None:
        await call.gone.wait()
        scope.cancel()

    async with trio.open_nursery() as wires:
        wires.start_soon(write)
        wires.start_soon(read)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_when_gone, nursery.cancel_scope)
                await handle(call)
                nursery.cancel_scope.cancel()
            call.hang_up("the conversation is over")
        except* Exception:
            log.exception("browser.failed")
            code = BROKEN
            call.hang_up("the conversation failed; the log of the server says why")
        finally:
            with trio.move_on_after(LAST_WORDS_S, shield=True):
                try:
                    await socket.close(code, call.reason[:120])
                except RuntimeError:
                    pass  # the page has closed it already
            wires.cancel_scope.cancel()
