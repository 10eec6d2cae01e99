"""What a lost connection does to a conversation: nothing that the user could notice."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from test_session_peer import created, delta, done
from trio_voice import ConnectionOptions, ConnectionState, RealtimeAgent, WireLost, events, tool
from trio_voice.channels import FromServer
from trio_voice.protocol.responses import Response
from trio_voice.protocol.resume import CONTINUES
from trio_voice.protocol.server_events import ResponseCreated
from trio_voice.restart_policy import Attempts, Backoff
from trio_voice.server import scripted
from trio_voice.server.scripted import Say, ScriptedBrain, turns_in

OPTIONS = ConnectionOptions(url="ws://memory/v1/realtime", model=None)


@given(st.integers(1, 50), st.floats(0, 60), st.floats(1, 10), st.integers())
def test_backoff_is_bounded_and_the_first_retry_is_at_once(
    max_attempts: int, first_delay_s: float, multiplier: float, seed: int
) -> None:
    backoff = Backoff(max_attempts, first_delay_s, multiplier)
    delays = [backoff.delay_s(attempt, random.Random(seed)) for attempt in range(1, max_attempts + 2)]
    assert delays[0] == 0.0
    assert delays[-1] is None
    for attempt, delay_s in enumerate(delays[:-1], start=1):
        assert delay_s is not None
        assert 0 <= delay_s <= min(30.0, first_delay_s * multiplier ** max(0, attempt - 2) + 1e-9)


def test_connecting_alone_does_not_clear_the_count() -> None:
    attempts = Attempts(healthy_after_s=10)
    assert [attempts.next(held_s) for held_s in (0.0, 0.1, 9.9, 10.0, 0.0)] == [1, 2, 3, 1, 2]


async def test_the_conversation_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("The first answer.", 500), Say("The second.", 500)], ["First?", "Second?"])
    async with call(brain, connection=OPTIONS) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await on.drop()
        lost = await on.next(events.Reconnecting)
        assert (lost.attempt, lost.delay_ms) == (1, 0)
        assert (await on.next(events.Connected)).resumed
        assert on.session.connection_state is ConnectionState.CONNECTED
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == [
            "First?",
            "The first answer.",
            "Second?",
            "The second.",
        ]
        assert on.errors() == []
    remembered = [(item.role, item.text) for item in brain.requests[1].items]
    assert remembered == [
        ("user", "First?"),
        ("assistant", "The first answer."),
        ("system", CONTINUES),
        ("user", "Second?"),
    ]


async def test_what_has_arrived_is_played_on(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("A long answer.", 4000)]), connection=OPTIONS, listening=False) as on:
        await on.session.respond()
        await on.next(events.ResponseEnd)
        await on.drop()
        await on.next(events.PlaybackEnd)
        assert int((on.heard >> 8 == 1).sum()) == 4 * RATE_HZ


async def test_a_result_is_delivered_on_the_next_connection_and_the_tool_runs_once(autojump_clock: MockClock) -> None:
    released, runs = trio.Event(), []

    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        runs.append(trio.current_time())
        await released.wait()
        return "ordered"

    brain = ScriptedBrain([[scripted.Call("order_pizza")], Say("It is ordered.", 400)], ["A pizza."])
    async with call(brain, RealtimeAgent(tools=[order_pizza]), connection=OPTIONS) as on:
        await on.speak()
        await on.next(events.ToolCalled)
        await on.drop()
        await on.next(events.Connected)
        released.set()
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    assert len(runs) == 1
    outputs = [item.output for item in brain.requests[1].items if item.type == "function_call_output"]
    assert outputs == ["ordered"]


async def test_a_result_that_comes_while_there_is_no_connection_is_not_lost(autojump_clock: MockClock) -> None:
    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        await on.drop()
        return "ordered"  # in the same step in which the connection dies

    brain = ScriptedBrain([[scripted.Call("order_pizza")], Say("It is ordered.", 400)], ["A pizza."])
    async with call(brain, RealtimeAgent(tools=[order_pizza]), connection=OPTIONS) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    outputs = [item.output for item in brain.requests[1].items if item.type == "function_call_output"]
    assert outputs == ["ordered"]


async def test_a_result_that_comes_while_the_new_connection_is_configured_is_told_once(
    autojump_clock: MockClock,
) -> None:
    released = trio.Event()

    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        await released.wait()
        return "ordered"

    connections = 0
    outputs: list[str] = []

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await peer.configure()
            called = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "order_pizza", "arguments": "{}"}
            item = called | {"status": "completed"}
            await peer.send(created("r1"), {"type": "response.output_item.done", "response_id": "r1", "item": item})
            await trio.sleep(1)
            await peer.socket.aclose(1011)
            return
        await peer.receive("session.update")
        released.set()
        await trio.sleep(1)
        await peer.send({"type": "session.updated", "session": {"type": "realtime", "id": "sess_2"}})
        await peer.receive("response.create")
        created_items = [event["item"] for event in peer.received if event["type"] == "conversation.item.create"]
        outputs.extend(item["output"] for item in created_items if item["type"] == "function_call_output")
        await peer.send(created("r2"), delta("r2", 2, 100), done("r2"))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(tools=[order_pizza]), connection=OPTIONS) as on:
        await on.next(events.PlaybackEnd)
    assert outputs == ["ordered"]


async def test_nothing_of_an_old_connection_is_believed(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Here.", 300)]), connection=OPTIONS, listening=False) as on:
        await on.drop()
        await on.next(events.Reconnecting)
        await on.next(events.Connected)
        late = ResponseCreated(event_id="e", response=Response(id="of the old one", conversation_id="c"))
        on.session._commands.send_nowait(FromServer(1, 77, late))
        await on.session.respond()
        assert (await on.next(events.ResponseStart)).response_id != "of the old one"


async def test_an_answer_that_was_awaited_is_asked_for_again(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Lost.", 400), Say("Here I am.", 400)], ["Are you there?"], think_ms=2000)
    async with call(brain, connection=OPTIONS) as on:
        await on.speak()
        await on.next(events.ResponseStart)
        await trio.sleep(0.5)
        await on.drop()
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard) == [1]
        assert [line.text for line in on.session.transcript()] == ["Are you there?", "Here I am."]


async def test_an_interrupted_answer_is_restored_as_it_was_heard(autojump_clock: MockClock) -> None:
    replies = [Say("One two three four five six seven eight nine ten.", 5000), Say("Yes.", 300)]
    brain = ScriptedBrain(replies)
    async with call(brain, connection=OPTIONS, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(2)
        await on.session.interrupt()
        await on.drop()
        await on.next(events.Connected)
        await on.session.send_text("Go on.")
        await on.next(events.PlaybackEnd)
    (said,) = [item.text for item in brain.requests[1].items if item.role == "assistant"]
    assert (
        said.split()
        == ["One", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten."][: len(said.split())]
    )
    assert 1 <= len(said.split()) <= 5


async def test_stale_microphone_sound_is_not_sent(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Yes?", 300)], ["Hello"])
    async with call(brain, connection=OPTIONS) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        sent_ms = on.session._link.uplink.sent_audio_ms
        await on.drop()
        await on.next(events.Connected)
        await trio.sleep(1)
        sent_ms = on.session._link.uplink.sent_audio_ms - sent_ms
        assert sent_ms <= 1000 + 2 * 20, "a second of sound after the reconnect, nothing from before"


async def test_it_gives_up_after_the_attempts_it_was_allowed(autojump_clock: MockClock) -> None:
    connections = 0

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await peer.configure()
        await peer.socket.aclose(1011, "crashed")

    options = ConnectionOptions(url="ws://memory/", model=None, max_reconnect_attempts=3)
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="gave up after 3 attempts.*1011")):
        async with call_peer(serve, connection=options) as on:
            stream = on.events
            await trio.sleep_forever()
    assert connections == 4
    names = [event.name async for event in stream]
    assert names.count("reconnecting") == 3
    assert names[-1] == "disconnected"


@pytest.mark.parametrize("code", [1008, 4000])
async def test_what_cannot_come_back_is_not_retried(code: int, autojump_clock: MockClock) -> None:
    connections = 0

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.configure()
        await peer.socket.aclose(code, "go away")

    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match=str(code))):
        async with call_peer(serve, connection=OPTIONS):
            await trio.sleep_forever()
    assert connections == 1


async def test_a_server_that_says_nothing_is_given_up_in_bounded_time(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/", model=None, connect_timeout_ms=3000)
    began_at = trio.current_time()
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="did not answer session.update within 3 s")):
        async with call_peer(serve, connection=options):
            pytest.fail("entered")
    assert trio.current_time() - began_at <= 4.1


async def test_a_server_that_falls_dumb_is_given_up_after_the_attempts(autojump_clock: MockClock) -> None:
    """It takes connections but never again the configuration: that does not count as connected."""
    connections = 0

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await peer.configure()
            await peer.socket.aclose(1011)
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/", model=None, connect_timeout_ms=20_000)
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="gave up after 5 attempts")):
        async with call_peer(serve, connection=options):
            await trio.sleep_forever()
    assert connections == 6


async def test_an_answer_lost_before_its_first_sound_is_asked_for_again(autojump_clock: MockClock) -> None:
    connections = 0

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.configure()
        if connections == 1:
            await peer.receive("response.create")
            item = {"type": "message", "id": "i1", "role": "assistant", "status": "in_progress", "content": []}
            await peer.send(created("r1"))
            await peer.send({"type": "response.output_item.added", "response_id": "r1", "item": item})
            await trio.sleep(0.1)
            await peer.socket.aclose(1011)
            return
        await peer.receive("response.create")
        await peer.send(created("r2"), delta("r2", 2, 100), done("r2"))
        await peer.drain()

    async with call_peer(serve, connection=ConnectionOptions(url="ws://memory/", model=None)) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
