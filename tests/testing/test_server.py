"""A session against the public local servers, in memory and on loopback, and the faults only a server can commit."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, WireLost, events
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.testing import Fault, RecordingSpeaker, memory_server, socket_server
from trio_voice.testing.faults import FaultKind

OPTIONS = ConnectionOptions(url="ws://memory/v1/realtime", model=None)


def brain() -> ScriptedBrain:
    return ScriptedBrain(lambda request: [Say("Here I am.", 300)])


def session(server: Any) -> RealtimeSession:
    return RealtimeSession(
        RealtimeAgent(), connection=OPTIONS, speaker=RecordingSpeaker(), open_stream=server.open_stream
    )


async def test_a_conversation_in_memory(autojump_clock: MockClock) -> None:
    async with memory_server(brain()) as server, session(server) as talk:
        await talk.send_text("Are you there?")
        await talk.events().wait_for(events.PlaybackEnd)
        assert [line.text for line in talk.transcript()] == ["Are you there?", "Here I am."]
    assert server.connections[0].over


async def test_a_conversation_on_a_socket() -> None:
    async with socket_server(brain()) as server, session(server) as talk:
        await talk.send_text("Are you there?")
        with trio.fail_after(10):
            await talk.events().wait_for(events.PlaybackEnd)
        await server.strike(Fault("reset"))
        with trio.fail_after(10):
            assert (await talk.events().wait_for(events.Connected)).resumed
        assert len(server.connections) == 2


@pytest.mark.parametrize("kind", ["drop", "reset", "close_1001", "close_1011", "close_1012", "close_1013", "oversized"])
async def test_it_comes_back(kind: FaultKind, autojump_clock: MockClock) -> None:
    async with memory_server(brain()) as server, session(server) as talk:
        stream = talk.events()
        await server.strike(Fault(kind))
        assert (await stream.wait_for(events.Connected)).resumed
        assert server.attempts == 2


@pytest.mark.parametrize("kind", ["close_1008", "close_4000"])
async def test_it_does_not_come_back(kind: FaultKind, autojump_clock: MockClock) -> None:
    async def talk() -> None:
        async with session(server):
            await server.strike(Fault(kind))
            await trio.sleep(60)

    async with memory_server(brain()) as server:
        with pytest.raises(WireLost, match=kind.removeprefix("close_")):
            await talk()
        assert server.attempts == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("refused", "refused"), ("tls_failure", "TLS"), ("hangs", "no handshake within 10 s"),
        ("status_401", "401"), ("status_403", "403"), ("status_503", "503"),
    ],
)  # fmt: skip
async def test_a_first_connection_that_fails_is_told(kind: FaultKind, said: str, autojump_clock: MockClock) -> None:
    async with memory_server(brain(), schedule=[[Fault(kind)]]) as server:
        with pytest.raises(WireLost, match=said):
            async with session(server):
                pytest.fail("entered")


async def test_garbage_is_reported_and_survived(autojump_clock: MockClock) -> None:
    async with memory_server(brain()) as server, session(server) as talk:
        stream = talk.events()
        await server.strike(Fault("garbage"))
        assert (await stream.wait_for(events.ErrorReported)).source == "protocol"
        await talk.send_text("Still there?")
        await stream.wait_for(events.PlaybackEnd)
        assert server.attempts == 1


async def test_a_close_that_is_not_answered_costs_a_second_at_most(autojump_clock: MockClock) -> None:
    async with memory_server(brain()) as server:
        async with session(server):
            await server.strike(Fault("never_answers_close"))
            left_at = trio.current_time()
        assert 0.5 < trio.current_time() - left_at <= 1.01


async def test_what_is_said_twice_is_taken_once(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with memory_server(brain()) as server, session(server) as talk:
        server.watch = lambda connection, direction, text: heard.append(direction)
        await server.strike(Fault("duplicates"))
        stream = talk.events()
        await talk.send_text("Once?")
        await stream.wait_for(events.PlaybackEnd)
        await trio.sleep(1)
        assert [line.text for line in talk.transcript()] == ["Once?", "Here I am."]
    assert {"sent", "received"} == set(heard)
