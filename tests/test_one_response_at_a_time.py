"""Whatever is asked for, and whenever: one response at a time is made, no user hears of a collision, and nothing that
was asked for is lost.

Against the scripted server, which refuses a second response as OpenAI's does, over a link that takes its time.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import attrs
import trio
from hypothesis import event as note, example, given, settings, strategies as st
from trio.testing import MockClock, memory_stream_pair

from kit import NO_FADE, RATE_HZ, URL
from trio_voice import AudioInputConfig, RealtimeAgent, RealtimeSession, SessionState, ToolContext, events, silent, tool
from trio_voice.function_tools import FunctionTool
from trio_voice.protocol import ResponseCreate
from trio_voice.protocol.server_events import ErrorEvent
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Call, Say, ScriptedBrain, Step, tone
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

COLLISION = "conversation_already_has_active_response"
REST_S = 6.0
"""Longer than any tool takes."""


@attrs.define(eq=False)
class Lagging(trio.abc.Stream):
    """A connection on which everything arrives late, by a time that changes."""

    inner: trio.abc.Stream
    lags_s: Sequence[float]
    passed: int = 0

    async def _lag(self) -> None:
        self.passed += 1
        await trio.sleep(self.lags_s[self.passed % len(self.lags_s)])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._lag()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await self.inner.receive_some(max_bytes)
        await self._lag()
        return received

    async def aclose(self) -> None:
        await self.inner.aclose()


def tools_that_take_a_while() -> list[FunctionTool]:
    @tool
    async def look_up(number: int, seconds: float) -> str:
        await trio.sleep(seconds)
        return f"found {number}"

    @tool(result="background")
    async def search(context: ToolContext[None], number: int, seconds: float) -> str:
        context.progress(f"Searching {number}.")
        await trio.sleep(seconds)
        return f"found {number}"

    @tool
    async def note_down(context: ToolContext[None], number: int, seconds: float) -> Any:
        context.progress(f"Noting {number}.")
        await trio.sleep(seconds)
        return silent(f"noted {number}")

    return [look_up, search, note_down]


@attrs.define(eq=False)
class Model:
    """Talks, and calls tools, as its seed has it; remembers what it was told when it answered."""

    seed: int
    calls: int = 0
    asked: int = 0
    told: set[int] = attrs.Factory(set)
    """Numbers of results that it knew when it answered in its own words."""

    def __call__(self, request: ResponseRequest) -> Sequence[Step]:
        self.asked += 1
        rng = random.Random(f"{self.seed}/{self.asked}")
        for item in request.items:
            words = (item.output or "") + (item.text if item.role == "system" else "")
            self.told |= {int(number) for number in re.findall(r"found (\d+)", words)}
        steps: list[Step] = [Say("One two three.", rng.choice((100, 800, 2500)))]
        if self.calls < 5 and rng.random() < 0.6:
            for _ in range(rng.choice((1, 2))):
                self.calls += 1
                name = rng.choice(("look_up", "search", "note_down"))
                seconds = rng.choice((0.0, 0.05, 0.3, 1.0, 3.0))
                steps.insert(rng.randint(0, 1), Call(name, json.dumps({"number": self.calls, "seconds": seconds})))
        return steps


@attrs.frozen
class Ended:
    """How a conversation ended."""

    session: RealtimeSession
    brain: ScriptedBrain
    seen: list[events.SessionEvent]

    @property
    def refusals(self) -> int:
        """How often the server refused a second response."""
        seen = [event.event for event in self.seen if isinstance(event, events.ServerEventReceived)]
        return sum(isinstance(event, ErrorEvent) and event.error.code == COLLISION for event in seen)


async def hold(model: Model, plan: Sequence[tuple[str, float]], lags_s: Sequence[float]) -> Ended:
    """A whole conversation: each step of the plan after so many seconds."""
    brain = ScriptedBrain(model, lambda samples, rate_hz: "Yes.", chunk_delay_ms=300)
    microphone = ScriptedMicrophone()

    async def open_stream() -> trio.abc.Stream:
        client_end, server_end = memory_stream_pair()
        nursery.start_soon(serve_stream, server_end, brain)
        await trio.lowlevel.checkpoint()
        return Lagging(client_end, lags_s)

    async with trio.open_nursery() as nursery:
        session = RealtimeSession(
            RealtimeAgent(tools=tools_that_take_a_while()), connection=URL, microphone=microphone,
            speaker=RecordingSpeaker(), open_stream=open_stream, audio_output=NO_FADE,
            audio_input=AudioInputConfig(chunk_ms=100),
        )  # fmt: skip
        stream = session.events(protocol=True)
        seen: list[events.SessionEvent] = []

        async def listen() -> None:
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - each as it comes: in the end this is cancelled

        nursery.start_soon(listen)
        async with session:
            await session.start_listening()
            for number, (act, after_s) in enumerate(plan):
                await trio.sleep(after_s)
                match act:
                    case "text":
                        nursery.start_soon(session.send_text, f"Text {number}.")
                    case "respond":
                        nursery.start_soon(session.respond)
                    case "insist":
                        nursery.start_soon(lambda: session.respond("Be heard.", interruptible=False))
                    case "interrupt":
                        nursery.start_soon(session.interrupt)
                    case "speak":
                        await microphone.say(tone(440, 400, RATE_HZ).tobytes())
            with trio.fail_after(300):
                quiet_since, asked = trio.current_time(), -1
                while trio.current_time() - quiet_since < REST_S:
                    if model.asked != asked or session.state is not SessionState.LISTENING:
                        asked, quiet_since = model.asked, trio.current_time()
                    await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return Ended(session, brain, seen)


def _is_request(event: events.SessionEvent) -> bool:
    return isinstance(event, events.ClientEventSent) and isinstance(event.event, ResponseCreate)


def run(seed: int, plan: Sequence[tuple[str, float]], lags_s: Sequence[float]) -> tuple[Model, Ended]:
    model = Model(seed)
    ended = trio.run(hold, model, plan, lags_s, clock=MockClock(autojump_threshold=0))
    reported = [event for event in ended.seen if isinstance(event, events.ErrorReported)]
    assert [event.message for event in reported] == [], "no collision, and nothing else either"
    for request in ended.brain.requests[-1:]:
        known = [item.call_id for item in request.items if item.type == "function_call_output"]
        assert len(known) == len(set(known))
    return model, ended


seeds, waits = st.integers(0, 999), st.sampled_from([0.0, 0.01, 0.05, 0.4, 0.5, 0.6, 0.7, 1.0, 3.0])
lags = st.lists(st.sampled_from([0.0, 0.0, 0.01, 0.03, 0.1, 0.25]), min_size=1, max_size=5)


def plans(*acts: str) -> st.SearchStrategy[list[tuple[str, float]]]:
    return st.lists(st.tuples(st.sampled_from(acts), waits), min_size=1, max_size=8)


SERVER_REFUSES_ITSELF = [
    *[("text", 1.0), ("insist", 3.0), ("text", 0.05), ("text", 1.0)],
    *[("speak", 0.7), ("speak", 0.4), ("respond", 0.6), ("interrupt", 0.05)],
]
"""The user has finished while it is at an answer that was asked for and interrupted; it does not try again."""


def test_a_refused_response_is_asked_for_again() -> None:
    """The server had begun one of its own for the voice; the client's request crossed the news of it."""
    _, ended = run(3, [("speak", 0.0), ("respond", 0.6)], [0.1])
    assert ended.refusals == 1
    created = [event for event in ended.seen if isinstance(event, events.ResponseStart)]
    asked = [event for event in ended.seen if _is_request(event)]
    assert len(created) == len(asked), "one for the voice, that nobody asked for, and one that was refused"


