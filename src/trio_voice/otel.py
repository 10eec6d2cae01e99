"""A session as OpenTelemetry sees it: spans and metrics, by the conventions for generative AI. The extra `[otel]`.

Edge, beside the signal path: all of it is made of session events. The invariant: every span that was begun is ended,
and no word that was said leaves the process unless it is asked for.

    invoke_agent NAME          the session, from the first connection to the end
     ├─ turn                   one exchange: the user's words and all that came of them
     │   ├─ chat MODEL         a response, while it is made
     │   └─ execute_tool NAME  a tool call
     └─ reconnect              from a loss to the next connection
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import msgspec
import trio
from msgspec.structs import asdict

from trio_voice import events
from trio_voice.config import AgentCapability
from trio_voice.errors import ConfigError

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as error:
    raise ConfigError(
        f"trio_voice.otel needs OpenTelemetry's API, which is not installed ({error}). Install it: "
        "pip install 'trio-voice[otel]', and an SDK with an exporter, such as opentelemetry-sdk"
    ) from error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from trio_voice.session import RealtimeSession
    from trio_voice.tracker import ConversationTurn

Attributes = dict[str, Any]
PROVIDERS = {"azure": "azure.ai.openai", "xai": "x_ai"}
"""Of dialects, where the conventions have another name for it."""


async def export(
    session: RealtimeSession,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    content: bool = False,
    clock_ns: Callable[[], int] = time.time_ns,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Export until the session ends. Start it with `await nursery.start(otel.export, session)` before the session is
    entered, and nothing is missed.

    The providers are those that the application has set for OpenTelemetry, unless others are given. `content` adds what
    was said, and the arguments and results of tools. A turn's spans are made when it is over.
    Cancellation: what was begun is ended.
    """
    stream = session.events()
    instruments = _Instruments.of(metrics.get_meter("trio_voice", meter_provider=meter_provider))
    tracer = trace.get_tracer("trio_voice", tracer_provider=tracer_provider)
    clock = _Clock(clock_ns(), trio.current_time())
    follower = _Follower(session, clock, content, instruments, tracer)
    task_status.started()
    try:
        async for event in stream:
            follower.apply(event)
    finally:
        follower.close(trio.current_time())


@attrs.frozen
class _Clock:
    """From Trio's clock to the date."""

    wall_ns: int
    trio_s: float

    def ns(self, at: float) -> int:
        return self.wall_ns + round((at - self.trio_s) * 1e9)


@attrs.frozen
class _Instruments:
    tokens: metrics.Histogram
    operation: metrics.Histogram
    first_delta: metrics.Histogram
    latency: metrics.Histogram
    round_trip: metrics.Histogram
    stall: metrics.Counter
    interruptions: metrics.Counter
    false_alarms: metrics.Counter
    underruns: metrics.Counter
    dropped: metrics.Counter
    reconnects: metrics.Counter

    @classmethod
    def of(cls, meter: metrics.Meter) -> _Instruments:
        histogram, counter = meter.create_histogram, meter.create_counter
        return cls(
            histogram("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used."),
            histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration."),
            histogram("trio_voice.turn.first_delta", "s", "From the end of speech to the first piece of the answer."),
            histogram("trio_voice.turn.latency", "s", "From the end of speech to the first sample that is heard."),
            histogram("trio_voice.round_trip", "s", "Of pings to the server, the median, at the end of a turn."),
            counter("trio_voice.loop.stall", "s", "Time in which a task held the event loop up."),
            counter("trio_voice.interruptions", "{interruption}", "Answers that were interrupted."),
            counter("trio_voice.false_alarms", "{alarm}", "Sounds too short to be an interruption."),
            counter("trio_voice.underruns", "{underrun}", "Times the agent's voice ran out in the middle."),
            counter("trio_voice.dropped", "{item}", "What was dropped, by channel."),
            counter("trio_voice.reconnects", "{attempt}", "Attempts to connect again."),
        )


@attrs.define(eq=False)
class _Part:
    """A response or a tool call: kept until its turn is over, and known to be whose child it is."""

    name: str
    kind: SpanKind
    began_at: float
    attributes: Attributes
    ended_at: float | None = None
    error: str | None = None
    marks: list[tuple[str, float, Attributes]] = attrs.Factory(list)
    span: Span | None = None

    def end(self, clock: _Clock, at: float, error: str | None = None) -> None:
        """It is over; its span too, if the turn was over first."""
        self.ended_at, self.error = at, error
        if self.span is not None:
            self._finish(self.span, clock)

    def export(self, tracer: trace.Tracer, parent: Span, clock: _Clock) -> None:
        self.span = tracer.start_span(
            self.name,
            trace.set_span_in_context(parent),
            kind=self.kind,
            attributes=self.attributes,
            start_time=clock.ns(self.began_at),
        )
        for name, at, attributes in self.marks:
            self.span.add_event(name, attributes, clock.ns(at))
        if self.ended_at is not None:
            self._finish(self.span, clock)

    def _finish(self, span: Span, clock: _Clock) -> None:
        span.set_attributes(self.attributes)
        if self.error is not None:
            span.set_attribute("error.type", self.error)
            span.set_status(Status(StatusCode.ERROR, self.error))
        span.end(clock.ns(self.ended_at if self.ended_at is not None else self.began_at))


