"""What is sent is sent whole and in order, whoever is cancelled meanwhile; and what is received comes in order,
whoever reads. Over real sockets that are full, TLS, and streams in memory."""

from __future__ import annotations

import itertools
import random
import socket as stdlib_socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trustme
from hypothesis import given, strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, Request, TextMessage

from moments import Moments, at_each_moment, run_target
from test_wire import Peer
from test_wire_hazards import NarrowStream
from trio_voice import wire
from trio_voice.errors import WireLost
from trio_voice.wire_stream import RECEIVE_BYTES

ADDRESS = wire.Address("ws://voice.test/")
LONG = 300_000


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a connection over loopback, with small buffers, so that it is soon full."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 8192)
    ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    ours.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 8192)
    theirs = await listener.accept()
    await listener.aclose()
    return ours, theirs


@asynccontextmanager
async def connected(ours: trio.abc.Stream, theirs: trio.abc.Stream) -> AsyncIterator[tuple[wire.Wire, Peer]]:
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        opened: wire.Wire = await nursery.start(partial(wire.run, ADDRESS, connect_timeout_s=5, stream=ours))
        yield opened, peer
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(theirs)


def texts_in(events: list[Event]) -> list[str]:
    texts, part = [], ""
    for event in events:
        if isinstance(event, TextMessage):
            part += event.data
            if event.message_finished:
                texts.append(part)
                part = ""
    assert part == "", "the last message was cut short"
    return texts


async def read_until(peer: Peer, enough: Callable[[list[Event]], bool]) -> list[Event]:
    events: list[Event] = []
    with trio.fail_after(20):
        while not enough(events):
            events += await peer.read()
    return events


# --- writing --------------------------------------------------------------------------------------


async def test_a_sender_that_is_cancelled_at_a_full_socket_has_sent_its_message() -> None:
    ours, theirs = await tcp_pair()
    async with connected(ours, theirs) as (opened, peer):
        with trio.move_on_after(0.05) as scope:
            await opened.send("x" * LONG)
        assert scope.cancelled_caught, "the socket was full"
        events: list[Event] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.send, "and another")
            events = await read_until(
                peer, lambda found: any(isinstance(event, TextMessage) and "other" in event.data for event in found)
            )
        assert texts_in(events) == ["x" * LONG, "and another"]


async def test_nothing_that_fits_is_a_checkpoint_and_a_full_socket_is() -> None:
    ours, theirs = await tcp_pair()
    async with connected(ours, theirs) as (opened, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await opened.send("fits")
        assert not scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await opened.send("x" * LONG)
        assert scope.cancelled_caught


@pytest.mark.parametrize("seed", range(4))
async def test_many_senders_pings_and_pongs_at_a_full_socket_stay_whole_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = await tcp_pair()
    async with connected(ours, theirs) as (opened, peer):
        sent: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        events: list[Event] = []

        async def send(name: str) -> None:
            for number in range(12):
                with trio.move_on_after(rng.choice([0, 0.001, 0.01, 9])):
                    sent[name].append(number)
                    await opened.send(f"{name} {number} " + "x" * rng.choice([10, 5_000, 60_000]))

        async def read() -> None:
            while not events or not (isinstance(events[-1], TextMessage) and events[-1].data == "end"):
                events.extend(await peer.read())
                for event in events:
                    if isinstance(event, Ping) and event not in answered:
                        answered.append(event)
                        await peer.send(event.response())

        answered: list[Event] = []
        with trio.fail_after(20):
            async with trio.open_nursery() as reading:
                for payload in (b"1", b"2", b"3"):
                    await peer.send(Ping(payload))
                reading.start_soon(read)
                async with trio.open_nursery() as sending:
                    sending.start_soon(opened.ping)
                    for name in sent:
                        sending.start_soon(send, name)
                await opened.send("end")
        for name, numbers in sent.items():
            assert [int(text.split()[1]) for text in texts_in(events) if text[0] == name] == numbers
        assert [bytes(event.payload) for event in events if isinstance(event, Pong)] == [b"1", b"2", b"3"]


def texts_in_or_none(events: list[Event]) -> list[str]:
    with suppress(AssertionError):
        return texts_in(events)
    return []


async def test_close_comes_after_what_was_given_before_it_and_nothing_after() -> None:
    ours, theirs = await tcp_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as client:
            client.start_soon(peer.accept)
            opened: wire.Wire = await client.start(partial(wire.run, ADDRESS, connect_timeout_s=5, stream=ours))
            with trio.move_on_after(0.02):
                await opened.send("x" * LONG)

            async def read() -> None:
                events = await read_until(
                    peer, lambda found: any(isinstance(event, CloseConnection) for event in found)
                )
                assert texts_in(events) == ["x" * LONG]
                assert isinstance(events[-1], CloseConnection)
                assert events[-1].code == 1000
                await peer.stream.aclose()

            nursery.start_soon(read)
            client.cancel_scope.cancel()
        with pytest.raises(WireLost):
            await opened.send("too late")


async def test_a_peer_that_resets_while_we_wait_for_room_is_a_lost_wire() -> None:
    ours, theirs = await tcp_pair()
    async with connected(ours, theirs) as (opened, _):
        with trio.fail_after(5):

            async def reset() -> None:
                await trio.sleep(0.05)
                theirs.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
                theirs.socket.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reset)
                with pytest.raises(WireLost) as caught:
                    await opened.send("x" * LONG)
            assert caught.value.retryable
            with pytest.raises(WireLost):
                await opened.send("anyone?")
            with pytest.raises(WireLost):
                await opened.receive()


