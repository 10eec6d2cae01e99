"""What OpenTelemetry is told of a session, by the SDK's own exporters in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as conventions
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import StatusCode
from trio.testing import MockClock

from kit import Call as InCall, call
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, events, otel
from trio_voice.protocol.history import History
from trio_voice.server.scripted import Call, Fail, Say, ScriptedBrain
from trio_voice.tracker import ConversationTracker

BEGAN_NS = 1_700_000_000 * 10**9
MODEL = ConnectionOptions(url="ws://memory:8765/v1/realtime", model="gpt-realtime-2.1")


@attrs.define(eq=False)
class Collected:
    """An application's OpenTelemetry, with exporters that keep what they get."""

    exporter: InMemorySpanExporter = attrs.Factory(InMemorySpanExporter)
    reader: InMemoryMetricReader = attrs.Factory(InMemoryMetricReader)
    tracers: TracerProvider = attrs.Factory(partial(TracerProvider, shutdown_on_exit=False))
    meters: MeterProvider = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, prefix: str) -> list[ReadableSpan]:
        return sorted(
            (span for span in self.spans if span.name.startswith(prefix)), key=lambda span: span.start_time or 0
        )

    def points(self, name: str) -> list[Any]:
        found = self.reader.get_metrics_data()
        if found is None:
            return []
        kept = [one for of in found.resource_metrics for scope in of.scope_metrics for one in scope.metrics]
        return [point for one in kept if one.name == name for point in one.data.data_points]

    def follow(self, nursery: trio.Nursery, **options: Any) -> Callable[[RealtimeSession], Any]:
        """What a test gives to `call` as `beforehand`."""
        options = {"tracer_provider": self.tracers, "meter_provider": self.meters, **options}
        return partial(nursery.start, partial(otel.export, clock_ns=lambda: BEGAN_NS, **options))


@pytest.fixture
def collected() -> Collected:
    return Collected()


async def capital_of(country: str) -> str:
    """The capital of a country."""
    await trio.sleep(0.25)
    return "Paris"


AGENT = RealtimeAgent(name="Geographer", tools=(capital_of,))


async def converse(collected: Collected, body: Callable[[InCall], Any], *steps: Any, **options: Any) -> float:
    """Hold a conversation under `collected`'s eyes; returns when Trio's clock stood when it began to look."""
    await trio.sleep(5)
    async with trio.open_nursery() as nursery:
        began_at = trio.current_time()
        follow = collected.follow(nursery, **options)
        async with call(ScriptedBrain(steps), AGENT, connection=MODEL, beforehand=follow) as on:
            await body(on)
    return began_at


async def a_question(on: InCall) -> None:
    await on.speak()
    await on.next(events.PlaybackEnd)


QUESTION = (Call("capital_of", '{"country": "France"}'), Say("Paris.", 400))


def parent_of(span: ReadableSpan, spans: list[ReadableSpan]) -> str | None:
    return next((one.name for one in spans if span.parent and one.context.span_id == span.parent.span_id), None)


async def test_spans_are_nested_as_the_conversation_was(autojump_clock: MockClock, collected: Collected) -> None:
    await converse(collected, a_question, *QUESTION)
    spans = collected.spans
    nested = sorted((span.name, parent_of(span, spans)) for span in spans)
    assert nested == [
        ("chat gpt-realtime-2.1", "turn"),
        ("chat gpt-realtime-2.1", "turn"),
        ("execute_tool capital_of", "turn"),
        ("invoke_agent Geographer", None),
        ("turn", "invoke_agent Geographer"),
    ]
    assert {span.context.trace_id for span in spans} == {spans[0].context.trace_id}
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time


async def test_times_are_those_of_the_events(autojump_clock: MockClock, collected: Collected) -> None:
    seen: dict[str, float] = {}

    async def body(on: InCall) -> None:
        await on.speak()
        while "playback_end" not in seen:  # a call may be told before the end of its response, and after it
            event = await on.next(events.SessionEvent)
            seen.setdefault(event.name, event.at)
        seen["turn"] = on.session.turns()[0].started_at

    began_at = await converse(collected, body, *QUESTION)

    def s(ns: int | None) -> float:
        assert ns is not None
        return (ns - BEGAN_NS) / 1e9 + began_at

    response, tool, turn = collected.named("chat")[0], collected.named("execute_tool")[0], collected.named("turn")[0]
    of_response, of_tool = [seen["response_start"], seen["response_end"]], [seen["tool_call"], seen["tool_result"]]
    assert [s(response.start_time), s(response.end_time)] == pytest.approx(of_response)
    assert [s(tool.start_time), s(tool.end_time)] == pytest.approx(of_tool)
    assert s(tool.end_time) - s(tool.start_time) == pytest.approx(0.25)
    assert s(turn.start_time) == pytest.approx(seen["turn"])


