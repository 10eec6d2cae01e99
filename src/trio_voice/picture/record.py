"""A finished conversation, laid out in time: who spoke when, what was heard, what was cut, how long each answer took.

Pure: session events and sound in, one frozen `Recording` out. The invariant kept here: every position is in seconds
from the start of the conversation and lies within it, but for a discarded rest, which says when it would have ended.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from trio_voice import events
from trio_voice.audio import Samples
from trio_voice.events import SessionEvent

CallerLine = tuple[float, float, str]
"""What a scripted caller said: start and end in seconds from the start, and the words."""

LATE_S = 1.5
"""A speech event that trails its own audio by more than this does not count from where we thought it did."""
USUAL_DELAY_S = 0.4
"""How far a speech_start trails its audio: the server's prefix padding (300 ms) and its decision."""
WINDOW_S = 0.01
"""Speech is found in a waveform by the loudness of windows this long."""
VOICED_PART = 0.06
"""A window is speech if it is at least this part as loud as the loudest of the utterance."""


@attrs.frozen
class CallerSpan:
    """The caller speaks. Typed words have no length."""

    start_s: float
    end_s: float
    words: str


@attrs.frozen
class FalseAlarmSpan:
    """A sound, too short to be an interruption, while the agent spoke."""

    start_s: float
    end_s: float


@attrs.frozen
class AgentSpan:
    """The agent is heard: from the first sample in the air to the last, or to the cut."""

    turn: int
    start_s: float
    end_s: float
    words: str
    """What was heard, where the answer was cut; else all of it."""
    interrupted: bool


@attrs.frozen
class DiscardedSpan:
    """What the agent did not get to say: it had arrived, it was never played."""

    turn: int
    start_s: float
    end_s: float
    words: str


@attrs.frozen
class ToolSpan:
    """A tool runs. `output` is None if it never came back."""

    call_id: str
    name: str
    start_s: float
    end_s: float
    arguments: str
    output: str | None
    failed: bool = False


@attrs.frozen
class InterruptionMark:
    """The agent falls silent before it has finished."""

    turn: int
    at_s: float
    cause: Literal["speech", "manual", "guardrail"]
    heard_ms: int
    discarded_ms: int
    after_onset_ms: float | None
    """Since the caller's first sound, where that is known."""


@attrs.frozen
class LatencySpan:
    """From the caller's last sound to the agent's first."""

    start_s: float
    end_s: float
    responded_s: float | None
    """When the model began to answer: what comes before is the wait for the server to be sure, after it the voice."""

    @property
    def latency_ms(self) -> float:
        return (self.end_s - self.start_s) * 1000

    @property
    def response_ms(self) -> float | None:
        return None if self.responded_s is None else (self.responded_s - self.start_s) * 1000


@attrs.frozen
class ErrorMark:
    """Something went wrong, and the conversation went on."""

    at_s: float
    message: str
    source: str


@attrs.frozen(eq=False)
class Recording:
    """One conversation. Positions in seconds from its start; sample 0 of both sounds is at 0 s."""

    duration_s: float
    caller: tuple[CallerSpan, ...] = ()
    false_alarms: tuple[FalseAlarmSpan, ...] = ()
    agent: tuple[AgentSpan, ...] = ()
    discarded: tuple[DiscardedSpan, ...] = ()
    tools: tuple[ToolSpan, ...] = ()
    interruptions: tuple[InterruptionMark, ...] = ()
    latencies: tuple[LatencySpan, ...] = ()
    errors: tuple[ErrorMark, ...] = ()
    caller_pcm: Samples | None = attrs.field(default=None, repr=False)
    agent_pcm: Samples | None = attrs.field(default=None, repr=False)
    rate_hz: int = 24_000

    @property
    def mean_latency_ms(self) -> float | None:
        if not self.latencies:
            return None
        return sum(span.latency_ms for span in self.latencies) / len(self.latencies)


