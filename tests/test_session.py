"""A session against the local server: the real WebSocket code over memory streams, in virtual time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, call
from trio_voice import (
    AgentCapability,
    AudioOutputConfig,
    ConfigError,
    ConnectionState,
    RealtimeAgent,
    RealtimeSession,
    SessionEnded,
    SessionState,
    events,
    tool,
)
from trio_voice.protocol import TurnDetection
from trio_voice.server import scripted
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order."""
    await trio.sleep(0.5)
    return {"order_id": order_id, "status": "shipped"}


ORDER = scripted.Call("lookup_order", '{"order_id": "ORD-12345"}')


async def test_a_spoken_question_is_answered_with_a_tool(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[ORDER], [Say("It has shipped.", 1500)]], ["Where is my order?"])
    async with call(brain, RealtimeAgent(tools=[lookup_order])) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert [(line.role, line.text) for line in on.session.transcript()] == [
            ("user", "Where is my order?"),
            ("agent", "It has shipped."),
        ]
        (turn,) = on.session.turns()
        assert [(use.tool, json.loads(use.output or "")["status"]) for use in turn.tool_calls] == [
            ("lookup_order", "shipped")
        ]
        assert turn.tool_calls[0].arguments == '{"order_id": "ORD-12345"}'
        assert turn.agent_audio_ms == pytest.approx(1500, abs=1)
        assert on.errors() == []
    outputs = [item.output for item in brain.requests[1].items if item.type == "function_call_output"]
    assert [json.loads(str(output))["status"] for output in outputs] == ["shipped"]


async def test_states_and_events_come_in_order(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Yes.", 600)], ["Are you there?"])) as on:
        assert on.session.state is SessionState.LISTENING
        assert on.session.connection_state is ConnectionState.CONNECTED
        await on.speak()
        names = []
        with trio.fail_after(30):
            async for event in on.events:
                names.append(event.name)
                if isinstance(event, events.PlaybackEnd):
                    break
        assert [name for name in names if name not in ("transcript", "history")] == [
            "connected",
            "listening_started",
            "speech_start",
            "speech_end",
            "response_start",
            "response_end",
            "playback_start",
            "playback_end",
        ]
        assert on.session.state is SessionState.LISTENING
    assert on.session.summary()["state"] == "disconnected"
    assert [event.name async for event in on.events] == ["turn_metrics", "disconnected"]


async def test_barge_in_silences_the_turn_and_the_next_one_is_whole(autojump_clock: MockClock) -> None:
    replies = [Say("One two three four five six seven eight nine ten.", 5000), Say("Of course.", 1000)]
    speaker = RecordingSpeaker(block_ms=10)
    brain = ScriptedBrain(replies, ["Count.", "Stop."])
    async with call(brain, speaker=speaker, audio_output=AudioOutputConfig(fade_ms=5)) as on:
        await on.speak()
        await on.next(events.PlaybackStart)
        await trio.sleep(2)
        await on.speak()
        interruption = await on.next(events.Interruption)
        cut_at = len(speaker.pcm) // 2
        await on.next(events.PlaybackEnd)
        before, after = on.heard[:cut_at], on.heard[cut_at:]
        assert scripted.turns_in(before) == [0]
        fade = RATE_HZ * 5 // 1000
        answer, wanted = np.trim_zeros(after[fade:]), scripted.marked_samples(1, RATE_HZ)
        assert (answer[:fade] <= wanted[:fade]).all(), "nothing of the interrupted turn, and it fades in"
        assert answer[fade:].tolist() == wanted[fade:].tolist(), "every sample of the next answer, once"
        assert interruption.heard_ms == pytest.approx(2300, abs=400)
        played_ms = int((before >> 8 == 1).sum()) * 1000 / RATE_HZ
        assert interruption.heard_ms == pytest.approx(played_ms, abs=5), "to the sample, but for the fade"
        spoken = on.session.transcript()[1]
        assert spoken.interrupted
        assert "One two three four five six seven eight nine ten.".startswith(spoken.text)
        assert 0 < len(spoken.text.split()) < 6
        assert on.session.metrics.interruption_count == on.session.metrics.truncation_count == 1
        assert on.errors() == []


async def test_the_server_is_told_exactly_what_was_heard(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("One two three four five six seven eight.", 4000), Say("Right.", 300)], ["Go.", "Stop."])
    async with call(brain, protocol=True) as on:
        await on.speak()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.speak()
        interruption = await on.next(events.Interruption)
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    (said,) = [item for item in brain.requests[1].items if item.role == "assistant"]
    heard = ["One", "two", "three", "four", "five", "six", "seven", "eight."][: len(said.text.split())]
    assert said.text.split() == heard
    assert len(heard) == pytest.approx(8 * interruption.heard_ms / 4000, abs=1.5)


