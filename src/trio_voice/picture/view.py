"""A conversation while it runs, on a terminal: who speaks, how loud, what was said, what the tools did.

Sits beside the application, on `session.events()`. The invariant kept here: showing costs the conversation nothing
but the time of one refresh, a few milliseconds ten times a second, and the terminal is given back as it was. Where
there is no terminal (a pipe, CI) it prints one plain line for each thing that is finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from trio_voice.picture.scene import Entry, Scene
from trio_voice.picture.wording import NAMES, Wording

if TYPE_CHECKING:
    from trio_voice.session import RealtimeSession
    from trio_voice.tracker import SessionMetrics

REFRESH_INTERVAL_S = 0.12
QUIETEST_DBFS = -60.0
METER_CELLS = 24
FIXED_LINES = 9
"""Of the panel, without the conversation: border, state, meters, rules, latencies, counters."""
MOST_LINES_EACH = 3
"""Of one utterance in the running transcript."""

MOST_NARROW = 30
MOST_LAID_OUT = 500
DIM, BOLD = Style(dim=True), Style(bold=True)

Line: TypeAlias = list[Segment]

Levels: TypeAlias = Callable[[], tuple[float, float]]
"""The loudness of microphone and speaker now, in dBFS."""

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
                console.print(view.wording.plain_line(entry, entry.at - view.started_at), soft_wrap=True)
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
    wording: Wording = attrs.field(init=False)
    _laid_out: dict[tuple[Any, ...], list[Line]] = attrs.Factory(dict)
    started_at: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.started_at = self.session.metrics.started_at
        self.wording = Wording(self.console)

    # --- the whole picture, again and again ----------------------------------------------------------

    def render(self) -> Frame:
        """The panel as it is now. Lines are laid out here and not by rich's tables, which take three times as long."""
        metrics = self.session.metrics
        width = max(MOST_NARROW, self.console.width - 1)  # a full last column makes some terminals wrap
        inner = width - 4
        minutes, seconds = divmod(int(metrics.duration_s), 60)
        state = Text(self.wording.safe(self.session.agent.name), style="bold")
        state.append(f"  {self.session.connection_state.value}", style="dim")
        state.append(f"  {self.session.state.value}", style="bold cyan")
        lines = [
            self._inside(state, inner),
            *(self._inside(voice, inner) for voice in self._voices()),
            self._inside(Text(), inner),
            *self._conversation(inner),
            self._inside(Text(), inner),
            *(self._inside(figures, inner) for figures in self._figures(metrics)),
        ]
        title = f"trio-voice: {self.wording.safe(self.title)}" if self.title else "trio-voice"
        top = self._border("╭╮", f" {set_cell_size(title, min(cell_len(title), inner - 4))} ", width, left=True)
        return Frame([top, *lines, self._border("╰╯", f" {minutes:02d}:{seconds:02d} ", width, left=False)])

    def _border(self, corners: str, label: str, width: int, *, left: bool) -> Line:
        rule = self.wording.sign("─", "-")
        rest = rule * (width - 3 - cell_len(label))
        before, after = (rule, rest) if left else (rest, rule)
        first, last = self.wording.sign(corners[0], "+"), self.wording.sign(corners[1], "+")
        return [Segment(first + before, DIM), Segment(label, BOLD), Segment(after + last, DIM)]

    def _inside(self, text: Text, inner: int) -> Line:
        """`text` between the borders of the panel, exactly as wide as it must be."""
        text.truncate(inner, overflow="ellipsis" if self.wording.writes_unicode else "crop", pad=True)
        side = self.wording.sign("│", "|")
        return [Segment(f"{side} ", DIM), *text.render(self.console), Segment(f" {side}", DIM)]

    def _voices(self) -> Iterable[Text]:
        microphone_dbfs, speaker_dbfs = self.levels() if self.levels is not None else (None, None)
        for kind, dbfs, speaks in (
            ("user", microphone_dbfs, self.scene.caller_speaks),
            ("agent", speaker_dbfs, self.scene.agent_speaks),
        ):
            mark = self.wording.sign("●", "*") if speaks else self.wording.sign("○", ".")
            line = Text(f"{mark} {NAMES[kind]:<6}", style="")
            line.stylize(f"bold {COLOURS[kind]}" if speaks else "dim")
            if dbfs is not None:
                self._append_meter(line, dbfs)
            yield line.append("  speaks" if speaks else "", style=COLOURS[kind])

    def _append_meter(self, line: Text, dbfs: float) -> None:
        level = QUIETEST_DBFS if math.isnan(dbfs) else min(max(dbfs, QUIETEST_DBFS), 0.0)
        filled = round((1 - level / QUIETEST_DBFS) * METER_CELLS)
        colour = "red" if level > -3 else "yellow" if level > -12 else "green"
        line.append(self.wording.sign("━", "#") * filled, style=colour)
        line.append(self.wording.sign("─", "-") * (METER_CELLS - filled), style="dim")
        line.append(f" {level:4.0f} dBFS" if level > QUIETEST_DBFS else "     quiet", style="dim")

    def _conversation(self, inner: int) -> list[Line]:
        """The newest lines, as many as the terminal holds."""
        room = max(3, self.console.height - FIXED_LINES - 1)
        lines: list[Line] = []
        for entry in reversed(self.scene.entries):
            if len(lines) >= room:
                break
            lines[:0] = self._entry_lines(entry, inner)
        return lines[-room:] or [self._inside(Text("Nothing has been said yet.", style="dim italic"), inner)]

    def _entry_lines(self, entry: Entry, inner: int) -> list[Line]:
        """Laid out once for each change of `entry`: most are the same at the next refresh."""
        key = (inner, *attrs.astuple(entry))
        if key not in self._laid_out:
            if len(self._laid_out) > MOST_LAID_OUT:
                self._laid_out.clear()
            head = Text(f"{entry.at - self.started_at:6.1f} ", style="dim")
            head.append(f"{NAMES[entry.kind]:<6}", style=COLOURS[entry.kind])
            room = max(8, inner - len(head))
            wrapped = list(self.wording.words(entry, room).wrap(self.console, room))
            kept = wrapped[-MOST_LINES_EACH:] or [Text()]
            if len(kept) < len(wrapped):
                kept[0] = Text(self.wording.sign("…", "... "), style="dim") + kept[0]
            heads = [head, *(Text(" " * len(head)) for _ in kept[1:])]
            self._laid_out[key] = [self._inside(head + line, inner) for head, line in zip(heads, kept, strict=True)]
        return self._laid_out[key]

    def _figures(self, metrics: SessionMetrics) -> Iterable[Text]:
        latencies = "  ".join(f"{latency_ms:.0f}" for latency_ms in self.scene.latencies_ms)
        line = Text("latency ", style="dim").append(f"{latencies} ms" if latencies else "none yet", style="yellow")
        if metrics.average_latency_ms is not None:
            line.append(f"   mean {metrics.average_latency_ms:.0f} ms", style="dim")
        yield line
        counts = {
            "turns": metrics.turn_count,
            "interruptions": metrics.interruption_count,
            "tools": metrics.tool_call_count,
        }
        lost = {name: count for name, count in metrics.dropped.items() if count or name == "underruns"}
        line = Text()
        for name, count in (counts | lost).items():
            line.append(f"{name.replace('_', ' ')} ", style="dim").append(f"{count}   ", style="bold")
        yield line


@attrs.frozen(eq=False)
class Frame:
    """Lines that are laid out already."""

    lines: list[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for line in self.lines:
            yield from line
            yield Segment.line()
