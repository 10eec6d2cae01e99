"""A session that controls a call whose sound is elsewhere (`call_id`): WebRTC, SIP."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kit import Peer, call_peer
from test_session_peer import created, done
from trio_voice import ConfigError, ConnectionOptions, RealtimeAgent, RealtimeSession, events, tool
from trio_voice.server.scripted import Call, Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone, memory_server

CALL = ConnectionOptions(url="ws://memory/v1/realtime", call_id="rtc_7")


@tool
async def lookup_order(order_id: str) -> str:
    """Look up an order."""
    await trio.lowlevel.checkpoint()
    return f"{order_id} has shipped"


async def test_a_call_is_configured_and_its_tools_run_here(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Call("lookup_order", '{"order_id": "A1"}'), Say("It has shipped.", 800)])
    sent: list[dict[str, Any]] = []
    async with memory_server(brain) as server:
        server.watch = lambda _, direction, text: sent.append(json.loads(text)) if direction == "received" else None
        agent = RealtimeAgent(instructions="Be brief.", tools=[lookup_order])
        async with RealtimeSession(agent, connection=CALL, open_stream=server.open_stream) as session:
            stream = session.events()
            await session.respond()
            with trio.fail_after(60):
                assert (await stream.wait_for(events.ToolCalled)).tool == "lookup_order"
                await stream.wait_for(events.ResponseStart)
                await stream.wait_for(events.ResponseEnd)
            assert session.transcript()[-1].text == "It has shipped."
            assert not [event for event in stream._queue if isinstance(event, events.ErrorReported)]
        assert [connection.target for connection in server.connections] == ["/v1/realtime?call_id=rtc_7"]
    settings = sent[0]["session"]
    assert settings["instructions"] == "Be brief."
    assert "format" not in settings["audio"]["input"], "whoever made the call has settled it"
    assert "format" not in settings["audio"]["output"]
    assert brain.requests[1].items[-1].output == "A1 has shipped"
    assert not [event for event in sent if event["type"].startswith("input_audio_buffer")]


@pytest.mark.parametrize("still_made", [True, False])
async def test_an_interruption_clears_the_server_s_playback(still_made: bool, autojump_clock: MockClock) -> None:
    """The server plays: also what it has long made. Nothing is truncated, as nothing was heard here."""
    started = {"type": "output_audio_buffer.started", "response_id": "r1"}
    cleared = {"type": "output_audio_buffer.cleared", "response_id": "r1"}
    seen: list[str] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), started)
        if not still_made:
            await peer.send(done("r1"))
        await peer.receive("output_audio_buffer.clear")
        if still_made:
            await peer.send(done("r1", "cancelled"))
        await peer.send(cleared)
        await peer.drain()
        seen.extend(peer.types())

    async with call_peer(serve, connection=CALL) as on:
        await on.next(events.ResponseStart)
        await trio.sleep(1)
        await on.session.interrupt()
        assert (await on.next(events.Interruption)).cause == "manual"
        await trio.sleep(1)
        await on.session.interrupt()
        assert on.session.metrics.interruption_count == 1, "all is silent"
    wanted = ["response.cancel"] if still_made else []
    assert seen[1:] == [*wanted, "output_audio_buffer.clear"]


async def test_what_the_server_has_played_is_over(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), {"type": "output_audio_buffer.started", "response_id": "r1"}, done("r1"))
        await trio.sleep(2)
        await peer.send({"type": "output_audio_buffer.stopped", "response_id": "r1"})
        await peer.drain()
        assert peer.types() == ["session.update"]

    async with call_peer(serve, connection=CALL) as on:
        await on.next(events.ResponseEnd)
        assert on.session.state.value == "responding"
        await trio.sleep(3)
        assert on.session.state.value == "connected"
        await on.session.interrupt()
        assert on.session.metrics.interruption_count == 0


async def test_a_lost_connection_leaves_the_call_what_it_knows(autojump_clock: MockClock) -> None:
    """The conversation is the call's: only what the server has not confirmed is told again."""
    targets: list[str] = []
    told: list[list[str]] = []

    async def serve(peer: Peer) -> None:
        targets.append(peer.target)
        await peer.configure()
        if len(targets) == 1:
            item = (await peer.receive("conversation.item.create"))["item"]
            await peer.send({"type": "conversation.item.added", "item": item}, created("r1"), done("r1"))
            await trio.sleep(1)
            await peer.socket.aclose(1011)
            return
        await trio.sleep(1)
        await peer.send(created("r2"), done("r2"))
        await peer.drain()
        told.append(peer.types())

    async with call_peer(serve, connection=CALL) as on:
        await on.session.send_text("Hello.")
        await on.next(events.Reconnecting)
        assert (await on.next(events.Connected)).resumed
        await trio.sleep(3)
    assert targets == ["/v1/realtime?call_id=rtc_7"] * 2
    assert told == [["session.update"]]


DEVICES: dict[str, Any] = {"microphone": ScriptedMicrophone(), "speaker": RecordingSpeaker()}


@pytest.mark.parametrize("device", DEVICES)
def test_a_call_has_no_device_here(device: str) -> None:
    with pytest.raises(ConfigError, match="its sound elsewhere"):
        RealtimeSession(RealtimeAgent(), connection=CALL, **{device: DEVICES[device]})