async def test_attributes_are_those_of_the_conventions(autojump_clock: MockClock, collected: Collected) -> None:
    await converse(collected, a_question, *QUESTION)
    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
    for span in collected.spans:
        used = {name for name in span.attributes or {} if name.startswith("gen_ai.")}
        assert used <= known, span.name
    session = dict(collected.named("invoke_agent")[0].attributes or {})
    assert session["gen_ai.operation.name"] == conventions.GenAiOperationNameValues.INVOKE_AGENT.value
    assert session["gen_ai.agent.name"] == "Geographer"
    assert session["gen_ai.request.model"] == "gpt-realtime-2.1"
    assert (session["server.address"], session["server.port"]) == ("memory", 8765)
    assert session["gen_ai.conversation.id"]
    response = dict(collected.named("chat")[1].attributes or {})
    assert response["gen_ai.operation.name"] == conventions.GenAiOperationNameValues.CHAT.value
    assert response["gen_ai.output.type"] == conventions.GenAiOutputTypeValues.SPEECH.value
    assert response["gen_ai.response.finish_reasons"] == ("completed",)
    assert str(response["gen_ai.response.id"]).startswith("resp_")
    assert isinstance(response["gen_ai.usage.input_tokens"], int)
    assert isinstance(response["gen_ai.usage.output_tokens"], int)
    tool = dict(collected.named("execute_tool")[0].attributes or {})
    assert tool["gen_ai.operation.name"] == conventions.GenAiOperationNameValues.EXECUTE_TOOL.value
    assert (tool["gen_ai.tool.name"], tool["gen_ai.tool.type"]) == ("capital_of", "function")
    assert tool["gen_ai.tool.call.id"]
    turn = dict(collected.named("turn")[0].attributes or {})
    assert turn["trio_voice.turn.tool_ms"] == pytest.approx(250)
    assert isinstance(turn["trio_voice.turn.latency_ms"], float)


async def test_figures_have_the_names_of_the_conventions(autojump_clock: MockClock, collected: Collected) -> None:
    await converse(collected, a_question, *QUESTION)
    tokens = collected.points(gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE)
    assert sorted(point.attributes["gen_ai.token.type"] for point in tokens) == ["input", "output"]
    assert {point.attributes["gen_ai.request.model"] for point in tokens} == {"gpt-realtime-2.1"}
    responses = [dict(span.attributes or {}) for span in collected.named("chat")]
    output = next(point for point in tokens if point.attributes["gen_ai.token.type"] == "output")
    assert output.sum == sum(int(str(one["gen_ai.usage.output_tokens"])) for one in responses)
    durations = collected.points(gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION)
    by_operation = {point.attributes["gen_ai.operation.name"]: point for point in durations}
    assert by_operation["chat"].count == 2
    assert by_operation["execute_tool"].sum == pytest.approx(0.25)
    (latency,) = collected.points("trio_voice.turn.latency")
    turn = dict(collected.named("turn")[0].attributes or {})
    assert latency.sum == pytest.approx(float(str(turn["trio_voice.turn.latency_ms"])) / 1000)
    assert len(collected.points("trio_voice.turn.first_delta")) == 1


@pytest.mark.parametrize("content", [False, True], ids=["as it is", "if asked"])
async def test_words_leave_the_process_only_if_asked(
    autojump_clock: MockClock, collected: Collected, content: bool
) -> None:
    await converse(collected, a_question, *QUESTION, content=content)
    said = "".join(f"{span.name} {dict(span.attributes or {})} {[dict(e.attributes or {}) for e in span.events]}"
                   for span in collected.spans)  # fmt: skip
    for words in ("utterance 0", "Paris", "France"):
        assert (words in said) is content
    if content:
        assert '[{"role":"assistant","parts":[{"type":"text","content":"Paris."}]}]' in said


async def test_an_interruption_is_on_the_response_it_cut(autojump_clock: MockClock, collected: Collected) -> None:
    async def body(on: InCall) -> None:
        await on.speak()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.speak()
        heard.append((await on.next(events.Interruption)).heard_ms)
        await on.next(events.PlaybackEnd)

    heard: list[int] = []
    await converse(collected, body, Say("One two three four.", 4000), Say("Yes.", 200))
    first, second = collected.named("chat")
    (cut,) = [mark for mark in first.events if mark.name == "trio_voice.interrupted"]
    assert dict(cut.attributes or {})["trio_voice.heard_ms"] == heard[0]
    assert not [mark for mark in second.events if mark.name == "trio_voice.interrupted"]
    turns = collected.named("turn")
    assert [dict(turn.attributes or {})["trio_voice.turn.interrupted"] for turn in turns] == [True, False]
    assert [span.parent and span.parent.span_id for span in (first, second)] == [one.context.span_id for one in turns]
    assert collected.points("trio_voice.interruptions")[0].value == 1