async def test_interrupt_returns_when_all_is_silent(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("A long story.", 10_000)]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.session.interrupt()
        cut_at = len(on.speaker.pcm) // 2
        await trio.sleep(5)
        assert scripted.turns_in(on.heard[cut_at + RATE_HZ * 5 // 1000 :]) == []
        assert (await on.next(events.Interruption)).cause == "manual"
        await on.session.interrupt()
        await trio.sleep(1)
        assert on.session.metrics.interruption_count == 1, "a second interrupt finds nothing to do"


async def test_interrupt_before_the_first_sound_does_not_eat_the_next_answer(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Never heard.", 3000), Say("Heard.", 500)], think_ms=400)
    async with call(brain, listening=False) as on:
        await on.session.respond()
        await on.session.interrupt()
        await trio.sleep(3)
        assert on.turns_heard() == []
        await on.session.send_text("And now?")
        await on.next(events.PlaybackEnd)
        assert on.turns_heard() == [1]
        assert [line.text for line in on.session.transcript()] == ["And now?", "Heard."]
        assert on.errors() == []


async def test_text_in_text_out(autojump_clock: MockClock) -> None:
    capabilities = {AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT}
    async with call(ScriptedBrain([Say("Four.")]), RealtimeAgent(capabilities=capabilities), listening=False) as on:
        await on.session.send_text("Two and two?")
        await on.next(events.ResponseEnd)
        assert [(line.role, line.text) for line in on.session.transcript()] == [
            ("user", "Two and two?"),
            ("agent", "Four."),
        ]
        assert not on.speaker.pcm, "an agent without a voice opens no speaker"


async def test_push_to_talk_ends_the_turn_when_told(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Roger.", 500)], ["Over."])
    async with call(brain, RealtimeAgent(turn_detection=None), listening=False) as on:
        await on.session.start_listening()
        await on.speak(1200)
        await on.session.stop_listening()
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == ["Over.", "Roger."]
        ((samples, rate_hz),) = brain.utterances
        assert len(samples) / rate_hz >= 1.2, "every frame captured before the end was sent before the commit"
        assert on.errors() == []


async def test_mute_lets_the_server_end_the_utterance(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("I heard a beginning.", 500)], ["A beginning"])
    async with call(brain) as on, trio.open_nursery() as nursery:
        nursery.start_soon(on.speak, 6000)
        await on.next(events.SpeechStart)
        await trio.sleep(1)
        await on.session.mute()
        stopped = await on.next(events.SpeechEnd)
        assert stopped.audio_ms < 3500, "silence was sent although the user spoke on"
        nursery.cancel_scope.cancel()


async def test_stop_listening_in_mid_word_still_ends_the_utterance(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Yes?", 500)], ["Hello"])) as on, trio.open_nursery() as nursery:
        nursery.start_soon(on.speak, 6000)
        await on.next(events.SpeechStart)
        await trio.sleep(0.5)
        await on.session.stop_listening()
        await on.next(events.SpeechEnd)
        await on.next(events.PlaybackEnd)
        nursery.cancel_scope.cancel()


async def test_pause_keeps_the_rest_of_the_sentence(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("A sentence.", 2000)]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(0.5)
        await on.session.pause()
        assert on.session.state is SessionState.PAUSED
        paused_at = len(on.heard)
        await trio.sleep(3)
        assert scripted.turns_in(on.heard[paused_at:]) == []
        await on.session.resume()
        await on.next(events.PlaybackEnd)
        assert int((on.heard >> 8 == 1).sum()) == 2 * RATE_HZ, "every sample once, the pause apart"


async def test_a_slow_tool_delays_nothing_else(autojump_clock: MockClock) -> None:
    released = trio.Event()

    @tool
    async def slow() -> str:
        """Take long."""
        await released.wait()
        return "done at last"

    brain = ScriptedBrain([[scripted.Call("slow")], Say("Still working.", 400), Say("Done.", 400)], ["Do it.", "Well?"])
    async with call(brain, RealtimeAgent(tools=[slow])) as on:
        await on.speak()
        await on.next(events.ToolCalled)
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert on.session.transcript()[-1].text == "Still working."
        released.set()
        await on.next(events.PlaybackEnd)
        assert on.session.transcript()[-1].text == "Done."
    outputs = [item.output for item in brain.requests[2].items if item.type == "function_call_output"]
    assert outputs == ["done at last"]


async def test_a_result_that_comes_with_the_interruption_is_delivered_once(autojump_clock: MockClock) -> None:
    released = trio.Event()

    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        await released.wait()
        return "ordered"

    brain = ScriptedBrain(
        [[Say("I am ordering.", 3000), scripted.Call("order_pizza")], Say("It is ordered.", 400)], ["A pizza."]
    )
    async with call(brain, RealtimeAgent(tools=[order_pizza])) as on:
        await on.speak()
        await on.next(events.ToolCalled)
        await on.next(events.PlaybackStart)
        released.set()
        await on.session.interrupt()
        finished = await on.next(events.ToolFinished)
        assert finished.output == "ordered"
        await on.session.send_text("And?")
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    outputs = [item.output for item in brain.requests[-1].items if item.type == "function_call_output"]
    assert outputs == ["ordered"]


async def test_two_tools_of_one_response_lead_to_one_answer(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[ORDER, scripted.Call("lookup_order", '{"order_id": "2"}')], Say("Both.", 300)], ["Both?"])
    async with call(brain, RealtimeAgent(tools=[lookup_order])) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await trio.sleep(3)
        assert len(brain.requests) == 2
        assert len(on.session.turns()[0].tool_calls) == 2


async def test_a_tool_that_fails_is_told_to_the_model(autojump_clock: MockClock) -> None:
    @tool
    def broken() -> str:
        """Break."""
        raise RuntimeError("no database")

    brain = ScriptedBrain([[scripted.Call("broken")], Say("Sorry.", 300)], ["Try."])
    async with call(brain, RealtimeAgent(tools=[broken])) as on:
        await on.speak()
        finished = await on.next(events.ToolFinished)
        assert finished.failed
        assert "no database" in finished.output
        await on.next(events.PlaybackEnd)


async def test_callbacks_plain_async_and_raising(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def remember(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(f"async {event.name}")

    async with call(ScriptedBrain([Say("Hi.", 200)]), listening=False) as on:
        on.session.on("playback_start", lambda event: 1 / 0)
        on.session.on("playback_start", lambda event: seen.append(f"plain {event.name}"))
        on.session.on("playback_end", remember)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["plain playback_start", "async playback_end"]
        with pytest.raises(ConfigError, match="speech_start"):
            on.session.on("speech_begun", print)


async def test_a_slow_listener_never_gets_audio_of_an_interrupted_turn(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Long.", 8000), Say("New.", 500)]), listening=False, audio=True) as on:
        await on.session.respond()
        await on.next(events.ResponseEnd)  # all of it has arrived, and waits to be listened to
        slow = on.session.events(audio=True)
        await on.session.interrupt()
        await on.session.send_text("Something else.")
        await on.next(events.PlaybackEnd)
        await on.session.disconnect()
        assert {event.turn async for event in slow if isinstance(event, events.ResponseAudio)} == {2}
        assert {event.turn async for event in on.events if isinstance(event, events.ResponseAudio)} <= {2}


async def test_audio_events_carry_the_whole_answer(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Ten words or so.", 1234)]), listening=False, audio=True) as on:
        await on.session.respond()
        await on.next(events.ResponseStart)
        pcm = b""
        async for event in on.events:
            if isinstance(event, events.ResponseAudio):
                pcm += event.pcm
            if isinstance(event, events.ResponseEnd):
                break
        assert len(pcm) // 2 == int(1.234 * RATE_HZ)


async def test_sound_comes_between_the_start_and_the_end_of_its_response(autojump_clock: MockClock) -> None:
    """It may take the short way past the conversation, but never out of order."""
    brain = ScriptedBrain([Say("One.", 900), Say("Two.", 900), Say("Three.", 900)])
    async with call(brain, listening=False, audio=True) as on:
        everything = on.session.events(audio=True)
        for _ in range(3):
            await on.session.respond()
            await on.next(events.PlaybackEnd)
        await on.session.disconnect()
        order = [event async for event in everything]
    open_turn, pieces = 0, 0
    for event in order:
        match event:
            case events.ResponseStart(turn=turn):
                open_turn = turn
            case events.ResponseAudio(turn=turn):
                pieces += 1
                assert turn == open_turn, "sound before its response began, or after it ended"
            case events.ResponseEnd():
                open_turn = 0
    assert pieces >= 3


async def test_disconnect_ends_the_session_but_not_the_body(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Long.", 60_000)]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.disconnect()
        assert on.session.state is SessionState.DISCONNECTED
        with pytest.raises(SessionEnded, match="disconnect"):
            await on.session.send_text("Hello?")
        assert on.session.summary()["state"] == "disconnected"


async def test_nothing_outlives_the_session(autojump_clock: MockClock) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with call(ScriptedBrain([Say("Bye.", 300)], ["Hello."])) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_the_body_s_own_error_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(ZeroDivisionError):  # the group is that of the test's own nursery
        async with call(ScriptedBrain()):
            _ = 1 / 0


async def test_a_session_is_entered_once(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), listening=False) as on:
        with pytest.raises(SessionEnded, match="once"):
            await on.session.__aenter__()


async def test_commands_outside_the_session_say_so(autojump_clock: MockClock) -> None:
    session = RealtimeSession(RealtimeAgent())
    with pytest.raises(SessionEnded, match="async with"):
        await session.start_listening()


async def test_empty_text_is_refused(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), listening=False) as on:
        with pytest.raises(ConfigError, match="empty"):
            await on.session.send_text("  ")


async def test_a_server_that_never_interrupts_is_cancelled_by_us(autojump_clock: MockClock) -> None:
    detection = TurnDetection(interrupt_response=False)
    async with call(
        ScriptedBrain([Say("On and on.", 5000)], ["Go.", "Stop."]), RealtimeAgent(turn_detection=detection)
    ) as on:
        await on.speak()
        await on.next(events.PlaybackStart)
        await on.speak()
        await trio.sleep(1)
        assert on.session.metrics.interruption_count == 0, "the agent may not be interrupted by speech"


async def test_the_summary_is_plain_and_complete(autojump_clock: MockClock) -> None:
    async with call(
        ScriptedBrain([[ORDER], Say("Shipped.", 500)], ["Order?"]), RealtimeAgent("Ann", tools=[lookup_order])
    ) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        summary = json.loads(json.dumps(on.session.summary()))
    assert summary["agent"] == "Ann"
    assert summary["turn_count"] == 1
    assert summary["tool_calls"][0]["tool"] == "lookup_order"
    assert summary["average_latency_ms"] > 0
    assert [line["role"] for line in summary["transcript"]] == ["user", "agent"]
