"""A local server for tests, in memory or on loopback, on which faults can be struck connection by connection.

    async with memory_server(ScriptedBrain([Say("Hello.")])) as server:
        async with RealtimeSession(agent, open_stream=server.open_stream): ...

Each connection is a new session of the server, as with the real one. The real WebSocket code runs on both sides
(trio-websocket over there, wsproto here), so that the server can also do what a well-behaved one never would. Whole
text messages, nearly all there are, pass wsproto by on this side: see `frames.py`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

import attrs
import trio
import trio.abc
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from trio_voice.errors import WireLost
from trio_voice.server.brain import Brain
from trio_voice.server.connection import Opening
from trio_voice.server.converse import converse
from trio_voice.server.server_settings import DEFAULT_MODEL, ServerSettings
from trio_voice.testing.faults import CONNECT_FAULTS, STREAM_FAULTS, Fault, FaultyStream, quick_pair
from trio_voice.testing.frames import FrameCutter
from trio_voice.text_frames import text_frame

Direction: TypeAlias = Literal["sent", "received"]
OVERSIZED_BYTES = 25 * 1024 * 1024
OVERSIZED_PART = 4 * 1024 * 1024
CLOSE_ANSWER_S = 1.0
LOST = (trio.BrokenResourceError, trio.ClosedResourceError)
REPEATED = (
    "response.created", "response.output_item.added", "response.output_item.done", "response.done",
    "conversation.item.added", "conversation.item.done", "session.updated", "input_audio_buffer.committed",
    "response.function_call_arguments.done", "response.output_audio.done", "rate_limits.updated",
)  # fmt: skip
"""What `duplicates` says twice. Not content: a delta has nothing that tells a repetition from more of the same."""


@attrs.define(eq=False)
class ServedConnection:
    """The server's end of one connection."""

    number: int
    """From 1."""
    client_end: FaultyStream
    _stream: trio.abc.Stream
    _watch: Callable[[ServedConnection, Direction, str], None]
    opened_at: float = attrs.Factory(trio.current_time)
    over: bool = False
    target: str = ""
    """Path and query of its handshake."""
    _socket: WSConnection = attrs.Factory(lambda: WSConnection(ConnectionType.SERVER))
    _outgoing: bytearray = attrs.Factory(bytearray)
    _writing: bool = False
    _in_pieces: bool = False
    """In the midst of a message that wsproto is writing."""
    _incoming: list[Event | str] = attrs.Factory(list)
    _cutter: FrameCutter = attrs.Factory(FrameCutter)
    _parts: list[str] = attrs.Factory(list)
    _accepted: bool = False
    _answers_close: bool = True
    _repeats: int = 0
    _late: int = 0
    _last_delta: str = ""
    _close_heard: trio.Event = attrs.Factory(trio.Event)

    async def strike(self, fault: Fault) -> None:
        """Let `fault` happen to this connection."""
        kind = fault.kind
        if kind in STREAM_FAULTS:
            await self.client_end.strike(fault)
            return
        self.client_end.struck.append(fault)
        if kind.startswith("close_"):
            await self.close(int(kind.removeprefix("close_")), "simulated")
        elif kind == "never_answers_close":
            self._answers_close = False
        elif kind == "duplicates":
            self._repeats = 200
        elif kind == "late_events":
            self._late = 3
        elif kind == "garbage":
            for text in ('{"type":', "[]", '{"type":"response.done","response":7}', "\N{PILE OF POO}", "null"):
                await self._say(text)
        elif kind == "oversized":
            part, self._in_pieces = "x" * OVERSIZED_PART, True
            for start in range(0, OVERSIZED_BYTES, OVERSIZED_PART):
                last = start + OVERSIZED_PART >= OVERSIZED_BYTES
                await self._emit(TextMessage(data=part, message_finished=last))
            self._in_pieces = False
        else:
            raise ValueError(f"{kind} cannot happen to a connection that is made; give it to the server")

    async def send(self, frame: str) -> None:
        """One event to the client, as the server's session made it; twice or too late where a fault says so."""
        self._watch(self, "sent", frame)
        await self._say(frame)
        if self._repeats and frame.startswith(tuple(f'{{"type":"{kind}"' for kind in REPEATED)):
            self._repeats -= 1
            await self._say(frame)
        if self._late:
            if frame.startswith(('{"type":"response.output_audio.delta"', '{"type":"response.audio.delta"')):
                self._last_delta = frame
            elif frame.startswith('{"type":"response.done"') and '"status":"cancelled"' in frame and self._last_delta:
                self._late -= 1
                await self._say(self._last_delta)

    async def receive(self) -> str | None:
        """The next event of the client; None when it has gone."""
        while True:
            event = await self._next()
            if event is None:
                return None
            if isinstance(event, Message):
                self._parts.append(str(event.data))
                if not event.message_finished:
                    continue
                event, self._parts = "".join(self._parts), []
            if isinstance(event, str):
                self._watch(self, "received", event)
                return event

    async def close(self, code: int, reason: str = "") -> None:
        await self._emit(CloseConnection(code=code, reason=reason))

    async def shake_hands(self) -> bool:
        """Accept the client."""
        event = await self._next()
        if not isinstance(event, Request):
            return False
        self.target = event.target
        await self._emit(AcceptConnection(subprotocol="realtime" if "realtime" in event.subprotocols else None))
        self._accepted = True
        return True

    async def reject(self, status: int) -> None:
        """Refuse the client before the upgrade."""
        if isinstance(await self._next(), Request):
            await self._emit(RejectConnection(status_code=status, headers=[(b"content-length", b"0")]))

    async def wait_close(self) -> None:
        """Read on until the client has answered our Close or hung up."""
        while not self._close_heard.is_set() and await self._next() is not None:
            pass

    # --- inside -----------------------------------------------------------------------------------

    async def _next(self) -> Event | str | None:
        while not self._incoming:
            try:
                received = bytes(await self._stream.receive_some(65_536))
            except LOST:
                return None
            if not self._accepted or not received:
                pieces: list[str | bytes] = [received]
            else:
                pieces = self._cutter.cut(received)
            for piece in pieces:
                if isinstance(piece, str):
                    self._incoming.append(piece)
                elif not await self._take_bytes(piece):
                    return None
            if not received:
                return None
        return self._incoming.pop(0)

    async def _take_bytes(self, received: bytes) -> bool:
        """False when nothing more will come."""
        try:
            self._socket.receive_data(received or None)
        except (RemoteProtocolError, LocalProtocolError):
            return False
        for event in self._socket.events():
            if isinstance(event, Ping):
                await self._emit(event.response())
            elif isinstance(event, CloseConnection):
                self._close_heard.set()
                if not self._answers_close:
                    await trio.sleep_forever()
                await self._emit(event.response())
                return False
            else:
                self._incoming.append(event)
        return True

    async def _say(self, text: str) -> None:
        if self._in_pieces:
            await self._emit(TextMessage(data=text))
        elif self._socket.state is ConnectionState.OPEN:
            await self._write(text_frame(text))

    async def _emit(self, event: Event) -> None:
        """Bytes leave in the order in which events were made, whoever makes them."""
        try:
            made = self._socket.send(event)
        except LocalProtocolError:
            return  # closed already
        await self._write(made)

    async def _write(self, made: bytes) -> None:
        self._outgoing += made
        if self._writing:
            return
        self._writing = True
        try:
            while self._outgoing:
                piece, self._outgoing = bytes(self._outgoing), bytearray()
                await self._stream.send_all(piece)
        except LOST:
            self._outgoing.clear()
        finally:
            self._writing = False


