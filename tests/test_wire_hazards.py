"""The hazards of trio-websocket 0.12.2, each shown with its own `open_websocket_url`, and that the wire has none.

Both halves meet the same peer, over memory streams in virtual time. A first half that fails is good news: the library
no longer has that hazard, and the wire may drop its cure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, open_websocket_url
from wsproto.events import CloseConnection, Event, Ping, Pong, TextMessage

from kit import Peer as SessionPeer
from test_wire import Peer
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, wire
from trio_voice.errors import WireLost
from trio_voice.wire_stream import MESSAGE_QUEUE

URL = "ws://voice.test/v1/realtime"
FOR_EVER_S = 3600.0
"""Of virtual time: what has not ended by then hangs."""

Serve = Callable[[Peer], Awaitable[None]]
Open = Callable[[], AbstractAsyncContextManager[Any]]


class NarrowStream(trio.abc.Stream):
    """A slow network: sends a little at a time, so that a long message is under way for a while."""

    piece_bytes = 1000
    piece_s = 0.01

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.asked_bytes: list[int | None] = []
        """What each read asked for."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for start in range(0, len(data), self.piece_bytes):
            await self._stream.send_all(data[start : start + self.piece_bytes])
            if len(data) > self.piece_bytes:
                await trio.sleep(self.piece_s)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.asked_bytes.append(max_bytes)
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Network:
    """In place of TCP: whoever connects is joined to the next peer by memory streams."""

    def __init__(self) -> None:
        self._offered, self._taken = trio.open_memory_channel[trio.abc.Stream](10)
        self.links: list[NarrowStream] = []

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        self.links.append(NarrowStream(ours))
        await self._offered.send(theirs)
        return self.links[-1]

    async def next_peer(self) -> Peer:
        return Peer(await self._taken.receive())


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(trio, "open_tcp_stream", network.connect)
    return network


@asynccontextmanager
async def our_wire() -> AsyncIterator[wire.Wire]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(wire.run, wire.Address(URL), connect_timeout_s=10))
        nursery.cancel_scope.cancel()


def plain() -> AbstractAsyncContextManager[trio_websocket.WebSocketConnection]:
    """As its documentation says, with no option."""
    return open_websocket_url(URL)


def plain_in_a_hurry() -> AbstractAsyncContextManager[trio_websocket.WebSocketConnection]:
    """With the option that should bound leaving."""
    return open_websocket_url(URL, disconnect_timeout=1)


async def left_after_s(network: Network, opened: Open, serve: Serve) -> float:
    """How long leaving takes, once `serve` has said what it has to say; infinite if it hangs."""
    ready_to_leave = trio.Event()

    async def play() -> None:
        peer = await network.next_peer()
        await peer.accept()
        await serve(peer)
        await trio.testing.wait_all_tasks_blocked()
        ready_to_leave.set()
        with trio.CancelScope(shield=True), trio.move_on_after(FOR_EVER_S):
            await peer.read_until_the_end()  # the socket stays open until the client closes it

    began_leaving_at = left_at = float("inf")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        with trio.move_on_after(FOR_EVER_S):
            with suppress(trio_websocket.DisconnectionTimeout):
                async with opened():
                    await ready_to_leave.wait()
                    began_leaving_at = trio.current_time()
            left_at = trio.current_time()
        nursery.cancel_scope.cancel()
    assert began_leaving_at < float("inf"), "it connected"
    return left_at - began_leaving_at


# --- 1: leaving can hang for ever -----------------------------------------------------------------


LIBRARY_LIMIT_BYTES = 1024 * 1024


async def close_and_keep_the_socket(peer: Peer) -> None:
    await peer.send(CloseConnection(1001, "bye"))


async def too_big(peer: Peer) -> None:
    await peer.send(TextMessage("x" * (LIBRARY_LIMIT_BYTES + 1)))


