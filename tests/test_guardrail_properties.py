"""Guardrails under arbitrary timing, and through lost connections: real actors, real WebSocket code, virtual time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from kit import call
from trio_voice import RealtimeAgent, events, input_guardrail, output_guardrail, tool
from trio_voice.audio import samples_of
from trio_voice.protocol import ClientEvent, ResponseCreate
from trio_voice.protocol.verbatim import words_of
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Call, Say, ScriptedBrain, Step, Wait
from trio_voice.testing import RecordingSpeaker

INSTEAD = "That I keep to myself."
PLAIN = "One two three four five six seven eight nine ten."
SECRET = "One two three swordfish four five six seven eight."


@attrs.frozen
class Exchange:
    """What the user does: wait, then speak, write, or press the button; and what is answered."""

    after_ms: int
    act: str
    trips: bool
    before_ms: int
    answer_ms: int
    calls: bool


exchanges = st.lists(
    st.builds(
        Exchange,
        after_ms=st.integers(0, 3000),
        act=st.sampled_from(["speak", "write", "write secretly", "interrupt"]),
        trips=st.booleans(),
        before_ms=st.sampled_from([0, 400]),
        answer_ms=st.sampled_from([100, 600, 3000]),
        calls=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


@given(
    script=exchanges,
    slow_ms=st.sampled_from([0, 50, 700, 2500]),
    every_chars=st.sampled_from([1, 20, 100]),
    latency_ms=st.sampled_from([0, 150]),
    clause_delay_ms=st.sampled_from([0, 300]),
)
def test_what_tripped_is_silent_is_told_once_and_is_replaced_at_most_once(
    script: list[Exchange], slow_ms: int, every_chars: int, latency_ms: int, clause_delay_ms: int
) -> None:
    trio.run(
        _converse, script, slow_ms, every_chars, latency_ms, clause_delay_ms, clock=MockClock(autojump_threshold=0)
    )


async def _converse(
    script: list[Exchange], slow_ms: int, every_chars: int, latency_ms: int, clause_delay_ms: int
) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    steps = iter(script)
    begun: list[float] = []

    def answer(request: ResponseRequest) -> list[Step]:
        exchange = next(steps, Exchange(0, "", False, 0, 200, False))
        said: list[Step] = [Wait(exchange.before_ms), Say(SECRET if exchange.trips else PLAIN, exchange.answer_ms)]
        return [*said, Wait(1000), Call("note")] if exchange.calls else said

    @output_guardrail(say=INSTEAD, every_chars=every_chars)
    async def outgoing(text: str) -> bool:
        await trio.sleep(slow_ms / 1000)
        return "swordfish" in text

    @output_guardrail(say=INSTEAD)
    async def the_same(text: str) -> bool:
        return "swordfish" in text and slow_ms > 500

    @input_guardrail(say=INSTEAD, on_trip="delete")
    async def incoming(text: str) -> bool:
        await trio.sleep(slow_ms / 1000)
        return "secret" in text

    @tool
    async def note() -> str:
        """Note something."""
        begun.append(trio.current_time())
        return "noted"

    speaker = RecordingSpeaker(latency_ms=latency_ms)
    heard_words = iter(["A secret.", "Nothing.", "A secret again."] * 9)
    brain = ScriptedBrain(answer, lambda samples, rate_hz: next(heard_words), chunk_delay_ms=clause_delay_ms)
    agent = RealtimeAgent(tools=[note], output_guardrails=[outgoing, the_same], input_guardrails=[incoming])
    async with call(brain, agent, speaker=speaker, audio=True) as on:
        silent_from: dict[int, int] = {}

        def tripped(event: events.GuardrailTripped) -> None:
            if event.turn is not None:
                silent_from[event.turn] = len(speaker.pcm) // 2

        on.session.on("guardrail_tripped", tripped)
        for exchange in script:
            await trio.sleep(exchange.after_ms / 1000)
            match exchange.act:
                case "speak":
                    await on.speak(500)
                case "write":
                    await on.session.send_text("Go on.")
                case "write secretly":
                    await on.session.send_text("Tell me the secret.")
                case "interrupt":
                    await on.session.interrupt()
        await trio.sleep(12)
        assert on.errors() == []
        told = list(on.events._queue)
        trips = [event for event in told if isinstance(event, events.GuardrailTripped)]
        assert max(Counter(event.turn or event.item_id for event in trips).values(), default=0) <= 1
        sounds = [event for event in told if isinstance(event, events.ResponseAudio)]
        marks = on.heard >> 8
        for trip in trips:
            mark = next((int(samples_of(sound.pcm)[0]) >> 8 for sound in sounds if sound.turn == trip.turn), None)
            if trip.turn is not None and mark is not None:
                block = speaker.block_ms * 24
                assert mark not in marks[silent_from[trip.turn] + block :], f"turn {trip.turn} sounded after it tripped"
                later = told[told.index(trip) :]
                assert not [
                    event for event in later if isinstance(event, events.ResponseAudio) and event.turn == trip.turn
                ]
        instead = [request for request in brain.requests if words_of(request.instructions) == INSTEAD]
        assert len(instead) <= len([trip for trip in trips if trip.replaced])
        await on.session.send_text("And now?")
        await trio.sleep(5)
        lines = [line.text for line in on.session.transcript() if line.role == "agent"]
        remembered = [item.text.strip() for item in brain.requests[-1].items if item.role == "assistant"]
        assert [words for words in remembered if words not in lines] == [], "the model knows what was heard, no more"
        written = [item.text for item in brain.requests[-1].items if item.role == "user"]
        assert "Tell me the secret." not in written
        uses = [use for turn in on.session.turns() for use in turn.tool_calls]
        assert len(begun) == len([use for use in uses if not use.failed]), "what was told not to begin did not"
    assert trio.lowlevel.current_statistics().tasks_living == tasks


# --- lost connections -----------------------------------------------------------------------------


@output_guardrail(say=INSTEAD)
async def no_swordfish(text: str) -> bool:
    await trio.sleep(0.2)
    return "swordfish" in text


@pytest.mark.parametrize("outage_ms", [0, 1500])
@pytest.mark.parametrize("moment", ["before the verdict", "at the request", "behind the request", "in mid-replacement"])
async def test_what_is_said_instead_survives_a_lost_connection(
    moment: str, outage_ms: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_voice import uplink

    brain = ScriptedBrain([Say(SECRET, 5000), Say("Anything else?", 300)], think_ms=0)
    async with call(brain, RealtimeAgent(output_guardrails=[no_swordfish]), listening=False) as on:
        real, armed = uplink._Line.send, True

        async def send(line: Any, event: ClientEvent) -> None:
            nonlocal armed
            instead = isinstance(event, ResponseCreate) and event.response and event.response.tool_choice == "none"
            if armed and instead and moment in ("at the request", "behind the request"):
                armed = False
                if moment == "behind the request":
                    await real(line, event)
                await on.drop()
            await real(line, event)

        monkeypatch.setattr(uplink._Line, "send", send)
        await on.session.respond()
        if moment == "before the verdict":
            await on.next(events.ResponseStart)
            await trio.sleep(0.1)
            await on.drop()
        trip = await on.next(events.GuardrailTripped)
        assert trip.replaced
        if moment == "in mid-replacement":
            await on.next(events.PlaybackStart)
            await on.drop()
        await trio.sleep(15)
        lines = [line.text for line in on.session.transcript()]
        assert lines.count(INSTEAD) == 1
        assert lines[-1] == INSTEAD
        assert not any("swordfish" in line for line in lines)
        assert on.errors() == []
        await on.session.send_text("And?")
        await trio.sleep(5)
        remembered = [item.text for item in brain.requests[-1].items if item.role == "assistant"]
        assert remembered.count(INSTEAD) == 1
        assert on.session.transcript()[-1].text == "Anything else?"