def recording_of(
    session_events: Iterable[SessionEvent],
    *,
    started_at: float,
    ended_at: float,
    caller_pcm: Samples | None = None,
    agent_pcm: Samples | None = None,
    rate_hz: int = 24_000,
    caller_lines: Sequence[CallerLine] = (),
) -> Recording:
    """Lay out what `session.events()` gave, in its order.

    `started_at` and `ended_at` are on the clock of the events. `caller_pcm` and `agent_pcm` are what the microphone
    gave and the speaker played, both from `started_at` on. `caller_lines` says exactly when the caller spoke and is
    believed over the server; without it the server's own account is used, which includes the padding before speech
    and the silence after it, unless `caller_pcm` shows where the sound begins and ends.
    """
    fold = _Fold(started_at, max(ended_at, started_at))
    for event in session_events:
        fold.apply(event)
    if caller_lines:
        caller = [CallerSpan(fold.clamp(start), fold.clamp(end), words) for start, end, words in caller_lines]
    else:
        caller = [_trimmed(span, caller_pcm, rate_hz) for span in fold.caller_spans()]
    caller.sort(key=lambda span: span.start_s)
    return Recording(
        duration_s=fold.duration_s,
        caller=tuple(caller),
        false_alarms=tuple(fold.false_alarms()),
        agent=tuple(fold.agent_spans()),
        discarded=tuple(fold.discarded_spans()),
        tools=tuple(fold.tool_spans()),
        interruptions=tuple(_marks(fold, caller, onset_known=bool(caller_lines) or caller_pcm is not None)),
        latencies=tuple(_latencies(caller, fold)),
        errors=tuple(fold.errors),
        caller_pcm=caller_pcm,
        agent_pcm=agent_pcm,
        rate_hz=rate_hz,
    )


@attrs.define(eq=False)
class _Words:
    """An item of the conversation, as far as its words go."""

    item_id: str
    text: str = ""
    longest: str = ""
    """All that was written for it, before any cut."""
    at_s: float = 0.0


@attrs.define(eq=False)
class _Answer:
    turn: int
    items: list[_Words] = attrs.Factory(list)
    started_s: float | None = None
    ended_s: float | None = None
    cut: events.Interruption | None = None

    def heard(self) -> str:
        return _joined(words.text for words in self.items[: self._begun()])

    def unheard(self) -> str:
        begun = self._begun()
        rests = [words.longest.removeprefix(words.text) for words in self.items[:begun]]
        return _joined([*rests, *(words.longest for words in self.items[begun:])])

    def _begun(self) -> int:
        """How many of the items were heard at all, or in part."""
        if self.cut is None:
            return len(self.items)
        at = [index for index, words in enumerate(self.items) if words.item_id == self.cut.item_id]
        return at[0] + 1 if at else 0


