"""The wire: one WebSocket, opened, kept honest and closed in bounded time. The only import of trio_websocket.

trio-websocket's own context managers can hang on leaving and can leak a `Cancelled` that ends a caller's loop
without a word (its issue 184). So the stream and the nursery are ours: `run` connects, pumps, and on the way out
closes within a second whatever the peer does. Every failure comes out as one `WireLost`.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import attrs
import h11
import msgspec
import trio
import trio.abc
import trio_websocket
from wsproto.utilities import ProtocolError

from trio_voice.config import url_shown
from trio_voice.errors import WireLost
from trio_voice.wire_stream import MESSAGE_QUEUE, RECEIVE_BYTES, WireStream

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""A retrieved minute of audio is about 3.8 MB; the codec has a smaller limit of its own, which loses no connection."""
CLOSE_TIMEOUT_S = 1.0

_REFUSAL = re.compile(rb"HTTP/1\.\d ([345]\d\d)")
_FATAL_STATUS = {400, 401, 403, 404}
_FATAL_CLOSE = {1002, 1003, 1007, 1008, 1010, 4000}
_STATUS_ADVICE = {
    400: "the server did not accept the request: check the URL and the model",
    401: "the key was refused: pass ConnectionOptions(api_key=…), or --api-key or OPENAI_API_KEY on the command line",
    403: "the key may not use this model or endpoint",
    404: "nothing answers at this path: check the URL and the model",
    429: "too many sessions or no quota left",
}


class Wire:
    """An open connection that carries text messages. `receive` by one task; messages of several senders stay whole."""

    def __init__(self, connection: trio_websocket.WebSocketConnection, stream: WireStream) -> None:
        self._connection = connection
        self._stream = stream
        self.last_message_at = trio.current_time()
        """When a message was last received."""
        self.is_dead = False
        """Set when the peer is known to be gone: then nothing is said to it any more, and leaving takes no time."""

    @property
    def last_received_at(self) -> float:
        """When any byte last arrived, on `trio.current_time()`'s clock: the sign of life."""
        return self._stream.last_received_at

    @property
    def has_room(self) -> bool:
        """Whether a message would go out at once, or as far as the socket takes it."""
        return self._connection.closed is None and self._stream.has_room

    def put(self, text: str) -> bool:
        """Have a message sent, whole and in order. False when there was no room: it is kept, and the next one should
        wait for `flushed`. Raises: `WireLost`.
        """
        if self._connection.closed is not None:
            raise _lost(self._connection.closed)
        try:
            return self._stream.write_text(text.encode())
        except trio.BrokenResourceError as broken:
            raise _broken(broken) from None

    async def send(self, text: str) -> None:
        """`put`, and wait for room if there was none. A checkpoint only then. Raises: `WireLost`."""
        if not self.put(text):
            await self.flushed()

    async def flushed(self) -> None:
        """Wait until all that was put has gone. Cancellation: safe, and stops nothing. Raises: `WireLost`."""
        try:
            await self._stream.flushed()
        except trio.BrokenResourceError as broken:
            raise _broken(broken) from None

    async def receive(self) -> str | bytes:
        """The next message. Who has begun to receive comes back soon, or nobody answers the peer's pings.

        Each of a burst is had in a pass of the scheduler of its own. Cancellation: safe.
        Raises: `WireLost` once the connection is closed and all has been received.
        """
        message: str | bytes | None = await self._stream.next_text()
        if message is None:
            try:
                message = await self._connection.get_message()
            except trio_websocket.ConnectionClosed as closed:
                raise _lost(closed.reason) from None
        self.last_message_at = trio.current_time()
        return message

    async def ping(self) -> None:
        """Wait for the answer to a ping. Raises: `WireLost`."""
        self._stream.leave_reading()  # to the library, unless somebody is at it just now
        try:
            await self._connection.ping()
        except trio_websocket.ConnectionClosed as closed:
            raise _lost(closed.reason) from None


@attrs.frozen
class Address:
    """Where to connect, and what to say in the handshake. Neither its `repr` nor an error shows a key."""

    url: str = attrs.field(repr=lambda url: repr(url_shown(url)))
    headers: Sequence[tuple[str, str]] = attrs.field(default=(), repr=False)
    subprotocols: Sequence[str] = attrs.field(default=(), repr=False)
    ssl_context: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        return url_shown(self.url)


