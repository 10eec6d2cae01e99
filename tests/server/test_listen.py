"""The socket: who may come in, how a session ends, and that closing is bounded whatever the peer does."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionRejected, WebSocketConnection, open_websocket_url, wrap_client_stream

from server.realtime_client import RealtimeClient, connected
from trio_voice.server.listen import CLOSING_S, HANDSHAKE_S, Listening, serve, serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain, Wait
from trio_voice.server.server_settings import ServerSettings


async def rejected(
    settings: ServerSettings,
    *,
    path: str = "/v1/realtime",
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
) -> ConnectionRejected | str | None:
    """How the server turned a client away, or the subprotocol it took it in with."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, ScriptedBrain(), settings)
        try:
            socket = await wrap_client_stream(
                nursery, ours, "test", path, extra_headers=list(headers), subprotocols=list(subprotocols)
            )
        except ConnectionRejected as rejection:
            return rejection
        await socket.aclose()
        protocol: str | None = socket.subprotocol
        return protocol


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
    foreign = await rejected(ServerSettings(), headers=[(b"Origin", b"https://evil.example")])
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
        client = RealtimeClient(await wrap_client_stream(nursery, ours, "test", "/v1/realtime"))
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
            key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            await ours.send_all(
                b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key + b"\r\n"
            )
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


async def test_a_client_that_vanishes_ends_its_session_and_its_brain(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    stopped = trio.Event()

    class Watched(ScriptedBrain):
        async def respond(self, request: object, writer: object) -> None:
            try:
                await trio.sleep_forever()
            finally:
                stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, Watched())
        socket = await wrap_client_stream(nursery, ours, "test", "/v1/realtime")
        await socket.send_message('{"type": "response.create"}')
        await trio.sleep(1)
        assert not stopped.is_set()
        await trio.aclose_forcefully(ours)
    assert stopped.is_set()


async def test_a_client_that_does_not_read_slows_the_brain_and_is_still_listened_to(
    autojump_clock: MockClock,
) -> None:
    """Sound waits for the client; its cancel is carried out although it reads nothing."""
    ours, theirs = memory_stream_pair()
    theirs_send = theirs.send_stream
    blocked = trio.Event()
    unblock = trio.Event()

    async def wait_for_reader() -> None:
        if blocked.is_set():
            await unblock.wait()

    theirs_send.send_all_hook = wait_for_reader
    written = 0

    class Eager(ScriptedBrain):
        async def respond(self, request: object, writer: object) -> None:
            nonlocal written
            while True:
                await writer.speak("more", b"" if writer is None else QUIET)  # type: ignore[attr-defined]
                written += 1

    import numpy as np

    QUIET = np.zeros(24_000, np.int16)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, Eager())
        client = RealtimeClient(await wrap_client_stream(nursery, ours, "test", "/v1/realtime"))
        nursery.start_soon(client.read)
        await client.next("session.created")
        blocked.set()
        await client.send("response.create")
        await trio.sleep(100)
        stuck_at = written
        assert stuck_at <= 10
        await client.send("response.cancel")
        await trio.sleep(100)
        assert written == stuck_at
        unblock.set()
        done = await client.next("response.done")
        assert done["response"]["status"] == "cancelled"
        await client.socket.aclose()


async def test_a_client_that_never_reads_what_it_asks_for_is_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    blocked = trio.Event()

    async def never() -> None:
        if blocked.is_set():
            await trio.sleep_forever()

    theirs.send_stream.send_all_hook = never
    async with trio.open_nursery() as nursery:
        served = trio.Event()

        async def run_server() -> None:
            await serve_stream(theirs, ScriptedBrain())
            served.set()

        nursery.start_soon(run_server)
        client = RealtimeClient(await wrap_client_stream(nursery, ours, "test", "/v1/realtime"))
        nursery.start_soon(client.read)
        await client.next("session.created")
        blocked.set()
        for _ in range(5000):
            if served.is_set():
                break
            await ours.send_all(MASKED_CLEAR)
        with trio.fail_after(3):
            await served.wait()


MASKED_CLEAR = bytes([0x81, 0x80 | 35, 0, 0, 0, 0]) + b'{"type":"input_audio_buffer.clear"}'


# --- TCP ------------------------------------------------------------------------------------------


async def open_client(nursery: trio.Nursery, url: str) -> RealtimeClient:
    manager = open_websocket_url(url)
    socket: WebSocketConnection = await manager.__aenter__()
    client = RealtimeClient(socket)
    nursery.start_soon(client.read)
    return client


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


async def test_connections_are_limited() -> None:
    settings = ServerSettings(max_connections=1)
    async with trio.open_nursery() as nursery:
        where: Listening = await nursery.start(
            lambda task_status: serve(ScriptedBrain(), settings=settings, task_status=task_status)
        )
        with trio.fail_after(20):
            async with open_websocket_url(where.url):
                with pytest.raises(ConnectionRejected) as rejection:
                    async with open_websocket_url(where.url):
                        pass
                assert rejection.value.status_code == 503
            while True:  # the place is free again once the server has noticed
                try:
                    async with open_websocket_url(where.url):
                        break
                except ConnectionRejected:
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_client_waits_for_a_brain_that_is_still_warming_up(autojump_clock: MockClock) -> None:
    class Slow(ScriptedBrain):
        async def warm_up(self) -> None:
            await trio.sleep(5)

    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, Slow())
        client = RealtimeClient(await wrap_client_stream(nursery, ours, "test", "/v1/realtime"))
        nursery.start_soon(client.read)
        await client.next("session.created")
        await client.socket.aclose()
