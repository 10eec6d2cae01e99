"""Who may interrupt the agent: each policy in a session, under virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from test_session_peer import SPEECH_STARTED, created, delta, done
from trio_voice import InterruptionPolicy, RealtimeAgent, events
from trio_voice.audio import Samples
from trio_voice.protocol import SessionUpdated, TurnDetection
from trio_voice.server.scripted import LoudnessDetector, Say, ScriptedBrain, marked_samples, turns_in

PATIENT = RealtimeAgent(interruption=InterruptionPolicy(min_speech_ms=300))
PATIENT_LOCAL = RealtimeAgent(interruption=InterruptionPolicy(by="local", min_speech_ms=300))
PATIENT_AGENTS = pytest.mark.parametrize("agent", [PATIENT, PATIENT_LOCAL], ids=["server", "local"])
LONG = Say("One two three four five six.", 6000)


def counts(on: Any) -> tuple[int, int]:
    return on.session.metrics.interruption_count, on.session.metrics.truncation_count


def gains(heard: Samples, turn: int, milliseconds: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How loud each sample of a turn was played. Fails unless all were, each once, in order, without a gap."""
    sent = marked_samples(turn, RATE_HZ * milliseconds // 1000)
    begun = int(np.argmax(heard != 0))
    played = heard[begun : begun + len(sent)]
    assert len(played) == len(sent)
    assert not heard[begun + len(sent) : begun + len(sent) + RATE_HZ // 10].any(), "and nothing besides"
    ratio: np.ndarray[Any, np.dtype[np.float64]] = played / sent
    return ratio


@PATIENT_AGENTS
async def test_a_cough_loses_nothing_of_the_sentence(agent: RealtimeAgent, autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([LONG], ["Hrm."])
    async with call(brain, agent, protocol=True) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(2)
        await on.speak(150)
        alarm = await on.next(events.FalseAlarm)
        assert alarm.turn == 1
        await on.next(events.PlaybackEnd)
        await trio.sleep(2)
        gain = gains(on.heard, 0, 6000)
        assert gain[: RATE_HZ * 2].min() == 1.0, "at full level before the cough"
        assert gain[RATE_HZ * 3 :].min() == 1.0, "and after it"
        assert 0.23 <= gain.min() <= 0.26
        lowered_ms = float((gain < 0.3).sum()) * 1000 / RATE_HZ
        assert 150 <= lowered_ms <= 450, "it comes back with the first pause of a word"
        steps = np.abs(np.diff(gain))
        assert steps.max() < 0.02, "over a ramp, without a click"
        assert counts(on) == (0, 0)
        assert [line.role for line in on.session.transcript()] == ["agent"]
        assert len(on.session.turns()) == 1
        assert on.errors() == []
        assert len(brain.requests) == 1, "and nobody answers a cough"
        await on.session.send_text("What did you hear?")
        await on.next(events.ResponseEnd)
    assert [item.role for item in brain.requests[1].items] == ["assistant", "user"], "the model does not know of it"


@PATIENT_AGENTS
async def test_a_phrase_of_400_ms_interrupts_and_is_answered_once(
    agent: RealtimeAgent, autojump_clock: MockClock
) -> None:
    brain = ScriptedBrain([LONG, Say("Of course.", 500)], ["Wait a moment."])
    async with call(brain, agent) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(2)
        began_at = trio.current_time()
        await on.speak(400)
        interruption = await on.next(events.Interruption)
        assert interruption.cause == "speech"
        assert 0.27 <= interruption.at - began_at <= 0.45, "as soon as it has lasted long enough"
        await on.next(events.PlaybackEnd)
        await trio.sleep(3)
        assert turns_in(on.heard[-3 * RATE_HZ - RATE_HZ // 2 :]) == [1]
        assert int((on.heard == marked_samples(1, 256)[0]).sum()) > 0, "the answer is at full level"
        assert counts(on) == (1, 1)
        assert [line.text for line in on.session.transcript() if line.role == "user"] == ["Wait a moment."]
        assert on.errors() == []
    assert len(brain.requests) == 2


@PATIENT_AGENTS
async def test_a_short_word_counts_when_the_agent_has_nothing_more_to_say(
    agent: RealtimeAgent, autojump_clock: MockClock
) -> None:
    brain = ScriptedBrain([Say("Shall I?", 1000), Say("Done.", 300)], ["Yes."])
    async with call(brain, agent) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.speak(150)
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == ["Shall I?", "Yes.", "Done."]
        assert counts(on) == (0, 0)


@PATIENT_AGENTS
async def test_a_short_word_at_the_very_end_is_an_answer(agent: RealtimeAgent, autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Shall I?", 3000), Say("Done.", 300)], ["Yes."])
    async with call(brain, agent) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(2.75)
        await on.speak(150)
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == ["Shall I?", "Yes.", "Done."]
        assert counts(on) == (0, 0)


@PATIENT_AGENTS
async def test_a_sentence_after_a_cough_interrupts_all_the_same(
    agent: RealtimeAgent, autojump_clock: MockClock
) -> None:
    brain = ScriptedBrain([LONG, Say("Yes?", 300)], ["Hrm.", "Hrm, excuse me."])  # the first is a guess, in the pause
    async with call(brain, agent) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.speak(150)
        await on.next(events.FalseAlarm)
        await on.speak(600)
        await on.next(events.Interruption)
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()][-2:] == ["Hrm, excuse me.", "Yes?"]


class SlowDetector(LoudnessDetector):
    """Half a second late, as a server can be that is far away."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = [0.0] * 16

    def probability(self, window: Samples) -> float:
        self._heard.append(super().probability(window))
        return self._heard.pop(0)


@pytest.mark.parametrize(("by", "earliest_s", "latest_s"), [("local", 0.0, 0.1), ("server", 0.5, 0.8)])
async def test_the_microphone_s_own_detection_does_not_wait_for_the_server(
    by: Any, earliest_s: float, latest_s: float, autojump_clock: MockClock
) -> None:
    agent = RealtimeAgent(interruption=InterruptionPolicy(by=by))
    brain = ScriptedBrain([LONG, Say("Yes?", 300)], ["Stop."], detector=SlowDetector)
    async with call(brain, agent) as on, trio.open_nursery() as nursery:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        began_at = trio.current_time()
        nursery.start_soon(on.speak, 1000)
        interruption = await on.next(events.Interruption)
        assert earliest_s <= interruption.at - began_at <= latest_s
        await on.next(events.PlaybackEnd)
        assert counts(on)[0] == 1
        assert [line.text for line in on.session.transcript()][-1] == "Yes?"
        assert on.errors() == []


async def test_with_manual_only_speech_is_answered_afterwards(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(interruption=InterruptionPolicy(by="manual"))
    brain = ScriptedBrain([LONG, Say("As you said.", 300), LONG], ["Something."])
    async with call(brain, agent) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.speak(1000)
        await on.next(events.PlaybackEnd)
        assert np.array_equal(on.heard[on.heard >> 8 == 1], marked_samples(0, 6 * RATE_HZ)), "every sample, unchanged"
        await on.next(events.PlaybackEnd)
        assert counts(on) == (0, 0)
        assert [line.text for line in on.session.transcript()][-1] == "As you said."
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.interrupt()
        assert (await on.next(events.Interruption)).cause == "manual"
        assert on.errors() == []


async def test_the_talk_button_interrupts(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([LONG, Say("Roger.", 300)], ["Over."])
    async with call(brain, RealtimeAgent(turn_detection=None), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.session.start_listening()
        assert (await on.next(events.Interruption)).heard_ms < 1200
        await on.speak(500)
        await on.session.stop_listening()
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()][-2:] == ["Over.", "Roger."]
        assert on.errors() == []


async def test_with_manual_only_the_talk_button_does_not(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(turn_detection=None, interruption=InterruptionPolicy(by="manual"))
    async with call(ScriptedBrain([Say("All of it.", 2000)]), agent, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.start_listening()
        await on.next(events.PlaybackEnd)
        assert counts(on) == (0, 0)


# --- responses that are to be heard ---------------------------------------------------------------------


@pytest.mark.parametrize("policy", [InterruptionPolicy(), InterruptionPolicy(by="local", min_speech_ms=200)])
@pytest.mark.parametrize("chunk_delay_ms", [0, 1000], ids=["made at once", "made slowly"])
async def test_what_must_be_heard_is_heard_and_the_user_is_answered_afterwards(
    policy: InterruptionPolicy, chunk_delay_ms: int, autojump_clock: MockClock
) -> None:
    notice = [Say(f"Clause {clause}.", 1500) for clause in range(4)]
    replies = [notice, [Say("To your question.", 300)], [LONG], [Say("Stopped.", 300)]]
    brain = ScriptedBrain(replies, ["A question.", "Stop."], chunk_delay_ms=chunk_delay_ms)
    async with call(brain, RealtimeAgent(interruption=policy)) as on:
        await on.session.respond("Read the notice.", interruptible=False)
        await on.next(events.PlaybackStart)
        await on.speak(800)
        assert (await on.next(events.PlaybackEnd)).turn == 1
        assert counts(on) == (0, 0)
        assert int((on.heard >> 8 == 1).sum()) == RATE_HZ * 6, "every sample of it"
        assert (await on.next(events.PlaybackEnd)).turn == 2
        assert [line.text for line in on.session.transcript() if line.role == "user"] == ["A question."]
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.speak(800)
        await on.next(events.Interruption)
        await on.next(events.PlaybackEnd)
        assert counts(on)[0] == 1, "what comes after it may be interrupted as ever"
        assert on.errors() == []
    assert len(brain.requests) == 4


async def test_the_server_has_its_part_back_when_the_notice_was_heard(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("The notice.", 2000)]), protocol=True) as on:
        await on.session.respond("Read the notice.", interruptible=False)
        told, ended_at = [], None
        with trio.move_on_after(10):
            async for event in on.events:
                if isinstance(event, events.PlaybackEnd):
                    ended_at = event.at
                if isinstance(event, events.ServerEventReceived) and isinstance(event.event, SessionUpdated):
                    audio: Any = event.event.session.audio
                    detection = audio.input.turn_detection
                    told.append((detection.interrupt_response, detection.create_response, ended_at is not None))
        assert told == [(True, True, False), (False, False, False), (True, True, True)]


async def test_a_notice_survives_an_interruption_of_what_is_said_before_it(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[LONG, LONG], [Say("The notice.", 500)], [Say("Yes?", 300)]], ["Stop."], chunk_delay_ms=2000)
    async with call(brain) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.respond("Read the notice.", interruptible=False)
        await on.speak(800)
        await on.next(events.Interruption)
        await on.next(events.PlaybackEnd)
        await trio.sleep(10)
    asked = [request.instructions for request in brain.requests]
    assert asked.count("Read the notice.") == 1
    assert len(asked) == 3, "and the user is answered"


async def test_a_notice_is_not_cut_by_text_but_by_command(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([LONG, Say("An answer.", 300), LONG], [])
    async with call(brain, listening=False) as on:
        await on.session.respond(interruptible=False)
        await on.next(events.PlaybackStart)
        await on.session.send_text("A question.")
        assert (await on.next(events.PlaybackEnd)).turn == 1
        assert counts(on) == (0, 0)
        await on.next(events.PlaybackEnd)
        await on.session.respond(interruptible=False)
        await on.next(events.PlaybackStart)
        await on.session.interrupt()
        assert (await on.next(events.Interruption)).turn == 3
        assert on.errors() == []


@pytest.mark.parametrize("interruptible", [True, False])
async def test_a_greeting_may_be_one_that_must_be_heard(interruptible: bool, autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(greets_first=True, interruption=InterruptionPolicy(greeting=interruptible))
    async with call(ScriptedBrain([LONG, Say("Yes?", 300)], ["Hello?"]), agent) as on:
        await on.next(events.PlaybackStart)
        await on.speak(800)
        await on.next(events.PlaybackEnd)
        assert counts(on)[0] == (1 if interruptible else 0)


# --- by the server's times, where there is no microphone of ours --------------------------------------------


def speech(kind: str, at_ms: int) -> dict[str, Any]:
    position = {"speech_started": "audio_start_ms", "speech_stopped": "audio_end_ms"}[kind]
    return {"type": f"input_audio_buffer.{kind}", position: at_ms, "item_id": "item_user"}


COMMITTED: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.committed", "item_id": "item_user", "previous_item_id": None},
    {
        "type": "conversation.item.added",
        "previous_item_id": None,
        "item": {
            "type": "message", "id": "item_user", "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        },
    },
    {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_user",
        "content_index": 0,
        "transcript": "Hrm.",
    },
]  # fmt: skip


@pytest.mark.parametrize(("spoken_ms", "interrupts"), [(150, False), (400, True), (3000, True)])
async def test_without_a_microphone_the_server_s_times_decide(
    spoken_ms: int, interrupts: bool, autojump_clock: MockClock
) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 8000), done("r1"))
        await trio.sleep(1)
        await peer.send(speech("speech_started", 700))
        await trio.sleep((spoken_ms + 500) / 1000)
        await peer.send(speech("speech_stopped", 1000 + spoken_ms + 500), *COMMITTED)
        await peer.drain()

    async with call_peer(serve, PATIENT) as on:
        await on.next(events.SpeechStart)
        began_at = trio.current_time()
        if interrupts:
            interruption = await on.next(events.Interruption)
            assert interruption.at - began_at <= 0.95, "the end need not be waited for"
        else:
            await on.next(events.FalseAlarm)
            await on.next(events.PlaybackEnd)
            assert gains(on.heard, 1, 8000)[-1] == 1.0
        await trio.sleep(5)
        assert [line.text for line in on.session.transcript() if line.role == "user"] == ["Hrm."] * interrupts
        words = [event for event in on.events._queue if isinstance(event, events.Transcript) and event.role == "user"]
        assert bool(words) == interrupts, "whatever the server still says of it"
    wanted = ["conversation.item.truncate", "response.create"] if interrupts else ["conversation.item.delete"]
    assert seen[0].types()[1:] == wanted
    (update,) = [event for event in seen[0].received if event["type"] == "session.update"]
    told = update["session"]["audio"]["input"]["turn_detection"]
    assert (told["interrupt_response"], told["create_response"]) == (False, False), "or it would answer the cough"


@pytest.mark.parametrize(("agent", "cancels"), [(PATIENT, True), (RealtimeAgent(), False)])
async def test_the_response_is_cancelled_where_the_server_does_not(
    agent: RealtimeAgent, cancels: bool, autojump_clock: MockClock
) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 8000))
        await trio.sleep(1)
        await peer.send(speech("speech_started", 700))
        await peer.drain()

    async with call_peer(serve, agent) as on:
        await on.next(events.Interruption)
        await trio.sleep(1)
    assert ("response.cancel" in seen[0].types()) is cancels


async def test_a_silence_that_the_server_answers_is_answered_once(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(
        turn_detection=TurnDetection(idle_timeout_ms=5000), interruption=InterruptionPolicy(min_speech_ms=300)
    )
    brain = ScriptedBrain([Say("Hello.", 500), Say("Are you there?", 60_000)], [""] * 9)
    async with call(brain, agent) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackStart)
        await trio.sleep(10)
        assert on.errors() == []
    assert len(brain.requests) == 2


async def test_an_agent_that_answers_by_itself_is_not_asked_twice(autojump_clock: MockClock) -> None:
    """An application that asks for its answers itself goes on doing so."""
    agent = RealtimeAgent(
        turn_detection=TurnDetection(create_response=False), interruption=InterruptionPolicy(min_speech_ms=300)
    )
    brain = ScriptedBrain([Say("Never.", 300)], ["Hello."])
    async with call(brain, agent) as on:
        await on.speak(800)
        await on.next(events.SpeechEnd)
        await trio.sleep(3)
    assert brain.requests == []


async def test_an_answer_that_begins_while_the_user_speaks_is_not_interrupted_by_the_end_of_speech(
    autojump_clock: MockClock,
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(SPEECH_STARTED)
        await peer.receive("response.create")
        await peer.send(created("r1"))
        await peer.send({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 900, "item_id": "item_user"})
        await peer.send(delta("r1", 1, 300), done("r1"))
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.SpeechStart)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.interruption_count == 0


async def test_after_an_interruption_the_turn_is_over(autojump_clock: MockClock) -> None:
    """Nothing is made or played: a rotation need not wait for the next answer, and pings are as rare as told."""
    async with call(ScriptedBrain([Say("A long story.", 5000)]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        assert on.session._view.turn_in_progress
        await on.session.interrupt()
        await trio.testing.wait_all_tasks_blocked()
        assert not on.session._view.turn_in_progress
