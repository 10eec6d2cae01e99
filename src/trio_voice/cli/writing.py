"""`trio-voice talk --text`: lines of standard input go in, what the agent writes comes out.

Beside the session, on its events and `send_text`. The invariant: a line is sent when the one before has been answered
whole, tools and the answer after them included, so a file of questions gets its answers in order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import attrs
import trio
from rich.console import Console
from rich.text import Text

from trio_voice import events
from trio_voice.channels import EventStream
from trio_voice.cli.running import tell
from trio_voice.picture.lanes import short_json
from trio_voice.protocol import server_events as wire
from trio_voice.session import RealtimeSession

PATIENCE_S = 60.0
"""A server that sends nothing at all for this long will not answer; a model that is being loaded is silent for long."""
READ_BYTES = 65_536
TOOL_LETTERS = 100


async def converse(session: RealtimeSession, stream: EventStream, console: Console) -> None:
    """Write with the agent until standard input ends. `stream` has protocol events, from before the session began."""
    page = _Page(session, stream, console)
    if session.agent.greets_first:
        await page.answered()
    while True:
        if page.is_typed:
            console.print(Text("you    ", style="bold bright_blue"), end="")
        line = await anext(page.lines, None)
        if line is None:
            break
        if not line.strip():
            continue
        if not page.is_typed:
            console.print(page.spoken("you", line), soft_wrap=True)
        await session.send_text(line)
        await page.answered()
    if page.is_typed:
        console.print()


async def lines_of(file_number: int) -> AsyncIterator[str]:
    """The lines that can be read there, as they come.

    Cancellation: at once. The read goes on in a thread that is left behind; it holds no lock of Python's, as a
    `sys.stdin.readline` would, so the process can end.
    """
    rest = b""
    while True:
        received = await trio.to_thread.run_sync(os.read, file_number, READ_BYTES, abandon_on_cancel=True)
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
        if not received:
            if rest:
                yield rest.decode(errors="replace")
            return


@attrs.define(eq=False)
class _Page:
    session: RealtimeSession
    stream: EventStream
    console: Console
    is_typed: bool = attrs.field(init=False)
    """A person sits there: the line can be seen already, and wants a prompt."""
    lines: AsyncIterator[str] = attrs.field(init=False)
    _begun: bool = False
    """Part of the agent's line stands on the terminal."""

    def __attrs_post_init__(self) -> None:
        self.is_typed = sys.stdin is not None and sys.stdin.isatty() and self.console.is_terminal
        self.lines = lines_of(sys.stdin.fileno())

    async def answered(self) -> None:
        """Show what comes until the answer is whole, and heard where there is a loudspeaker."""
        calls, begun, done, unheard_turn = 0, False, False, -1
        while not (done and unheard_turn < 0):
            event: events.SessionEvent | None = None
            with trio.move_on_after(PATIENCE_S):
                event = await anext(self.stream, None)
                if event is None:
                    return
            if event is None:
                tell(f"the server has said nothing for {PATIENCE_S:g} s; going on")
                return
            self._show(event)
            match event:
                case events.ServerEventReceived(event=wire.ResponseOutputItemDone(item=item)):
                    calls += item.type == "function_call"
                case events.ServerEventReceived(event=wire.ResponseDone(response=response)):
                    done = not calls and response.status != "failed"
                    calls, begun = 0, False
                case events.ResponseStart():
                    begun = True
                case events.ResponseAudio(turn=turn) if self.session.has_speaker:
                    unheard_turn = turn
                case events.PlaybackEnd(turn=turn) | events.Interruption(turn=turn) if turn >= unheard_turn:
                    unheard_turn = -1
                case events.ErrorReported(source="server") if not begun:  # refused, or failed and told just after
                    return
                case _:
                    pass

    def _show(self, event: events.SessionEvent) -> None:
        match event:
            case events.Transcript(role="agent", final=True, text=text):
                if self._begun:
                    self.console.print()
                elif text.strip():
                    self.console.print(self.spoken("agent", text), soft_wrap=True)
                self._begun = False
            case events.Transcript(role="agent", delta=delta) if self.is_typed and delta:
                if not self._begun:
                    self.console.print(self.spoken("agent", ""), end="")
                self.console.print(Text(printable(delta)), end="", soft_wrap=True)
                self._begun = True
            case events.ToolFinished(tool=tool, output=output, failed=failed):
                outcome = "failed: " if failed else ""
                words = f"{tool}  {outcome}{short_json(output, TOOL_LETTERS)}"
                self.console.print(self.spoken("tool", words), soft_wrap=True)
            case events.Reconnecting(reason=reason, attempt=attempt):
                self.console.print(
                    self.spoken("error", f"{reason}; connecting again, attempt {attempt}"), soft_wrap=True
                )
            case events.DeviceLost(kind=kind, reason=reason):
                self.console.print(self.spoken("error", f"{kind} lost, and tried again: {reason}"), soft_wrap=True)
            case events.DeviceRestored(kind=kind, outage_ms=outage_ms):
                self.console.print(self.spoken("error", f"{kind} back after {outage_ms / 1000:.1f} s"), soft_wrap=True)
            case events.ErrorReported(message=message):
                self.console.print(self.spoken("error", message), soft_wrap=True)

    def spoken(self, who: str, words: str) -> Text:
        colour = {"you": "bright_blue", "agent": "green", "tool": "magenta"}.get(who, "red")
        return Text.assemble((f"{who:<7}", f"bold {colour}"), printable(words))


def printable(words: str) -> str:
    """Words of the other side may hold control sequences."""
    return "".join(char if char.isprintable() else " " for char in words)
