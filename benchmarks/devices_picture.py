"""How soon it is silent after an interruption, by size of block, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.devices import AIM_SILENT_MS
from trio_voice.picture.svg import FONT, Drawing

WIDTH, LEFT, TOP, ROW = 640, 120, 64, 46
BAR = 22
STYLE = f"""
text {{ font-family: {FONT}; fill: #333; }}
.title {{ font-size: 15px; font-weight: 600; }}
.label {{ font-size: 13px; }}
.small {{ font-size: 11px; fill: #666; }}
"""


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document: a bar to the p50 of each row, a line on to its p99, a mark at the aim."""
    most_ms = max(*AIM_SILENT_MS.values(), *(float(row["silent_p99_ms"]) for row in rows))
    scale = (WIDTH - LEFT - 90) / most_ms
    height = TOP + ROW * len(rows) + 34
    drawing = Drawing()
    drawing.rect(0, 0, WIDTH, height, fill="#fff")
    drawing.text(20, 28, "From an interruption to silence in the air", class_="title")
    drawing.text(20, 46, "bar: p50, line: to p99, mark: the aim; PulseAudio null sink, 24 kHz", class_="small")
    for index, row in enumerate(rows):
        y = TOP + index * ROW
        p50, p99 = float(row["silent_p50_ms"]), float(row["silent_p99_ms"])
        middle, aim = y + BAR / 2, LEFT + AIM_SILENT_MS[row["block_samples"]] * scale
        drawing.text(LEFT - 12, middle + 4, f"{row['block_samples']} samples", class_="label", anchor="end")
        drawing.rect(LEFT, y, p50 * scale, BAR, fill="#4477aa", title=f"p50 {p50:.1f} ms")
        drawing.line(LEFT + p50 * scale, middle, LEFT + p99 * scale, middle, stroke="#4477aa", stroke_width=3)
        drawing.line(aim, y - 5, aim, y + BAR + 5, stroke="#cc3311", stroke_width=2)
        end = LEFT + max(p99, AIM_SILENT_MS[row["block_samples"]]) * scale
        drawing.text(end + 8, middle + 4, f"{p50:.0f} / {p99:.0f} ms", class_="label")
    drawing.text(LEFT, height - 14, "size of the device's blocks, against milliseconds", class_="small")
    return drawing.document(WIDTH, height, label="Milliseconds from an interruption to silence", style=STYLE)