@attrs.define(eq=False)
class _Fold:
    """The events so far. Nothing here looks ahead; `*_spans` are asked for at the end."""

    started_at: float
    ended_at: float
    errors: list[ErrorMark] = attrs.Factory(list)
    responses_s: list[float] = attrs.Factory(list)
    _origin_s: float | None = None
    """Where `audio_ms` of the speech events counts from."""
    _speech: list[tuple[float, float | None]] = attrs.Factory(list)
    _alarms: set[int] = attrs.Factory(set)
    """Which of them were false alarms."""
    _alarm_s: float | None = None
    """One that was noticed before the server told of it: the microphone's own detection is quicker."""
    _said: dict[str, _Words] = attrs.Factory(dict)
    _answers: dict[int, _Answer] = attrs.Factory(dict)
    _answer_of_item: dict[str, _Answer] = attrs.Factory(dict)
    _answering: int = 0
    _calls: dict[str, tuple[events.ToolCalled, events.ToolFinished | None]] = attrs.Factory(dict)

    @property
    def duration_s(self) -> float:
        return self.ended_at - self.started_at

    def clamp(self, position_s: float) -> float:
        return min(max(position_s, 0.0), self.duration_s)

    def _s(self, at: float) -> float:
        return self.clamp(at - self.started_at)

    def apply(self, event: SessionEvent) -> None:
        at_s = self._s(event.at)
        match event:
            case events.ListeningStarted() if self._origin_s is None:
                self._origin_s = at_s
            case events.SpeechStart():
                self._speech.append((self._audio_position(event.audio_ms, at_s), None))
                if self._alarm_s is not None and at_s - self._alarm_s <= LATE_S:
                    self._alarms.add(len(self._speech) - 1)
                self._alarm_s = None
            case events.SpeechEnd() if self._speech and self._speech[-1][1] is None:
                start_s = self._speech[-1][0]
                end_s = self._audio_position(event.audio_ms, at_s, rebase=False)
                self._speech[-1] = (start_s, min(max(end_s, start_s), at_s))
            case events.FalseAlarm():
                if self._speech and self._speech[-1][1] is None:
                    self._alarms.add(len(self._speech) - 1)
                else:
                    self._alarm_s = at_s
            case events.Transcript(role="user"):
                words = self._said.setdefault(event.item_id, _Words(event.item_id, at_s=at_s))
                words.text = event.text
            case events.Transcript():
                self._agent_words(event)
            case events.ResponseStart():
                self.responses_s.append(at_s)
                self._answering = event.turn
            case events.PlaybackStart():
                self._answer(event.turn).started_s = at_s
            case events.PlaybackEnd():
                self._answer(event.turn).ended_s = at_s
            case events.Interruption():
                answer = self._answer(event.turn)
                answer.cut, answer.ended_s = event, at_s
                if event.cause == "speech" and self._speech and self._speech[-1][1] is None:
                    self._alarms.discard(len(self._speech) - 1)  # it went on, and was meant after all
            case events.ToolCalled():
                self._calls[event.call_id] = (event, None)
            case events.ToolFinished() if event.call_id in self._calls:
                self._calls[event.call_id] = (self._calls[event.call_id][0], event)
            case events.ErrorReported():
                self.errors.append(ErrorMark(at_s, event.message, event.source))

    def _answer(self, turn: int) -> _Answer:
        return self._answers.setdefault(turn, _Answer(turn))

    def _agent_words(self, event: events.Transcript) -> None:
        if event.item_id not in self._answer_of_item:
            self._answer_of_item[event.item_id] = self._answer(self._answering)
        answer = self._answer_of_item[event.item_id]
        words = next((words for words in answer.items if words.item_id == event.item_id), None)
        if words is None:
            answer.items.append(words := _Words(event.item_id))
        words.text = event.text
        words.longest = max(words.longest, event.text, key=len)

    def _audio_position(self, audio_ms: int, at_s: float, *, rebase: bool = True) -> float:
        """Where in the conversation the sound at `audio_ms` was.

        The count restarts with a new connection and stands still while nothing is sent: the event's own time shows it.
        """
        position_s = (self._origin_s or 0.0) + audio_ms / 1000
        if rebase and not 0.0 <= at_s - position_s <= LATE_S:
            position_s = self.clamp(at_s - USUAL_DELAY_S)
            self._origin_s = position_s - audio_ms / 1000
        return self.clamp(position_s)

    def caller_spans(self) -> list[CallerSpan]:
        """Each stretch of speech takes the words of the next item of the user that came after it began.

        Transcripts may come late, but they come in the order of the speech.
        """
        spans = [CallerSpan(start, end, "") for index, start, end in self._spoken() if index not in self._alarms]
        free = 0
        typed: list[CallerSpan] = []
        for words in self._said.values():
            if free < len(spans) and spans[free].start_s <= words.at_s:
                spans[free] = attrs.evolve(spans[free], words=words.text.strip())
                free += 1
            elif words.text.strip():
                typed.append(CallerSpan(words.at_s, words.at_s, words.text.strip()))
        return spans + typed

    def false_alarms(self) -> list[FalseAlarmSpan]:
        return [FalseAlarmSpan(start, end) for index, start, end in self._spoken() if index in self._alarms]

    def _spoken(self) -> Iterable[tuple[int, float, float]]:
        return (
            (index, start, self.duration_s if end is None else end) for index, (start, end) in enumerate(self._speech)
        )

    def _heard_answers(self) -> list[tuple[_Answer, float, float]]:
        return [
            (answer, answer.started_s, max(answer.started_s, self.duration_s if end is None else end))
            for answer in self._answers.values()
            if answer.started_s is not None
            for end in (answer.ended_s,)
        ]

    def agent_spans(self) -> list[AgentSpan]:
        spans = [
            AgentSpan(answer.turn, start, end, answer.heard(), answer.cut is not None)
            for answer, start, end in self._heard_answers()
        ]
        return sorted(spans, key=lambda span: span.start_s)

    def cuts(self) -> list[tuple[_Answer, events.Interruption, float]]:
        return [
            (answer, answer.cut, self._s(answer.cut.at)) for answer in self._answers.values() if answer.cut is not None
        ]

    def discarded_spans(self) -> list[DiscardedSpan]:
        return [
            DiscardedSpan(answer.turn, at_s, at_s + cut.discarded_ms / 1000, answer.unheard())
            for answer, cut, at_s in self.cuts()
            if cut.discarded_ms > 0
        ]

    def tool_spans(self) -> list[ToolSpan]:
        return [
            ToolSpan(
                call_id=call_id,
                name=called.tool,
                start_s=self._s(called.at),
                end_s=self.duration_s if done is None else self._s(done.at),
                arguments=called.arguments,
                output=None if done is None else done.output,
                failed=done is not None and done.failed,
            )
            for call_id, (called, done) in self._calls.items()
        ]


