"""Cancel at every await: each actor alone, and a whole session at the awaits of each of its tasks.

A reference run counts how often the tasks in question come to rest; then it is run again for each of these moments,
and cancelled (or its connection cut) exactly there. The invariants: leaving is short, nothing stays open or alive, and
no result of a tool is lost. The number of moments is asserted, so that none of this can pass by visiting nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_server_stream

from kit import NO_FADE, SPEECH, recovery_of
from moments import LEAVING_S, Moments, at_each_moment, is_closed, run_target
from trio_voice import (
    AudioInputConfig,
    AudioOutputConfig,
    ConnectionOptions,
    RealtimeAgent,
    RealtimeSession,
    SessionEnded,
    WireLost,
    capture,
    events,
    playback,
    tool,
    tools,
    wire,
)
from trio_voice.audio import AudioFormat, Frame
from trio_voice.channels import DropOldest, EndTurn, EventStream, InboxItem, Interrupt, Play, PlaybackItem
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Call, Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone
from trio_voice.tool_items import CancelTurn, RunTool, ToolItem, ToolResult

INPUT = AudioInputConfig(chunk_ms=50)


# --- actors alone ---------------------------------------------------------------------------------


@attrs.define(eq=False)
class Device:
    """A microphone or a speaker that knows whether it is open, and takes its time to open and close."""

    inner: Any
    opened: int = 0
    closed: int = 0

    @property
    def name(self) -> str:
        return "device"

    @asynccontextmanager
    async def open(self, *arguments: Any) -> AsyncIterator[Any]:
        await trio.sleep(0.01)
        async with self.inner.open(*arguments) as opened:
            self.opened += 1
            try:
                yield opened
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.01)
                self.closed += 1


def test_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(moments: Moments) -> None:
        frames, device = DropOldest[Frame](10), Device(ScriptedMicrophone())
        receiver = frames.receiver

        async def target() -> None:
            with trio.move_on_after(1.0):
                await capture.run(frames, microphone=device, config=INPUT, recovery=recovery_of("microphone"))

        await run_target(moments, target)
        assert device.opened == device.closed
        assert is_closed(receiver)
        receiver.close()

    assert at_each_moment(body, monkeypatch, at_least=20) < 100


def test_playback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(moments: Moments) -> None:
        send, inbox = trio.open_memory_channel[PlaybackItem](100)
        to_reports, reports = trio.open_memory_channel[InboxItem](100)
        device = Device(RecordingSpeaker())

        async def target() -> None:
            await playback.run(inbox, to_reports, speaker=device, config=NO_FADE, recovery=recovery_of("speaker"))

        async def talk() -> None:
            sound = bytes(AudioFormat("pcm16", 24_000).bytes_of_ms(120))
            for turn in (1, 2):
                send.send_nowait(Play(turn, f"i{turn}", 0, sound))
                await trio.sleep(0.15)
                send.send_nowait(EndTurn(turn))
                await trio.sleep(0.1)
            send.send_nowait(Interrupt(2))
            await trio.sleep(0.1)
            send.close()

        async def neighbour() -> None:
            try:
                await talk()
            except trio.BrokenResourceError:
                send.close()

        await run_target(moments, target, [neighbour])
        assert device.opened == device.closed
        assert is_closed(send)
        assert is_closed(reports)
        send.close()
        reports.close()

    at_each_moment(body, monkeypatch, at_least=40)


def test_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose function has come to its end has its result sent, whatever is cancelled then."""

    async def body(moments: Moments) -> None:
        begun, finished = list[str](), list[str]()

        @tool
        async def patient(name: str) -> str:
            begun.append(name)
            await trio.sleep(0.1)
            await trio.sleep(0.1)
            finished.append(name)
            return name

        @tool(on_interrupt="cancel")
        async def yielding(name: str) -> str:
            begun.append(name)
            await trio.sleep(0.3)
            finished.append(name)
            return name

        @tool
        async def failing(name: str) -> str:
            begun.append(name)
            await trio.sleep(0.1)
            finished.append(name)
            raise RuntimeError(name)

        send, inbox = trio.open_memory_channel[ToolItem](100)
        to_results, results = trio.open_memory_channel[InboxItem](100)

        async def target() -> None:
            await tools.run(inbox, to_results, tools=[patient, yielding, failing])

        with send.clone() as feed:
            for number, called in enumerate(["patient", "yielding", "failing", "nobody", "patient", "yielding"]):
                feed.send_nowait(RunTool(1 + number // 3, f"c{number}", called, f'{{"name": "c{number}"}}'))

        async def interrupt() -> None:
            await trio.sleep(0.15)
            if not is_closed(send):
                send.send_nowait(CancelTurn(1))
            send.close()

        await run_target(moments, target, [interrupt])
        assert is_closed(results)
        told = [item.call_id for item in _all(results) if isinstance(item, ToolResult)]
        assert len(told) == len(set(told)), "no result twice"
        assert set(finished) <= set(told), "no result lost"
        assert len(begun) == len(set(begun)), "nothing run twice"
        if moments.acted_at is None:
            assert sorted(told) == [f"c{number}" for number in range(6)]
        send.close()
        inbox.close()

    at_each_moment(body, monkeypatch, at_least=15)


def _all(channel: trio.MemoryReceiveChannel[InboxItem]) -> list[InboxItem]:
    items = []
    with channel:
        while True:
            try:
                items.append(channel.receive_nowait())
            except (trio.EndOfChannel, trio.WouldBlock):
                return items


@pytest.mark.parametrize("peer", ["polite", "deaf", "leaving"])
def test_wire(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting, sending, receiving, pinging, closing; with a peer that agrees, one that is deaf, one that goes."""

    async def body(moments: Moments) -> None:
        client_end, server_end = memory_stream_pair()

        async def target() -> None:
            try:
                async with trio.open_nursery() as nursery:
                    address = wire.Address("ws://memory/")
                    opened: wire.Wire = await nursery.start(
                        partial(wire.run, address, connect_timeout_s=5.0, stream=client_end)
                    )
                    for _ in range(3):
                        await opened.send("x" * 1000)
                        await opened.receive()
                        with trio.move_on_after(2):
                            await opened.ping()
                    nursery.cancel_scope.cancel()
            except* WireLost:  # a send or a ping may learn of our own leaving before it is cancelled itself
                assert peer != "polite" or moments.acted_at is not None

        async def serve() -> None:
            async with trio.open_nursery() as pump:
                socket = await (await wrap_server_stream(pump, server_end)).accept()
                try:
                    while True:
                        await socket.send_message(await socket.get_message())
                        if peer == "leaving":
                            await trio.aclose_forcefully(server_end)
                except ConnectionClosed:
                    return

        async def say_nothing() -> None:
            await trio.sleep_forever()

        await run_target(moments, target, [say_nothing if peer == "deaf" else serve])
        with pytest.raises(trio.ClosedResourceError):
            await client_end.send_all(b"x")
        await server_end.aclose()

    at_each_moment(body, monkeypatch, at_least=10)


# --- a whole session ------------------------------------------------------------------------------

FEW_MOMENTS = {"tools": 4, "supervisor": 10, "uplink": 10, "capture": 10}
"""Actors that seldom come to rest: at least this many times in a scene. Any other: more."""
ACTORS: dict[str, str | tuple[str, ...]] = {
    "capture": "trio_voice.capture.",
    "uplink": "trio_voice.uplink.",
    "downlink": "trio_voice.downlink.",
    "playback": "trio_voice.playback.",
    "tools": "trio_voice.tools.",
    "conversation": "trio_voice.conversation.",
    "supervisor": "trio_voice.supervisor.",
    "wire": ("trio_voice.wire.", "trio_websocket."),
    "session": "",
}
CALLER = "the application"


@attrs.define(eq=False)
class Scene:
    """A conversation with everything in it: speech, a tool, an interruption, a lost connection, text."""

    brain: ScriptedBrain
    orders: list[str] = attrs.Factory(list)
    """What the tool has done in the world."""
    links: list[trio.StapledStream[Any, Any]] = attrs.Factory(list)
    session: RealtimeSession | None = None
    stream: EventStream | None = None
    outcomes: list[str] = attrs.Factory(list)
    left_at: float = 0.0

    def cut(self) -> None:
        """Lose the newest connection, as a network does."""
        if self.links:
            self.links[-1].send_stream.close()
            self.links[-1].receive_stream.close()


def new_scene() -> Scene:
    return Scene(ScriptedBrain(answer))


def answer(request: Any) -> list[Any]:
    """A model that looks at the conversation: it calls the tool if it has not, and tells what the tool has found."""
    outputs = [item.output for item in request.items if item.type == "function_call_output"]
    if "ordered pizza" in outputs:
        return [Say("It is ordered.", 200)]
    if any(item.type == "function_call" for item in request.items) and not outputs:
        return [Say("One moment.", 200)]
    return [Call("order", '{"what": "pizza"}')]  # also when it was told that the call was lost, and never run


async def play_scene(scene: Scene, nursery: trio.Nursery, *, talk: Callable[..., Awaitable[None]]) -> None:
    async def open_stream() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        client_end, server_end = memory_stream_pair()
        nursery.start_soon(serve_stream, server_end, scene.brain)
        scene.links.append(client_end)
        return client_end

    @tool
    async def order(what: str) -> str:
        """Order it."""
        await trio.sleep(0.2)
        scene.orders.append(what)
        return f"ordered {what}"

    microphone = ScriptedMicrophone()
    session = scene.session = RealtimeSession(
        RealtimeAgent(tools=[order]),
        connection=ConnectionOptions(url="ws://memory/v1/realtime", model=None),
        microphone=microphone,
        speaker=RecordingSpeaker(block_ms=40),
        audio_input=INPUT,
        audio_output=AudioOutputConfig(fade_ms=0),
        open_stream=open_stream,
    )
    scene.stream = session.events()
    try:
        async with session:
            await talk(scene, session, microphone)
    finally:
        scene.left_at = trio.current_time()


async def talk_of_everything(scene: Scene, session: RealtimeSession, microphone: ScriptedMicrophone) -> None:
    assert scene.stream is not None
    await session.start_listening()
    await microphone.say(SPEECH[: len(SPEECH) // 2])
    await scene.stream.wait_for(events.PlaybackStart)
    scene.cut()
    await trio.sleep(0.1)
    await session.interrupt()
    await scene.stream.wait_for(events.Connected)
    await session.send_text("Thank you.")
    await scene.stream.wait_for(events.PlaybackEnd)


@pytest.mark.parametrize("actor", ACTORS)
def test_a_session_left_at_each_await_of(actor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(moments: Moments) -> None:
        scene, scope = new_scene(), trio.CancelScope()
        moments.act = scope.cancel
        async with trio.open_nursery() as world:

            async def application() -> None:
                with scope:
                    await play_scene(scene, world, talk=talk_of_everything)

            async with trio.open_nursery() as nursery:
                moments.root = nursery
                nursery.start_soon(application)
            world.cancel_scope.cancel()
        session, stream = scene.session, scene.stream
        assert session is not None
        assert stream is not None
        if moments.acted_at is not None:
            assert scope.cancelled_caught or scene.left_at >= moments.acted_at
            assert scene.left_at - moments.acted_at <= LEAVING_S
        for link in scene.links:
            with pytest.raises(trio.ClosedResourceError):
                await link.send_all(b"x")
        await _is_over(session, stream, entered=bool(scene.links))
        _no_result_is_lost(scene, session)

    starts = ACTORS[actor]
    at_each_moment(
        body,
        monkeypatch,
        at_least=FEW_MOMENTS.get(actor, 20),
        at_most=60 if actor == "session" else 24,
        is_chosen=lambda name: name.startswith(starts),
    )


async def _is_over(session: RealtimeSession, stream: EventStream, *, entered: bool) -> None:
    if not entered:
        return
    names = [event.name async for event in stream]
    assert names[-1] == "disconnected"
    assert names.count("disconnected") == 1
    with pytest.raises(SessionEnded):
        await session.interrupt()
    assert [event.name async for event in session.events()] == []


def _no_result_is_lost(scene: Scene, session: RealtimeSession) -> None:
    """What a tool has done is on record, even if there was nobody left to tell it to; and it was done once."""
    assert len(scene.orders) <= 1
    if scene.orders:
        uses = [use for turn in session.turns() for use in turn.tool_calls]
        assert [use.output for use in uses] == ["ordered pizza"]


@pytest.mark.parametrize("actor", ["capture", "uplink", "downlink", "wire", "conversation", "tools"])
def test_the_connection_is_cut_at_each_await_of(actor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However inconvenient the moment: the conversation goes on, the tool runs once, its result arrives once."""

    async def talk(scene: Scene, session: RealtimeSession, microphone: ScriptedMicrophone) -> None:
        assert scene.stream is not None
        await session.start_listening()
        await session.send_text("A pizza, please.")
        while True:
            with trio.move_on_after(3):
                await hear_out(scene, scene.stream)
                return
            await session.send_text("Are you there?")  # see the known fault below

    async def hear_out(scene: Scene, stream: EventStream) -> None:
        async for event in stream:
            if isinstance(event, events.Transcript) and event.role == "agent" and event.final:
                scene.outcomes.append(event.text)
            if isinstance(event, events.PlaybackEnd) and "It is ordered." in scene.outcomes:
                return

    async def body(moments: Moments) -> None:
        scene = new_scene()
        moments.act = scene.cut
        async with trio.open_nursery() as world:

            async def application() -> None:
                await play_scene(scene, world, talk=talk)

            try:
                async with trio.open_nursery() as nursery:
                    moments.root = nursery
                    nursery.start_soon(application)
            except* WireLost:
                # Before the server has taken the configuration there is no conversation that could go on.
                assert scene.stream is not None
                assert scene.orders == []
                assert "connected" not in [event.name async for event in scene.stream]
                scene.outcomes.append("refused")
            world.cancel_scope.cancel()
        assert scene.outcomes[-1:] in (["It is ordered."], ["refused"])
        if scene.outcomes != ["refused"]:
            assert scene.orders == ["pizza"]
            outputs = [item.output for item in scene.brain.requests[-1].items if item.type == "function_call_output"]
            assert outputs.count("ordered pizza") == 1

    starts = ACTORS[actor]
    at_least = FEW_MOMENTS.get(actor, 20)
    at_each_moment(body, monkeypatch, at_least=at_least, at_most=30, is_chosen=lambda name: name.startswith(starts))


async def test_text_sent_just_before_the_connection_is_lost_is_answered(autojump_clock: MockClock) -> None:
    async def talk(scene: Scene, session: RealtimeSession, microphone: ScriptedMicrophone) -> None:
        assert scene.stream is not None
        await session.send_text("A pizza, please.")
        scene.cut()
        with trio.fail_after(60):
            await scene.stream.wait_for(events.PlaybackEnd)

    scene = new_scene()
    async with trio.open_nursery() as world:
        await play_scene(scene, world, talk=talk)
        world.cancel_scope.cancel()
    said = [item.text for item in scene.brain.requests[-1].items if item.role == "user"]
    assert said == ["A pizza, please."]