async def test_a_lost_connection_is_a_span_until_the_next(autojump_clock: MockClock, collected: Collected) -> None:
    async def body(on: InCall) -> None:
        await on.drop()
        lost = await on.next(events.Reconnecting)
        back = await on.next(events.Connected)
        times.extend((lost.at, back.at))

    times: list[float] = []
    await converse(collected, body)
    (span,) = collected.named("reconnect")
    assert parent_of(span, collected.spans) == "invoke_agent Geographer"
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(times[1] - times[0])
    assert dict(span.attributes or {})["trio_voice.attempts"] == 1
    assert collected.points("trio_voice.reconnects")[0].value == 1


async def test_a_failed_response_and_a_failed_tool_are_errors(autojump_clock: MockClock, collected: Collected) -> None:
    async def body(on: InCall) -> None:
        await on.speak()
        await on.next(events.ErrorReported)

    await converse(collected, body, Call("no_such_tool", "{}"), Fail("out of order"))
    failed = {span.name: span for span in collected.spans if span.status.status_code is StatusCode.ERROR}
    assert set(failed) == {"chat gpt-realtime-2.1", "execute_tool no_such_tool"}
    assert dict(failed["execute_tool no_such_tool"].attributes or {})["error.type"] == "tool_error"
    points = collected.points("gen_ai.client.operation.duration")
    assert {point.attributes.get("error.type") for point in points} == {None, "tool_error", "failed"}


async def test_a_tool_that_outlives_its_turn_is_still_its_child(
    autojump_clock: MockClock, collected: Collected
) -> None:
    async def body(on: InCall) -> None:
        await on.speak()
        await on.next(events.ToolCalled)
        await on.session.send_text("Never mind.")
        await on.next(events.TurnMetrics)
        await on.next(events.ToolFinished)
        await on.next(events.PlaybackEnd)

    await converse(collected, body, *QUESTION, Say("Yes.", 200))
    (tool,) = collected.named("execute_tool")
    first, _ = collected.named("turn")
    assert tool.parent is not None
    assert tool.parent.span_id == first.context.span_id
    assert tool.end_time is not None
    assert (tool.end_time - (tool.start_time or 0)) / 1e9 == pytest.approx(0.25)


def test_a_response_that_begins_before_the_turn_before_is_told_is_of_its_own_turn(collected: Collected) -> None:
    session = RealtimeSession(AGENT, connection=MODEL)
    tracker = ConversationTracker(History(), started_at=0.0)
    session.turns = tracker.turns  # type: ignore[method-assign]  # a stand-in
    figures = otel._Instruments.of(collected.meters.get_meter("test"))
    follower = otel._Follower(session, otel._Clock(0, 0.0), False, figures, collected.tracers.get_tracer("test"))
    for at in (1.0, 2.0):
        tracker.user_began(at)
        tracker.user_ended(at + 0.2, 200)
    follower.apply(events.Connected(at=0.5, session_id="s"))
    for turn, at in ((1, 1.5), (2, 2.5)):
        follower.apply(events.ResponseStart(at=at, turn=turn, response_id=f"r{turn}"))
    none = dict.fromkeys(events.TurnMetrics.__struct_fields__, 0)
    for number, at in ((1, 2.6), (2, 3.0)):
        tracker.close(at) if number == 2 else None
        figures_of: dict[str, Any] = {**none, "at": at, "id": number, "dropped": {}, "interrupted": False}
        follower.apply(events.TurnMetrics(**figures_of))
    follower.apply(events.Disconnected(at=3.0, reason="over"))
    turns = [span.context.span_id for span in collected.named("turn")]
    assert [span.parent and span.parent.span_id for span in collected.named("chat")] == turns


async def test_what_was_begun_is_ended_when_the_session_breaks_off(
    autojump_clock: MockClock, collected: Collected
) -> None:
    async def body(on: InCall) -> None:
        await on.speak()
        await on.next(events.ToolCalled)

    await converse(collected, body, *QUESTION)
    assert sorted(span.name for span in collected.spans) == [
        "chat gpt-realtime-2.1", "execute_tool capital_of", "invoke_agent Geographer", "turn",
    ]  # fmt: skip
    (tool,) = collected.named("execute_tool")
    assert tool.status.status_code is StatusCode.ERROR


async def test_cancelled_it_ends_what_it_has_begun(autojump_clock: MockClock, collected: Collected) -> None:
    async with trio.open_nursery() as nursery:
        follow = collected.follow(nursery)
        async with call(ScriptedBrain(QUESTION), AGENT, connection=MODEL, beforehand=follow) as on:
            await on.speak()
            await on.next(events.ToolCalled)
            nursery.cancel_scope.cancel()
    assert [span.name for span in collected.named("invoke_agent")] == ["invoke_agent Geographer"]


def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    """In a process of its own: here it is imported already."""
    code = (
        "import sys, trio_voice; from trio_voice import RealtimeAgent, RealtimeSession\n"
        "import trio_voice.cli, trio_voice.conversation\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None\nimport trio_voice.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'trio-voice[otel]'" in done.stderr
    assert "ConfigError" in done.stderr