def _joined(parts: Iterable[str]) -> str:
    return " ".join(part.strip() for part in parts if part.strip())


def _trimmed(span: CallerSpan, pcm: Samples | None, rate_hz: int) -> CallerSpan:
    """The part of `span` in which there is sound: the server's account has silence at both ends."""
    if pcm is None or span.start_s == span.end_s:
        return span
    import numpy as np

    window = max(1, int(rate_hz * WINDOW_S))
    first = int(span.start_s * rate_hz)
    sound = pcm[first : int(span.end_s * rate_hz)]
    windows = sound[: len(sound) // window * window].reshape(-1, window).astype(np.float32)
    if not len(windows):
        return span
    loudness = np.sqrt((windows**2).mean(axis=1))
    voiced = np.flatnonzero(loudness >= max(1.0, VOICED_PART * float(loudness.max())))
    if not len(voiced):
        return span
    start_s = (first + int(voiced[0]) * window) / rate_hz
    return attrs.evolve(span, start_s=start_s, end_s=(first + (int(voiced[-1]) + 1) * window) / rate_hz)


def _marks(fold: _Fold, caller: Sequence[CallerSpan], *, onset_known: bool) -> Iterable[InterruptionMark]:
    starts = [span.start_s for span in caller]
    for answer, cut, at_s in fold.cuts():
        index = bisect.bisect_right(starts, at_s) - 1
        caused = onset_known and index >= 0 and cut.cause == "speech" and at_s <= caller[index].end_s + LATE_S
        onset = starts[index] if caused else None
        after_ms = None if onset is None else (at_s - onset) * 1000
        yield InterruptionMark(answer.turn, at_s, cut.cause, cut.heard_ms, cut.discarded_ms, after_ms)


def _latencies(caller: Sequence[CallerSpan], fold: _Fold) -> Iterable[LatencySpan]:
    """For each time that the caller stopped: until the agent was heard, if that was before the caller's next word."""
    agent = fold.agent_spans()
    for index, span in enumerate(caller):
        until = caller[index + 1].start_s if index + 1 < len(caller) else float("inf")
        answer = next((heard for heard in agent if heard.start_s >= span.end_s), None)
        if answer is None or answer.start_s >= until:
            continue
        responded = [at_s for at_s in fold.responses_s if span.end_s <= at_s <= answer.start_s]
        yield LatencySpan(span.end_s, answer.start_s, responded[0] if responded else None)
