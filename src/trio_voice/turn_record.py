"""A turn of the conversation while it is written down, and what many of them amount to.

Core ring: pure. The tracker's: nobody else sees one. The invariant: totals are the same whether or not a turn is still
kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from trio_voice.usage import NOTHING, TokenUsage

if TYPE_CHECKING:
    from trio_voice.tracker import ToolUse


class TurnRecord(Struct, eq=False):
    """One turn, as far as it has come."""

    id: int
    started_at: float
    ended_at: float | None = None
    item_ids: list[str] = field(default_factory=list)
    user_audio_ms: float = 0.0
    agent_audio_ms: float = 0.0
    tools: dict[str, ToolUse] = field(default_factory=dict)
    user_ended_at: float | None = None
    first_delta_at: float | None = None
    first_delta_ms: float | None = None
    first_heard_at: float | None = None
    latency_ms: float | None = None
    interrupted: bool = False
    answered: bool = False
    used: dict[int | str, TokenUsage] = field(default_factory=dict)
    """By response, and by item where it was transcribed: a server may tell it twice."""
    metadata: dict[str, Any] = field(default_factory=dict)
    false_alarms: int = 0
    underruns: int = 0

    @property
    def usage(self) -> TokenUsage:
        return sum(self.used.values(), NOTHING)

    @property
    def tool_ms(self) -> float:
        return sum(use.duration_ms or 0.0 for use in self.tools.values())

    def since_user_ended_ms(self, at: float) -> float | None:
        return None if self.user_ended_at is None else (at - self.user_ended_at) * 1000


class Totals(Struct):
    """Of turns, whether or not they are still kept."""

    turns: int = 0
    audio_ms: float = 0.0
    latency_ms: float = 0.0
    latencies: int = 0
    first_delta_ms: float = 0.0
    first_deltas: int = 0
    interruptions: int = 0
    tool_calls: int = 0
    tool_ms: float = 0.0
    false_alarms: int = 0
    usage: TokenUsage = NOTHING

    def add(self, turn: TurnRecord) -> None:
        self.turns += 1
        self.audio_ms += turn.agent_audio_ms
        self.latency_ms += turn.latency_ms or 0.0
        self.latencies += turn.latency_ms is not None
        self.first_delta_ms += turn.first_delta_ms or 0.0
        self.first_deltas += turn.first_delta_ms is not None
        self.interruptions += turn.interrupted
        self.tool_calls += len(turn.tools)
        self.tool_ms += turn.tool_ms
        self.false_alarms += turn.false_alarms
        self.usage += turn.usage