@attrs.define(eq=False)
class FaultyServer:
    """A server that makes and serves its own connections. Give `open_stream` to a `RealtimeSession`."""

    brain: Brain
    _nursery: trio.Nursery
    _connect: Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]
    settings: ServerSettings
    schedule: Sequence[Sequence[Fault]] = ()
    """Faults of the first connection, the second …; later ones have none."""
    rng: random.Random = attrs.Factory(lambda: random.Random(0))
    watch: Callable[[ServedConnection, Direction, str], None] | None = None
    """Called with every message, as it passes the server."""
    on_connect: Callable[[int], Iterable[Fault]] | None = None
    """Called with the number of each connection; gives faults beside those of `schedule`."""
    connections: list[ServedConnection] = attrs.Factory(list)
    attempts: int = 0

    async def open_stream(self) -> trio.abc.Stream:
        """Connect. Raises: `WireLost` where a fault refuses the connection."""
        number = self.attempts = self.attempts + 1
        faults = [*(self.schedule[number - 1] if number <= len(self.schedule) else ())]
        if self.on_connect is not None:
            faults += self.on_connect(number)
        await trio.lowlevel.checkpoint()
        kinds = {fault.kind for fault in faults}
        if "refused" in kinds:
            raise WireLost("could not connect (simulated: connection refused)", retryable=True)
        if "tls_failure" in kinds:
            raise WireLost("TLS failed (simulated: the handshake was cut off)", retryable=True)
        stream, connection = await self._made(number, faults)
        self.connections.append(connection)
        self._nursery.start_soon(self._serve, connection, faults)
        return stream

    async def _made(self, number: int, faults: list[Fault]) -> tuple[trio.abc.Stream, ServedConnection]:
        client_end, server_end = await self._connect()
        bytes_faults = [fault for fault in faults if fault.kind in STREAM_FAULTS]
        if any(fault.kind == "hangs" for fault in faults):
            bytes_faults.append(Fault("half_open"))
        stream = FaultyStream(client_end, tuple(bytes_faults), rng=self.rng)
        return stream, ServedConnection(number, stream, server_end, self._saw)

    async def strike(self, fault: Fault) -> None:
        """Let `fault` happen to the newest connection, or, where it is one of connecting, to none: see `on_connect`."""
        if self.connections:
            await self.connections[-1].strike(fault)

    def _saw(self, connection: ServedConnection, direction: Direction, text: str) -> None:
        if self.watch is not None:
            self.watch(connection, direction, text)

    async def _serve(self, connection: ServedConnection, faults: Sequence[Fault]) -> None:
        status = next((int(fault.kind[7:]) for fault in faults if fault.kind.startswith("status_")), None)
        stream = connection._stream
        try:
            if status is not None:
                await connection.reject(status)
            elif await connection.shake_hands():
                async with trio.open_nursery() as nursery:
                    for fault in faults:
                        if fault.kind not in STREAM_FAULTS and fault.kind not in CONNECT_FAULTS:
                            nursery.start_soon(self._strike_later, connection, fault)
                    call_id = parse_qs(urlsplit(connection.target).query).get("call_id", [""])[0]
                    opening = Opening(DEFAULT_MODEL, call_id=call_id)
                    ending = await converse(connection.receive, connection.send, self.brain, self.settings, opening)
                    nursery.cancel_scope.cancel()
                await connection.close(ending.code, ending.reason)
                with trio.move_on_after(CLOSE_ANSWER_S):
                    await connection.wait_close()
        finally:
            connection.over = True
            await trio.aclose_forcefully(stream)

    async def _strike_later(self, connection: ServedConnection, fault: Fault) -> None:
        await trio.sleep_until(connection.opened_at + (fault.at_s or 0.0))
        await connection.strike(fault)