@settings(max_examples=25)
@example(3, [("speak", 0.0), ("respond", 0.7)], [0.1])
@example(3, [("speak", 0.0), ("insist", 0.7)], [0.1])
@example(3, [("speak", 0.0), ("text", 0.7)], [0.1])
@example(952, SERVER_REFUSES_ITSELF, [0.01, 0.1, 0.25])
@given(seeds, plans("text", "respond", "insist", "interrupt", "speak"), lags)
def test_no_schedule_makes_a_collision_that_anyone_hears_of(
    seed: int, plan: list[tuple[str, float]], lags_s: list[float]
) -> None:
    _, ended = run(seed, plan, lags_s)
    note(f"refused {min(ended.refusals, 3)} times")
    texts = [f"Text {number}." for number, (act, _) in enumerate(plan) if act == "text"]
    known = [item.text for item in ended.brain.requests[-1].items if item.role == "user"] if texts else []
    assert sorted(text for text in known if text.startswith("Text")) == sorted(texts), "each is in the conversation"


@settings(max_examples=20)
@example(3, [("speak", 0.0), ("respond", 0.8)], [0.1])
@given(seeds, plans("respond", "speak"), lags)
def test_whatever_is_found_is_spoken_of(seed: int, plan: list[tuple[str, float]], lags_s: list[float]) -> None:
    """Where the user interrupts only by voice, and so wants to know: each result has an answer that came after it."""
    model, ended = run(seed, plan, lags_s)
    called = [event for event in ended.seen if isinstance(event, events.ToolCalled) and event.tool != "note_down"]
    assert model.told == {json.loads(event.arguments)["number"] for event in called}
