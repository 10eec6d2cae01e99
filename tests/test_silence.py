"""Idle prompts and fillers in real sessions, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kit import Call, Peer, call, call_peer
from trio_voice import ConnectionOptions, RealtimeAgent, events, tool
from trio_voice.agent_settings import Filler, IdlePrompts
from trio_voice.protocol.verbatim import words_of
from trio_voice.server import scripted
from trio_voice.server.scripted import VERBATIM_TURN, Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker

PROMPTS = IdlePrompts(after_ms=5000, phrases=("Are you there?", "Hello?"), at_most=2)
PATIENT = RealtimeAgent("Ann", idle_prompts=PROMPTS)
FILLER = Filler(after_ms=1500, phrases=("One moment, please.", "Still on it."))


@tool
async def slow_lookup(seconds: float) -> str:
    """Look something up, slowly."""
    await trio.sleep(seconds)
    return "found"


def looks_up(seconds: float) -> scripted.Call:
    return scripted.Call("slow_lookup", f'{{"seconds": {seconds}}}')


HELPFUL = RealtimeAgent("Ann", tools=[slow_lookup], filler=FILLER)


def lines(on: Call) -> list[tuple[str, str]]:
    return [(line.role, line.text) for line in on.session.transcript()]


# --- silence --------------------------------------------------------------------------------------


async def test_a_silence_is_broken_twice_and_then_told(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), PATIENT) as on:
        began_at = trio.current_time()
        first = await on.next(events.PlaybackStart)
        assert first.at - began_at == pytest.approx(5, abs=0.3)
        heard_at = (await on.next(events.PlaybackEnd)).at
        second = await on.next(events.PlaybackStart)
        assert second.at - heard_at == pytest.approx(5, abs=0.3), "from the end of what was heard"
        heard_at = (await on.next(events.PlaybackEnd)).at
        idle = await on.next(events.UserIdle)
        assert idle.at - heard_at == pytest.approx(5, abs=0.1)
        assert (idle.prompts, idle.silent_ms) == (2, pytest.approx(5000, abs=100))
        await trio.sleep(20)
        assert lines(on) == [("agent", "Are you there?"), ("agent", "Hello?")], "and nothing more"
        assert not [event for event in on.events._queue if isinstance(event, events.UserIdle)]


async def test_it_is_counted_from_the_end_of_playback_as_heard(autojump_clock: MockClock) -> None:
    """The server has made all of a long answer long before it was heard."""
    speaker = RecordingSpeaker(latency_ms=500)
    async with call(ScriptedBrain([Say("A long story.", 9000)]), PATIENT, speaker=speaker) as on:
        await on.session.respond()
        heard = await on.next(events.PlaybackEnd)
        prompt = await on.next(events.ResponseStart)
        assert prompt.at - heard.at == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("by", ["speech", "text"])
async def test_any_word_of_the_user_begins_it_anew(by: str, autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Good.", 300)], ["I am here."]), PATIENT) as on:
        await on.next(events.PlaybackEnd)
        if by == "speech":
            await on.speak()
        else:
            await on.session.send_text("I am here.")
        await on.next(events.PlaybackEnd)
        await on.next(events.UserIdle)
        said = [text for role, text in lines(on) if role == "agent"]
        assert said == ["Are you there?", "Good.", "Are you there?", "Hello?"]


async def test_the_user_may_talk_over_it(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(idle_prompts=IdlePrompts(after_ms=2000, phrases=("Are you still there, dear caller?",)))
    async with call(ScriptedBrain([Say("Good.", 300)], ["Yes, yes."]), agent) as on:
        await on.next(events.PlaybackStart)
        await trio.sleep(0.5)
        await on.speak()
        assert (await on.next(events.Interruption)).cause == "speech"
        await on.next(events.PlaybackEnd)
        assert on.turns_heard() == [0, VERBATIM_TURN]
        assert on.errors() == []


async def test_the_model_may_find_the_words(autojump_clock: MockClock) -> None:
    prompts = IdlePrompts(after_ms=2000, instructions="Ask whether the user is still there.", at_most=1)
    brain = ScriptedBrain([Say("Still with me?", 300)])
    async with call(brain, RealtimeAgent(idle_prompts=prompts)) as on:
        await on.next(events.UserIdle)
        assert lines(on) == [("agent", "Still with me?")]
    assert brain.requests[0].instructions == "Ask whether the user is still there."


@pytest.mark.parametrize("what", ["pause", "mute"])
async def test_who_cannot_be_heard_is_not_asked(what: str, autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), PATIENT) as on:
        await (on.session.pause() if what == "pause" else on.session.mute())
        await trio.sleep(20)
        assert lines(on) == []
        await (on.session.resume() if what == "pause" else on.session.unmute())
        await on.next(events.UserIdle)
        assert len(lines(on)) == 2


async def test_a_silence_goes_on_through_a_lost_connection(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), PATIENT) as on:
        began_at = trio.current_time()
        await trio.sleep(4)
        await on.drop()
        await on.next(events.Connected)
        prompt = await on.next(events.ResponseStart)
        assert prompt.at - began_at == pytest.approx(5, abs=0.2)
        await on.next(events.PlaybackEnd)
        await trio.sleep(2)
        await on.drop()
        await on.next(events.UserIdle)
        assert lines(on) == [("agent", "Are you there?"), ("agent", "Hello?")], "each once"


# --- fillers --------------------------------------------------------------------------------------


async def test_a_slow_tool_is_bridged_and_its_result_follows(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[looks_up(5)], Say("Here it is.", 500)], ["Look it up."])
    async with call(brain, HELPFUL) as on:
        await on.speak()
        called = await on.next(events.ToolCalled)
        filler = await on.next(events.PlaybackStart)
        assert filler.at - called.at == pytest.approx(1.5, abs=0.2)
        await on.next(events.PlaybackEnd)
        finished = await on.next(events.ToolFinished)
        assert finished.duration_ms == pytest.approx(5000)
        await on.next(events.PlaybackEnd)
        await trio.sleep(6)
        assert lines(on) == [("user", "Look it up."), ("agent", "One moment, please."), ("agent", "Here it is.")]
        assert on.errors() == []


@pytest.mark.parametrize("seconds", [1.5001, 1.51, 1.55, 1.6, 1.8, 2.2, 2.6])
async def test_a_result_that_comes_while_the_filler_is_said_waits_for_its_end(
    seconds: float, autojump_clock: MockClock
) -> None:
    """Asked for, being made, being played: the answer follows, once, and nothing collides."""
    brain = ScriptedBrain([[looks_up(seconds)], Say("Here it is.", 500)], ["Look it up."], think_ms=60)
    async with call(brain, HELPFUL, protocol=True) as on:
        await on.speak()
        await on.next(events.ToolFinished)
        await trio.sleep(6)
        assert lines(on)[1:] == [("agent", "One moment, please."), ("agent", "Here it is.")]
        assert on.turns_heard() == [1, VERBATIM_TURN]
        refused = [event for event in on.events._queue if getattr(getattr(event, "event", None), "error", None)]
        assert refused == []
    assert len(brain.requests) == 3


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.4])
async def test_a_quick_tool_needs_none(seconds: float, autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[looks_up(seconds)], Say("Here it is.", 500)], ["Look it up."])
    async with call(brain, HELPFUL) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await trio.sleep(6)
        assert lines(on)[1:] == [("agent", "Here it is.")]


async def test_it_waits_until_the_agent_has_finished_speaking(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say("Let me look that up.", 4000), looks_up(8)], Say("Here it is.", 500)], ["Look."])
    async with call(brain, HELPFUL) as on:
        await on.speak()
        heard = await on.next(events.PlaybackEnd)
        filler = await on.next(events.ResponseStart)
        assert filler.at - heard.at == pytest.approx(1.5, abs=0.05)
        await trio.sleep(6)
        assert [text for _, text in lines(on)[1:]] == ["Let me look that up.", "One moment, please.", "Here it is."]


async def test_two_waits_are_bridged_in_other_words(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[looks_up(3)], Say("One.", 300), [looks_up(3)], Say("Two.", 300)], ["First.", "Second."])
    async with call(brain, HELPFUL) as on:
        for _ in range(2):
            await on.speak()
            await on.next(events.ToolFinished)
            await on.next(events.ResponseStart)
            await trio.sleep(5)
        said = [text for role, text in lines(on) if role == "agent"]
        assert said == ["One moment, please.", "One.", "Still on it.", "Two."]


async def test_who_talks_over_a_filler_does_not_cancel_the_tool(autojump_clock: MockClock) -> None:
    @tool(on_interrupt="cancel")
    async def patient_lookup() -> str:
        """Look something up."""
        await trio.sleep(6)
        return "found"

    filler = Filler(after_ms=500, phrases=("I am still looking for it in all of our many records.",))
    agent = RealtimeAgent("Ann", tools=[patient_lookup], filler=filler)
    brain = ScriptedBrain(
        [[scripted.Call("patient_lookup")], Say("No hurry.", 300), Say("Found it.", 300)], ["Look.", "Take your time."]
    )
    async with call(brain, agent) as on:
        await on.speak()
        await on.next(events.PlaybackStart)
        await trio.sleep(0.5)
        await on.speak()
        await on.next(events.Interruption)
        finished = await on.next(events.ToolFinished)
        assert (finished.output, finished.failed) == ("found", False)
        await trio.sleep(10)
        assert lines(on)[-1] == ("agent", "Found it.")


async def test_a_filler_that_a_lost_connection_took_is_said_on_the_next_while_the_wait_lasts(
    autojump_clock: MockClock,
) -> None:
    """The first server never answers; its connection is lost before a word came."""
    fillers: list[str] = []
    connections: list[Peer] = []

    async def serve(peer: Peer) -> None:
        connections.append(peer)
        await peer.configure()
        if len(connections) == 1:
            await peer.receive("response.create")
            await peer.send(*tool_call())
        fillers.append((await peer.receive("response.create"))["response"]["instructions"])
        if len(connections) == 1:
            await trio.aclose_forcefully(peer.socket._stream)
            return
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
    async with call_peer(serve, HELPFUL, connection=options) as on:
        await on.session.respond()
        await on.next(events.ToolFinished)
        await trio.testing.wait_all_tasks_blocked()
    assert [words_of(said) for said in fillers] == ["One moment, please.", "Still on it."]
    created = [event["item"] for event in connections[1].received if event["type"] == "conversation.item.create"]
    outputs = [item["output"] for item in created if item["type"] == "function_call_output"]
    assert outputs == ["found"]


async def test_what_was_to_be_said_when_the_connection_went_is_said_on_the_next(autojump_clock: MockClock) -> None:
    asked: list[dict[str, Any]] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        asked.append(await peer.receive("response.create"))
        if len(asked) == 1:
            await trio.aclose_forcefully(peer.socket._stream)
            return
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
    async with call_peer(serve, RealtimeAgent("Ann"), connection=options) as on:
        await on.session.say("Please hold the line.")
        await on.next(events.Connected)
        await on.next(events.Connected)
        await trio.testing.wait_all_tasks_blocked()
    assert [words_of(event["response"]["instructions"]) for event in asked] == ["Please hold the line."] * 2


SPEECH_BEGINS = {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "item_user"}
QUICK = RealtimeAgent("Ann", idle_prompts=IdlePrompts(after_ms=1000, phrases=("Are you there?",)))


async def test_a_user_who_was_quicker_than_the_prompt_is_not_talked_over(autojump_clock: MockClock) -> None:
    """A server may begin what it was asked for although the user has begun to speak."""
    cancelled = trio.Event()

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.receive("response.create")
        response = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "conversation_id": "conv"}
        await peer.send(SPEECH_BEGINS, {"type": "response.created", "response": response})
        await peer.receive("response.cancel")
        cancelled.set()
        await peer.drain()

    async with call_peer(serve, QUICK) as on:
        with trio.fail_after(10):
            await cancelled.wait()
        assert on.session.metrics.interruption_count == 1


async def test_a_prompt_that_collides_with_an_answer_is_not_said_after_it(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        request = await peer.receive("response.create")
        response = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "conversation_id": "conv"}
        code = "conversation_already_has_active_response"
        error = {"type": "invalid_request_error", "code": code, "message": "busy", "event_id": request.get("event_id")}
        await peer.send({"type": "response.created", "response": response}, {"type": "error", "error": error})
        await peer.send({"type": "response.done", "response": response | {"status": "completed", "output": []}})
        asked_at.append(trio.current_time())
        await peer.receive("response.create")
        asked_at.append(trio.current_time())
        await peer.drain()

    asked_at: list[float] = []
    async with call_peer(serve, QUICK) as on:
        await on.next(events.ResponseEnd)
        await trio.sleep(3)
        assert on.errors() == []
    assert asked_at[1] - asked_at[0] == pytest.approx(1, abs=0.1), "only when there was silence again"


def tool_call() -> list[dict[str, Any]]:
    response = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "conversation_id": "conv"}
    item = {
        "id": "item_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "slow_lookup",
        "arguments": '{"seconds": 9}',
    }
    return [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.done", "response_id": "resp_1", "output_index": 0, "item": item},
        {"type": "response.done", "response": response | {"status": "completed", "output": [item]}},
    ]
