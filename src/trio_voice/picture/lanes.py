"""One row of the picture: the two voices, what was said, what was cut, how long answers took, the tools, the clock.

Pure. The invariant kept here: a span begins and ends at its own time's x, and captions of one lane never overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import msgspec

from trio_voice.audio import Samples
from trio_voice.picture import layout
from trio_voice.picture.layout import CAPTION_SIZE, LANE_HEIGHT, LEADING, PLOT_LEFT, PLOT_RIGHT, Row, Span
from trio_voice.picture.record import InterruptionMark, Recording, ToolSpan
from trio_voice.picture.svg import Drawing, ellipsised, number, text_width_px, wrapped


@attrs.frozen
class _Caption:
    """Words over or under a span, wrapped to the room that they have."""

    x: float
    lines: list[str]
    full: str
    class_: str


@attrs.frozen
class _Label:
    """A line of text beside a block or a mark; lines that would meet are on different levels, 0 on top."""

    x: float
    level: int
    text: str


class RowPainter:
    """Measures one row, then paints it.

    Bands, from the top: labels of cuts, the caller's words, the caller, latencies, the agent, its words, tools, time.
    """

    def __init__(self, drawing: Drawing, recording: Recording, row: Row) -> None:
        self.drawing, self.recording, self.row = drawing, recording, row
        self.caller = [span for span in recording.caller if row.shows(span)]
        self.alarms = [span for span in recording.false_alarms if row.shows(span)]
        self.agent = [span for span in recording.agent if row.shows(span)]
        self.ghosts = [span for span in recording.discarded if row.shows(span)]
        self.tools = [span for span in recording.tools if row.shows(span)]
        self.cuts = [mark for mark in recording.interruptions if row.holds(mark.at_s)]
        self.errors = [mark for mark in recording.errors if row.holds(mark.at_s)]
        self.caller_captions = self._captions((span, span.words, "caller") for span in self.caller)
        spoken = [(span, span.words, "agent") for span in self.agent]
        self.agent_captions = self._captions([*spoken, *((span, span.words, "ghost") for span in self.ghosts)])
        self.cut_labels = self._stacked((mark.at_s, mark.at_s, _cut_label(mark)) for mark in self.cuts)
        called = [(span.start_s, span.end_s, _call_label(span)) for span in self.tools]
        failed = [(mark.at_s, mark.at_s, f"⚠ {mark.message}") for mark in self.errors]
        self.tool_labels = self._stacked([*called, *failed])
        self.cuts_height = _levels(self.cut_labels) * layout.LABEL_HEIGHT
        self.tools_height = _levels(self.tool_labels) * layout.TOOL_PITCH
        self.caller_words_height = _lines(self.caller_captions) * LEADING + 6
        self.agent_words_height = _lines(self.agent_captions) * LEADING + 12
        voices = self.caller_words_height + 2 * LANE_HEIGHT + layout.GAP_HEIGHT + self.agent_words_height
        self.height = self.cuts_height + voices + self.tools_height + layout.AXIS_HEIGHT

    # --- measuring --------------------------------------------------------------------------------

    def _captions(self, spoken: Iterable[tuple[Span, str, str]]) -> list[_Caption]:
        """Each as narrow as its span if it fits so, else as wide as the silence after it, up to the next caption."""
        ordered = sorted(spoken, key=lambda entry: entry[0].start_s)
        lefts = [self._clear_of_cuts(self.row.x(span.start_s) + 1) for span, _, _ in ordered]
        captions = []
        for index, (span, words, class_) in enumerate(ordered):
            part = self._part_in_row(span, words)
            room = (lefts[index + 1] - 10 if index + 1 < len(lefts) else PLOT_RIGHT) - lefts[index]
            narrow = min(room, max(90.0, self.row.x(span.end_s) - lefts[index]))
            lines = wrapped(part, narrow, CAPTION_SIZE, max_lines=layout.CAPTION_LINES)
            if lines and lines[-1].endswith("…") and narrow < room:
                lines = wrapped(part, room, CAPTION_SIZE, max_lines=layout.CAPTION_LINES)
            captions.append(_Caption(lefts[index], lines, words, class_))
        return captions

    def _clear_of_cuts(self, x: float) -> float:
        """The words of who interrupts begin beside the line that shows it, not under it."""
        cuts = [self.row.x(mark.at_s) for mark in self.cuts]
        return next((cut + 6 for cut in cuts if x - 6 < cut < x + 80), x)

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

    def _stacked(self, entries: Iterable[tuple[float, float, str]]) -> list[_Label]:
        """Each text beside its block, right of it where there is room, on the first level where both meet nothing."""
        levels: list[list[tuple[float, float]]] = []
        labels = []
        for start_s, end_s, text in entries:
            left, right = self.row.x(start_s), self.row.x(end_s)
            shown = ellipsised(text, layout.LONGEST_LABEL, CAPTION_SIZE)
            width = text_width_px(shown, CAPTION_SIZE) + 6
            places = (right + 6, left - width)
            x = next((x for x in places if PLOT_LEFT <= x <= PLOT_RIGHT - width), PLOT_LEFT + 6.0)
            extent = (min(left, x), max(right, x + width))
            free = (index for index, taken in enumerate(levels) if not any(_meet(extent, other) for other in taken))
            level = next(free, len(levels))
            if level == len(levels):
                levels.append([])
            levels[level].append(extent)
            labels.append(_Label(x, level, shown))
        return labels

    # --- painting ---------------------------------------------------------------------------------

    def draw(self, top: float) -> None:
        words_y = top + self.cuts_height
        caller_y = words_y + self.caller_words_height
        agent_y = caller_y + LANE_HEIGHT + layout.GAP_HEIGHT
        agent_words_y = agent_y + LANE_HEIGHT
        tools_y = agent_words_y + self.agent_words_height
        self._draw_axis(tools_y + self.tools_height, caller_y)
        self._draw_lane(caller_y, "Caller", "caller")
        self._draw_lane(agent_y, "Agent", "agent")
        self._draw_blocks(caller_y, agent_y)
        self._draw_waveform(self.recording.caller_pcm, caller_y, layout.CALLER)
        self._draw_waveform(self.recording.agent_pcm, agent_y, layout.AGENT)
        self._draw_captions(self.caller_captions, caller_y - 7, upwards=True)
        self._draw_captions(self.agent_captions, agent_words_y + 15, upwards=False)
        self._draw_latencies(caller_y + LANE_HEIGHT, agent_y)
        self._draw_tools(tools_y)
        self._draw_cuts(top, agent_words_y)

    def _draw_lane(self, y: float, name: str, class_: str) -> None:
        middle = y + LANE_HEIGHT / 2
        self.drawing.text(layout.MARGIN, middle + 4, name, class_=f"lane {class_}")
        self.drawing.line(PLOT_LEFT, middle, self.row.x(self.row.end_s), middle, stroke=layout.RULE)

    def _draw_blocks(self, caller_y: float, agent_y: float) -> None:
        for ghost in self.ghosts:
            title = f"Discarded, never played: {(ghost.end_s - ghost.start_s) * 1000:.0f} ms. {ghost.words}"
            # Until the agent speaks again: what would have played beyond that says nothing to the eye.
            later = (span.start_s for span in self.recording.agent if span.start_s >= ghost.start_s)
            visible = attrs.evolve(ghost, end_s=min([ghost.end_s, *later]))
            if visible.end_s > self.row.start_s:
                self._block(visible, agent_y, "url(#hatch)", layout.GHOST_EDGE, title)
        for alarm in self.alarms:
            title = f"False alarm, {_span_words(alarm)}: too short to interrupt"
            self._block(alarm, caller_y, layout.GHOST_BLOCK, layout.GHOST_EDGE, title)
        for said in self.caller:
            title = f"Caller, {_span_words(said)}: {said.words}"
            self._block(said, caller_y, layout.CALLER_BLOCK, layout.CALLER, title)
        for heard in self.agent:
            cut = ", interrupted" if heard.interrupted else ""
            title = f"Agent, {_span_words(heard)}{cut}: {heard.words}"
            self._block(heard, agent_y, layout.AGENT_BLOCK, layout.AGENT, title)

    def _block(self, span: Span, y: float, fill: str, stroke: str, title: str) -> None:
        x = self.row.x(span.start_s)
        width = max(self.row.x(span.end_s) - x, 2.0)
        rx = min(5.0, width / 2)
        self.drawing.rect(x, y, width, LANE_HEIGHT, title, rx=rx, fill=fill, stroke=stroke, stroke_opacity=0.5)

    def _draw_waveform(self, pcm: Samples | None, y: float, colour: str) -> None:
        """Over the whole row, not inside the blocks alone: what sounds where nothing should is seen."""
        middle, reach = y + LANE_HEIGHT / 2, LANE_HEIGHT / 2 - 4
        bars = [
            f"M{number(x)} {number(middle - peak * reach)}V{number(middle + peak * reach)}"
            for x, peak in self._peaks(pcm)
            if peak * reach >= 0.4
        ]
        if bars:
            self.drawing.path(
                "".join(bars), stroke=colour, stroke_width=1.9, stroke_linecap="round", pointer_events="none"
            )

    def _peaks(self, pcm: Samples | None) -> Iterable[tuple[float, float]]:
        """(x, peak in 0..1) for each bar of the row; 1 is the loudest sample of the conversation."""
        import numpy as np

        if pcm is None or not len(pcm):
            return
        rate_hz, bar_s = self.recording.rate_hz, layout.BAR_PITCH / self.row.px_per_s
        loudest = max(_peak(int(pcm.min()), int(pcm.max())), 1)
        bar_count = int((self.row.end_s - self.row.start_s) / bar_s)
        edges = ((self.row.start_s + np.arange(bar_count + 1) * bar_s) * rate_hz).astype(np.int64)
        for index in range(bar_count):
            bar = pcm[edges[index] : edges[index + 1]]
            if len(bar):
                yield PLOT_LEFT + (index + 0.5) * layout.BAR_PITCH, _peak(int(bar.min()), int(bar.max())) / loudest

    def _draw_captions(self, captions: Sequence[_Caption], y: float, *, upwards: bool) -> None:
        for caption in captions:
            first = y - (len(caption.lines) - 1) * LEADING if upwards else y
            for index, line in enumerate(caption.lines):
                self.drawing.text(
                    caption.x, first + index * LEADING, line, class_=f"said {caption.class_}", title=caption.full
                )

    def _draw_latencies(self, top: float, bottom: float) -> None:
        bar_y = (top + bottom) / 2 - 6
        for span in self.recording.latencies:
            if not self.row.shows(span):
                continue
            left, right = self.row.x(span.start_s), self.row.x(span.end_s)
            turned = self.row.x(span.responded_s) if span.responded_s is not None else right
            title = f"The agent was heard {span.latency_ms:.0f} ms after the caller stopped"
            if span.response_ms is not None:
                title += f"; the model began after {span.response_ms:.0f} ms"
            self.drawing.line(left, top, left, bar_y + 5, stroke=layout.WAIT, stroke_dasharray="2 2")
            self.drawing.line(right, bar_y, right, bottom, stroke=layout.WAIT, stroke_dasharray="2 2")
            self.drawing.rect(left, bar_y, right - left, 5, title, fill=layout.VOICE)
            self.drawing.rect(left, bar_y, turned - left, 5, title, fill=layout.WAIT)
            if self.row.holds(span.start_s):
                label = f"{span.latency_ms:.0f} ms"
                half = text_width_px(label, CAPTION_SIZE) / 2
                x = min(max((left + right) / 2, PLOT_LEFT + half), PLOT_RIGHT - half)
                self.drawing.text(x, bar_y + 17, label, class_="latency", anchor="middle", title=title)

    def _draw_tools(self, y: float) -> None:
        if self.tools:
            self.drawing.text(layout.MARGIN, y + 13, "Tools", class_="lane tool")
        for span, label in zip(self.tools, self.tool_labels, strict=False):
            top = y + label.level * layout.TOOL_PITCH
            x = self.row.x(span.start_s)
            title = f"{span.name} {span.arguments}\n→ {span.output if span.output is not None else 'no result'}"
            width = max(3.0, self.row.x(span.end_s) - x)
            self.drawing.rect(
                x, top, width, layout.TOOL_HEIGHT, title, rx=2, fill=layout.TOOL_BLOCK, stroke=layout.TOOL
            )
            self.drawing.text(label.x, top + 13, label.text, class_="failed" if span.failed else "tool", title=title)
        for mark, label in zip(self.errors, self.tool_labels[len(self.tools) :], strict=True):
            top = y + label.level * layout.TOOL_PITCH
            self.drawing.text(label.x, top + 13, label.text, class_="failed", title=f"{mark.source}: {mark.message}")
            self.drawing.line(self.row.x(mark.at_s), top, self.row.x(mark.at_s), top + 16, stroke=layout.CUT)

    def _draw_cuts(self, top: float, bottom: float) -> None:
        for mark, label in zip(self.cuts, self.cut_labels, strict=True):
            x, y = self.row.x(mark.at_s), top + label.level * layout.LABEL_HEIGHT
            self.drawing.line(x, y + 2, x, bottom + 4, stroke=layout.CUT, stroke_width=2)
            self.drawing.text(label.x, y + 13, label.text, class_="cut", title=_cut_title(mark))

    def _draw_axis(self, y: float, top: float) -> None:
        step_s = next((step for step in (1, 2, 5, 10, 30) if step * self.row.px_per_s >= 44), 60)
        self.drawing.line(PLOT_LEFT, y + 4, self.row.x(self.row.end_s), y + 4, stroke=layout.GHOST_EDGE)
        tick_s = -int(-self.row.start_s // step_s) * step_s
        while tick_s <= self.row.end_s:
            x = self.row.x(tick_s)
            self.drawing.line(x, top, x, y + 4, stroke=layout.RULE, stroke_dasharray="1 3")
            self.drawing.line(x, y + 4, x, y + 8, stroke=layout.GHOST_EDGE)
            self.drawing.text(x, y + 20, f"{tick_s} s", class_="tick", anchor="middle")
            tick_s += step_s


def _peak(lowest: int, highest: int) -> int:
    return max(-lowest, highest)


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] + 10 and other[0] < one[1] + 10


def _levels(labels: Sequence[_Label]) -> int:
    return max((label.level + 1 for label in labels), default=0)


def _lines(captions: Sequence[_Caption]) -> int:
    return max((len(caption.lines) for caption in captions), default=0)


def _span_words(span: Span) -> str:
    return f"{span.start_s:.2f} s to {span.end_s:.2f} s"


def _cut_label(mark: InterruptionMark) -> str:
    who = "caller interrupts" if mark.cause == "speech" else "interrupted by hand"
    after = "" if mark.after_onset_ms is None else f" {mark.after_onset_ms:.0f} ms later"
    return f"{who}: agent silent{after}, {mark.heard_ms} ms heard"


def _cut_title(mark: InterruptionMark) -> str:
    return f"{_cut_label(mark)}; {mark.discarded_ms} ms more had arrived and were never played"


def _call_label(span: ToolSpan) -> str:
    """`name(key: value) → output`, as short as it can be said."""
    output = "no result" if span.output is None else short_json(span.output, 44)
    return f"{span.name}({short_json(span.arguments, 48)}) → {'failed: ' if span.failed else ''}{output}"


def short_json(text: str, max_chars: int) -> str:
    """A JSON object as `key: value, …`; a string as its words; what is not JSON as it stands."""
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        decoded = text
    if isinstance(decoded, dict):
        decoded = ", ".join(f"{key}: {value}" for key, value in decoded.items())
    words = " ".join((decoded if isinstance(decoded, str) else text).split())
    return words if len(words) <= max_chars else words[: max_chars - 1] + "…"
