"""A conversation while it runs, on a terminal: who speaks, how loud, what was said, what the tools did.

Sits beside the application, on `session.events()`. The invariant kept here: showing costs the conversation nothing
but the time of one refresh, a few milliseconds ten times a second, and the terminal is given back as it was. Where
there is no terminal (a pipe, CI) it prints one plain line for each thing that is finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio
from rich.box import ROUNDED
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trio_voice.picture.lanes import short_json
from trio_voice.picture.scene import Entry, Scene

if TYPE_CHECKING:
    from trio_voice.session import RealtimeSession

REFRESH_INTERVAL_S = 0.12
QUIETEST_DBFS = -60.0
METER_CELLS = 24
FIXED_LINES = 9
"""Of the panel, without the conversation: border, state, meters, rules, latencies, counters."""
MOST_LINES_EACH = 3
"""Of one utterance in the running transcript."""

Levels = Callable[[], tuple[float, float]]
"""The loudness of microphone and speaker now, in dBFS."""

NAMES = {"user": "you", "agent": "agent", "tool": "tool", "error": "error"}
COLOURS = {"user": "bright_blue", "agent": "green", "tool": "magenta", "error": "red"}


async def show(
    session: RealtimeSession,
    *,
    console: Console,
    title: str = "",
    levels: Levels | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show `session` until it ends. `title` says what it is talking to: the server, the engines.

    Ready when it listens to events: start it with `await nursery.start(...)` and nothing is missed.
    Cancellation: safe; the last state stays on the screen and the cursor is back.
    """
    stream = session.events()
    task_status.started()
    view = LiveView(session, console, title, levels)
    if not console.is_terminal:
        async for event in stream:
            for entry in view.scene.apply(event):
                console.print(view.plain_line(entry), soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False, get_renderable=view.render) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refresh, live)
            async for event in stream:
                view.scene.apply(event)
            nursery.cancel_scope.cancel()


async def _refresh(live: Live) -> None:
    while True:
        live.refresh()
        await trio.sleep(REFRESH_INTERVAL_S)


