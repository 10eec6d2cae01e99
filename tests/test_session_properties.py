"""Invariants of whole conversations under arbitrary timing: real actors, real WebSocket code, virtual time.

Each sample that the scripted brain makes knows its turn and its place in it, so what was played can be held against
what was interrupted, sample by sample.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from kit import call
from trio_voice import AudioOutputConfig, RealtimeAgent, events, tool
from trio_voice.server.scripted import Call, Say, ScriptedBrain, turns_in
from trio_voice.testing import RecordingSpeaker


@attrs.frozen
class Exchange:
    """What the user does: wait, then speak, write, or press the button."""

    after_ms: int
    act: str
    answer_ms: int
    calls_tool: bool


exchanges = st.lists(
    st.builds(
        Exchange,
        after_ms=st.integers(0, 3000),
        act=st.sampled_from(["speak", "speak", "write", "interrupt"]),
        answer_ms=st.sampled_from([0, 30, 90, 100, 400, 2500]),
        calls_tool=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@tool
async def note(text: str) -> str:
    """Write something down."""
    await trio.sleep(0.3)
    return f"noted {text}"


@given(
    script=exchanges,
    block_ms=st.sampled_from([10, 20, 60]),
    latency_ms=st.sampled_from([0, 30, 150]),
    prebuffer_ms=st.sampled_from([0, 100, 250]),
    clause_delay_ms=st.sampled_from([0, 40, 300]),
)
def test_a_conversation_keeps_its_invariants(
    script: list[Exchange], block_ms: int, latency_ms: int, prebuffer_ms: int, clause_delay_ms: int
) -> None:
    trio.run(
        _converse, script, block_ms, latency_ms, prebuffer_ms, clause_delay_ms, clock=MockClock(autojump_threshold=0)
    )


async def _converse(
    script: list[Exchange], block_ms: int, latency_ms: int, prebuffer_ms: int, clause_delay_ms: int
) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    steps = iter(script)
    calls = 0

    def answer(request: Any) -> list[Any]:
        nonlocal calls
        exchange = next(steps, Exchange(0, "", 200, False))
        said: list[Any] = [Say("One two three four five six seven.", exchange.answer_ms)] if exchange.answer_ms else []
        if exchange.calls_tool:
            calls += 1
            said.append(Call("note", f'{{"text": "{calls}"}}'))
        return said

    speaker = RecordingSpeaker(block_ms=block_ms, latency_ms=latency_ms)
    brain = ScriptedBrain(answer, lambda samples, rate_hz: "yes", chunk_delay_ms=clause_delay_ms)
    output = AudioOutputConfig(prebuffer_ms=prebuffer_ms, fade_ms=0)
    silent_from: dict[int, int] = {}
    async with call(brain, RealtimeAgent(tools=[note]), speaker=speaker, audio_output=output) as on:

        def interrupted(event: events.Interruption) -> None:
            silent_from[event.turn] = len(speaker.pcm) // 2

        on.session.on("interruption", interrupted)
        for exchange in script:
            await trio.sleep(exchange.after_ms / 1000)
            match exchange.act:
                case "speak":
                    await on.speak(500)
                case "write":
                    await on.session.send_text("Go on.")
                case "interrupt":
                    await on.session.interrupt()
        await trio.sleep(8)

        marks = on.heard >> 8
        for turn, since in silent_from.items():
            # Sound is marked with the answer's number, which counts responses as the turns do.
            assert turn not in set((marks[since:]).tolist()), f"turn {turn} sounded after it was interrupted"
        for turn in {mark + 1 for mark in turns_in(on.heard)} - set(silent_from):
            played = on.heard[marks == turn]
            assert (played & 255).tolist() == [place % 256 for place in range(len(played))], "in order, each once"
        for line in on.session.transcript():
            assert line.role == "user" or "One two three four five six seven.".startswith(line.text.rstrip())
        uses = [use for exchanged in on.session.turns() for use in exchanged.tool_calls]
        assert len({use.call_id for use in uses}) == len(uses)
        assert all(use.output is not None for use in uses), "every call was answered"
        assert on.errors() == [], "every truncation was acceptable to the server"
        assert on.session.metrics.dropped["frames"] == 0
    last = brain.requests[-1].items if brain.requests else []
    outputs = [item.call_id for item in last if item.type == "function_call_output"]
    assert len(outputs) == len(set(outputs)), "no result twice"
    assert trio.lowlevel.current_statistics().tasks_living == tasks
