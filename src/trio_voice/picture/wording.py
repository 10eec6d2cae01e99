"""What was said and done, as words on a terminal: for the live view, for a pipe, for a replay.

The invariant kept here: nothing that the other side wrote can do more to a terminal than show letters.
"""

from __future__ import annotations

import attrs
from rich.console import Console
from rich.text import Text

from trio_voice.picture.lanes import short_json
from trio_voice.picture.scene import Entry

NAMES = {"user": "you", "agent": "agent", "tool": "tool", "error": "error"}
PLAIN_ROOM = 150
"""How long a plain line's tool call may be, in letters."""


@attrs.frozen(eq=False)
class Wording:
    """Entries of a scene in the letters that `console` can write."""

    console: Console

    def plain_line(self, entry: Entry, at_s: float) -> Text:
        """All of it, on one line: when, who, what."""
        return Text.assemble(f"{at_s:8.2f}  {NAMES[entry.kind]:<5}  ", self.words(entry, PLAIN_ROOM))

    def words(self, entry: Entry, room: int) -> Text:
        if entry.kind == "tool":
            return self._call(entry, room)
        text = Text(self.safe(entry.text), style="red" if entry.kind == "error" else "")
        if entry.cut:
            text.append(f" {self.sign('✂', '--')} interrupted", style="bold red")
            if entry.heard_ms or entry.discarded_ms:
                text.append(f", {entry.heard_ms} ms heard, {entry.discarded_ms} ms discarded", style="red")
        elif not entry.finished:
            text.append(self.sign(" …", " ..."), style="dim")
        return text

    def _call(self, entry: Entry, room: int) -> Text:
        room = max(24, room - len(entry.text) - len("() -> failed: 10000 ms"))
        text = Text(self.safe(entry.text), style="magenta")
        arguments = short_json(entry.arguments, room * 3 // 5)
        text.append(f"({self.safe(arguments)})")
        if entry.output is None:
            return text.append(self.sign(" …", " ..."), style="dim")
        outcome = "failed: " if entry.failed else ""
        text.append(self.sign(" → ", " -> ") + outcome, style="red" if entry.failed else "")
        text.append(self.safe(short_json(entry.output, room - len(arguments))))
        if entry.duration_ms is not None:
            text.append(f"  {entry.duration_ms:.0f} ms", style="dim")
        return text

    def safe(self, text: str) -> str:
        """Words of the other side may hold control sequences, or letters that the terminal cannot write."""
        shown = "".join(char if char.isprintable() else " " for char in text).strip()
        return shown if self.writes_unicode else shown.encode(self.console.encoding, "replace").decode()

    @property
    def writes_unicode(self) -> bool:
        return self.console.encoding.lower().startswith("utf")

    def sign(self, sign: str, plain: str) -> str:
        return sign if self.writes_unicode else plain
