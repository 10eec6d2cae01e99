"""Another agent takes over in mid-conversation: what the server is told, what it refuses, what a loss does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kit import Call, Peer, call, call_peer
from trio_voice import ConfigError, ConnectionOptions, InterruptionPolicy, RealtimeAgent, events, tool
from trio_voice.protocol import SessionUpdate, TurnDetection
from trio_voice.server import scripted
from trio_voice.server.scripted import Say, ScriptedBrain


@tool
def weather() -> str:
    """Tell the weather."""
    return "rain"


@tool
def opening_hours() -> str:
    """When the shop is open."""
    return "nine to five"


ANN = RealtimeAgent("Ann", "You are Ann.", tools=[weather], voice="marin", speed=1.2, max_output_tokens=500)
BEN = RealtimeAgent("Ben", "You are Ben.", tools=[opening_hours], voice="cedar")


def updates(on: Call) -> list[Any]:
    """What the server was told of its settings, oldest first."""
    return [event.session for event in on.sent if isinstance(event, SessionUpdate)]


async def test_the_next_answer_is_the_new_agent_s(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[scripted.Call("opening_hours")], Say("From nine.", 300)])
    async with call(brain, ANN, listening=False, protocol=True) as on:
        await on.session.update_agent(BEN)
        assert on.session.agent is BEN
        told = updates(on)[-1]
        assert told.audio.input.format.rate == told.audio.output.format.rate == 24_000, "both formats, always"
        assert (told.audio.output.voice, told.audio.output.speed) == ("cedar", 1.0), "and what only Ann had is undone"
        assert told.max_output_tokens == "inf"
        await on.session.send_text("When are you open?")
        finished = await on.next(events.ToolFinished)
        assert finished.output == "nine to five"
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    request = brain.requests[0]
    assert request.instructions == "You are Ben."
    assert [offered.name for offered in request.tools] == ["opening_hours"]
    assert (request.voice, request.speed) == ("cedar", 1.0)


async def test_the_voice_stays_once_it_was_heard(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Ann here.", 300), Say("Ben here.", 300), Say("Still.", 300)])
    async with call(brain, ANN, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.session.update_agent(BEN)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    assert [request.instructions for request in brain.requests] == ["You are Ann.", "You are Ben.", "You are Ben."]
    assert [request.voice for request in brain.requests] == ["marin"] * 3, "one voice for all of the conversation"


async def test_a_voice_that_comes_too_late_does_not_keep_the_agent_out(autojump_clock: MockClock) -> None:
    """The server has made sound that has not arrived."""
    told: list[dict[str, Any]] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        for refuses in (True, False):
            update = await peer.receive("session.update")
            told.append(update["session"])
            error = {"code": "cannot_update_voice", "message": "no", "event_id": update["event_id"]}
            refusal = {"type": "error", "error": error}
            await peer.send(refusal if refuses else {"type": "session.updated", "session": {"type": "realtime"}})
        await peer.drain()

    async with call_peer(serve, ANN) as on:
        await on.session.update_agent(BEN)
        assert on.session.agent is BEN
        assert on.errors() == []
    assert [said["audio"]["output"].get("voice") for said in told] == ["cedar", None]
    assert [said["instructions"] for said in told] == ["You are Ben."] * 2


async def test_a_server_that_refuses_leaves_the_agent_in_charge(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        update = await peer.receive("session.update")
        error = {"code": "invalid_value", "message": "no such tool", "event_id": update["event_id"]}
        await peer.send({"type": "error", "error": error})
        await peer.drain()

    async with call_peer(serve, ANN) as on:
        with pytest.raises(ConfigError, match="refused agent 'Ben': no such tool"):
            await on.session.update_agent(BEN)
        assert on.session.agent is ANN
        assert on.session.summary()["agent"] == "Ann"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (RealtimeAgent("Ben", turn_detection=None), "push-to-talk"),
        (RealtimeAgent("Ben", model="gpt-realtime-1.5"), "model"),
        (RealtimeAgent("Ben", interruption=InterruptionPolicy(min_speech_ms=300)), "voice detection"),
        (RealtimeAgent("Ben", lambda context: context.nothing), "instructions of agent 'Ben'"),
    ],
    ids=["push_to_talk", "model", "detector", "instructions"],
)
async def test_an_agent_that_cannot_take_over_is_refused_at_once(
    other: RealtimeAgent, told: str, autojump_clock: MockClock
) -> None:
    async with call(ScriptedBrain(), ANN, listening=False, protocol=True) as on:
        before = len(updates(on))
        with pytest.raises(ConfigError, match=told):
            await on.session.update_agent(other)
        assert on.session.agent is ANN
        assert len(updates(on)) == before, "nothing was sent"


async def test_instructions_are_made_of_the_context_each_time(autojump_clock: MockClock) -> None:
    visits = {"count": 0}

    def instructions(context: Any) -> str:
        context["count"] += 1
        return f"visit {context['count']}"

    brain = ScriptedBrain([Say("One.", 200), Say("Two.", 200), Say("Three.", 200)])
    agent = RealtimeAgent("Ann", instructions)
    async with call(brain, agent, listening=False, context=visits) as on:
        assert on.session.context is visits
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.session.update_agent(RealtimeAgent("Ben", instructions))
        await on.session.respond()
        await on.next(events.PlaybackEnd)
    assert [request.instructions for request in brain.requests] == ["visit 1", "visit 2", "visit 3"]


async def test_instructions_that_cannot_be_made_any_more_stay_as_they_were(autojump_clock: MockClock) -> None:
    made: list[str] = []

    def instructions(context: Any) -> str:
        made.append("once")
        return "Be brief." if len(made) == 1 else str(1 / 0)

    brain = ScriptedBrain([Say("Hi.", 200)])
    async with call(brain, RealtimeAgent("Ann", instructions), listening=False) as on:
        await on.drop()
        error = await on.next(events.ErrorReported)
        assert "ZeroDivisionError" in error.message
        await on.next(events.Connected)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
    assert brain.requests[0].instructions == "Be brief."


async def test_instructions_that_cannot_be_made_at_all_end_the_session(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match="a text")):
        async with call(ScriptedBrain(), RealtimeAgent("Ann", lambda context: 3)):  # type: ignore[arg-type,return-value]
            pytest.fail("entered")


async def test_a_change_that_a_lost_connection_took_is_made_on_the_next(autojump_clock: MockClock) -> None:
    asked = trio.Event()
    connections: list[Peer] = []

    async def serve(peer: Peer) -> None:
        connections.append(peer)
        await peer.configure()
        update = await peer.receive("session.update")
        if len(connections) == 1:
            asked.set()
            await trio.aclose_forcefully(peer.socket._stream)
            return
        assert update["session"]["instructions"] == "You are Ben."
        await peer.send({"type": "session.updated", "session": {"type": "realtime"}})
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
    async with call_peer(serve, ANN, connection=options) as on:
        await on.session.update_agent(BEN)
        assert on.session.agent is BEN
        assert len(connections) == 2
        assert connections[1].received[0]["session"]["instructions"] == "You are Ann.", "who was in charge configures"
        assert asked.is_set()


async def test_while_an_answer_may_not_be_interrupted_the_new_agent_s_server_holds_still_too(
    autojump_clock: MockClock,
) -> None:
    other = RealtimeAgent("Ben", turn_detection=TurnDetection(silence_duration_ms=700))
    brain = ScriptedBrain([Say("Hear me out to the end, please.", 4000), Say("Now you.", 300)], ["But!"])
    async with call(brain, ANN, protocol=True) as on:
        await on.session.respond(interruptible=False)
        await on.next(events.PlaybackStart)
        await on.session.update_agent(other)
        held = updates(on)[-1].audio.input.turn_detection
        assert (held.interrupt_response, held.create_response, held.silence_duration_ms) == (False, False, 700)
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.interruption_count == 0
        await on.next(events.PlaybackEnd)
        let_go = updates(on)[-1].audio.input.turn_detection
        assert (let_go.interrupt_response, let_go.create_response, let_go.silence_duration_ms) == (True, True, 700)


async def test_in_an_outage_it_waits_for_the_next_connection(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Ben.", 200)])
    async with call(brain, ANN, listening=False, protocol=True) as on:
        await on.drop()
        await on.next(events.Reconnecting)
        await on.session.update_agent(BEN)
        assert [told.instructions for told in updates(on)] == ["You are Ann.", "You are Ann.", "You are Ben."]
        await on.session.respond()
        await on.next(events.PlaybackEnd)
    assert brain.requests[0].instructions == "You are Ben."


async def test_a_connection_that_was_prepared_for_the_former_agent_is_told(autojump_clock: MockClock) -> None:
    """A rotation: the change is taken on the old connection while the new one is being configured."""
    prepared, connections = trio.Event(), 0
    told: dict[int, list[str]] = {1: [], 2: []}
    session = {"type": "realtime", "id": "s", "expires_at": int(trio.current_time()) + 100}

    async def serve(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        number = connections
        for _ in range(2):
            update = await peer.receive("session.update")
            told[number].append(update["session"]["instructions"])
            if number == 2 and len(told[number]) == 1:
                prepared.set()
                await trio.sleep(1)
            await peer.send({"type": "session.updated", "session": session | {"id": f"s{number}"}})
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
    async with call_peer(serve, ANN, connection=options, wall_clock=trio.current_time) as on:
        await prepared.wait()
        await on.session.update_agent(BEN)
        await on.next(events.Connected)
        assert (await on.next(events.Connected)).session_id == "s2"
        await trio.sleep(1)
        assert told == {1: ["You are Ann.", "You are Ben."], 2: ["You are Ann.", "You are Ben."]}


async def test_two_at_once_follow_each_other(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Cid.", 200)])
    async with call(brain, ANN, listening=False) as on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.session.update_agent, BEN)
            await trio.testing.wait_all_tasks_blocked(0)
            nursery.start_soon(on.session.update_agent, RealtimeAgent("Cid", "You are Cid."))
        assert on.session.agent.name == "Cid"
        await on.session.respond()
        await on.next(events.PlaybackEnd)
    assert brain.requests[0].instructions == "You are Cid."
    assert brain.requests[0].tools == []
