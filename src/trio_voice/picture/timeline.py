"""A conversation as a picture: the caller above, the agent below, on one clock, row under row as music is written.

Pure: a `Recording` in, SVG text out, nothing needed but a viewer. The invariant kept here: a span begins and ends at
its own time's x, to a tenth of a pixel, and captions of one lane never overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs
import msgspec

from trio_voice.audio import Samples
from trio_voice.picture.record import InterruptionMark, Recording, ToolSpan
from trio_voice.picture.svg import FONT, Drawing, ellipsised, number, text_width_px, wrapped

WIDTH = 1200
MARGIN = 28
PLOT_LEFT, PLOT_RIGHT = 104, WIDTH - MARGIN
PLOT_WIDTH = PLOT_RIGHT - PLOT_LEFT
LONGEST_ROW_S = 30.0
BREAK_SEARCH = 0.3
"""A row may end this part of its length early, if nobody speaks there."""
HEADER_HEIGHT = 104
LANE_HEIGHT = 46
GAP_HEIGHT = 36
"""Between the two voices, where the latencies are."""
LEADING = 14
CAPTION_LINES = 4
CAPTION_SIZE = 11
TOOL_HEIGHT = 20
LABEL_HEIGHT = 20
AXIS_HEIGHT = 22
ROW_GAP = 26
BAR_PITCH = 3.0
"""Of the waveform: one bar for so many px, as high as the loudest sample under it."""

INK, MUTED, FAINT, PAPER = "#111827", "#4b5563", "#e5e7eb", "#ffffff"
CALLER, CALLER_BLOCK = "#1d4ed8", "#dbeafe"
AGENT, AGENT_BLOCK = "#0f766e", "#ccfbf1"
TOOL, TOOL_BLOCK = "#6d28d9", "#ede9fe"
CUT, GHOST, GHOST_BLOCK = "#b91c1c", "#6b7280", "#f3f4f6"
WAIT, VOICE = "#b45309", "#f59e0b"

STYLE = f"""
text {{ font-family: {FONT}; font-size: {CAPTION_SIZE}px; fill: {INK}; }}
.title {{ font-size: 21px; font-weight: 700; }}
.figures {{ font-size: 13px; fill: {MUTED}; }}
.legend, .tick {{ fill: {MUTED}; }}
.lane {{ font-size: 12px; font-weight: 700; }}
.caller {{ fill: {CALLER}; }} .agent {{ fill: {AGENT}; }} .tool {{ fill: {TOOL}; }}
.ghost {{ fill: {GHOST}; font-style: italic; }}
.latency {{ fill: {WAIT}; font-weight: 700; }}
.cut {{ fill: {CUT}; font-weight: 700; }}
"""
DEFINITIONS = (
    '<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    f'<rect width="7" height="7" fill="{GHOST_BLOCK}"/>'
    f'<line x1="0" y1="0" x2="0" y2="7" stroke="#9ca3af" stroke-width="2"/></pattern>'
)


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
    moments = [latest_s, *(span.start_s - 0.15 for span in busy), *(span.end_s + 0.05 for span in busy)]
    quiet = [
        moment
        for moment in moments
        if earliest_s <= moment <= latest_s and not any(span.start_s < moment < span.end_s for span in busy)
    ]
    return max(quiet, default=latest_s)


def draw_timeline(recording: Recording, *, title: str = "A conversation") -> str:
    """The whole picture, as the text of an SVG document 1200 px wide."""
    drawing = Drawing()
    rows = rows_of(recording)
    painters = [_RowPainter(drawing, recording, row) for row in rows]
    height = HEADER_HEIGHT + sum(painter.height for painter in painters) + ROW_GAP * (len(rows) - 1) + MARGIN
    drawing.rect(0.5, 0.5, WIDTH - 1, height - 1, rx=12, fill=PAPER, stroke=FAINT)
    drawing.text(MARGIN, 42, ellipsised(title, WIDTH - 2 * MARGIN, 21), class_="title", title=title)
    drawing.text(MARGIN, 64, key_figures(recording), class_="figures")
    _draw_legend(drawing, recording)
    y = float(HEADER_HEIGHT)
    for painter in painters:
        painter.draw(y)
        y += painter.height + ROW_GAP
    return drawing.document(
        WIDTH, height, label=f"{title}: {key_figures(recording)}", style=STYLE, definitions=DEFINITIONS
    )


def key_figures(recording: Recording) -> str:
    """The conversation in one line."""
    figures = [f"{recording.duration_s:.1f} s"]
    figures.append(_counted(len(recording.caller), "caller turn"))
    figures.append(_counted(len(recording.interruptions), "interruption"))
    if recording.mean_latency_ms is not None:
        figures.append(f"mean latency {recording.mean_latency_ms:.0f} ms")
    figures.append(_counted(len(recording.tools), "tool call"))
    if recording.errors:
        figures.append(_counted(len(recording.errors), "error"))
    return "  ·  ".join(figures)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _draw_legend(drawing: Drawing, recording: Recording) -> None:
    x, y = float(MARGIN), HEADER_HEIGHT - 20.0
    entries = [("caller speaks", CALLER_BLOCK, CALLER, True), ("agent, as heard", AGENT_BLOCK, AGENT, True)]
    entries.append(("discarded, never played", "url(#hatch)", GHOST, bool(recording.discarded)))
    entries.append(("tool runs", TOOL_BLOCK, TOOL, bool(recording.tools)))
    for label, fill, stroke, shown in entries:
        if shown:
            drawing.rect(x, y - 10, 18, 12, rx=3, fill=fill, stroke=stroke)
            x = _legend_label(drawing, x, y, label)
    if recording.interruptions:
        drawing.line(x + 9, y - 12, x + 9, y + 4, stroke=CUT, stroke_width=2)
        x = _legend_label(drawing, x, y, "interruption")
    if recording.latencies:
        drawing.rect(x, y - 7, 9, 5, fill=WAIT)
        drawing.rect(x + 9, y - 7, 9, 5, fill=VOICE)
        _legend_label(drawing, x, y, "latency: caller's end → model begins → agent heard")


def _legend_label(drawing: Drawing, x: float, y: float, label: str) -> float:
    drawing.text(x + 25, y, label, class_="legend")
    return x + 25 + text_width_px(label, CAPTION_SIZE) + 16


@attrs.frozen
class _Caption:
    """Words under or over a span, wrapped to the room that they have."""

    x: float
    lines: list[str]
    full: str
    class_: str


@attrs.frozen
class _Label:
    """A line of text in a stack of lines: `level` 0 is on top."""

    x: float
    level: int
    text: str


class _RowPainter:
    """Measures one row, then paints it. Bands, from top: cut labels, caller's words, caller, latencies, agent, its
    words, tools, time axis."""

    def __init__(self, drawing: Drawing, recording: Recording, row: Row) -> None:
        self.drawing, self.recording, self.row = drawing, recording, row
        self.caller = [span for span in recording.caller if row.shows(span)]
        self.agent = [span for span in recording.agent if row.shows(span)]
        self.ghosts = [span for span in recording.discarded if row.shows(span)]
        self.tools = [span for span in recording.tools if row.shows(span)]
        self.cuts = [mark for mark in recording.interruptions if row.holds(mark.at_s)]
        self.errors = [mark for mark in recording.errors if row.holds(mark.at_s)]
        self.caller_captions = self._captions((span, span.words, "caller") for span in self.caller)
        spoken = [(span, span.words, "agent") for span in self.agent]
        self.agent_captions = self._captions([*spoken, *((span, span.words, "ghost") for span in self.ghosts)])
        self.cut_labels = self._stacked([(mark.at_s, _cut_label(mark)) for mark in self.cuts], room=PLOT_WIDTH)
        called = [(span.start_s, _call_label(span)) for span in self.tools]
        self.tool_labels = self._stacked(
            [*called, *((mark.at_s, f"⚠ {mark.message}") for mark in self.errors)], room=420, beside=14
        )
        levels = [
            1 + max((label.level for label in labels), default=-1) for labels in (self.cut_labels, self.tool_labels)
        ]
        self.cuts_height = levels[0] * LABEL_HEIGHT
        self.tools_height = levels[1] * (TOOL_HEIGHT + 4) + 6 if levels[1] else 0
        self.caller_words_height = _lines(self.caller_captions) * LEADING + 6
        self.agent_words_height = _lines(self.agent_captions) * LEADING + 8
        voices = self.caller_words_height + LANE_HEIGHT + GAP_HEIGHT + LANE_HEIGHT + self.agent_words_height
        self.height = self.cuts_height + voices + self.tools_height + AXIS_HEIGHT

    # --- measuring --------------------------------------------------------------------------------

    def _captions(self, spoken: Iterable[tuple[Span, str, str]]) -> list[_Caption]:
        """Each caption may run on into the silence after its span, up to where the next one begins."""
        ordered = sorted(spoken, key=lambda entry: entry[0].start_s)
        lefts = [self.row.x(span.start_s) + 1 for span, _, _ in ordered]
        captions = []
        for index, (span, words, class_) in enumerate(ordered):
            until = lefts[index + 1] - 10 if index + 1 < len(lefts) else PLOT_RIGHT
            part = self._part_in_row(span, words)
            lines = wrapped(part, until - lefts[index], CAPTION_SIZE, max_lines=CAPTION_LINES)
            preferred = max(90.0, self.row.x(span.end_s) - lefts[index])
            if preferred < until - lefts[index]:
                narrow = wrapped(part, preferred, CAPTION_SIZE, max_lines=CAPTION_LINES)
                lines = narrow if narrow and not narrow[-1].endswith("…") else lines
            captions.append(_Caption(lefts[index], lines, words, class_))
        return captions

    def _part_in_row(self, span: Span, words: str) -> str:
        """Of a span that a row's end divides, the words that fall to this row, in proportion to time."""
        length_s = span.end_s - span.start_s
        if length_s <= 0 or (span.start_s >= self.row.start_s and span.end_s <= self.row.end_s):
            return words
        parts = words.split()
        first = round(len(parts) * max(0.0, self.row.start_s - span.start_s) / length_s)
        last = round(len(parts) * min(length_s, self.row.end_s - span.start_s) / length_s)
        before, after = "… " if first else "", " …" if last < len(parts) else ""
        return before + " ".join(parts[first:last]) + after

    def _stacked(self, texts: Sequence[tuple[float, str]], *, room: float, beside: float = 6) -> list[_Label]:
        """Place each text at its time, on the first level where it meets no other."""
        taken: list[float] = []
        labels = []
        for at_s, text in texts:
            shown = ellipsised(text, room, CAPTION_SIZE)
            width = text_width_px(shown, CAPTION_SIZE) + beside
            x = min(self.row.x(at_s), PLOT_RIGHT - width)
            level = next((level for level, end in enumerate(taken) if end + 12 <= x), len(taken))
            taken[level : level + 1] = [x + width]
            labels.append(_Label(x, level, shown))
        return labels

    # --- painting ---------------------------------------------------------------------------------

    def draw(self, top: float) -> None:
        words_y = top + self.cuts_height
        caller_y = words_y + self.caller_words_height
        agent_y = caller_y + LANE_HEIGHT + GAP_HEIGHT
        agent_words_y = agent_y + LANE_HEIGHT
        tools_y = agent_words_y + self.agent_words_height
        self._draw_axis(tools_y + self.tools_height, caller_y)
        self._draw_lane(caller_y, "Caller", "caller")
        self._draw_lane(agent_y, "Agent", "agent")
        for span in self.ghosts:
            lost_ms = (span.end_s - span.start_s) * 1000
            self._block(
                span, agent_y, "url(#hatch)", "#9ca3af", f"Discarded, never played: {lost_ms:.0f} ms. {span.words}"
            )
        for span in self.caller:
            self._block(span, caller_y, CALLER_BLOCK, CALLER, f"Caller, {_span_words(span)}: {span.words}")
        for span in self.agent:
            cut = ", interrupted" if span.interrupted else ""
            self._block(span, agent_y, AGENT_BLOCK, AGENT, f"Agent, {_span_words(span)}{cut}: {span.words}")
        self._draw_waveform(self.recording.caller_pcm, caller_y, CALLER)
        self._draw_waveform(self.recording.agent_pcm, agent_y, AGENT)
        self._draw_captions(self.caller_captions, caller_y - 7, upwards=True)
        self._draw_captions(self.agent_captions, agent_words_y + 14, upwards=False)
        self._draw_latencies(caller_y + LANE_HEIGHT, agent_y)
        self._draw_tools(tools_y)
        self._draw_cuts(top, agent_words_y)

    def _draw_lane(self, y: float, name: str, class_: str) -> None:
        middle = y + LANE_HEIGHT / 2
        self.drawing.text(MARGIN, middle + 4, name, class_=f"lane {class_}")
        self.drawing.line(PLOT_LEFT, middle, self.row.x(self.row.end_s), middle, stroke="#cbd5e1")

    def _block(self, span: Span, y: float, fill: str, stroke: str, title: str) -> None:
        x = self.row.x(span.start_s)
        width = max(self.row.x(span.end_s) - x, 2.0)
        self.drawing.rect(
            x,
            y,
            width,
            LANE_HEIGHT,
            rx=min(5.0, width / 2),
            fill=fill,
            stroke=stroke,
            stroke_opacity="0.45",
            title=title,
        )

    def _draw_waveform(self, pcm: Samples | None, y: float, colour: str) -> None:
        """Over the whole row, not inside the blocks alone: what sounds where nothing should is seen."""
        if pcm is None or not len(pcm):
            return
        middle, reach = y + LANE_HEIGHT / 2, LANE_HEIGHT / 2 - 4
        steps = []
        for x, peak in self._peaks(pcm):
            half = peak * reach
            if half >= 0.4:
                steps.append(f"M{number(x)} {number(middle - half)}V{number(middle + half)}")
        if steps:
            self.drawing.add(
                "path", d="".join(steps), stroke=colour, stroke_width="1.9", stroke_linecap="round", fill="none",
                pointer_events="none",
            )  # fmt: skip

    def _peaks(self, pcm: Samples) -> Iterable[tuple[float, float]]:
        """(x, peak in 0..1) for each bar of the row; 1 is the loudest sample of the conversation."""
        import numpy as np

        rate_hz, px_per_s = self.recording.rate_hz, self.row.px_per_s
        loudest = max(float(np.abs(pcm.astype(np.int32)).max()), 1.0)
        for index in range(int((self.row.end_s - self.row.start_s) * px_per_s / BAR_PITCH)):
            first_s = self.row.start_s + index * BAR_PITCH / px_per_s
            part = pcm[int(first_s * rate_hz) : int((first_s + BAR_PITCH / px_per_s) * rate_hz)]
            if len(part):
                peak = float(np.abs(part.astype(np.int32)).max()) / loudest
                yield PLOT_LEFT + (index + 0.5) * BAR_PITCH, peak

    def _draw_captions(self, captions: Sequence[_Caption], y: float, *, upwards: bool) -> None:
        for caption in captions:
            first = y - (len(caption.lines) - 1) * LEADING if upwards else y
            self.drawing.lines(
                caption.x, first, caption.lines, leading=LEADING, class_=caption.class_, title=caption.full
            )

    def _draw_latencies(self, top: float, bottom: float) -> None:
        middle = (top + bottom) / 2
        for span in self.recording.latencies:
            if not self.row.shows(span):
                continue
            left, right = self.row.x(span.start_s), self.row.x(span.end_s)
            turned = self.row.x(span.responded_s) if span.responded_s is not None else right
            self.drawing.line(left, top, left, middle - 2, stroke=WAIT, stroke_dasharray="2 2")
            self.drawing.line(right, middle - 2, right, bottom, stroke=WAIT, stroke_dasharray="2 2")
            title = f"The agent was heard {span.latency_ms:.0f} ms after the caller stopped"
            if span.response_ms is not None:
                title += f"; the model began after {span.response_ms:.0f} ms"
            self.drawing.rect(left, middle - 5, right - left, 5, fill=VOICE, title=title)
            self.drawing.rect(left, middle - 5, turned - left, 5, fill=WAIT, title=title)
            if self.row.holds(span.start_s):
                label = f"{span.latency_ms:.0f} ms"
                half = text_width_px(label, CAPTION_SIZE) / 2
                x = min(max((left + right) / 2, PLOT_LEFT + half), PLOT_RIGHT - half)
                self.drawing.text(x, middle + 11, label, class_="latency halo", anchor="middle", title=title)

    def _draw_tools(self, y: float) -> None:
        if not self.tool_labels:
            return
        self.drawing.text(MARGIN, y + 15, "Tools", class_="lane tool")
        for span, label in zip(self.tools, self.tool_labels, strict=False):
            top = y + label.level * (TOOL_HEIGHT + 4)
            x = self.row.x(span.start_s)
            title = f"{span.name} {span.arguments}\n→ {span.output if span.output is not None else 'no result'}"
            width = max(4.0, self.row.x(span.end_s) - x)
            self.drawing.rect(x, top, width, TOOL_HEIGHT, rx=2, fill=TOOL_BLOCK, stroke=TOOL, title=title)
            self.drawing.text(label.x + 10, top + 14, label.text, class_="cut" if span.failed else "tool", title=title)
        for mark, label in zip(self.errors, self.tool_labels[len(self.tools) :], strict=True):
            top = y + label.level * (TOOL_HEIGHT + 4)
            self.drawing.text(label.x, top + 14, label.text, class_="cut", title=f"{mark.source}: {mark.message}")

    def _draw_cuts(self, top: float, bottom: float) -> None:
        for mark, label in zip(self.cuts, self.cut_labels, strict=True):
            x, y = self.row.x(mark.at_s), top + label.level * LABEL_HEIGHT
            self.drawing.line(x, y + 2, x, bottom + 4, stroke=CUT, stroke_width=2)
            self.drawing.text(max(label.x, PLOT_LEFT) + 6, y + 13, label.text, class_="cut", title=_cut_title(mark))

    def _draw_axis(self, y: float, top: float) -> None:
        right = self.row.x(self.row.end_s)
        step_s = next((step for step in (1, 2, 5, 10, 30) if step * self.row.px_per_s >= 44), 60)
        self.drawing.line(PLOT_LEFT, y + 4, right, y + 4, stroke="#9ca3af")
        tick_s = -int(-self.row.start_s // step_s) * step_s
        while tick_s <= self.row.end_s:
            x = self.row.x(tick_s)
            self.drawing.line(x, top, x, y + 4, stroke=FAINT, stroke_dasharray="1 3")
            self.drawing.line(x, y + 4, x, y + 8, stroke="#9ca3af")
            self.drawing.text(x, y + 19, f"{tick_s} s", class_="tick", anchor="middle")
            tick_s += step_s


def _lines(captions: Sequence[_Caption]) -> int:
    return max((len(caption.lines) for caption in captions), default=0)


def _span_words(span: Span) -> str:
    return f"{span.start_s:.2f} s to {span.end_s:.2f} s"


def _cut_label(mark: InterruptionMark) -> str:
    who = "caller interrupts" if mark.cause == "speech" else "interrupted by hand"
    return f"{who}: agent silent, {mark.heard_ms} ms heard"


def _cut_title(mark: InterruptionMark) -> str:
    title = f"{_cut_label(mark)}; {mark.discarded_ms} ms had arrived and were never played"
    if mark.after_onset_ms is not None:
        title += f"; {mark.after_onset_ms:.0f} ms after the caller's first sound"
    return title


def _call_label(span: ToolSpan) -> str:
    """`name(key="value") → output`, as short as it can be said."""
    output = "no result" if span.output is None else short_json(span.output, 42)
    return f"{span.name}({short_json(span.arguments, 48)}) → {'failed: ' if span.failed else ''}{output}"


def short_json(text: str, max_chars: int) -> str:
    """A JSON object as `key: value, …`; what is no object as it stands."""
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        decoded = text
    if isinstance(decoded, dict):
        decoded = ", ".join(f"{key}: {value}" for key, value in decoded.items())
    words = " ".join(str(decoded).split())
    return words if len(words) <= max_chars else words[: max_chars - 1] + "…"
