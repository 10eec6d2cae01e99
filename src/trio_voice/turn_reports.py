"""The account of a turn that is over, for the application and the log.

A part of the conversation's step, synchronous; the session does it once more when it ends. The invariant: each turn is
told once, and only when it is known how much of its answer was heard.
"""

from __future__ import annotations

from trio_voice import events
from trio_voice.channels import EventFanOut
from trio_voice.conversation_view import ConversationView
from trio_voice.logs import log
from trio_voice.tracker import ConversationTurn, LoopStalls, Readings


def tell_turns_over(view: ConversationView, fan_out: EventFanOut, now: float) -> None:
    """Those that have ended since this was last called."""
    for turn in view.tracker.take_turns_over():
        readings = view.readings()
        told = _account(turn, view.readings_told, readings, now)
        view.readings_told = readings
        fan_out.emit(told)
        log.info(
            "turn.over",
            exchange=told.id,
            first_delta_ms=_rounded(told.first_delta_ms),
            latency_ms=_rounded(told.latency_ms),
            tool_ms=_rounded(told.tool_ms),
            interrupted=told.interrupted,
            underruns=told.underruns,
        )


def _account(turn: ConversationTurn, before: Readings, readings: Readings, now: float) -> events.TurnMetrics:
    lost = {name: count - before.dropped.get(name, 0) for name, count in readings.dropped.items()}
    stalled, was_stalled = readings.stalls or LoopStalls(), before.stalls or LoopStalls()
    return events.TurnMetrics(
        at=now,
        id=turn.id,
        first_delta_ms=turn.first_delta_ms,
        latency_ms=turn.latency_ms,
        user_audio_ms=turn.user_audio_ms,
        agent_audio_ms=turn.agent_audio_ms,
        tool_calls=len(turn.tool_calls),
        tool_ms=turn.tool_ms,
        interrupted=turn.interrupted,
        false_alarms=turn.false_alarms,
        underruns=turn.underruns,
        dropped={name: count for name, count in lost.items() if count and name != "underruns"},
        round_trip_ms=readings.round_trip_ms,
        stalls=stalled.count - was_stalled.count,
        stall_ms=stalled.total_ms - was_stalled.total_ms,
    )


def _rounded(duration_ms: float | None) -> float | None:
    return None if duration_ms is None else round(duration_ms, 1)
