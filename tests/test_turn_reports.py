"""Figures of a turn that is over: three stamps, tools, alarms, underruns, drops; told once, when all of it is known."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kit import Call as InCall, Peer, call, call_peer
from trio_voice import AgentCapability, AudioOutputConfig, InterruptionPolicy, RealtimeAgent, events
from trio_voice.channels import EventFanOut
from trio_voice.conversation_view import ConversationView
from trio_voice.protocol.history import History
from trio_voice.server.scripted import Call, Say, ScriptedBrain, tone
from trio_voice.testing import RecordingSpeaker
from trio_voice.tracker import ConversationTracker, LoopStalls, Readings
from trio_voice.turn_reports import tell_turns_over


async def slow_lookup() -> str:
    """Look it up."""
    await trio.sleep(0.75)
    return "found"


async def told(on: InCall) -> list[events.TurnMetrics]:
    """The accounts that the session has given, once it is over."""
    await on.session.disconnect()
    return [event async for event in on.events if isinstance(event, events.TurnMetrics)]


async def test_the_stamps_are_those_of_speech_delta_and_sound(autojump_clock: MockClock) -> None:
    speaker = RecordingSpeaker(latency_ms=200)
    brain = ScriptedBrain([Say("It has shipped.", 1000)], think_ms=300)
    async with call(brain, speaker=speaker, protocol=True) as on:
        await on.speak()
        stopped = await on.next(events.SpeechEnd)
        delta_at = 0.0
        while not delta_at:
            seen = await on.next(events.ServerEventReceived)
            if seen.event.__struct_config__.tag == "response.output_audio.delta":
                delta_at = seen.at
        heard = await on.next(events.PlaybackStart)
        await on.next(events.PlaybackEnd)
        (turn,) = on.session.turns()
        assert (turn.user_ended_at, turn.first_delta_at, turn.first_heard_at) == (stopped.at, delta_at, heard.at)
        assert stopped.at + 0.3 <= delta_at < heard.at - 0.2 + 0.02
        assert turn.first_delta_ms == pytest.approx((delta_at - stopped.at) * 1000)
        assert turn.latency_ms == pytest.approx((heard.at - stopped.at) * 1000)
        assert on.session.metrics.average_first_delta_ms == turn.first_delta_ms
        (account,) = await told(on)
    assert account.id == turn.id
    assert (account.first_delta_ms, account.latency_ms) == (turn.first_delta_ms, turn.latency_ms)
    assert account.agent_audio_ms == pytest.approx(1000)
    assert account.user_audio_ms == turn.user_audio_ms > 0


async def test_sound_that_passes_the_conversation_by_is_stamped_too(autojump_clock: MockClock) -> None:
    """Nobody listens to the wire: all but the first piece takes the short way."""
    brain = ScriptedBrain([Say("It has shipped.", 1000)], think_ms=300)
    async with call(brain, audio=True) as on:
        await on.speak()
        first = await on.next(events.ResponseAudio)
        await on.next(events.ResponseAudio)
        assert on.session._fan_out.open_turn == first.turn
        await on.next(events.PlaybackEnd)
        assert on.session.turns()[0].first_delta_at == first.at


async def test_what_is_written_has_a_first_delta_and_no_first_sample(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(capabilities={AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT})
    async with call(ScriptedBrain([Say("It has shipped.")], think_ms=250), agent, listening=False) as on:
        await on.session.send_text("Where is it?")
        await on.next(events.ResponseEnd)
        (turn,) = on.session.turns()
    assert turn.first_delta_ms == pytest.approx(250, abs=60)
    assert (turn.latency_ms, turn.first_heard_at) == (None, None)


async def test_tool_time_is_in_it(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(tools=(slow_lookup,))
    async with call(ScriptedBrain([[Call("slow_lookup", "{}")], Say("Found.", 200)]), agent) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.tool_ms == pytest.approx(750)
        (account,) = await told(on)
    assert [account.tool_calls, account.tool_ms] == pytest.approx([1, 750])


async def test_an_interrupted_turn_is_told_when_it_is_known_what_was_heard(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("One two three four five.", 4000), Say("Yes.", 200)])
    async with call(brain) as on:
        await on.speak()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.speak()
        cut = await on.next(events.Interruption)
        account = await on.next(events.TurnMetrics)
        assert account.interrupted
        assert account.agent_audio_ms == pytest.approx(cut.heard_ms, abs=1)
        await on.next(events.PlaybackEnd)
        accounts = await told(on)
    assert [(one.id, one.interrupted) for one in accounts] == [(2, False)]
    assert [turn.interrupted for turn in on.session.turns()] == [True, False]


async def test_false_alarms_are_counted(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(interruption=InterruptionPolicy(min_speech_ms=400))
    brain = ScriptedBrain([Say("One two three four five.", 5000)])
    async with call(brain, agent) as on:
        await on.speak()
        await on.next(events.PlaybackStart)
        await trio.sleep(0.5)
        await on.microphone.say(tone(440, 120, 24_000).tobytes())
        await on.next(events.FalseAlarm)
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.false_alarm_count == 1
        (account,) = await told(on)
    assert (account.false_alarms, account.interrupted) == (1, False)


def created(turn: int) -> list[dict[str, object]]:
    return [
        {"type": "response.created", "response": {"id": f"r{turn}", "conversation_id": "c"}},
        {"type": "response.output_item.added", "response_id": f"r{turn}", "output_index": 0,
         "item": {"id": f"m{turn}", "type": "message", "role": "assistant", "content": []}},
    ]  # fmt: skip


def piece(turn: int, milliseconds: int) -> dict[str, object]:
    import base64

    pcm = tone(300, milliseconds, 24_000).tobytes()
    return {
        "type": "response.output_audio.delta", "response_id": f"r{turn}", "item_id": f"m{turn}", "output_index": 0,
        "content_index": 0, "delta": base64.b64encode(pcm).decode(),
    }  # fmt: skip


async def test_underruns_belong_to_the_turn_in_which_they_happened(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        for turn, gaps in ((1, 2), (2, 0)):
            await peer.receive("response.create")
            await peer.send(*created(turn))
            for _ in range(gaps + 1):
                await peer.send(piece(turn, 300))
                await trio.sleep(0.6 if gaps else 0)
            await peer.send({"type": "response.done", "response": {"id": f"r{turn}", "status": "completed"}})
        await peer.drain()

    output = AudioOutputConfig(prebuffer_ms=40, shortest_prebuffer_ms=20, longest_prebuffer_ms=40, fade_ms=0)
    async with call_peer(serve, audio_output=output) as on:
        for words in ("And?", "And then?"):
            await on.session.send_text(words)
            await on.next(events.PlaybackEnd)
        assert [turn.underruns for turn in on.session.turns()] == [3, 0]
        accounts = await told(on)
    assert on.session.metrics.dropped["underruns"] == 3
    assert [(one.id, one.underruns) for one in accounts][-1] == (2, 0)


def test_drops_and_stalls_are_told_with_the_turn_in_which_they_happened() -> None:
    history, fan_out, counted = History(), EventFanOut(), Readings()
    view = ConversationView(history, ConversationTracker(history, started_at=0.0), readings=lambda: counted)
    stream = fan_out.subscribe()
    for at, frames, stalls in ((1.0, 3, 2), (2.0, 3, 2), (3.0, 7, 3)):
        view.tracker.user_began(at)
        view.tracker.user_ended(at + 0.5, 500)
        counted = Readings({"frames": frames, "events": 0, "underruns": 9}, stalls=LoopStalls(stalls, stalls * 50.0))
        tell_turns_over(view, fan_out, at)
    view.tracker.close(4.0)
    tell_turns_over(view, fan_out, 4.0)
    tell_turns_over(view, fan_out, 4.0)
    accounts = [event for event in stream._queue if isinstance(event, events.TurnMetrics)]
    assert [(one.id, one.dropped, one.stalls, one.stall_ms) for one in accounts] == [
        (1, {"frames": 3}, 2, 100.0),
        (2, {"frames": 4}, 1, 50.0),
        (3, {}, 0, 0.0),
    ]
