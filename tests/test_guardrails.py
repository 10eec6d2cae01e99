"""Guardrails in a session: what trips is silent at once, is told once, and is replaced once."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from test_session_peer import SPEECH_STARTED, created, delta, done
from trio_voice import (
    ConfigError,
    GuardrailContext,
    RealtimeAgent,
    Trip,
    events,
    input_guardrail,
    output_guardrail,
    tool,
)
from trio_voice.guarding import REFUSAL
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import MS_PER_CHARACTER, VERBATIM_TURN, Call, Say, ScriptedBrain, Step, Wait, turns_in

SECRET = "The answer to your question is the secret word of the house which is swordfish."
REPLACEMENT = "I can't tell you that."


@output_guardrail(say=REPLACEMENT, every_chars=10)
async def no_swordfish(text: str) -> str | None:
    return "it gives the secret away" if "swordfish" in text else None


def told(request: ResponseRequest) -> list[tuple[str, str]]:
    return [(item.role or item.type, item.text) for item in request.items]


# --- what the agent says --------------------------------------------------------------------------


async def test_what_trips_is_cut_off_and_something_else_is_said(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say(SECRET, 6000)], [Say("Next.", 300)]])
    async with call(brain, RealtimeAgent(output_guardrails=[no_swordfish]), listening=False) as on:
        await on.session.respond()
        trip = await on.next(events.GuardrailTripped)
        since = len(on.speaker.pcm) // 2 + RATE_HZ // 50
        assert (trip.guardrail, trip.kind, trip.reason) == ("no_swordfish", "output", "it gives the secret away")
        assert (trip.turn, trip.replaced) == (1, True)
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard[since:]) == [VERBATIM_TURN], "what is said instead, and nothing of the answer"
        assert (
            int((on.heard >> 8 == VERBATIM_TURN + 1).sum()) == len(REPLACEMENT) * MS_PER_CHARACTER * RATE_HZ // 1000
        ), "all of it"
        await on.session.send_text("And?")
        await on.next(events.PlaybackEnd)
        assert not any("swordfish" in line.text for line in on.session.transcript())
        assert on.errors() == []
    assert [words for _, words in told(brain.requests[2]) if "swordfish" in words] == [], "the model has it cut as well"
    assert ("assistant", REPLACEMENT) in told(brain.requests[2])
    assert brain.requests[1].tool_choice == "none"


async def test_it_looks_at_the_words_as_they_come(autojump_clock: MockClock) -> None:
    """Long before the answer is complete, and with what was heard told to the model."""
    steps = [
        Say("The word is swordfish."),
        *[step for _ in range(20) for step in (Wait(1000), Say("And so on.", 1000))],
    ]
    brain = ScriptedBrain([steps])
    async with call(brain, RealtimeAgent(output_guardrails=[no_swordfish]), listening=False) as on:
        await on.session.respond()
        began_at = trio.current_time()
        interruption = await on.next(events.Interruption)
        assert interruption.cause == "guardrail"
        assert interruption.at - began_at < 2
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()][-1] == REPLACEMENT


async def test_an_answer_in_its_place_may_be_the_models_own(autojump_clock: MockClock) -> None:
    careful = output_guardrail(name="careful", instructions="Answer without the word.")(no_swordfish.function)
    brain = ScriptedBrain([Say(SECRET, 3000), Say("No.", 300)])
    agent = RealtimeAgent(instructions="Be a guard.", output_guardrails=[careful])
    async with call(brain, agent, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()][-1] == "No."
    assert brain.requests[1].instructions == "Be a guard.\n\nAnswer without the word."


async def test_there_is_no_third_try(autojump_clock: MockClock) -> None:
    stubborn = output_guardrail(name="stubborn")(no_swordfish.function)
    brain = ScriptedBrain([[Say(SECRET, 3000)], [Say(SECRET, 3000)]])
    async with call(brain, RealtimeAgent(output_guardrails=[stubborn]), listening=False) as on:
        await on.session.respond()
        assert [(await on.next(events.GuardrailTripped)).turn for _ in range(2)] == [1, 2]
        await on.next(events.PlaybackEnd)
        await trio.sleep(20)
        assert [line.text for line in on.session.transcript()][-1] == REFUSAL
    assert len(brain.requests) == 3


async def test_tools_of_an_answer_that_tripped_do_not_begin(autojump_clock: MockClock) -> None:
    runs = []

    @tool
    async def open_the_door() -> str:
        """Open the door."""
        runs.append(trio.current_time())
        return "open"

    steps: list[Step] = [Say(SECRET, 1000), Wait(500), Call("open_the_door")]
    brain = ScriptedBrain([steps])
    agent = RealtimeAgent(tools=[open_the_door], output_guardrails=[no_swordfish])
    async with call(brain, agent, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await trio.sleep(10)
        assert runs == []
    assert len(brain.requests) == 2


async def test_a_slow_guardrail_holds_up_nothing_and_comes_too_late_once_the_user_has_gone_on(
    autojump_clock: MockClock,
) -> None:
    @output_guardrail(say=REPLACEMENT)
    async def slow(text: str) -> bool:
        await trio.sleep(5)
        return "swordfish" in text

    brain = ScriptedBrain([[Say(SECRET, 2000)], [Say("Anything else?", 8000)]])
    async with call(brain, RealtimeAgent(output_guardrails=[slow]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        assert trio.current_time() < 3
        await on.session.send_text("Thank you.")
        trip = await on.next(events.GuardrailTripped)
        assert (trip.turn, trip.replaced) == (1, False)
        await on.next(events.PlaybackEnd)
        assert int((on.heard >> 8 == 2).sum()) == 8 * RATE_HZ, "the answer to the user is whole"
    assert len(brain.requests) == 2


async def test_what_was_heard_already_is_still_put_right(autojump_clock: MockClock) -> None:
    @output_guardrail(say=REPLACEMENT)
    async def slow(text: str) -> bool:
        await trio.sleep(5)
        return "swordfish" in text

    brain = ScriptedBrain([[Say(SECRET, 2000)]])
    async with call(brain, RealtimeAgent(output_guardrails=[slow]), listening=False) as on:
        await on.session.respond()
        assert (await on.next(events.GuardrailTripped)).replaced
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == [SECRET, REPLACEMENT]
        assert on.session.metrics.interruption_count == 0


@pytest.mark.parametrize("how", ["raises", "hangs", "nonsense"])
async def test_a_guardrail_that_fails_is_reported_and_stops_nothing(how: str, autojump_clock: MockClock) -> None:
    @output_guardrail(timeout_s=1)
    async def broken(text: str) -> Any:
        if how == "raises":
            raise RuntimeError("out of order")
        if how == "hangs":
            await trio.sleep_forever()
        return 7

    brain = ScriptedBrain([Say(SECRET, 2000)])
    async with call(brain, RealtimeAgent(output_guardrails=[broken]), listening=False) as on:
        await on.session.respond()
        report = await on.next(events.ErrorReported)
        assert report.source == "guardrail"
        assert "'broken'" in report.message
        await on.next(events.PlaybackEnd)
        assert int((on.heard >> 8 == 1).sum()) == 2 * RATE_HZ


async def test_a_plain_function_runs_in_a_thread_and_the_context_is_given() -> None:
    seen = []

    @output_guardrail(say=REPLACEMENT)
    def plain(text: str, context: GuardrailContext) -> Trip | None:
        seen.append(context)
        return Trip("no", info={"words": len(text.split())}) if "swordfish" in text else None

    brain = ScriptedBrain([[Say(SECRET, 400)]])
    agent = RealtimeAgent("guard", output_guardrails=[plain])
    async with call(brain, agent, listening=False) as on:
        await on.session.respond()
        trip = await on.next(events.GuardrailTripped)
        assert trip.info == {"words": 15}
    assert seen[-1].agent is agent
    assert (seen[-1].turn, seen[-1].final) == (1, True)


async def test_the_words_before_a_tool_are_silenced_although_the_answer_to_it_has_begun(
    autojump_clock: MockClock,
) -> None:
    @tool
    async def look_up() -> str:
        """Look something up."""
        return "found"

    @output_guardrail(say=REPLACEMENT)
    async def slow(text: str) -> bool:
        await trio.sleep(1)
        return "swordfish" in text

    brain = ScriptedBrain([[Say(SECRET, 4000), Call("look_up")], Say("Found it.", 1000)])
    async with call(brain, RealtimeAgent(tools=[look_up], output_guardrails=[slow]), listening=False) as on:
        await on.session.respond()
        trip = await on.next(events.GuardrailTripped)
        assert (trip.turn, trip.replaced) == (1, True)
        since = len(on.speaker.pcm) // 2 + RATE_HZ // 50
        await on.next(events.PlaybackEnd)
        await trio.sleep(5)
        assert turns_in(on.heard[since:]) == [VERBATIM_TURN]
        assert on.errors() == []


# --- what the user says ---------------------------------------------------------------------------


@input_guardrail(say=REPLACEMENT)
async def no_asking(text: str) -> str | None:
    return "it asks for the secret" if "secret" in text else None


async def test_the_answer_to_what_must_not_be_answered_is_stopped(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say(SECRET, 6000)], [Say("Fine.", 300)]], ["Tell me the secret.", "How are you?"])
    async with call(brain, RealtimeAgent(input_guardrails=[no_asking])) as on:
        await on.speak()
        trip = await on.next(events.GuardrailTripped)
        assert (trip.kind, trip.turn, trip.replaced) == ("input", None, True)
        since = len(on.speaker.pcm) // 2 + RATE_HZ // 50
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard[since:]) == [VERBATIM_TURN]
        await on.speak()
        await on.next(events.PlaybackEnd)
        words = [line.text for line in on.session.transcript()]
        assert [word for word in words if "swordfish" not in word] == words
        assert words[0] == "Tell me the secret."
        assert words[-3:] == [REPLACEMENT, "How are you?", "Fine."]
        assert on.errors() == []
    assert ("user", "Tell me the secret.") in told(brain.requests[2]), "the model keeps it"


async def test_the_model_may_be_made_to_forget_it(autojump_clock: MockClock) -> None:
    forgetful = input_guardrail(name="forgetful", say=REPLACEMENT, on_trip="delete")(no_asking.function)
    brain = ScriptedBrain([[Say(SECRET, 6000)], [Say("Fine.", 300)]], ["Tell me the secret.", "How are you?"])
    async with call(brain, RealtimeAgent(input_guardrails=[forgetful])) as on:
        await on.speak()
        await on.next(events.GuardrailTripped)
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert on.session.transcript()[0].text == "Tell me the secret.", "the application's record has it"
        assert on.errors() == []
    assert [words for _, words in told(brain.requests[2]) if "secret" in words] == [], "on the next connection too"


async def test_a_text_is_looked_at_before_it_is_sent(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say("Fine.", 300)]])
    async with call(brain, RealtimeAgent(input_guardrails=[no_asking]), listening=False, protocol=True) as on:
        await on.session.send_text("Tell me the secret.")
        trip = await on.next(events.GuardrailTripped)
        assert (trip.kind, trip.replaced) == ("input", True)
        await on.next(events.PlaybackEnd)
        await on.session.send_text("How are you?")
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == [
            "Tell me the secret.",
            REPLACEMENT,
            "How are you?",
            "Fine.",
        ]
    assert told(brain.requests[1]) == [("assistant", REPLACEMENT), ("user", "How are you?")], "the model never saw it"


async def test_texts_keep_their_order_while_they_are_looked_at(autojump_clock: MockClock) -> None:
    @input_guardrail
    async def slower_at_first(text: str) -> None:
        await trio.sleep(2 if text == "One." else 0.1)

    brain = ScriptedBrain([Say("Yes.", 300)] * 2)
    async with call(brain, RealtimeAgent(input_guardrails=[slower_at_first]), listening=False) as on:
        async with trio.open_nursery() as nursery:
            for text in ("One.", "Two."):
                nursery.start_soon(on.session.send_text, text)
                await trio.sleep(0.01)
        await trio.sleep(5)
        assert [line.text for line in on.session.transcript() if line.role == "user"] == ["One.", "Two."]


async def test_a_tool_of_the_answer_does_not_begin_after_the_trip(autojump_clock: MockClock) -> None:
    runs = []

    @tool
    async def open_the_door() -> str:
        """Open the door."""
        runs.append(trio.current_time())
        return "open"

    brain = ScriptedBrain([[Wait(500), Call("open_the_door")]], ["Tell me the secret."])
    agent = RealtimeAgent(tools=[open_the_door], input_guardrails=[no_asking])
    async with call(brain, agent) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await trio.sleep(5)
        assert runs == []
        assert [line.text for line in on.session.transcript()] == ["Tell me the secret.", REPLACEMENT]
    assert len(brain.requests) == 2


async def test_the_answer_that_has_not_begun_is_stopped_when_it_does(autojump_clock: MockClock) -> None:
    """A server that writes the words down before it says that it answers."""

    async def serve(peer: Peer) -> None:
        await peer.configure()
        item = {"type": "message", "id": "u1", "role": "user", "content": [{"type": "input_audio"}]}
        words = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "u1", "content_index": 0}
        await peer.send(
            SPEECH_STARTED,
            {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 800, "item_id": "u1"},
            {"type": "input_audio_buffer.committed", "item_id": "u1"},
            {"type": "conversation.item.added", "item": item},
            words | {"transcript": "Tell me the secret."},
        )
        await trio.sleep(1)
        await peer.send(created("r1"), *[delta("r1", 1) for _ in range(5)])
        await peer.receive("response.cancel")
        assert "response.create" not in peer.types()
        await peer.send(done("r1", "cancelled"))
        request = await peer.receive("response.create")
        assert request["response"]["instructions"].endswith(REPLACEMENT)
        await peer.send(created("r2"), delta("r2", 2), done("r2"))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(input_guardrails=[no_asking])) as on:
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard) == [2]


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: output_guardrail(say="No.", instructions="Say no.")(lambda text: None), "both say and instructions"),
        (lambda: output_guardrail(say=" ")(lambda text: None), "say is empty"),
        (lambda: output_guardrail(every_chars=0)(lambda text: None), "every_chars=0"),
        (lambda: output_guardrail(timeout_s=0)(lambda text: None), "timeout_s=0"),
        (lambda: output_guardrail(lambda: None), "takes the text"),
        (lambda: input_guardrail(on_trip=cast(Any, "explode"))(lambda text: None), "on_trip='explode'"),
        (lambda: Trip(say="No.", instructions="Say no."), "both say and instructions"),
        (lambda: RealtimeAgent(output_guardrails=[no_swordfish, no_swordfish]), "two guardrails"),
        (lambda: RealtimeAgent(output_guardrails=[cast(Any, no_asking)]), "is no OutputGuardrail"),
    ],
    ids=["both", "empty", "every", "timeout", "parameters", "on-trip", "trip", "twice", "other-kind"],
)
def test_what_cannot_be_says_why(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