def test_a_sender_cancelled_at_any_moment_leaves_the_stream_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a slow stream that is no socket, as TLS is: what was begun arrives, and the next message too."""

    async def body(moments: Moments) -> None:
        ours, theirs = memory_stream_pair()
        async with connected(NarrowStream(ours), theirs) as (opened, peer):
            begun: list[str] = []

            async def send() -> None:
                for number in range(8):
                    begun.append(f"{number} " + "x" * 5000)
                    await opened.send(begun[-1])

            await run_target(moments, send)
            await opened.send("last")
            events = await read_until(peer, lambda found: "last" in texts_in_or_none(found))
            assert texts_in(events) == [*begun, "last"]

    at_each_moment(body, monkeypatch, at_least=3)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_over_tls_too_a_cancelled_sender_has_sent_its_message(authority: trustme.CA) -> None:
    ours, theirs = await tcp_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("voice.test").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    client = trio.SSLStream(ours, trusting, server_hostname="voice.test", https_compatible=True)
    server = trio.SSLStream(theirs, context, server_side=True, https_compatible=True)
    async with connected(client, server) as (opened, peer):
        with trio.move_on_after(0.05) as scope:
            await opened.send("x" * LONG)
            await opened.send("y" * LONG)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.send, "z")
            events = await read_until(peer, lambda found: "z" in texts_in_or_none(found))
        assert texts_in(events) == ["x" * LONG, "y" * LONG, "z"]


# --- reading --------------------------------------------------------------------------------------

pieces = st.lists(
    st.one_of(
        st.builds(TextMessage, data=st.text(max_size=300)),
        st.builds(TextMessage, data=st.text(max_size=5), message_finished=st.just(False)),
        st.builds(Ping, payload=st.binary(min_size=1, max_size=9)),
    ),
    max_size=12,
)


@given(pieces, st.lists(st.integers(0, 1 << 16), max_size=8), st.integers(0, 12))
def test_messages_come_in_order_whoever_reads(events: list[Event], cuts: list[int], received_first: int) -> None:
    """Whole or in pieces, with pings between; while nobody receives, and while somebody does."""

    async def main() -> None:
        ours, theirs = memory_stream_pair()
        async with connected(ours, theirs) as (opened, peer):
            expected = messages_of(events)
            raw = b"".join(peer.protocol.send(event) for event in events)
            edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})

            async def say() -> None:
                for start, end in itertools.pairwise(edges):
                    await theirs.send_all(raw[start:end])
                    if start % 2:
                        await trio.sleep(0.01)
                await peer.send(CloseConnection(1001, "bye"))

            got: list[str | bytes] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say)
                if received_first % 3 == 0:
                    await trio.sleep(1)  # the library reads meanwhile
                with suppress(WireLost):
                    for number in itertools.count():
                        if number == received_first:
                            with trio.move_on_after(5), suppress(WireLost):  # the library reads for a while
                                await opened.ping()
                        got.append(await opened.receive())
                with pytest.raises(WireLost, match="1001"):
                    await opened.receive()
            assert got == expected
            answers = await read_until(peer, lambda found: any(isinstance(event, CloseConnection) for event in found))
            pongs = [bytes(event.payload) for event in answers if isinstance(event, Pong)]
            assert pongs == [bytes(event.payload) for event in events if isinstance(event, Ping)]

    trio.run(main, clock=MockClock(autojump_threshold=0))


def messages_of(events: list[Event]) -> list[str]:
    whole, part = [], ""
    for event in events:
        if isinstance(event, TextMessage):
            part += event.data
            if event.message_finished:
                whole.append(part)
                part = ""
    return whole


async def test_what_comes_with_the_handshake_is_not_lost(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)

    async def accept() -> None:
        while peer.request is None:
            for event in await peer.read():
                if isinstance(event, Request):
                    peer.request = event
        together = peer.protocol.send(AcceptConnection()) + peer.protocol.send(TextMessage("first"))
        await theirs.send_all(together[:-3])
        await trio.sleep(1)
        await theirs.send_all(together[-3:] + peer.protocol.send(TextMessage("second")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        opened: wire.Wire = await nursery.start(partial(wire.run, ADDRESS, connect_timeout_s=5, stream=ours))
        assert [await opened.receive(), await opened.receive()] == ["first", "second"]
        nursery.cancel_scope.cancel()


async def test_a_receiver_that_is_cancelled_loses_nothing_and_the_library_goes_on(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with connected(ours, theirs) as (opened, peer):
        with trio.move_on_after(1):
            await opened.receive()
        await peer.send(TextMessage("kept"))
        await peer.send(Ping(b"alive?"))
        events = await read_until(peer, lambda found: any(isinstance(event, Pong) for event in found))
        assert [bytes(event.payload) for event in events if isinstance(event, Pong)] == [b"alive?"]
        assert await opened.receive() == "kept"


async def test_a_flood_of_pings_waits_for_the_library(autojump_clock: MockClock) -> None:
    """A peer that pings and reads nothing: what waits for the library has a bound."""
    ours, theirs = memory_stream_pair()
    async with connected(ours, theirs) as (opened, peer):
        ours.send_stream.send_all_hook = trio.sleep_forever
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.receive)
            for _ in range(200):
                await theirs.send_all(peer.protocol.send(Ping(b"x" * 125)) * 100)
                await wait_all_tasks_blocked()
            assert len(opened._stream._for_library) < 3 * RECEIVE_BYTES
            nursery.cancel_scope.cancel()


async def test_each_message_of_a_burst_is_had_in_a_pass_of_its_own(autojump_clock: MockClock) -> None:
    """What one leads to, an interruption say, comes about before the next is looked at."""
    ours, theirs = memory_stream_pair()
    async with connected(ours, theirs) as (opened, peer):
        await theirs.send_all(b"".join(peer.protocol.send(TextMessage(str(number))) for number in range(4)))
        passes, passes_at = 0, []

        async def others() -> None:
            nonlocal passes
            while True:
                await trio.lowlevel.checkpoint()
                passes += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            for number in range(4):
                assert await opened.receive() == str(number)
                passes_at.append(passes)
            nursery.cancel_scope.cancel()
        assert passes_at[-1] - passes_at[0] >= 2, "three passes lie between, and chance orders the tasks in each"
