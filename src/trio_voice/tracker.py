"""The conversation as people look at it: turns, a transcript, metrics, a summary.

Core ring: pure. The conversation actor tells it what happened and when; the session reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
from msgspec import Struct, field
from msgspec.structs import replace

from trio_voice.errors import ConfigError
from trio_voice.protocol.history import History
from trio_voice.turn_record import Totals, TurnRecord
from trio_voice.usage import NOTHING, Prices, TokenUsage

RECENT_RESPONSES = 16
"""Of which it is remembered what they answer, until it is known what they cost."""


@attrs.frozen
class ToolUse:
    """One call of a tool."""

    call_id: str
    tool: str
    arguments: str
    output: str | None = None
    failed: bool = False
    duration_ms: float | None = None


@attrs.frozen
class TranscriptLine:
    """What one side said, in one go. Of an interrupted agent: what was heard of it."""

    role: Literal["user", "agent"]
    text: str
    at: float
    interrupted: bool = False


@attrs.frozen
class ConversationTurn:
    """One exchange: what the user said and what came back. Times in seconds on Trio's clock."""

    id: int
    started_at: float
    ended_at: float | None
    user_transcript: str
    agent_transcript: str
    user_audio_ms: float
    agent_audio_ms: float
    tool_calls: tuple[ToolUse, ...]
    latency_ms: float | None
    """From the server's word that speech had ended (or the text was sent) to the first sample in the air."""
    interrupted: bool
    item_ids: tuple[str, ...] = ()
    """Its messages, as `session.history` names them."""
    usage: TokenUsage = NOTHING
    metadata: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    """What `session.annotate()` has noted."""
    user_ended_at: float | None = None
    """When the server said that speech had ended, or the text was sent."""
    first_delta_at: float | None = None
    """When the first piece of an answer came: of its voice, or of its text."""
    first_delta_ms: float | None = None
    """From `user_ended_at` to that."""
    first_heard_at: float | None = None
    """When the first sample of an answer was in the air."""
    tool_ms: float = 0.0
    """Of all its tool calls that have ended, together."""
    false_alarms: int = 0
    """Sounds, too short to be an interruption, while the agent spoke."""
    underruns: int = 0
    """Times the agent's voice ran out in the middle."""


@attrs.frozen
class LoopStalls:
    """Steps of tasks that held the event loop up for longer than a `LoopWatch` allows."""

    count: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0
    task: str | None = None
    """Whose the longest was."""


class Readings(Struct, frozen=True):
    """What the parts of a session have counted up to now."""

    dropped: Mapping[str, int] = field(default_factory=dict)
    """By channel."""
    round_trip_ms: float | None = None
    longest_round_trip_ms: float | None = None
    """Of the latest pings."""
    stalls: LoopStalls | None = None
    """None where nobody watches."""


@attrs.frozen
class DeviceMetrics:
    """How a microphone or a loudspeaker of a session has done so far."""

    device: str
    failures: int
    """Outages: it failed, or was not there at the start."""
    outage_ms: float
    """How long it was away in all, the present outage included."""
    late_callbacks: int
    """Times it called back more than a block too late; 0 where the device does not tell."""
    underflows: int
    """Times sound was lost or missing for want of a callback; 0 where the device does not tell."""