@asynccontextmanager
async def memory_server(
    brain: Brain,
    *,
    settings: ServerSettings | None = None,
    schedule: Sequence[Sequence[Fault]] = (),
    rng: random.Random | None = None,
    kind: type[FaultyServer] | None = None,
) -> AsyncIterator[FaultyServer]:
    """A server in memory: pass its `open_stream` to a `RealtimeSession`. Runs in virtual time as well."""
    await brain.warm_up()
    async with trio.open_nursery() as nursery:
        make = kind or FaultyServer
        yield make(brain, nursery, _in_memory, settings or ServerSettings(), schedule, rng or random.Random(0))
        nursery.cancel_scope.cancel()


async def _in_memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    await trio.lowlevel.checkpoint()
    return quick_pair()


@asynccontextmanager
async def socket_server(
    brain: Brain,
    *,
    settings: ServerSettings | None = None,
    schedule: Sequence[Sequence[Fault]] = (),
    rng: random.Random | None = None,
) -> AsyncIterator[FaultyServer]:
    """The same behind real sockets on loopback, in real time; `open_stream` connects."""
    await brain.warm_up()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    address = listener.socket.getsockname()

    async def connect() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near = await trio.open_tcp_stream(*address[:2])
        return near, await listener.accept()

    async with listener, trio.open_nursery() as nursery:
        yield FaultyServer(brain, nursery, connect, settings or ServerSettings(), schedule, rng or random.Random(0))
        nursery.cancel_scope.cancel()
