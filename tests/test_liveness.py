"""Somebody who is not there is noticed in time; a session limit is never met. Virtual time, real WebSocket code."""

from __future__ import annotations

import base64
from typing import Any, cast

import attrs
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from test_session_peer import created, delta, done
from trio_voice import AgentCapability, ConnectionOptions, RealtimeAgent, WireLost, events, liveness
from trio_voice.conversation_view import ConversationView
from trio_voice.protocol.history import History
from trio_voice.restart_policy import rotation_delay_s
from trio_voice.server.scripted import Say, ScriptedBrain, marked_samples
from trio_voice.server.server_settings import ServerSettings
from trio_voice.testing import RecordingSpeaker
from trio_voice.tracker import ConversationTracker
from trio_voice.wire import Wire

OPTIONS = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
CREATED = {"type": "response.created", "response": {"id": "r1", "status": "in_progress", "conversation_id": "c"}}
DELTA = {
    "type": "response.output_audio.delta",
    "response_id": "r1",
    "item_id": "i1",
    "delta": base64.b64encode(marked_samples(1, RATE_HZ // 2).tobytes()).decode(),
}


SPEAKS_ONLY = RealtimeAgent(capabilities={AgentCapability.VOICE_OUTPUT})


def half_open(peer: Peer) -> None:
    """From now on the peer takes everything and says nothing, not even a pong."""
    peer.socket._reader_running = False


async def test_a_half_open_socket_is_noticed_within_five_seconds_of_a_turn(autojump_clock: MockClock) -> None:
    dead_at: list[float] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        if not dead_at:
            await peer.send(CREATED, DELTA)
            dead_at.append(trio.current_time())
            half_open(peer)
            await trio.sleep_forever()
        await peer.drain()

    async with call_peer(serve, connection=OPTIONS) as on:
        lost = await on.next(events.Reconnecting)
        assert "silent" in lost.reason
        assert lost.at - dead_at[0] <= 4.1, "two seconds, two for the ping, and none for a goodbye that nobody hears"
        assert (await on.next(events.Connected)).resumed


async def test_a_turn_that_begins_in_an_idle_probe_shortens_it(autojump_clock: MockClock) -> None:
    """The probe of an idle connection may wait long; a user who speaks meanwhile does not have to."""
    connections = 0

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.configure()
        if connections == 1:
            half_open(peer)
            await trio.sleep_forever()
        await peer.drain()

    options = ConnectionOptions(
        url="ws://memory/", model=None, heartbeat_interval_ms=20_000, heartbeat_timeout_ms=60_000
    )
    async with call_peer(serve, connection=options) as on:
        await trio.sleep(25)  # in the middle of the probe
        asked_at = trio.current_time()
        with trio.move_on_after(0.01):
            await on.session.respond()
        lost = await on.next(events.Reconnecting)
        assert lost.at - asked_at <= 5.0


async def test_an_answer_that_never_comes_is_not_awaited_for_ever(autojump_clock: MockClock) -> None:
    """The socket lives and answers pings; the server has forgotten us."""
    connections = 0

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.configure()
        if connections == 2:
            await peer.receive("response.create")
            await peer.send(CREATED, DELTA)
        await peer.drain()

    async with call_peer(serve, connection=OPTIONS) as on:
        asked_at = trio.current_time()
        await on.session.respond()
        lost = await on.next(events.Reconnecting)
        assert "an answer is due" in lost.reason
        assert 30 <= lost.at - asked_at <= 33
        await on.next(events.PlaybackStart)


@attrs.define(eq=False)
class DeafWire:
    """Nobody is there. Who looks a thousand times goes round in a circle."""

    is_dead: bool = False
    looks: int = 0

    @property
    def last_received_at(self) -> float:
        self.looks += 1
        assert self.looks < 1000, "it looks for ever, and time stands still"
        return 0.0

    async def ping(self) -> None:
        await trio.sleep_forever()


def in_a_turn() -> ConversationView:
    history = History()
    view = ConversationView(history, ConversationTracker(history, started_at=0.0))
    view.turn_in_progress = True
    return view


@given(st.builds(lambda power, before_s: 2.0**power - before_s, st.integers(2, 20), st.floats(0.01, 2.0)))
def test_a_probe_ends_whatever_the_time_is(began_at: float) -> None:
    """Where floats become coarser, just before a power of two, what is left of a while may be too little to count."""

    async def main() -> float:
        clock.jump(began_at)
        wire = DeafWire()
        with pytest.RaisesGroup(WireLost, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await liveness.watch(cast(Wire, wire), in_a_turn(), OPTIONS, liveness.RoundTrips(), nursery)
        assert wire.is_dead
        return trio.current_time() - began_at

    clock = MockClock(autojump_threshold=0)
    assert trio.run(main, clock=clock) <= 4.1


async def test_any_byte_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    """A server too busy to answer pings, but not to talk."""

    async def serve(peer: Peer) -> None:
        await peer.configure()
        # It reads nothing more, so its library stops at the second message and answers no ping.
        while True:
            await trio.sleep(3)
            await peer.send({"type": "rate_limits.updated", "rate_limits": []})

    async with call_peer(serve, connection=OPTIONS) as on:
        for number in range(4):
            await on.session.send_text(f"Message {number}.")
        with trio.move_on_after(60):
            lost = await on.events.wait_for(events.Reconnecting)
            pytest.fail(f"given up: {lost.reason}")
        assert on.session.metrics.round_trip_ms is None, "no ping was answered"


async def test_a_quiet_connection_is_left_alone(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), connection=OPTIONS, listening=False) as on:
        await trio.sleep(200)
        assert len(on.links) == 1
        metrics = on.session.metrics
        assert metrics.round_trip_ms is not None, "pings measured the way there and back"
        assert metrics.longest_round_trip_ms is not None
        assert metrics.longest_round_trip_ms >= metrics.round_trip_ms


def wall_clock(at_start: float = 1_000_000.0) -> Any:
    """A wall clock that runs with the virtual one."""
    began = trio.current_time()
    return lambda: at_start + trio.current_time() - began


async def test_three_rotations_in_an_hour_and_no_gap(autojump_clock: MockClock) -> None:
    replies = [Say("A few words.", 4_000) for _ in range(240)]
    clock = wall_clock()
    limited = ServerSettings(session_limit_s=15 * 60, wall_clock=clock)
    speaker = RecordingSpeaker(block_ms=100)
    options = {"connection": OPTIONS, "listening": False, "settings": limited, "wall_clock": clock}
    async with call(ScriptedBrain(replies), SPEAKS_ONLY, speaker=speaker, **options) as on:
        stream = on.session.events()
        began_at = trio.current_time()
        turn = 0
        while trio.current_time() - began_at < 3600:
            turn += 1
            await on.session.respond()
            await on.next(events.PlaybackEnd)
            await trio.sleep(12)
        await on.session.disconnect()
        told = [event async for event in stream]
    resumed = [event for event in told if isinstance(event, events.Connected) and event.resumed]
    assert len(resumed) >= 3
    assert not [event for event in told if isinstance(event, events.Reconnecting | events.ErrorReported)]
    assert int((on.heard != 0).sum()) == turn * 4 * RATE_HZ, "every sample of every answer"
    for connected in resumed:
        speaking = [event for event in told if isinstance(event, events.PlaybackStart | events.PlaybackEnd)]
        before = [event for event in speaking if event.at <= connected.at][-1]
        assert isinstance(before, events.PlaybackEnd), "it happened between two turns"


async def test_a_rotation_waits_for_the_turn_but_not_for_ever(autojump_clock: MockClock) -> None:
    clock = wall_clock()
    limited = ServerSettings(session_limit_s=100, wall_clock=clock)
    brain = ScriptedBrain([Say("Without end.", 200_000)])
    async with call(brain, connection=OPTIONS, listening=False, settings=limited, wall_clock=clock) as on:
        await on.session.respond()
        connected = await on.next(events.Connected)
        rotated = await on.events.wait_for(events.Connected)
        assert rotated.resumed
        assert 90 <= rotated.at - connected.at <= 99, "before the server ends it"
        assert len(on.links) == 2, "and nothing was tried while the turn went on"
        await on.events.wait_for(events.PlaybackEnd)
        assert int((on.heard != 0).sum()) == 200 * RATE_HZ, "what had arrived was heard to the end"


async def test_a_handover_is_declined_when_a_turn_has_begun(autojump_clock: MockClock) -> None:
    """The new connection is ready just when the user has asked for something: it goes, and another is tried later."""
    clock, asked, connections = wall_clock(), trio.Event(), 0
    session = {"type": "realtime", "id": "s", "expires_at": int(clock()) + 100}

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        number = connections
        await peer.receive("session.update")
        if number == 2:
            asked.set()
            await trio.sleep(1)
        await peer.send({"type": "session.updated", "session": session | {"id": f"s{number}"}})
        if number == 1:
            await peer.receive("response.create")
            await trio.sleep(2)
            await peer.send(created("r1"), delta("r1", 1, 100), done("r1"))
        await peer.drain()

    async with call_peer(serve, connection=OPTIONS, wall_clock=clock) as on:
        await asked.wait()
        await on.session.respond()
        assert (await on.next(events.PlaybackEnd)).turn == 1
        connected = [event for event in on.events._queue if isinstance(event, events.Connected)]
        assert connected == [], "not yet"
        assert (await on.next(events.Connected)).session_id == "s3"
    assert connections == 3


async def test_a_wrong_clock_causes_no_storm_of_rotations(autojump_clock: MockClock) -> None:
    """By this machine's clock every session has ended long ago."""
    limited = ServerSettings(session_limit_s=60, wall_clock=wall_clock())
    ahead = wall_clock(2_000_000.0)
    async with call(ScriptedBrain(), connection=OPTIONS, listening=False, settings=limited, wall_clock=ahead) as on:
        await trio.sleep(50)
        assert len(on.links) == 1


@pytest.mark.parametrize(
    ("lifetime_s", "margin_s", "expected_s"), [(3600, 120, 3480), (60, 120, 30), (0, 120, 0), (-5, 120, 0)]
)
def test_the_margin_is_half_of_a_short_life(lifetime_s: float, margin_s: float, expected_s: float) -> None:
    assert rotation_delay_s(lifetime_s, margin_s) == expected_s
