"""Where things go in the picture of a conversation: sizes, colours, and time broken into rows.

Pure. The invariant kept here: every moment of the conversation is in exactly one row, and all rows share one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from trio_voice.picture.record import Recording

WIDTH = 1200
MARGIN = 28
PLOT_LEFT, PLOT_RIGHT = 104, WIDTH - MARGIN
PLOT_WIDTH = PLOT_RIGHT - PLOT_LEFT
LONGEST_ROW_S = 30.0
BREAK_SEARCH = 0.35
"""A row may end this part of its length early, if nobody speaks there."""
HEADER_HEIGHT = 104
LANE_HEIGHT = 46
GAP_HEIGHT = 36
"""Between the two voices, where the latencies are."""
LEADING = 14
CAPTION_LINES = 4
CAPTION_SIZE = 11
TOOL_HEIGHT, TOOL_PITCH = 18, 23
LABEL_HEIGHT = 20
LONGEST_LABEL = 600
AXIS_HEIGHT = 22
ROW_GAP = 26
BAR_PITCH = 3.0
"""Of the waveform: one bar for so many px, as high as the loudest sample under it."""

INK, MUTED, RULE, PAPER = "#111827", "#4b5563", "#d7dce3", "#ffffff"
CALLER, CALLER_BLOCK = "#1d4ed8", "#dbeafe"
AGENT, AGENT_BLOCK = "#0f766e", "#ccfbf1"
TOOL, TOOL_BLOCK = "#6d28d9", "#ede9fe"
CUT = "#b91c1c"
GHOST, GHOST_BLOCK, GHOST_EDGE = "#6b7280", "#f3f4f6", "#9ca3af"
WAIT, VOICE = "#b45309", "#f59e0b"


class Span(Protocol):
    """Anything with a beginning and an end."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


@attrs.frozen
class Row:
    """One line of the picture: a stretch of time, at a scale that all rows share."""

    start_s: float
    end_s: float
    px_per_s: float

    def x(self, position_s: float) -> float:
        return PLOT_LEFT + (min(max(position_s, self.start_s), self.end_s) - self.start_s) * self.px_per_s

    def shows(self, span: Span) -> bool:
        """Whether any of `span` is in this row; a moment belongs to the row that it begins."""
        return self.start_s <= span.start_s < self.end_s or span.start_s < self.start_s < span.end_s

    def holds(self, at_s: float) -> bool:
        return self.start_s <= at_s < self.end_s


def rows_of(recording: Recording) -> list[Row]:
    """Break a long conversation into rows, in a pause where there is one."""
    duration_s = max(recording.duration_s, 1.0, *(span.end_s for span in recording.discarded))
    row_count = max(1, -int(-duration_s // LONGEST_ROW_S))
    row_s = duration_s if row_count == 1 else min(LONGEST_ROW_S, duration_s / row_count * 1.12)
    busy: list[Span] = [
        *recording.caller, *recording.agent, *recording.discarded, *recording.tools, *recording.latencies
    ]  # fmt: skip
    starts = [0.0]
    while duration_s - starts[-1] > row_s + 1e-6:
        starts.append(_quiet_moment(busy, starts[-1] + row_s * (1 - BREAK_SEARCH), starts[-1] + row_s))
    ends = [*starts[1:], max(duration_s, starts[-1] + min(1.0, row_s))]
    return [Row(start, end, PLOT_WIDTH / row_s) for start, end in zip(starts, ends, strict=True)]


def _quiet_moment(busy: Sequence[Span], earliest_s: float, latest_s: float) -> float:
    """The last moment in which nothing goes on, a little before something begins; `latest_s` if there is none."""
    moments = [latest_s, *(span.start_s - 0.15 for span in busy), *(span.end_s for span in busy)]
    quiet = [
        moment
        for moment in moments
        if earliest_s <= moment <= latest_s and not any(span.start_s < moment < span.end_s for span in busy)
    ]
    return max(quiet, default=latest_s)
