"""What `scripts/mutants` showed to be untested."""

from __future__ import annotations

import threading

import trio
from trio.testing import MockClock

from kit import Peer, call_peer
from test_session_peer import SPEECH_STARTED, created, delta
from trio_voice import events, tool, tools
from trio_voice.audio import AudioFormat
from trio_voice.channels import InboxItem
from trio_voice.playback_buffer import Insertion, PlaybackBuffer
from trio_voice.tool_items import RunTool, ToolItem, ToolStarted

FORMAT = AudioFormat("pcm16", 24_000)


def test_the_floor_never_sinks() -> None:
    buffer = PlaybackBuffer(FORMAT, prebuffer_ms=0)
    buffer.interrupt(3)
    buffer.interrupt(1)
    assert buffer.insert(2, "i", 0, bytes(480), 0.0) is Insertion.STALE
    assert buffer.floor == 3


def test_what_does_not_fit_is_refused_and_counted() -> None:
    buffer = PlaybackBuffer(FORMAT, prebuffer_ms=0, capacity_ms=1000)
    second = bytes(FORMAT.bytes_of_ms(1000))
    assert buffer.insert(1, "i", 0, second, 0.0) is Insertion.QUEUED
    assert buffer.insert(1, "i", 0, second, 0.0) is Insertion.OVERFLOW
    assert buffer.queued_ms == 1000
    assert buffer.statistics.overflow_samples == 24_000


async def test_the_application_gets_no_sound_of_an_interrupted_turn(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        await trio.sleep(0.1)
        await peer.send(created("r1"), *[delta("r1", 1, 20) for _ in range(5)])
        await trio.sleep(1)
        await peer.send(SPEECH_STARTED)
        for _ in range(5):  # one by one: each finds a conversation that waits, and might pass it by
            await trio.sleep(0.1)
            await peer.send(delta("r1", 1, 20))
        await peer.drain()

    told: list[events.SessionEvent] = []
    async with call_peer(serve) as on:
        on.session.on("audio", told.append)
        on.session.on("interruption", told.append)
        await trio.sleep(3)
    assert [event.name for event in told] == ["audio"] * 5 + ["interruption"]


async def test_nobody_waits_for_a_plain_function_when_leaving() -> None:
    release, ended = threading.Event(), threading.Event()

    @tool
    def stubborn() -> str:
        """Take its time."""
        release.wait(3)
        ended.set()
        return "at last"

    send, inbox = trio.open_memory_channel[ToolItem](1)
    to_results, results = trio.open_memory_channel[InboxItem](9)
    with send, results:
        send.send_nowait(RunTool(1, "c1", "stubborn", "{}"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: tools.run(inbox, to_results, tools=[stubborn]))
            assert isinstance(await results.receive(), ToolStarted)
            await trio.sleep(0.05)  # so that the thread has begun; if it has not, there is nothing to wait for
            nursery.cancel_scope.cancel()
        assert not ended.is_set()
    release.set()
    await trio.to_thread.run_sync(ended.wait)