@attrs.frozen
class SessionMetrics:
    """Figures of a session so far."""

    started_at: float
    duration_s: float
    turn_count: int
    audio_duration_ms: float
    """Of the agent's voice that was heard."""
    average_latency_ms: float | None
    interruption_count: int
    truncation_count: int
    tool_call_count: int
    round_trip_ms: float | None
    """Of the latest pings to the server, the median; None before the first."""
    dropped: Mapping[str, int]
    """What was dropped, by channel."""
    jitter_ms: float | None = None
    """How unevenly the agent's voice arrives; None without a speaker."""
    prebuffer_ms: float | None = None
    """What is gathered of it before it is played."""
    heard_ms: float = 0.0
    """Of the agent's voice, out of the loudspeaker by its own account; the turn that is playing included."""
    microphone: DeviceMetrics | None = None
    speaker: DeviceMetrics | None = None
    usage: TokenUsage = NOTHING
    cost: float | None = None
    """By the prices that the session was given; None without any, and where one is missing."""
    average_first_delta_ms: float | None = None
    """From the end of the user's speech to the first piece of an answer; None before the first."""
    tool_ms: float = 0.0
    """Of all tool calls together."""
    false_alarm_count: int = 0
    longest_round_trip_ms: float | None = None
    """Of the latest pings."""
    stalls: LoopStalls | None = None
    """What held the event loop up; None without a `LoopWatch`."""


def check_json(what: str, values: object) -> None:
    """Raises: `ConfigError` for what JSON cannot hold."""
    import json  # here: few sessions note anything

    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as failure:
        raise ConfigError(f"{what} takes what JSON can hold, to be exported: {failure}") from None


