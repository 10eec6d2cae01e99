"""A conversation as a picture: the caller above, the agent below, on one clock, row under row as music is written.

Pure: a `Recording` in, SVG text out, nothing needed but a viewer. Background and colours are its own, so it reads the
same on a dark page. The invariant kept here: the picture is as high as its rows, whatever is in them.
"""

from __future__ import annotations

from trio_voice.picture import layout
from trio_voice.picture.lanes import RowPainter
from trio_voice.picture.layout import CAPTION_SIZE, HEADER_HEIGHT, MARGIN, WIDTH, rows_of
from trio_voice.picture.record import Recording
from trio_voice.picture.svg import FONT, Drawing, ellipsised, text_width_px

STYLE = f"""
text {{ font-family: {FONT}; font-size: {CAPTION_SIZE}px; fill: {layout.INK}; }}
.title {{ font-size: 21px; font-weight: 700; }}
.figures {{ font-size: 13px; fill: {layout.MUTED}; }}
.legend, .tick {{ fill: {layout.MUTED}; }}
.lane {{ font-size: 12px; font-weight: 700; }}
.caller {{ fill: {layout.CALLER}; }} .agent {{ fill: {layout.AGENT}; }} .tool {{ fill: {layout.TOOL}; }}
.ghost {{ fill: {layout.GHOST}; font-style: italic; }}
.latency {{ fill: {layout.WAIT}; font-weight: 700; }}
.cut {{ fill: {layout.CUT}; font-weight: 700; }} .failed {{ fill: {layout.CUT}; }}
.said, .latency, .cut, .failed, .tool, .tick {{
  paint-order: stroke; stroke: {layout.PAPER}; stroke-width: 3px; stroke-linejoin: round;
}}
"""
DEFINITIONS = (
    '<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    f'<rect width="7" height="7" fill="{layout.GHOST_BLOCK}"/>'
    f'<line x1="0" y1="0" x2="0" y2="7" stroke="{layout.GHOST_EDGE}" stroke-width="2"/></pattern>'
)


def draw_timeline(recording: Recording, *, title: str = "A conversation") -> str:
    """The whole picture, as the text of an SVG document 1200 px wide."""
    drawing = Drawing()
    rows = rows_of(recording)
    painters = [RowPainter(drawing, recording, row) for row in rows]
    height = HEADER_HEIGHT + sum(painter.height for painter in painters) + layout.ROW_GAP * (len(rows) - 1) + MARGIN
    drawing.rect(0.5, 0.5, WIDTH - 1, height - 1, rx=12, fill=layout.PAPER, stroke=layout.RULE)
    drawing.text(MARGIN, 42, ellipsised(title, WIDTH - 2 * MARGIN, 21), class_="title", title=title)
    drawing.text(MARGIN, 64, key_figures(recording), class_="figures")
    _draw_legend(drawing, recording)
    y = float(HEADER_HEIGHT)
    for painter in painters:
        painter.draw(y)
        y += painter.height + layout.ROW_GAP
    label = f"{title}: {key_figures(recording)}"
    return drawing.document(WIDTH, height, label=label, style=STYLE, definitions=DEFINITIONS)


def key_figures(recording: Recording) -> str:
    """The conversation in one line."""
    figures = [f"{recording.duration_s:.1f} s"]
    figures.append(_counted(len(recording.caller), "caller turn"))
    figures.append(_counted(len(recording.interruptions), "interruption"))
    if recording.false_alarms:
        figures.append(_counted(len(recording.false_alarms), "false alarm"))
    if recording.mean_latency_ms is not None:
        figures.append(f"mean latency {recording.mean_latency_ms:.0f} ms")
    figures.append(_counted(len(recording.tools), "tool call"))
    if recording.errors:
        figures.append(_counted(len(recording.errors), "error"))
    return " · ".join(figures)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _draw_legend(drawing: Drawing, recording: Recording) -> None:
    x, y = float(MARGIN), HEADER_HEIGHT - 20.0
    entries = [
        ("caller speaks", layout.CALLER_BLOCK, layout.CALLER, True),
        ("false alarm", layout.GHOST_BLOCK, layout.GHOST_EDGE, bool(recording.false_alarms)),
        ("agent, as heard", layout.AGENT_BLOCK, layout.AGENT, True),
        ("discarded, never played", "url(#hatch)", layout.GHOST, bool(recording.discarded)),
        ("tool runs", layout.TOOL_BLOCK, layout.TOOL, bool(recording.tools)),
    ]
    for label, fill, stroke, shown in entries:
        if shown:
            drawing.rect(x, y - 10, 18, 12, rx=3, fill=fill, stroke=stroke)
            x = _legend_label(drawing, x, y, label)
    if recording.interruptions:
        drawing.line(x + 9, y - 12, x + 9, y + 4, stroke=layout.CUT, stroke_width=2)
        x = _legend_label(drawing, x, y, "interruption")
    if recording.latencies:
        drawing.rect(x, y - 7, 9, 5, fill=layout.WAIT)
        drawing.rect(x + 9, y - 7, 9, 5, fill=layout.VOICE)
        _legend_label(drawing, x, y, "latency: caller's end → model begins → agent heard")


def _legend_label(drawing: Drawing, x: float, y: float, label: str) -> float:
    drawing.text(x + 25, y, label, class_="legend")
    return x + 25 + text_width_px(label, CAPTION_SIZE) + 16