async def run(
    address: Address,
    *,
    connect_timeout_s: float,
    stream: trio.abc.Stream | None = None,
    task_status: trio.TaskStatus[Wire] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Connect, report the open `Wire`, and keep it until cancelled. Start it in the connection's nursery.

    `stream`: a stream that is connected already (one half of `trio.testing.memory_stream_pair()`, say).
    Raises: `WireLost` if no connection comes about within `connect_timeout_s`, or it is refused.
    Closes: the stream, within one second.
    """
    with trio.move_on_after(connect_timeout_s) as connecting:
        watched = WireStream(stream or await connect(address), MAX_MESSAGE_BYTES)
    if connecting.cancelled_caught:
        raise WireLost(
            f"{address.shown} did not answer within {connect_timeout_s:g} s; is the server up and the address right?",
            retryable=True,
        )
    refusals: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            pumping, writing = _Shielded(nursery), _Shielded(nursery)
            watched.begin_writing = partial(writing.start_soon, watched.keep_writing)
            try:
                connection: trio_websocket.WebSocketConnection | None = None
                with trio.move_on_after(connect_timeout_s):
                    async with trio.open_nursery() as shaking_hands:
                        shaking_hands.start_soon(_cancel_at_end, watched, shaking_hands.cancel_scope)
                        connection = await _shake_hands(pumping, watched, address)
                        shaking_hands.cancel_scope.cancel()
                if connection is None:
                    raise _no_handshake(address, watched, connect_timeout_s)
                opened = Wire(connection, watched)
                try:
                    task_status.started(opened)
                    del task_status  # it would keep the nursery of the start
                    await trio.sleep_forever()
                finally:
                    watched.leave_reading()
                    if not opened.is_dead:
                        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                            await connection.aclose()
            finally:
                pumping.cancel()
                writing.cancel()
                watched.give_up_writing()  # or a late sender would begin a writer in a nursery that is over
                nursery.cancel_scope.cancel()
    except* WireLost as group:
        refusals.extend(group.exceptions)
    except* (trio_websocket.HandshakeError, h11.ProtocolError, ProtocolError) as group:
        # The library lets some of what the peer does against HTTP or WebSocket through as it is.
        refusals.extend(group.exceptions)
    finally:
        await trio.aclose_forcefully(watched)
    if refusals:
        raise _refused(address, _innermost(refusals[0]))


class _Shielded:
    """A task that goes on when the connection is cancelled, until it is cancelled itself. As much of a nursery as the
    library asks for.

    Its reader is one: cancelled from outside, it would not read the peer's answer to our Close, and every leaving would
    take the whole second. What has been given to be written is written by another.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scope = trio.CancelScope(shield=True)

    def start_soon(self, run: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        self._nursery.start_soon(self._run, run, *arguments)

    async def _run(self, run: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        with self._scope:
            await run(*arguments)

    def cancel(self) -> None:
        self._scope.cancel()


async def _shake_hands(
    pumping: _Shielded, stream: trio.abc.Stream, address: Address
) -> trio_websocket.WebSocketConnection:
    parts = urlsplit(address.url)
    return await trio_websocket.wrap_client_stream(
        pumping,  # type: ignore[arg-type]  # it only ever starts its reader in it
        stream,  # type: ignore[arg-type]  # any stream works; the annotation is narrower than the code
        parts.netloc.rpartition("@")[2],
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        subprotocols=address.subprotocols,
        extra_headers=[(name.encode(), value.encode()) for name, value in address.headers],
        message_queue_size=MESSAGE_QUEUE,
        max_message_size=MAX_MESSAGE_BYTES,
        receive_buffer_size=RECEIVE_BYTES,
    )


async def connect(address: Address) -> trio.abc.Stream:
    """The byte stream to where `address` says, encrypted for `wss` and `https`. Raises: `WireLost`."""
    parts = urlsplit(address.url)
    secure = parts.scheme in ("wss", "https")
    if parts.hostname is None:
        raise WireLost(f"{address.shown} names no host; a URL looks like wss://host/v1/realtime", retryable=False)
    port = parts.port or (443 if secure else 80)
    try:
        if not secure:
            return await trio.open_tcp_stream(parts.hostname, port)
        stream = await trio.open_ssl_over_tcp_stream(
            parts.hostname, port, https_compatible=True, ssl_context=address.ssl_context
        )
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    except OSError as error:
        reason = f"could not connect to {parts.hostname}:{port} ({error}); is the server running there?"
        raise WireLost(reason, retryable=True) from error
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        untrusted = isinstance(cause, ssl.SSLCertVerificationError)
        raise WireLost(
            f"TLS with {parts.hostname}:{port} failed ({cause or error})"
            + ("; the server's certificate is not trusted here" if untrusted else ""),
            retryable=not untrusted,
        ) from error
    return stream


async def _cancel_at_end(stream: WireStream, scope: trio.CancelScope) -> None:
    """End the handshake when the peer hangs up in it: the library would wait for ever."""
    await stream.ended.wait()
    scope.cancel()


def _no_handshake(address: Address, stream: WireStream, timeout_s: float) -> WireLost:
    if refusal := _REFUSAL.match(stream.head):
        return rejected(address, int(refusal[1]), stream.head.partition(b"\r\n\r\n")[2])
    if stream.ended.is_set():
        return WireLost(f"{address.shown} hung up during the handshake; does it speak WebSocket?", retryable=True)
    return WireLost(f"{address.shown} accepted the connection but no handshake within {timeout_s:g} s", retryable=True)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _refused(address: Address, error: BaseException) -> WireLost:
    if isinstance(error, WireLost):
        return error
    if isinstance(error, trio_websocket.ConnectionRejected):
        return rejected(address, error.status_code, error.body or b"")
    return WireLost(f"{address.shown}: the handshake failed ({error!r})", retryable=True)


def rejected(address: Address, status: int, body: bytes) -> WireLost:
    """What an HTTP answer that is none means: in the server's words, with what to do."""
    advice = _STATUS_ADVICE.get(status, "the server refused the connection")
    said = _message_in(body)
    return WireLost(
        f"{address.shown} answered {status}: {advice}" + (f" (it said: {said})" if said else ""),
        retryable=status not in _FATAL_STATUS,
    )


def _message_in(body: bytes) -> str:
    """What a refusal says in words: the message of an OpenAI-like error, or the beginning of whatever it is."""
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.message
    except msgspec.MsgspecError:
        return body.decode("utf-8", "replace").strip()[:200]


class _ErrorMessage(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _ErrorMessage


def _broken(error: trio.BrokenResourceError) -> WireLost:
    return WireLost(f"the connection broke while sending ({error})", retryable=True)


def _lost(reason: trio_websocket.CloseReason | None) -> WireLost:
    if reason is None:
        return WireLost("the connection is closed", retryable=True)
    said = f": {reason.reason}" if reason.reason else ""
    return WireLost(
        f"the connection was closed ({reason.code} {reason.name}){said}",
        retryable=reason.code not in _FATAL_CLOSE,
        close_code=reason.code,
    )