@attrs.define(eq=False)
class LiveView:
    """Draws a scene and the session's own figures."""

    session: RealtimeSession
    console: Console
    title: str = ""
    levels: Levels | None = None
    scene: Scene = attrs.Factory(Scene)

    # --- one line for each thing that is finished ----------------------------------------------------

    def plain_line(self, entry: Entry) -> Text:
        return Text.assemble(f"{self._seconds(entry):8.2f}  {NAMES[entry.kind]:<5}  ", self._words(entry))

    def _seconds(self, entry: Entry) -> float:
        return entry.at - self.session.metrics.started_at

    def _words(self, entry: Entry) -> Text:
        if entry.kind == "tool":
            return self._call(entry)
        text = Text(self._safe(entry.text), style="red" if entry.kind == "error" else "")
        if entry.cut:
            text.append(f" {self._sign('✂', '--')} interrupted", style="bold red")
            if entry.heard_ms or entry.discarded_ms:
                text.append(f", {entry.heard_ms} ms heard, {entry.discarded_ms} ms discarded", style="red")
        elif not entry.finished:
            text.append(self._sign(" …", " ..."), style="dim")
        return text

    def _call(self, entry: Entry) -> Text:
        text = Text(self._safe(entry.text), style="magenta")
        text.append(f"({self._safe(short_json(entry.arguments, 60))})")
        if entry.output is None:
            return text.append(self._sign(" …", " ..."), style="dim")
        outcome = "failed: " if entry.failed else ""
        text.append(self._sign(" → ", " -> ") + outcome, style="red" if entry.failed else "")
        text.append(self._safe(short_json(entry.output, 60)))
        if entry.duration_ms is not None:
            text.append(f"  {entry.duration_ms:.0f} ms", style="dim")
        return text

    def _safe(self, text: str) -> str:
        """Words of the other side may hold control sequences, or letters that the terminal cannot write."""
        shown = "".join(char if char.isprintable() else " " for char in text).strip()
        return shown if self._writes_unicode else shown.encode(self.console.encoding, "replace").decode()

    @property
    def _writes_unicode(self) -> bool:
        return self.console.encoding.lower().startswith("utf")

    def _sign(self, sign: str, plain: str) -> str:
        return sign if self._writes_unicode else plain

    # --- the whole picture, again and again ----------------------------------------------------------

    def render(self) -> Panel:
        width = max(20, self.console.width - 4)
        parts: tuple[RenderableType, ...] = (
            self._state_line(),
            self._voices(),
            Text(),
            self._conversation(width),
            Text(),
            self._figures(),
        )
        minutes, seconds = divmod(int(self.session.metrics.duration_s), 60)
        return Panel(
            Group(*parts),
            box=ROUNDED,
            title=Text.assemble(" trio-voice ", (f"· {self._safe(self.title)} " if self.title else ""), style="bold"),
            title_align="left",
            subtitle=f" {minutes:02d}:{seconds:02d} ",
            subtitle_align="right",
            border_style="dim",
        )

    def _state_line(self) -> Text:
        line = Text(self._safe(self.session.agent.name), style="bold", no_wrap=True, overflow="ellipsis")
        line.append(f"  {self.session.connection_state.value}", style="dim")
        return line.append(f"  {self.session.state.value}", style="bold cyan")

    def _voices(self) -> Table:
        microphone_dbfs, speaker_dbfs = self.levels() if self.levels is not None else (None, None)
        grid = Table.grid(padding=(0, 1))
        for style, name, dbfs, speaks in (
            (COLOURS["user"], "you", microphone_dbfs, self.scene.caller_speaks),
            (COLOURS["agent"], "agent", speaker_dbfs, self.scene.agent_speaks),
        ):
            mark = self._sign("●", "*") if speaks else self._sign("○", ".")
            cells = [Text(f"{mark} {name:<5}", style=f"bold {style}" if speaks else "dim")]
            if dbfs is not None:
                cells.append(self._meter(dbfs))
            cells.append(Text("speaks" if speaks else "", style=style))
            grid.add_row(*cells)
        return grid

    def _meter(self, dbfs: float) -> Text:
        level = QUIETEST_DBFS if math.isnan(dbfs) else min(max(dbfs, QUIETEST_DBFS), 0.0)
        filled = round((1 - level / QUIETEST_DBFS) * METER_CELLS)
        colour = "red" if level > -3 else "yellow" if level > -12 else "green"
        meter = Text(self._sign("━", "#") * filled, style=colour)
        meter.append(self._sign("─", "-") * (METER_CELLS - filled), style="dim")
        return meter.append(f" {level:4.0f} dBFS" if level > QUIETEST_DBFS else "  quiet    ", style="dim")

    def _conversation(self, width: int) -> Text:
        """The newest lines, as many as the terminal holds."""
        room = max(3, self.console.height - FIXED_LINES - 1)
        lines: list[Text] = []
        for entry in reversed(self.scene.entries):
            if len(lines) >= room:
                break
            lines[:0] = self._lines(entry, width)
        return Text("\n").join(lines[-room:]) if lines else Text("Nothing has been said yet.", style="dim italic")

    def _lines(self, entry: Entry, width: int) -> list[Text]:
        head = Text(f"{self._seconds(entry):6.1f} ", style="dim")
        head.append(f"{NAMES[entry.kind]:<6}", style=COLOURS[entry.kind])
        wrapped = self._words(entry).wrap(self.console, max(8, width - len(head)))
        kept = list(wrapped)[-MOST_LINES_EACH:]
        for line in kept:
            line.rstrip()
        indent = Text(" " * len(head))
        return [head + kept[0], *(indent + line for line in kept[1:])] if kept else [head]

    def _figures(self) -> Group:
        metrics = self.session.metrics
        latencies = "  ".join(f"{latency_ms:.0f}" for latency_ms in self.scene.latencies_ms)
        first = Text("latency  ", style="dim").append(f"{latencies} ms" if latencies else "none yet", style="yellow")
        if metrics.average_latency_ms is not None:
            first.append(f"   mean {metrics.average_latency_ms:.0f} ms", style="dim")
        counts = {
            "turns": metrics.turn_count,
            "interruptions": metrics.interruption_count,
            "tools": metrics.tool_call_count,
        }
        lost = {
            name.replace("_", " "): count for name, count in metrics.dropped.items() if count or name == "underruns"
        }
        second = Text(overflow="ellipsis", no_wrap=True)
        for name, count in (counts | lost).items():
            second.append(f"{name.replace('_', ' ')} ", style="dim").append(f"{count}   ", style="bold")
        return Group(first, second)