class ConversationTracker:
    """Follows a conversation. One turn is the user's words and all that the agent does until the user's next."""

    def __init__(
        self,
        history: History,
        *,
        started_at: float,
        metadata: Mapping[str, Any] | None = None,
        began_at: float | None = None,
        forgotten_earlier: int = 0,
    ) -> None:
        """`began_at`: when the conversation began, if in an earlier session; `forgotten_earlier`: how many turns of
        such a session are not in `history`."""
        self.began_at = started_at if began_at is None else began_at
        self._history = history
        self.started_at = started_at
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.truncation_count = 0
        self._turns: list[TurnRecord] = []
        """Those that are kept."""
        self._newest = 0
        self._forgotten = Totals()
        self._forgotten_earlier = forgotten_earlier
        self._earlier = {entry.item_id for entry in history}
        """Items of a session before this one: they are of none of its turns."""
        self._turn_of_response: dict[int, TurnRecord] = {}
        self._turn_of_item: dict[str, TurnRecord] = {}
        self._over: list[TurnRecord] = []
        self._now = started_at

    # --- what happened ----------------------------------------------------------------------------

    def user_began(self, at: float) -> None:
        turn = self._current(at)
        if turn.answered or turn.user_ended_at is not None:
            self._begin(at)

    def user_ended(self, at: float, audio_ms: float) -> None:
        turn = self._current(at)
        turn.user_ended_at = at
        turn.user_audio_ms += audio_ms

    def item_seen(self, item_id: str, at: float) -> None:
        """An item of either side belongs to the turn in which it first appears."""
        entry = self._history.get(item_id)
        if entry is not None and item_id not in self._turn_of_item and item_id not in self._earlier:
            turn = self._current(at)
            self._turn_of_item[item_id] = turn
            turn.item_ids.append(item_id)
            entry.exchange = turn.id
            if entry.at is None:
                entry.at = at

    def item_replaced(self, item_id: str, new_id: str) -> None:
        """The words of an item were edited: another stands in its place."""
        turn = self._turn_of_item.pop(item_id, None)
        if turn is None:
            self._earlier.discard(item_id)
            self._earlier.add(new_id)
        else:
            turn.item_ids[turn.item_ids.index(item_id)] = new_id
            self._turn_of_item[new_id] = turn

    def response_began(self, at: float, response: int = 0) -> None:
        turn = self._turn_of_response[response] = self._current(at)
        turn.answered = True

    def response_used(self, response: int, usage: TokenUsage, at: float) -> None:
        """What a response has cost: the turn that it answers, which may be over by now."""
        turn = self._turn_of_response.setdefault(response, self._current(at))
        turn.used[response] = usage
        while len(self._turn_of_response) > RECENT_RESPONSES:
            del self._turn_of_response[next(iter(self._turn_of_response))]

    def transcription_used(self, item_id: str, usage: TokenUsage, at: float) -> None:
        (self._turn_of_item.get(item_id) or self._current(at)).used[item_id] = usage

    def annotate(self, values: Mapping[str, Any], turn_id: int | None = None) -> None:
        """Note something about a turn; None is the one under way.

        Raises: `ConfigError` for a turn that there is not, and for what JSON cannot hold.
        """
        check_json("annotate()", dict(values))
        number = self._newest if turn_id is None else turn_id
        if not 1 <= number <= self._newest:
            raise ConfigError(f"there is no turn {number}; so far there are {self._newest}")
        turn = next((turn for turn in self._turns if turn.id == number), None)
        if turn is None:
            raise ConfigError(f"turn {number} is forgotten; the oldest that is kept is {self._turns[0].id}")
        turn.metadata.update(values)

    def agent_began(self, at: float) -> None:
        """The first piece of an answer has come."""
        turn = self._current(at)
        if turn.first_delta_at is None:
            turn.first_delta_at, turn.first_delta_ms = at, turn.since_user_ended_ms(at)

    def agent_heard(self, at: float) -> None:
        """The first sample of an answer is in the air."""
        turn = self._current(at)
        if turn.first_heard_at is None:
            turn.first_heard_at = at
        if turn.latency_ms is None:
            turn.latency_ms = turn.since_user_ended_ms(at)

    def agent_played(self, at: float, heard_ms: float, underruns: int = 0) -> None:
        turn = self._answered(at)
        turn.agent_audio_ms += heard_ms
        turn.underruns += underruns

    def false_alarm(self, at: float) -> None:
        self._answered(at).false_alarms += 1

    def agent_interrupted(self, at: float) -> None:
        self._answered(at).interrupted = True

    def tool_changed(self, use: ToolUse, at: float) -> None:
        turn = next((turn for turn in self._turns if use.call_id in turn.tools), None) or self._current(at)
        turn.tools[use.call_id] = use

    def tool_finished(self, use: ToolUse, at: float) -> None:
        """The end of a call; its arguments are those it began with."""
        begun = next((turn.tools[use.call_id] for turn in self._turns if use.call_id in turn.tools), use)
        self.tool_changed(attrs.evolve(use, arguments=begun.arguments), at)

    # --- what is forgotten ------------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The id of the turn under way; 0 before the first."""
        return self._newest

    @property
    def forgotten_turns(self) -> int:
        """How many are not kept any more, those of earlier sessions included."""
        return self._forgotten.turns + self._forgotten_earlier

    def calls_until(self, turn_id: int) -> dict[int, list[str]]:
        """By turn, for those up to `turn_id` that are kept: the ids of their calls."""
        return {turn.id: list(turn.tools) for turn in self._turns if turn.id <= turn_id}

    def is_open(self, turn_id: int, *, answering: bool) -> bool:
        """Whether more is to come of a turn. `answering`: the last answer is still being made, or heard."""
        if answering and (answered := self._last_answered()) is not None and answered.id == turn_id:
            return True
        return any(turn.id == turn_id for turn in self._over)

    def forget(self, turn_id: int, *, of_earlier_session: bool) -> None:
        """Keep no more of a turn than its share of the totals. `of_earlier_session`: where there is none of that id."""
        turn = next((turn for turn in self._turns if turn.id == turn_id), None)
        if turn is None:
            self._forgotten_earlier += of_earlier_session
        else:
            self._turns.remove(turn)
            for item_id in turn.item_ids:
                self._turn_of_item.pop(item_id, None)
            self._forgotten.add(turn)

    def forget_item(self, item_id: str) -> None:
        """One of an earlier session; those of turns go with their turns."""
        self._earlier.discard(item_id)

    def close(self, at: float) -> None:
        self._now = at
        if self._turns and self._turns[-1].ended_at is None:
            self._turns[-1].ended_at = at
            self._over.append(self._turns[-1])

    # --- what it amounts to -----------------------------------------------------------------------

    def turns(self) -> list[ConversationTurn]:
        return [self._as_told(turn) for turn in self._turns]

    @property
    def has_turns_over(self) -> bool:
        """`take_turns_over` would give some."""
        return bool(self._over)

    def take_turns_over(self) -> list[ConversationTurn]:
        """Those that have ended since this was last asked."""
        over, self._over = self._over, []
        return [self._as_told(turn) for turn in over]

    def transcript(self) -> list[TranscriptLine]:
        """What was said and heard, in order."""
        lines = []
        for entry in self._history:
            text = entry.heard_text.strip()
            if entry.kind == "message" and entry.role in ("user", "assistant") and text:
                lines.append(
                    TranscriptLine(
                        "user" if entry.role == "user" else "agent",
                        text,
                        self.started_at if entry.at is None else entry.at,
                        entry.truncated,
                    )
                )
        return lines

    def metrics(self, at: float, readings: Readings, prices: Prices | None = None) -> SessionMetrics:
        totals = replace(self._forgotten)
        for turn in self._turns:
            totals.add(turn)
        return SessionMetrics(
            started_at=self.started_at,
            duration_s=at - self.started_at,
            turn_count=totals.turns,
            audio_duration_ms=totals.audio_ms,
            average_latency_ms=totals.latency_ms / totals.latencies if totals.latencies else None,
            interruption_count=totals.interruptions,
            truncation_count=self.truncation_count,
            tool_call_count=totals.tool_calls,
            usage=totals.usage,
            cost=prices.cost(totals.usage) if prices is not None else None,
            round_trip_ms=readings.round_trip_ms,
            dropped=dict(readings.dropped),
            average_first_delta_ms=totals.first_delta_ms / totals.first_deltas if totals.first_deltas else None,
            tool_ms=totals.tool_ms,
            false_alarm_count=totals.false_alarms,
            longest_round_trip_ms=readings.longest_round_trip_ms,
            stalls=readings.stalls,
        )

    # --- inside -----------------------------------------------------------------------------------

    def _current(self, at: float) -> TurnRecord:
        self._now = at
        return self._turns[-1] if self._turns else self._begin(at)

    def _answered(self, at: float) -> TurnRecord:
        """The turn that was answered last: playback reports an interruption after the user has begun the next one."""
        current = self._current(at)
        return self._last_answered() or current

    def _last_answered(self) -> TurnRecord | None:
        return next((turn for turn in reversed(self._turns) if turn.answered), None)

    def _as_told(self, turn: TurnRecord) -> ConversationTurn:
        return ConversationTurn(
            id=turn.id,
            started_at=turn.started_at,
            ended_at=turn.ended_at,
            user_transcript=self._words(turn, "user"),
            agent_transcript=self._words(turn, "assistant"),
            user_audio_ms=turn.user_audio_ms,
            agent_audio_ms=turn.agent_audio_ms,
            tool_calls=tuple(turn.tools.values()),
            latency_ms=turn.latency_ms,
            interrupted=turn.interrupted,
            user_ended_at=turn.user_ended_at,
            first_delta_at=turn.first_delta_at,
            first_delta_ms=turn.first_delta_ms,
            first_heard_at=turn.first_heard_at,
            tool_ms=turn.tool_ms,
            false_alarms=turn.false_alarms,
            underruns=turn.underruns,
            item_ids=tuple(turn.item_ids),
            usage=turn.usage,
            metadata=dict(turn.metadata),
        )

    def _begin(self, at: float) -> TurnRecord:
        if self._turns:
            self._turns[-1].ended_at = at
            self._over.append(self._turns[-1])
        self._newest = self._history.exchange = self._newest + 1
        turn = TurnRecord(self._newest, at)
        self._turns.append(turn)
        return turn

    def _words(self, turn: TurnRecord, role: str) -> str:
        entries = (self._history.get(item_id) for item_id in turn.item_ids)
        return " ".join(
            entry.heard_text.strip()
            for entry in entries
            if entry is not None and entry.kind == "message" and entry.role == role and entry.heard_text.strip()
        )
