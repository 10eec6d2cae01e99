"""The user's sound over the real WebSocket code, in virtual time: turns, commits, barge-in, recognition."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from server.realtime_client import (
    LOUD_TURN,
    RealtimeClient,
    base64_of,
    connected,
    loud,
    quiet,
    samples_of_deltas,
)
from trio_voice.audio import Samples, encode_g711
from trio_voice.server.scripted import Say, ScriptedBrain, Wait, turns_in

HEARD = {"input": {"transcription": {"model": "any"}}}


def detection(**settings: Any) -> dict[str, Any]:
    return {"input": {"turn_detection": {"type": "server_vad", **settings}}}


async def say(client: RealtimeClient, speech_ms: float = 600, before_ms: float = 400, after_ms: float = 700) -> None:
    await client.append(quiet(before_ms) + loud(speech_ms) + quiet(after_ms))


async def test_a_spoken_turn_runs_from_speech_to_answer_in_the_real_order(autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("Hi.")], ["hello there"])) as client:
        await client.update(audio=HEARD)
        await say(client)
        await client.next("response.done")
        types = client.types()[2:]
        start = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
        assert types[: len(start)] == start
        started, stopped, committed, added, done = client.events[2:7]
        item_id = started["item_id"]
        assert [stopped["item_id"], committed["item_id"], added["item"]["id"], done["item"]["id"]] == [item_id] * 4
        assert 0 < started["audio_start_ms"] <= 400 - 300 + 64
        assert 1000 + 500 <= stopped["audio_end_ms"] <= 1000 + 500 + 64
        words = client.of("conversation.item.input_audio_transcription.delta")
        assert "".join(event["delta"] for event in words) == "hello there"
        [completed] = client.of("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "hello there"
        assert completed["item_id"] == item_id
        assert [item.text for item in brain.requests[0].items] == ["hello there"]
        await client.send("conversation.item.retrieve", item_id=item_id)
        part = (await client.next("conversation.item.retrieved"))["item"]["content"][0]
        sound = np.frombuffer(base64.b64decode(part["audio"]), dtype="<i2")
        assert (sound >> 8 == LOUD_TURN + 1).sum() == 600 * 24
        assert len(sound) == (stopped["audio_end_ms"] - started["audio_start_ms"]) * 24


async def test_no_transcription_events_unless_asked_for_and_the_brain_knows_the_words(
    autojump_clock: MockClock,
) -> None:
    async with connected(brain := ScriptedBrain([Say("Hi.")], ["hello"])) as client:
        await say(client)
        await client.next("response.done")
        assert not [t for t in client.types() if "transcription" in t]
        assert [item.text for item in brain.requests[0].items] == ["hello"]


async def test_recognition_begins_in_the_silence_so_the_answer_does_not_wait_for_it(
    autojump_clock: MockClock,
) -> None:
    async with connected(ScriptedBrain([Say("Hi.")], ["hello"], hear_ms=350)) as client:
        spoke_until = trio.current_time() + 1.0
        await say(client)
        await client.next("response.output_audio.delta")
        assert trio.current_time() - spoke_until < 0.5 + 0.3


async def test_a_pause_that_did_not_hold_is_part_of_one_utterance_recognised_whole(
    autojump_clock: MockClock,
) -> None:
    def words(audio: Samples, rate_hz: int) -> str:
        return f"{(audio >> 8 == LOUD_TURN + 1).sum() // (rate_hz // 1000)} ms"

    async with connected(brain := ScriptedBrain([Say("Hi.")], words)) as client:
        await client.append(quiet(400) + loud(300) + quiet(300) + loud(500) + quiet(700))
        await client.next("response.done")
        assert [item.text for item in brain.requests[0].items] == ["800 ms"]
        assert len(client.of("input_audio_buffer.committed")) == 1


async def test_noise_without_words_is_committed_but_not_answered(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("answer")], ["", "words"])) as client:
        await client.update(audio=HEARD)
        await say(client)
        completed = await client.next("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == ""
        await client.quiesce()
        assert not client.of("response.created")
        await say(client)
        await client.next("response.done")
        assert len(client.of("response.created")) == 1


async def test_words_that_were_talked_over_by_noise_are_answered_after_it(autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("answer")], ["a question", ""], hear_ms=900)) as client:
        await client.append(quiet(400) + loud(400) + quiet(600) + loud(300) + quiet(1500))
        await client.next("response.done")
        assert brain.requests[0].items[0].text == "a question"
        assert len(client.of("response.created")) == 1


@pytest.mark.parametrize("interrupts", [True, False])
async def test_speech_interrupts_the_answer_unless_it_may_not(interrupts: bool, autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say("Long answer", 1000), Wait(1500), Say("more", 500)], Say("ok")])
    async with connected(brain) as client:
        await client.update(audio=detection(interrupt_response=interrupts, create_response=False))
        await client.write("go")
        await client.send("response.create")
        await client.next("response.output_audio.delta")
        await say(client)
        done = (await client.next("response.done"))["response"]
        if interrupts:
            assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            types = client.types()
            assert types.index("input_audio_buffer.speech_started") < types.index("response.done")
            assert types.index("response.done") < types.index("input_audio_buffer.speech_stopped")
            await client.quiesce()
            assert len(samples_of_deltas(client.events)) == 1000 * 24
        else:
            assert done["status"] == "completed"
            assert len(samples_of_deltas(client.events)) == 1500 * 24


async def test_a_turn_that_may_neither_interrupt_nor_wait_is_reported(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("a"), Wait(20_000)]])) as client:
        await client.update(audio=detection(interrupt_response=False))
        await client.send("response.create")
        await say(client)
        error = (await client.next("error"))["error"]
        assert error["code"] == "conversation_already_has_active_response"


async def test_speech_leaves_responses_outside_the_conversation_alone(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("a"), Wait(2000)]])) as client:
        await client.update(audio=detection(create_response=False))
        await client.send("response.create", response={"conversation": "none"})
        await say(client)
        assert (await client.next("response.done"))["response"]["status"] == "completed"


async def test_a_client_that_detects_turns_itself_commits_and_asks(autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("Hi.")], ["my words"], hear_ms=800)) as client:
        await client.update(audio={"input": {"turn_detection": None, "transcription": {"model": "any"}}})
        await client.append(loud(500))
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        await client.next("response.done")
        assert not client.of("input_audio_buffer.speech_started")
        assert [item.text for item in brain.requests[0].items] == ["my words"]
        [(heard, rate_hz)] = brain.utterances
        assert (len(heard), rate_hz) == (500 * 24, 24_000)


async def test_too_little_to_commit_is_refused_and_kept(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        await client.update(audio={"input": {"turn_detection": None}})
        empty = await client.refused("input_audio_buffer.commit")
        assert empty["code"] == "input_audio_buffer_commit_empty"
        assert "0.00ms" in empty["message"]
        await client.append(loud(80))
        assert (await client.refused("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"
        await client.append(loud(20))
        await client.send("input_audio_buffer.commit")
        await client.next("input_audio_buffer.committed")


async def test_clearing_forgets_the_utterance_in_progress(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("Hi.")])) as client:
        await client.append(quiet(400) + loud(500))
        await client.next("input_audio_buffer.speech_started")
        await client.send("input_audio_buffer.clear")
        await client.next("input_audio_buffer.cleared")
        await client.append(quiet(2000))
        await client.quiesce()
        assert not client.of("input_audio_buffer.speech_stopped")
        assert not client.of("conversation.item.added")


@pytest.mark.parametrize(
    ("wire_format", "rate_hz"),
    [
        ({"type": "audio/pcmu"}, 8_000),
        ({"type": "audio/pcma"}, 8_000),
        ({"type": "audio/pcm", "rate": 16_000}, 16_000),
        ({"type": "audio/pcm", "rate": 48_000}, 48_000),
    ],
)
@pytest.mark.other_shapes("OpenAI has no other rate than 24,000; others do")
async def test_turns_are_found_in_every_format(
    wire_format: dict[str, Any], rate_hz: int, autojump_clock: MockClock
) -> None:
    async with connected(brain := ScriptedBrain([Say("Hi.")]), strict=False) as client:
        # OpenAI's types know 24 kHz only; other servers of the protocol, and this one, speak more rates.
        await client.update(audio={"input": {"format": wire_format}})
        pcm = quiet(400, rate_hz) + loud(600, rate_hz) + quiet(700, rate_hz)
        name = wire_format["type"].removeprefix("audio/")
        encoded = pcm if name == "pcm" else encode_g711(pcm, name)
        size = len(encoded) // 85
        for start in range(0, len(encoded), size):
            await client.send("input_audio_buffer.append", audio=base64_of(encoded[start : start + size]))
        await client.next("response.done")
        [(heard, heard_hz)] = brain.utterances
        assert heard_hz == rate_hz
        assert 1000 * len(heard) / rate_hz == pytest.approx(600 + 300 + 96, abs=100)


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("low", 1200), ("auto", 600), ("high", 300)])
async def test_eagerness_is_how_much_silence_ends_a_turn(
    eagerness: str, silence_ms: int, autojump_clock: MockClock
) -> None:
    async with connected(ScriptedBrain([Say("Hi.")])) as client:
        await client.update(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": eagerness}}})
        await say(client, after_ms=2000)
        stopped = client.of("input_audio_buffer.speech_stopped")[0]
        assert stopped["audio_end_ms"] - 1000 == pytest.approx(silence_ms, abs=64)


async def test_a_user_who_stays_silent_is_spoken_to(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("How are you?", 1000), Say("Still there?")])) as client:
        await client.update(audio=detection(idle_timeout_ms=2000))
        await client.ask()
        await client.append(quiet(3200))
        event = await client.next("input_audio_buffer.timeout_triggered")
        assert event["audio_end_ms"] == pytest.approx(3000, abs=64)
        assert event["audio_start_ms"] == pytest.approx(1000, abs=64)
        assert (await client.next("input_audio_buffer.committed"))["item_id"] == event["item_id"]
        done = await client.next("response.done")
        assert done["response"]["output"][0]["content"][0]["transcript"] == "Still there?"


@pytest.mark.parametrize("asked", [True, False])
async def test_a_brain_that_cannot_hear_says_so(asked: bool, autojump_clock: MockClock) -> None:
    def broken(audio: Samples, rate_hz: int) -> str:
        raise RuntimeError("no ears")

    async with connected(ScriptedBrain([Say("Hi.")], broken)) as client:
        if asked:
            await client.update(audio=HEARD)
        await say(client)
        event = await client.next("conversation.item.input_audio_transcription.failed" if asked else "error")
        assert "no ears" in event["error"]["message"]
        assert event["error"]["type"] == "server_error"
        assert (await client.ask())["response"]["status"] == "completed"


async def test_a_detector_that_breaks_is_turned_off_and_said(autojump_clock: MockClock) -> None:
    class Broken:
        def probability(self, window: Samples) -> float:
            raise RuntimeError("deaf")

        def reset(self) -> None: ...

    async with connected(ScriptedBrain([Say("Hi.")], detector=Broken)) as client:
        await client.append(loud(200))
        assert "deaf" in (await client.next("error"))["error"]["message"]
        await client.append(loud(200))
        await client.send("input_audio_buffer.commit")
        await client.next("input_audio_buffer.committed")
        assert len(client.of("error")) == 1


async def test_a_transcription_session_only_listens(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([], ["take a note"])) as client:
        session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "any"}}}}
        await client.send("session.update", session=session)
        await say(client)
        completed = await client.next("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "take a note"
        await client.quiesce()
        assert not client.of("response.created")
        await client.refused("response.create")


async def test_conversations_of_many_turns_never_mix_them(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say(f"answer {turn}", 3000) for turn in range(6)])
    async with connected(brain) as client:
        for turn in range(6):
            await say(client)
            response_id = (await client.next("response.created"))["response"]["id"]
            await client.next("response.done")
            mine = [event for event in client.events if event.get("response_id") == response_id]
            assert turns_in(samples_of_deltas(mine)) == [turn]
