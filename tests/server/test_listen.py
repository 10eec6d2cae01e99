"""The socket: who may come in, how a session ends, and that closing is bounded whatever the peer does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair
from trio_websocket import ConnectionRejected, open_websocket_url

from server.realtime_client import RealtimeClient, connected, upgraded
from trio_voice.server.brain import ResponseRequest, ResponseWriter
from trio_voice.server.listen import CLOSING_S, HANDSHAKE_S, Listening, serve, serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain, Wait, marked_samples
from trio_voice.server.server_settings import ServerSettings

UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def rejected(
    settings: ServerSettings,
    *,
    path: str = "/v1/realtime",
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
) -> ConnectionRejected | str | None:
    """How the server turned a client away, or the subprotocol it took it in with."""
    ours, theirs = memory_stream_pair()
    rejection: ConnectionRejected | None = None
    protocol: str | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, theirs, ScriptedBrain(), settings)
            socket = await upgraded(nursery, ours, path, headers=headers, subprotocols=subprotocols)
            protocol = socket.subprotocol
            await socket.aclose()
    except* ConnectionRejected as group:
        rejection = next(leaf for leaf in group.exceptions if isinstance(leaf, ConnectionRejected))
    return rejection or protocol


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/realtime", [], 401, "invalid_api_key"),
        ("/v1/realtime", [(b"Authorization", b"Bearer wrong")], 401, "invalid_api_key"),
        ("/v1/realtime", [(b"Authorization", b"Basic right")], 401, "invalid_api_key"),
        ("/elsewhere", [(b"Authorization", b"Bearer right")], 404, "not_found"),
    ],
)
async def test_who_may_not_come_in_is_told_why(
    path: str, headers: list[tuple[bytes, bytes]], status: int, code: str, autojump_clock: MockClock
) -> None:
    rejection = await rejected(ServerSettings(api_key="right"), path=path, headers=headers)
    assert isinstance(rejection, ConnectionRejected)
    assert rejection.status_code == status
    assert rejection.body is not None
    error = json.loads(rejection.body)["error"]
    assert error["code"] == code
    assert "right" not in error["message"].replace("Bearer KEY", "")


async def test_the_key_opens_as_a_header_and_as_a_browsers_subprotocol(autojump_clock: MockClock) -> None:
    settings = ServerSettings(api_key="right")
    assert await rejected(settings, headers=[(b"Authorization", b"Bearer right")]) is None
    browser = ["realtime", "openai-insecure-api-key.right"]
    assert await rejected(settings, subprotocols=browser) == "realtime"


async def test_without_a_key_pages_of_the_web_stay_out(autojump_clock: MockClock) -> None:
    for origin in (b"https://evil.example", b"null", b"http://localhost.evil.example"):
        foreign = await rejected(ServerSettings(), headers=[(b"Origin", origin)])
        assert isinstance(foreign, ConnectionRejected)
        assert foreign.status_code == 403
    assert await rejected(ServerSettings(), headers=[(b"Origin", b"http://localhost:3000")]) is None


async def test_a_session_ends_at_its_limit_with_an_error_and_1001(autojump_clock: MockClock) -> None:
    settings = ServerSettings(session_limit_s=3600)
    async with connected(ScriptedBrain([[Say("a"), Wait(1e9)]]), settings) as client:
        started = trio.current_time()
        await client.send("response.create")
        with trio.fail_after(3700):
            await client.closed.wait()
        assert trio.current_time() - started == pytest.approx(3600, abs=1)
        assert client.events[-1]["error"]["code"] == "session_expired"
        assert client.socket.closed is not None
        assert client.socket.closed.code == 1001


async def test_a_server_that_stops_says_1001_in_the_midst_of_an_answer(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        server = trio.CancelScope()

        async def run_server() -> None:
            with server:
                await serve_stream(theirs, ScriptedBrain([[Say("a"), Wait(1e9)]]))

        nursery.start_soon(run_server)
        client = RealtimeClient(await upgraded(nursery, ours))
        nursery.start_soon(client.read)
        await client.send("response.create")
        await client.next("response.output_audio.delta")
        stopped = trio.current_time()
        server.cancel()
        await client.closed.wait()
        assert trio.current_time() - stopped < CLOSING_S
        assert client.socket.closed is not None
        assert client.socket.closed.code == 1001


async def test_a_peer_that_never_answers_the_close_delays_it_by_a_second(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    settings = ServerSettings(session_limit_s=10)
    async with trio.open_nursery() as nursery:

        async def mute_client() -> None:
            """Upgrades, then reads and never says another word."""
            await ours.send_all(UPGRADE)
            while await ours.receive_some():
                pass

        nursery.start_soon(mute_client)
        started = trio.current_time()
        await serve_stream(theirs, ScriptedBrain(), settings)
        assert trio.current_time() - started == pytest.approx(10 + CLOSING_S, abs=0.1)


async def test_a_peer_that_says_nothing_is_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    started = trio.current_time()
    await serve_stream(theirs, ScriptedBrain())
    assert trio.current_time() - started == pytest.approx(HANDSHAKE_S, abs=0.1)
    assert await ours.receive_some() == b""


@pytest.mark.parametrize("bad", [b"\x16\x03\x01 this is TLS\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_what_is_no_websocket_is_let_go(bad: bytes, autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(bad)
    with trio.fail_after(HANDSHAKE_S + 2):
        await serve_stream(theirs, ScriptedBrain())


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_garbage_on_the_wire_ends_the_connection_and_nothing_else(before: bytes, after: bytes, upgrade: bool) -> None:
    async def main() -> None:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, theirs, ScriptedBrain())
            for wire in (UPGRADE + after,) if upgrade else (before, UPGRADE, after):
                with contextlib.suppress(trio.BrokenResourceError):
                    await ours.send_all(wire)
            await trio.sleep(0.1)
            await ours.send_stream.aclose()
            with trio.fail_after(HANDSHAKE_S + CLOSING_S + 1):
                while await ours.receive_some():
                    pass

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_client_that_vanishes_ends_its_session_and_its_brain(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    stopped = trio.Event()

    class Watched(ScriptedBrain):
        async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
            try:
                await trio.sleep_forever()
            finally:
                stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, Watched())
        socket = await upgraded(nursery, ours)
        await socket.send_message('{"type": "response.create"}')
        await trio.sleep(1)
        assert not stopped.is_set()
        await trio.aclose_forcefully(ours)
        with trio.fail_after(2):
            await stopped.wait()
        nursery.cancel_scope.cancel()


def frame(text: bytes) -> bytes:
    """A short text frame of a client, masked with zeros."""
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


async def test_a_client_that_does_not_read_slows_the_brain_and_is_still_listened_to(
    autojump_clock: MockClock,
) -> None:
    """Sound waits for the client; its cancel is carried out although it reads nothing."""
    spoken = 0

    class Eager(ScriptedBrain):
        async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
            nonlocal spoken
            while True:
                await writer.speak("more", marked_samples(0, 24_000))
                spoken += 1

    ours, theirs = lockstep_stream_pair()  # a send waits until all of it was read
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, Eager())
        await ours.send_all(UPGRADE)
        while b'"type":"session.created"' not in await ours.receive_some():
            pass
        await ours.send_all(frame(b'{"type":"response.create"}'))
        await trio.sleep(100)
        stuck_at = spoken
        assert 1 <= stuck_at <= 10
        await ours.send_all(frame(b'{"type":"response.cancel"}'))
        await trio.sleep(100)
        assert spoken == stuck_at
        received = b""
        with trio.fail_after(10):
            while b"client_cancelled" not in received:
                received = received[-1000:] + await ours.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_client_that_never_reads_what_it_asks_for_is_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        served = trio.Event()

        async def run_server() -> None:
            await serve_stream(theirs, ScriptedBrain())
            served.set()

        nursery.start_soon(run_server)
        await ours.send_all(UPGRADE)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:
                await ours.send_all(frame(b'{"type":"input_audio_buffer.clear"}') * 100)
        with trio.fail_after(3):
            await served.wait()


# --- TCP ------------------------------------------------------------------------------------------


async def test_several_clients_talk_over_tcp_and_none_hears_another() -> None:
    brain = ScriptedBrain(lambda request: [Say(request.items[-1].text, 200)])
    async with trio.open_nursery() as nursery:
        where: Listening = await nursery.start(lambda task_status: serve(brain, task_status=task_status))
        assert where.url == f"ws://127.0.0.1:{where.port}/v1/realtime"

        async def talk(name: str) -> None:
            async with open_websocket_url(where.url + "?model=m") as socket, trio.open_nursery() as reading:
                client = RealtimeClient(socket)
                reading.start_soon(client.read)
                done = await client.ask(f"I am {name}")
                assert done["response"]["output"][0]["content"][0]["transcript"] == f"I am {name}"
                reading.cancel_scope.cancel()

        with trio.fail_after(20):
            async with trio.open_nursery() as clients:
                for name in ("Ada", "Ben", "Cleo"):
                    clients.start_soon(talk, name)
        nursery.cancel_scope.cancel()


async def test_connections_are_limited_and_a_place_that_is_left_is_free() -> None:
    settings = ServerSettings(max_connections=1)

    async def connect(port: int) -> int:
        """The status that a client is answered with; it leaves at once."""
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(UPGRADE)
            return int((await stream.receive_some())[9:12])

    async with trio.open_nursery() as nursery:
        where: Listening = await nursery.start(
            lambda task_status: serve(ScriptedBrain(), settings=settings, task_status=task_status)
        )
        with trio.fail_after(20):
            async with open_websocket_url(where.url):
                assert await connect(where.port) == 503
            while await connect(where.port) != 101:  # the server needs a moment to notice
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_client_waits_for_a_brain_that_is_still_warming_up(autojump_clock: MockClock) -> None:
    class Slow(ScriptedBrain):
        async def warm_up(self) -> None:
            await trio.sleep(5)

    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, Slow())
        client = RealtimeClient(await upgraded(nursery, ours))
        nursery.start_soon(client.read)
        await client.next("session.created")
        await client.socket.aclose()
