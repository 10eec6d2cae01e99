"""A pencil for SVG: escaping, how wide words are, how they wrap, and a list of marks that becomes a document.

Pure, and knows nothing of conversations. The invariant kept here: whatever the text, the document is well-formed XML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias
from xml.sax.saxutils import escape as _escape, quoteattr

import attrs

Anchor: TypeAlias = Literal["start", "middle", "end"]

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold, escaped or not."""

NARROW, WIDE = frozenset("iljtfrI.,;:'!|()[] "), frozenset("mwMW@%—→…")


def escape(text: str) -> str:
    return _escape(NOT_XML.sub("\ufffd", text))


def text_width_px(text: str, size_px: float) -> float:
    """About how wide `text` is. Errs on the wide side, as the font is the viewer's: measured against DejaVu Sans."""
    return size_px * sum(
        0.40 if char in NARROW else 0.92 if char in WIDE else 0.70 if char.isupper() else 1.0 if char > "ᄀ" else 0.62
        for char in text
    )


def ellipsised(text: str, width_px: float, size_px: float) -> str:
    """`text` on one line, cut with an ellipsis if it is wider than `width_px`; "" if not even one letter fits."""
    text = " ".join(text.split())
    if text_width_px(text, size_px) <= width_px:
        return text
    room = width_px - text_width_px("…", size_px)
    kept = 0
    for char in text:
        room -= text_width_px(char, size_px)
        if room < 0:
            break
        kept += 1
    return text[:kept].rstrip(" ,.;:") + "…" if kept else ""


def wrapped(text: str, width_px: float, size_px: float, *, max_lines: int) -> list[str]:
    """`text` in at most `max_lines` lines; what does not fit ends in an ellipsis, if that fits."""
    words = text.split()
    lines: list[str] = []
    while words and len(lines) < max_lines - 1:
        count = 1
        while count < len(words) and text_width_px(" ".join(words[: count + 1]), size_px) <= width_px:
            count += 1
        if count == 1 and text_width_px(words[0], size_px) > width_px:
            break
        lines.append(" ".join(words[:count]))
        words = words[count:]
    last = ellipsised(" ".join(words), width_px, size_px) if words else ""
    if last:
        lines.append(last)
    return lines


def number(value: float) -> str:
    """As short as a tenth of a pixel allows."""
    return f"{value:.1f}".removesuffix(".0")


@attrs.define(eq=False)
class Drawing:
    """Marks in the order they are painted, later ones on top. All positions and sizes in px, y downwards."""

    marks: list[str] = attrs.Factory(list)

    def rect(self, x: float, y: float, width: float, height: float, title: str = "", **style: float | str) -> None:
        self._add("rect", {"x": x, "y": y, "width": max(0.0, width), "height": height, **style}, title)

    def line(self, x1: float, y1: float, x2: float, y2: float, **style: float | str) -> None:
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, **style})

    def path(self, commands: str, **style: float | str) -> None:
        self._add("path", {"d": commands, **style})

    def text(self, x: float, y: float, text: str, *, class_: str, anchor: Anchor = "start", title: str = "") -> None:
        """`y` is the baseline."""
        place: dict[str, float | str] = {"x": x, "y": y, "class": class_}
        if anchor != "start":
            place["text_anchor"] = anchor
        self._add("text", place, title, escape(text))

    def lines(self, x: float, y: float, lines: Sequence[str], *, leading: float, class_: str, title: str = "") -> None:
        """Several lines of text, the first with its baseline at `y`."""
        for index, line in enumerate(lines):
            self.text(x, y + index * leading, line, class_=class_, title=title)

    def document(self, width: float, height: float, *, label: str, style: str, definitions: str = "") -> str:
        size = f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(_value(label))}>'
        parts = [head, f"<style>{escape(style)}</style>", f"<defs>{definitions}</defs>", *self.marks, "</svg>"]
        return "\n".join(parts) + "\n"

    def _add(self, tag: str, attributes: Mapping[str, float | str], title: str = "", body: str = "") -> None:
        """One element; `title` is its tooltip. In the names of attributes `_` stands for `-`."""
        written = "".join(f" {name.replace('_', '-')}={quoteattr(_value(value))}" for name, value in attributes.items())
        inside = (f"<title>{escape(title)}</title>" if title else "") + body
        self.marks.append(f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>")


def _value(value: float | str) -> str:
    return NOT_XML.sub("\ufffd", value) if isinstance(value, str) else number(value)