@attrs.define(eq=False)
class _Follower:
    session: RealtimeSession
    clock: _Clock
    content: bool
    instruments: _Instruments
    tracer: trace.Tracer
    root: Span | None = None
    reconnecting: Span | None = None
    responses: dict[int, _Part] = attrs.Factory(dict)
    """Of turns that are not over."""
    calls: dict[str, _Part] = attrs.Factory(dict)

    @property
    def common(self) -> Attributes:
        """What every span and every figure says."""
        options = self.session.connection
        provider = PROVIDERS.get(options.server.name, options.server.name)
        said: Attributes = {"gen_ai.provider.name": provider}
        if options.model is not None:
            said["gen_ai.request.model"] = options.model
        return said

    def apply(self, event: events.SessionEvent) -> None:
        match event:
            case events.Connected():
                self._connected(event)
            case events.Reconnecting():
                self._lost(event)
            case events.ResponseStart():
                self._began(event)
            case events.ResponseEnd() if event.turn in self.responses:
                self._ended(self.responses[event.turn], event)
            case events.PlaybackStart(at=at, turn=turn) if turn in self.responses:
                self.responses[turn].marks.append(("trio_voice.first_sample_heard", at, {}))
            case events.Interruption() if event.turn in self.responses:
                self._interrupted(self.responses[event.turn], event)
            case events.ToolCalled():
                self._called(event)
            case events.ToolFinished() if event.call_id in self.calls:
                self._returned(self.calls[event.call_id], event)
            case events.TurnMetrics():
                self._turn_over(event)
            case events.ErrorReported() if self.root is not None:
                reported = {"trio_voice.error.source": event.source, "error.type": event.code or "_OTHER"}
                self.root.add_event("trio_voice.error", reported, self.clock.ns(event.at))
            case events.Disconnected():
                self.close(event.at)

    def close(self, at: float) -> None:
        """End what has not ended, the session last."""
        for part in [*self.responses.values(), *self.calls.values()]:
            if self.root is not None and part.span is None:
                part.export(self.tracer, self.root, self.clock)
            if part.ended_at is None:
                part.end(self.clock, at, "session_ended")
        self.responses.clear()
        self.calls.clear()
        if self.reconnecting is not None:
            self.reconnecting.set_status(Status(StatusCode.ERROR, "the session ended"))
            self.reconnecting.end(self.clock.ns(at))
        if self.root is not None:
            self.root.end(self.clock.ns(at))
        self.root = self.reconnecting = None

    # --- the session and its connections --------------------------------------------------------------

    def _connected(self, event: events.Connected) -> None:
        if self.root is None:
            name, url = self.session.agent.name, urlsplit(self.session.connection.url)
            told: Attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
            told |= self.common | {"gen_ai.conversation.id": event.session_id, "server.address": url.hostname or ""}
            if url.port is not None:
                told["server.port"] = url.port
            self.root = self.tracer.start_span(
                f"invoke_agent {name}", kind=SpanKind.CLIENT, attributes=told, start_time=self.clock.ns(event.at)
            )
        if self.reconnecting is not None:
            self.reconnecting.end(self.clock.ns(event.at))
            self.reconnecting = None

    def _lost(self, event: events.Reconnecting) -> None:
        self.instruments.reconnects.add(1, self.common)
        if self.root is None:
            return
        if self.reconnecting is None:
            self.reconnecting = self.tracer.start_span(
                "reconnect", trace.set_span_in_context(self.root), start_time=self.clock.ns(event.at)
            )
        self.reconnecting.set_attribute("trio_voice.attempts", event.attempt)
        self.reconnecting.add_event("trio_voice.attempt", {"reason": event.reason}, self.clock.ns(event.at))

    # --- responses and tools --------------------------------------------------------------------------

    def _began(self, event: events.ResponseStart) -> None:
        told = {"gen_ai.operation.name": "chat", **self.common, "trio_voice.response": event.turn}
        told["gen_ai.output.type"] = "speech" if self.session.agent.can(AgentCapability.VOICE_OUTPUT) else "text"
        if event.response_id:
            told["gen_ai.response.id"] = event.response_id
        name = " ".join(["chat", self.session.connection.model or ""]).strip()
        self.responses[event.turn] = _Part(name, SpanKind.CLIENT, event.at, told)

    def _ended(self, part: _Part, event: events.ResponseEnd) -> None:
        failed = event.status if event.status == "failed" else None
        part.attributes["gen_ai.response.finish_reasons"] = [event.status]
        labels = {"gen_ai.operation.name": "chat", **self.common}
        for kind, count in (("input", event.input_tokens), ("output", event.output_tokens)):
            if count is not None:
                part.attributes[f"gen_ai.usage.{kind}_tokens"] = count
                self.instruments.tokens.record(count, labels | {"gen_ai.token.type": kind})
        part.end(self.clock, event.at, failed)
        self._record_duration(part, labels)

    def _interrupted(self, part: _Part, event: events.Interruption) -> None:
        told = {"trio_voice.cause": event.cause, "trio_voice.heard_ms": event.heard_ms}
        part.marks.append(("trio_voice.interrupted", event.at, told | {"trio_voice.discarded_ms": event.discarded_ms}))

    def _called(self, event: events.ToolCalled) -> None:
        told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": event.tool}
        told |= {"gen_ai.tool.call.id": event.call_id, "gen_ai.tool.type": "function"}
        if self.content:
            told["gen_ai.tool.call.arguments"] = event.arguments
        self.calls[event.call_id] = _Part(f"execute_tool {event.tool}", SpanKind.INTERNAL, event.at, told)

    def _returned(self, part: _Part, event: events.ToolFinished) -> None:
        if self.content:
            part.attributes["gen_ai.tool.call.result"] = event.output
        part.end(self.clock, event.at, "tool_error" if event.failed else None)
        labels = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": event.tool}
        self._record_duration(part, labels | self.common)
        if part.span is not None:  # its turn was over first
            del self.calls[event.call_id]

    def _record_duration(self, part: _Part, labels: Attributes) -> None:
        if part.error is not None:
            labels = labels | {"error.type": part.error}
        self.instruments.operation.record((part.ended_at or part.began_at) - part.began_at, labels)

    # --- turns ----------------------------------------------------------------------------------------

    def _turn_over(self, event: events.TurnMetrics) -> None:
        self._record(event)
        if self.root is None:
            return
        turn = next((turn for turn in self.session.turns() if turn.id == event.id), None)
        if turn is None:  # told so late that it is forgotten: its parts go to the next
            return
        ended_at = turn.ended_at if turn.ended_at is not None else event.at
        span = self.tracer.start_span(
            "turn",
            trace.set_span_in_context(self.root),
            attributes=self._turn_attributes(event, turn),
            start_time=self.clock.ns(turn.started_at),
        )
        is_last = event.at == ended_at  # all that there is belongs to it
        for number, part in list(self.responses.items()):
            if is_last or part.began_at < ended_at:
                part.export(self.tracer, span, self.clock)
                if part.ended_at is None:
                    part.end(self.clock, event.at, None)
                del self.responses[number]
        for call_id, part in list(self.calls.items()):
            if part.span is None and (is_last or part.began_at < ended_at):
                part.export(self.tracer, span, self.clock)
                if part.ended_at is not None:
                    del self.calls[call_id]
        span.end(self.clock.ns(ended_at))

    def _turn_attributes(self, event: events.TurnMetrics, turn: ConversationTurn) -> Attributes:
        told: Attributes = {
            f"trio_voice.turn.{name}": value
            for name, value in asdict(event).items()
            if name != "at" and isinstance(value, int | float)
        }
        if self.content:
            told["gen_ai.input.messages"] = _messages("user", turn.user_transcript)
            told["gen_ai.output.messages"] = _messages("assistant", turn.agent_transcript)
        return told

    def _record(self, event: events.TurnMetrics) -> None:
        labels, record = self.common, self.instruments
        for histogram, duration_ms in (
            (record.first_delta, event.first_delta_ms),
            (record.latency, event.latency_ms),
            (record.round_trip, event.round_trip_ms),
        ):
            if duration_ms is not None:
                histogram.record(duration_ms / 1000, labels)
        for counter, amount in (
            (record.interruptions, int(event.interrupted)),
            (record.false_alarms, event.false_alarms),
            (record.underruns, event.underruns),
            (record.stall, event.stall_ms / 1000),
        ):
            if amount:
                counter.add(amount, labels)
        for channel, count in event.dropped.items():
            record.dropped.add(count, {**labels, "trio_voice.channel": channel})


def _messages(role: str, text: str) -> str:
    """As the conventions want them: JSON, a list of messages with parts."""
    messages: list[Mapping[str, Any]] = [{"role": role, "parts": [{"type": "text", "content": text}]}] if text else []
    return msgspec.json.encode(messages).decode()
