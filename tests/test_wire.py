from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio_websocket
import trustme
from trio.testing import MockClock, memory_stream_pair
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from trio_voice import wire
from trio_voice.errors import WireLost

ADDRESS = wire.Address("ws://voice.test/v1/realtime?model=m", headers=[("Authorization", "Bearer secret")])


class Peer:
    """The other end of a socket, speaking WebSocket exactly as far as a test wants it to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.SERVER)
        self.request: Request | None = None

    async def send(self, event: Event) -> None:
        await self.stream.send_all(self.protocol.send(event))

    async def read(self) -> list[Event]:
        """What came next; empty when the client hung up."""
        received = await self.stream.receive_some()
        self.protocol.receive_data(bytes(received) or None)
        return list(self.protocol.events())

    async def accept(self) -> None:
        while self.request is None:
            for event in await self.read():
                if isinstance(event, Request):
                    self.request = event
        await self.send(AcceptConnection())

    async def read_until_the_end(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events += await self.read()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return events
            if not events or self.protocol.state.name == "CLOSED":
                return events


async def failure(serve: Callable[[Peer], Awaitable[None]], *, connect_timeout_s: float = 5) -> WireLost:
    """How connecting to such a peer fails."""
    ours, theirs = memory_stream_pair()
    caught: list[WireLost] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, Peer(theirs))
        try:
            await wire.run(ADDRESS, connect_timeout_s=connect_timeout_s, stream=ours)
        except WireLost as error:
            caught.append(error)
        nursery.cancel_scope.cancel()
    (lost,) = caught
    return lost


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[wire.Wire, Peer, trio.CancelScope]]:
    """An open wire and its peer; the scope ends the wire alone."""
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        opened = await nursery.start(partial(wire.run, ADDRESS, connect_timeout_s=5, stream=ours))
        yield opened, peer, nursery.cancel_scope


# --- the handshake --------------------------------------------------------------------------------


async def test_messages_go_both_ways_and_the_headers_were_sent(autojump_clock: MockClock) -> None:
    async with connected() as (opened, peer, scope):
        assert peer.request is not None
        assert peer.request.target == "/v1/realtime?model=m"
        assert peer.request.host == "voice.test"
        assert (b"authorization", b"Bearer secret") in [
            (name.lower(), value) for name, value in peer.request.extra_headers
        ]
        await opened.send("héllo")
        (message,) = await peer.read()
        assert isinstance(message, TextMessage)
        assert message.data == "héllo"
        await trio.sleep(3)
        await peer.send(TextMessage("wörld" * 100_000))
        assert await opened.receive() == "wörld" * 100_000
        assert opened.last_received_at == trio.current_time()
        scope.cancel()


@pytest.mark.parametrize(
    ("status", "retryable", "told"),
    [
        (401, False, "the key was refused: pass ConnectionOptions"),
        (403, False, "may not use this model"),
        (404, False, "check the URL and the model"),
        (429, True, "no quota left"),
        (503, True, "refused the connection"),
    ],
)
async def test_a_refused_handshake_says_what_to_do(
    status: int, retryable: bool, told: str, autojump_clock: MockClock
) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read()
        await peer.send(RejectConnection(status_code=status, headers=[(b"content-length", b"11")], has_body=True))
        await peer.send(RejectData(b"invalid key"))
        await peer.stream.aclose()

    lost = await failure(refuse)
    assert lost.retryable is retryable
    assert f"answered {status}" in lost.reason
    assert told in lost.reason
    assert "invalid key" in lost.reason


async def test_a_refusal_whose_body_ends_with_the_connection(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read()
        await peer.stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\ninvalid key")
        await peer.stream.aclose()

    lost = await failure(refuse)
    assert not lost.retryable
    assert "answered 401: the key was refused" in lost.reason


async def test_a_peer_that_hangs_up_in_the_handshake_is_noticed_at_once(autojump_clock: MockClock) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.read()
        await peer.stream.aclose()

    started_at = trio.current_time()
    lost = await failure(hang_up)
    assert (lost.retryable, trio.current_time() - started_at) == (True, 0)
    assert "hung up during the handshake; does it speak WebSocket?" in lost.reason


async def test_a_peer_that_never_answers_the_handshake_is_given_up(autojump_clock: MockClock) -> None:
    async def say_nothing(peer: Peer) -> None:
        await trio.sleep_forever()

    started_at = trio.current_time()
    lost = await failure(say_nothing, connect_timeout_s=5)
    assert (lost.retryable, trio.current_time() - started_at) == (True, 5)
    assert "no handshake within 5 s" in lost.reason


async def test_a_peer_that_speaks_something_else(autojump_clock: MockClock) -> None:
    async def gibber(peer: Peer) -> None:
        await peer.read()
        await peer.stream.send_all(b"220 smtp.test ESMTP ready\r\n")

    lost = await failure(gibber)
    assert lost.retryable


async def test_cancelling_the_handshake_ends_it_at_once(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    with trio.move_on_after(1) as scope:
        await wire.run(ADDRESS, connect_timeout_s=60, stream=ours)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


# --- being lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "retryable"), [(1000, True), (1001, True), (1011, True), (4000, False), (1008, False)]
)
async def test_a_close_is_told_with_its_code_and_whether_to_come_back(
    code: int, retryable: bool, autojump_clock: MockClock
) -> None:
    async with connected() as (opened, peer, scope):
        await peer.send(TextMessage("the last words"))
        await peer.send(CloseConnection(code, "session limit"))
        assert await opened.receive() == "the last words"
        with pytest.raises(WireLost, match=f"{code}.*session limit") as caught:
            await opened.receive()
        assert (caught.value.close_code, caught.value.retryable) == (code, retryable)
        with pytest.raises(WireLost):
            await opened.send("too late")
        with pytest.raises(WireLost):
            await opened.ping()
        scope.cancel()


async def test_a_peer_that_vanishes_is_a_lost_wire(autojump_clock: MockClock) -> None:
    async with connected() as (opened, peer, scope):
        await trio.aclose_forcefully(peer.stream)
        with pytest.raises(WireLost) as caught:
            await opened.receive()
        assert caught.value.retryable
        with pytest.raises(WireLost):
            await opened.send("anyone?")
        scope.cancel()


async def test_a_message_too_big_loses_the_connection_not_the_process(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 1000)
    started_at = trio.current_time()
    async with connected() as (opened, peer, scope):
        await peer.send(TextMessage("x" * 5000))
        with pytest.raises(WireLost) as caught:
            await opened.receive()
        assert caught.value.close_code == 1009
        scope.cancel()
    assert trio.current_time() - started_at <= wire.CLOSE_TIMEOUT_S, "hazard 1: our own 1009 made leaving hang"


# --- leaving --------------------------------------------------------------------------------------


async def test_leaving_says_close_and_ends_as_soon_as_the_peer_agrees(autojump_clock: MockClock) -> None:
    started_at = trio.current_time()
    async with connected() as (_, peer, scope):

        async def agree() -> None:
            with trio.CancelScope(shield=True):
                (close,) = await peer.read()
                assert isinstance(close, CloseConnection)
                await peer.send(close.response())
                await peer.stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(agree)
            scope.cancel()
    assert trio.current_time() == started_at


async def test_a_peer_that_never_answers_close_is_left_after_a_second(autojump_clock: MockClock) -> None:
    started_at = trio.current_time()
    async with connected() as (_, peer, scope):
        scope.cancel()
    assert trio.current_time() - started_at == wire.CLOSE_TIMEOUT_S
    assert any(isinstance(event, CloseConnection) for event in await peer.read_until_the_end())


async def test_a_peer_that_closes_but_keeps_the_socket_open_does_not_hold_us(autojump_clock: MockClock) -> None:
    """Hazard 1."""
    started_at = trio.current_time()
    async with connected() as (opened, peer, scope):
        await peer.send(CloseConnection(1001, "bye"))
        with pytest.raises(WireLost):
            await opened.receive()
        scope.cancel()
    assert trio.current_time() - started_at <= wire.CLOSE_TIMEOUT_S


async def test_a_full_socket_does_not_hold_us(autojump_clock: MockClock) -> None:
    """A peer that reads nothing: even the Close frame cannot be sent."""
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    started_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        await nursery.start(partial(wire.run, ADDRESS, connect_timeout_s=5, stream=ours))
        ours.send_stream.send_all_hook = trio.sleep_forever
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started_at <= wire.CLOSE_TIMEOUT_S


@pytest.mark.parametrize("pings", [1, 3])
def test_a_ping_that_crosses_our_close_cancels_nobody_else(pings: int) -> None:
    """Hazard 2: the leaked `Cancelled` ended a reconnect loop without a word, so the loop must go on after it."""
    laps = []

    async def main() -> None:
        for lap in range(5):
            async with connected() as (_, peer, scope):

                async def crossing(peer: Peer = peer) -> None:
                    with trio.CancelScope(shield=True):
                        for number in range(pings):
                            await peer.send(Ping(str(number).encode()))
                        close = next(event for event in await peer.read() if isinstance(event, CloseConnection))
                        await peer.send(close.response())
                        await peer.stream.aclose()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(crossing)
                    scope.cancel()
            await trio.lowlevel.checkpoint()
            laps.append(lap)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert laps == [0, 1, 2, 3, 4]


async def test_a_real_trio_websocket_server_is_left_politely(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    told: list[trio_websocket.CloseReason | None] = []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, theirs)
            connection = await request.accept()
            await connection.send_message(await connection.get_message())
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await connection.get_message()
            told.append(closed.value.reason)

    async with trio.open_nursery() as both:
        both.start_soon(serve)
        async with trio.open_nursery() as ours_only:
            opened = await ours_only.start(partial(wire.run, ADDRESS, connect_timeout_s=5, stream=ours))
            await opened.send("echo")
            assert await opened.receive() == "echo"
            await opened.ping()
            ours_only.cancel_scope.cancel()
    assert [reason.code for reason in told if reason] == [1000]


# --- over TCP and TLS, loopback -------------------------------------------------------------------


async def connecting_to(url: str, ssl_context: ssl.SSLContext | None = None) -> WireLost:
    with pytest.raises(WireLost) as caught:
        await wire.run(wire.Address(url, ssl_context=ssl_context), connect_timeout_s=5)
    return caught.value


async def test_nobody_listens_there() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    for host in ("127.0.0.1", "localhost"):
        lost = await connecting_to(f"ws://{host}:{port}/v1/realtime")
        assert lost.retryable
        assert f"could not connect to {host}:{port}" in lost.reason
        assert "is the server running there?" in lost.reason


async def test_a_url_without_a_host_is_not_worth_another_try() -> None:
    lost = await connecting_to("ws:///v1/realtime")
    assert not lost.retryable
    assert "names no host" in lost.reason


@asynccontextmanager
async def listening(server_context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """An echo server; yields its port."""

    async def serve(stream: trio.SocketStream) -> None:
        transport: trio.abc.Stream = stream
        if server_context is not None:
            transport = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
        peer = Peer(transport)
        try:
            await peer.accept()
            while events := await peer.read():
                for event in events:
                    if isinstance(event, TextMessage):
                        await peer.send(event)
                    elif isinstance(event, CloseConnection):
                        await peer.send(event.response())
                        return
        except (trio.BrokenResourceError, RemoteProtocolError):
            pass  # the client did not trust us, or spoke TLS where none was expected
        finally:
            await trio.aclose_forcefully(transport)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("secure", [False, True])
async def test_over_real_sockets(secure: bool, authority: trustme.CA) -> None:
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with listening(server_context(authority) if secure else None) as port, trio.open_nursery() as nursery:
        url = f"{'wss' if secure else 'ws'}://127.0.0.1:{port}/"
        address = wire.Address(url, ssl_context=client_context if secure else None)
        opened = await nursery.start(partial(wire.run, address, connect_timeout_s=5))
        await opened.send("echo")
        assert await opened.receive() == "echo"
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_is_not_trusted_is_not_worth_another_try(authority: trustme.CA) -> None:
    async with listening(server_context(authority)) as port:
        lost = await connecting_to(f"wss://127.0.0.1:{port}/", ssl.create_default_context())
    assert not lost.retryable
    assert "the server's certificate is not trusted here" in lost.reason


async def test_tls_to_a_server_without_tls() -> None:
    async with listening(None) as port:
        lost = await connecting_to(f"wss://127.0.0.1:{port}/")
    assert lost.retryable
    assert f"TLS with 127.0.0.1:{port} failed" in lost.reason