@pytest.mark.parametrize("serve", [close_and_keep_the_socket, too_big])
async def test_1_leaving_after_a_close_ends(
    serve: Serve, network: Network, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The peer sent Close, or we did (1009), and TCP stays open: the library's reader waits for the end of that."""
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", LIBRARY_LIMIT_BYTES)
    assert await left_after_s(network, plain_in_a_hurry, serve) == float("inf"), "upstream no longer hangs"
    assert await left_after_s(network, our_wire, serve) <= wire.CLOSE_TIMEOUT_S


# --- 2: a ping that crosses our close ends a loop without a word ----------------------------------


async def laps_of(network: Network, opened: Open) -> tuple[int, int, bool]:
    """Connect five times to a peer that pings as we close. Laps ended, errors caught, and whether the loop ended."""
    laps = errors = 0
    came_to_its_end = False

    async def serve() -> None:
        while True:
            peer = await network.next_peer()
            await peer.accept()
            await peer.send(TextMessage("welcome"))
            await peer.read()  # the client's Close
            await peer.stream.send_all(b"\x89\x00")  # was on its way already; wsproto would not let us
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(peer.stream)

    async def reconnect() -> None:
        nonlocal laps, errors, came_to_its_end
        while laps < 5:
            try:
                async with opened() as connection:
                    await (connection.receive if isinstance(connection, wire.Wire) else connection.get_message)()
            except* Exception:
                errors += 1
            laps += 1
        came_to_its_end = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with trio.open_nursery() as client:
            client.start_soon(reconnect)
        nursery.cancel_scope.cancel()
    return laps, errors, came_to_its_end


async def test_2_a_ping_that_crosses_our_close_ends_no_loop(network: Network, autojump_clock: MockClock) -> None:
    """A `Cancelled` leaves the library's scope (its issue 184): `except* Exception` does not see it, and the task is
    over. Nothing is raised, nothing logged; whoever waits for the task takes it for finished."""
    assert await laps_of(network, plain) == (0, 0, False), "upstream no longer leaks"
    assert await laps_of(network, our_wire) == (5, 0, True)


# --- 3: a cancelled send costs the connection -----------------------------------------------------

LONG = "a long message " * 2000
SHORT = "are you still there?"


async def texts_of(peer: Peer) -> list[str]:
    """What the peer could make out in a minute."""
    parts = ""
    texts: list[str] = []
    with trio.move_on_after(60):
        while events := await peer.read():
            for event in events:
                if isinstance(event, TextMessage):
                    parts += event.data
                    if event.message_finished:
                        texts.append(parts)
                        parts = ""
    return texts


async def test_3_a_plain_send_that_was_cancelled_swallows_the_next(network: Network, autojump_clock: MockClock) -> None:
    """The peer takes what follows for the missing part of the message that was cut short; nobody is told."""
    received: list[str] = []

    async def serve() -> None:
        peer = await network.next_peer()
        await peer.accept()
        received.extend(await texts_of(peer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with plain() as connection:
            with trio.move_on_after(0.1) as scope:
                await connection.send_message(LONG)
            assert scope.cancelled_caught
            await connection.send_message(SHORT)  # "succeeds"
            await connection.send_message(SHORT)
            await trio.sleep(60)
            assert received == [], "upstream no longer swallows"
            nursery.cancel_scope.cancel()


async def test_3_a_session_cancels_no_send(network: Network, autojump_clock: MockClock) -> None:
    """The wire cannot repair a message cut short, so nobody cuts one: who asked for a send never holds it."""
    texts: list[str] = []
    both_came = trio.Event()

    async def serve() -> None:
        async with trio.open_nursery() as pump:
            peer = await network.next_peer()
            socket = await (await trio_websocket.wrap_server_stream(pump, peer.stream)).accept()
            server = SessionPeer(socket)
            await server.configure()
            while len(texts) < 2:
                item = (await server.receive("conversation.item.create"))["item"]
                texts.append(item["content"][0]["text"])
            both_came.set()
            await server.drain()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with RealtimeSession(RealtimeAgent(), connection=ConnectionOptions(url=URL, model=None)) as session:
            with trio.CancelScope() as asking:
                asking.cancel()
                await session.send_text(LONG)
            await trio.sleep(0.1)
            await session.interrupt()
            assert texts == [], "the long message is still under way"
            await session.send_text(SHORT)
            with trio.move_on_after(60):
                await both_came.wait()
    assert texts == [LONG, SHORT]


# --- 4: unread messages stall pings and pongs -----------------------------------------------------


async def answers_a_ping(peer: Peer) -> bool:
    """Whether a pong comes within a minute."""
    await peer.send(Ping(b"alive?"))
    with trio.move_on_after(60):
        while events := await peer.read():
            if any(isinstance(event, Pong) for event in events):
                return True
    return False


async def test_4_a_consumer_that_is_behind_does_not_stall_pings(network: Network, autojump_clock: MockClock) -> None:
    """The library answers pings in the task that also waits for room in the queue of messages, of one by default."""

    async def say(peer: Peer) -> bool:
        await peer.accept()
        for number in range(3):
            await peer.send(TextMessage(str(number)))
        return await answers_a_ping(peer)

    answered = {}
    for opened in (plain, our_wire):
        async with trio.open_nursery() as nursery:

            async def connect(opened: Open = opened) -> None:
                async with opened():
                    await trio.sleep_forever()

            nursery.start_soon(connect)
            answered[opened] = await say(await network.next_peer())
            nursery.cancel_scope.cancel()
    assert not answered[plain], "upstream no longer stalls"
    assert answered[our_wire]


async def test_4_nor_does_an_application_that_never_looks(network: Network, autojump_clock: MockClock) -> None:
    """The wire's queue has an end too; the downlink empties it whatever the application does."""

    async def never_returns(event: object) -> None:
        await trio.sleep_forever()

    answered: list[bool] = []
    asked = trio.Event()

    async def serve() -> None:
        peer = await network.next_peer()
        await peer.accept()
        await peer.send(TextMessage('{"type": "session.updated", "session": {"type": "realtime", "id": "sess_1"}}'))
        for _ in range(20 * MESSAGE_QUEUE):
            await peer.send(TextMessage('{"type": "rate_limits.updated", "rate_limits": []}'))
        answered.append(await answers_a_ping(peer))
        asked.set()
        await peer.read_until_the_end()
        await trio.aclose_forcefully(peer.stream)

    session = RealtimeSession(RealtimeAgent(), connection=ConnectionOptions(url=URL, model=None))
    session.on("connected", never_returns)
    unread = session.events(protocol=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with session:
            await asked.wait()
    assert answered == [True]
    assert unread.dropped_events == 0


# --- 5: defaults that are wrong here --------------------------------------------------------------

RETRIEVED_MINUTE = "x" * 3_800_000
"""As long as `conversation.item.retrieved` with a minute of audio."""


async def say_a_minute(network: Network) -> None:
    peer = await network.next_peer()
    await peer.accept()
    with trio.CancelScope(shield=True), trio.move_on_after(FOR_EVER_S):
        await peer.send(TextMessage(RETRIEVED_MINUTE))
        await peer.read_until_the_end()
    await trio.aclose_forcefully(peer.stream)


async def test_5_a_retrieved_minute_of_audio_arrives(network: Network, autojump_clock: MockClock) -> None:
    """The library's limit is 1 MiB; what is longer closes the connection."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_a_minute, network)
        with trio.move_on_after(FOR_EVER_S):
            async with plain() as connection:
                with pytest.raises(ConnectionClosed, match="1009"):
                    await connection.get_message()
                nursery.cancel_scope.cancel()  # leaving would hang: hazard 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_a_minute, network)
        async with our_wire() as opened:
            assert await opened.receive() == RETRIEVED_MINUTE


async def test_5_it_is_read_in_large_pieces(network: Network, autojump_clock: MockClock) -> None:
    """4 KiB at a time: 100 ms of audio takes two wake-ups where one would do, a burst of them many."""
    reads = {}
    for opened in (plain, our_wire):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                peer = await network.next_peer()
                await peer.accept()
                await peer.send(TextMessage("x" * 60_000))
                await peer.read_until_the_end()
                await trio.aclose_forcefully(peer.stream)

            nursery.start_soon(serve)
            async with opened() as connection:
                before = len(network.links[-1].asked_bytes)
                receive = connection.receive if isinstance(connection, wire.Wire) else connection.get_message
                assert len(await receive()) == 60_000
                reads[opened] = len(network.links[-1].asked_bytes) - before
                nursery.cancel_scope.cancel()
    assert reads[plain] >= 10, "upstream reads more at once now"
    assert reads[our_wire] <= 2


async def say_nothing(peer: Peer) -> None:
    await trio.lowlevel.checkpoint()


async def test_5_a_peer_that_never_answers_close_costs_a_second(network: Network, autojump_clock: MockClock) -> None:
    """By default a minute, and then `DisconnectionTimeout` in place of whatever the body did."""

    assert await left_after_s(network, plain, say_nothing) == pytest.approx(60), "upstream has another default"
    assert await left_after_s(network, our_wire, say_nothing) == pytest.approx(wire.CLOSE_TIMEOUT_S)


async def test_5_a_peer_that_never_answers_the_handshake(network: Network, autojump_clock: MockClock) -> None:
    """The library's `connect_timeout` passes, and then it waits for its reader, which nobody has told."""
    with trio.move_on_after(FOR_EVER_S) as scope:
        async with open_websocket_url(URL, connect_timeout=1):
            pytest.fail("connected")
    assert scope.cancelled_caught, "upstream no longer hangs"
    began_at = trio.current_time()
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="no handshake within 10 s")):
        async with our_wire():
            pytest.fail("connected")
    assert trio.current_time() - began_at == pytest.approx(10)


async def test_5_a_cancelled_client_still_says_goodbye(network: Network, autojump_clock: MockClock) -> None:
    """Cancelled from outside, the library drops the socket; a server cannot tell that from a crash."""
    said: dict[Open, list[Event]] = {}
    for opened in (plain, our_wire):
        async with trio.open_nursery() as nursery:

            async def serve(opened: Open = opened) -> None:
                peer = await network.next_peer()
                await peer.accept()
                said[opened] = await peer.read_until_the_end()

            nursery.start_soon(serve)
            with trio.move_on_after(5) as scope:
                async with opened():
                    await trio.sleep_forever()
            assert scope.cancelled_caught
    assert not any(isinstance(event, CloseConnection) and event.code == 1000 for event in said[plain])
    assert any(isinstance(event, CloseConnection) and event.code == 1000 for event in said[our_wire])
