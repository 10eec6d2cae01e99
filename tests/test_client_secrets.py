"""Ephemeral keys: made with a key, good in its place until they expire. And keys are shown nowhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import pytest
import structlog
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_voice import (
    ClientSecret,
    ConfigError,
    ConnectionOptions,
    RealtimeAgent,
    RealtimeSession,
    WireLost,
    client_secret,
    wire,
)
from trio_voice.dialects import DIALECTS
from trio_voice.protocol import SessionConfig
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.server.server_settings import ServerSettings
from trio_voice.supervisor import address_of

KEY = "sk-the-real-one"
OPTIONS = ConnectionOptions(url="ws://memory/v1/realtime", model=None, api_key=KEY, auto_reconnect=False)
OpenStream = Callable[[], Awaitable[trio.abc.Stream]]


def opener(nursery: trio.Nursery, settings: ServerSettings) -> OpenStream:
    async def open_stream() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        nursery.start_soon(serve_stream, theirs, ScriptedBrain([Say("Hello.")]), settings)
        await trio.lowlevel.checkpoint()
        return ours

    return open_stream


def server() -> ServerSettings:
    return ServerSettings(api_key=KEY, wall_clock=trio.current_time)


async def session_id_with(options: ConnectionOptions, open_stream: OpenStream) -> dict[str, Any]:
    async with RealtimeSession(RealtimeAgent(), connection=options, open_stream=open_stream) as session:
        return session.summary()


@pytest.mark.parametrize("auth", ["bearer", "subprotocol"])
async def test_an_ephemeral_key_opens_a_session_until_it_expires(auth: Any, autojump_clock: MockClock) -> None:

    dialect = attrs.evolve(DIALECTS["trio-voice"], auth=auth)
    async with trio.open_nursery() as nursery:
        open_stream = opener(nursery, server())
        secret = await client_secret(OPTIONS, expires_after_s=60, open_stream=open_stream)
        assert secret.value.startswith("ek_")
        assert secret.expires_at == pytest.approx(trio.current_time() + 60, abs=1)
        options = ConnectionOptions(url=OPTIONS.url, model=None, api_key=secret.value, dialect=dialect)
        assert (await session_id_with(options, open_stream))["session_id"].startswith("sess_")
        await trio.sleep(61)
        with pytest.raises(WireLost, match="401") as refused:
            await session_id_with(options, open_stream)
        assert not refused.value.retryable


async def test_a_session_begins_as_the_secret_says(autojump_clock: MockClock) -> None:
    brain_model = "whatever-model"
    async with trio.open_nursery() as nursery:
        open_stream = opener(nursery, server())
        wanted = SessionConfig(instructions="Speak like a pirate.", model=brain_model)
        secret = await client_secret(OPTIONS, wanted, open_stream=open_stream)
        address = wire.Address(OPTIONS.url, [("Authorization", f"Bearer {secret.value}")])
        run = partial(wire.run, address, connect_timeout_s=5, stream=await open_stream())
        opened: wire.Wire = await nursery.start(run)
        created = str(await opened.receive())
        nursery.cancel_scope.cancel()
    assert '"instructions":"Speak like a pirate."' in created
    assert f'"model":"{brain_model}"' in created


async def test_only_the_real_key_makes_one(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        open_stream = opener(nursery, server())
        secret = await client_secret(OPTIONS, open_stream=open_stream)
        for key in ("wrong", secret.value):
            options = ConnectionOptions(url=OPTIONS.url, model=None, api_key=key)
            with pytest.raises(WireLost, match=r"401.*The API key is wrong"):
                await client_secret(options, open_stream=open_stream)


@pytest.mark.parametrize(
    ("path", "session", "told"),
    [
        ("/v1/realtime", SessionConfig(output_modalities=["smell"]), "400.*smell"),
        ("/elsewhere", SessionConfig(), "404.*Nothing is served at /elsewhere/client_secrets"),
    ],
)
async def test_what_cannot_be_is_told_in_the_server_s_words(
    path: str, session: SessionConfig, told: str, autojump_clock: MockClock
) -> None:
    options = ConnectionOptions(url=f"ws://memory{path}", model=None, api_key=KEY)
    async with trio.open_nursery() as nursery:
        with pytest.raises(WireLost, match=told):
            await client_secret(options, session, open_stream=opener(nursery, server()))


async def test_a_time_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"expires_after_s=5 is outside 10..7200"):
        await client_secret(OPTIONS, expires_after_s=5)


async def test_a_server_that_says_nothing_is_given_up(autojump_clock: MockClock) -> None:
    async def silent() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return memory_stream_pair()[0]

    began_at = trio.current_time()
    with pytest.raises(WireLost, match="did not answer within 10 s"):
        await client_secret(OPTIONS, open_stream=silent)
    assert trio.current_time() - began_at == pytest.approx(10)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"])
async def test_an_answer_that_is_none_is_a_lost_wire(answer: bytes, autojump_clock: MockClock) -> None:
    async def odd() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await theirs.send_all(answer)
        await theirs.send_eof()
        return ours

    with pytest.raises(WireLost):
        await client_secret(OPTIONS, open_stream=odd)


# --- keys are shown nowhere -------------------------------------------------------------------------------------------


def test_no_repr_shows_a_key() -> None:
    url = "wss://user:sk-in-login@host/v1/realtime?api-key=sk-in-url"
    options = ConnectionOptions(url=url, api_key=KEY, headers=(("X-Key", "sk-in-header"),))
    shown = [options, address_of(options), ClientSecret("ek_secret", 1.0), ServerSettings(api_key=KEY)]
    for value in shown:
        assert "sk-" not in repr(value) + str(value)
        assert "ek_" not in repr(value)
    assert "wss://host/v1/realtime" in repr(options)


@pytest.mark.parametrize("url", ["wss://{resource}/?api-key=sk-1", "http://a:sk-2@b/", "ws://:sk-3@/?k=sk-4"])
def test_no_refusal_of_an_address_shows_a_key(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ConnectionOptions(url=url, api_key=KEY)
    assert "sk-" not in str(refused.value)


async def test_no_error_and_no_log_shows_a_key(autojump_clock: MockClock) -> None:
    url = "ws://user:sk-in-login@memory/v1/realtime?api-key=sk-in-url"
    options = ConnectionOptions(url=url, api_key="sk-wrong", headers=(("X-Key", "sk-in-header"),))
    said: list[str] = []
    structlog.reset_defaults()  # another test may have set what is logged
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            open_stream = opener(nursery, server())
            for attempt in (session_id_with, lambda options, stream: client_secret(options, open_stream=stream)):
                with pytest.raises(WireLost) as lost:
                    await attempt(options, open_stream)
                said.append(str(lost.value) + repr(lost.value))

            async def mute() -> trio.abc.Stream:
                await trio.lowlevel.checkpoint()
                return memory_stream_pair()[0]

            for attempt in (session_id_with, lambda options, stream: client_secret(options, open_stream=stream)):
                with pytest.raises(WireLost) as lost:
                    await attempt(options, mute)
                said.append(str(lost.value) + repr(lost.value))
            await session_id_with(OPTIONS, open_stream)
    assert logs, "something was logged"
    assert len(said) == 4
    assert "sk-" not in "".join(said) + repr(logs)
