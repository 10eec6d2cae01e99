"""What the conversation can say, and to whom: the sending ends that it holds, with a verb for each."""

from __future__ import annotations

from typing import Literal

import attrs
import trio

from trio_voice import events
from trio_voice.channels import EventFanOut, PlaybackItem, Send, SetMicrophone, ToolItem, UplinkItem
from trio_voice.logs import log
from trio_voice.protocol import ClientEvent


@attrs.define(eq=False)
class Outbox:
    """Synchronous, every verb of it: nothing here waits."""

    control: trio.MemorySendChannel[UplinkItem]
    playback: trio.MemorySendChannel[PlaybackItem] | None
    tool_calls: trio.MemorySendChannel[ToolItem]
    fan_out: EventFanOut
    epoch: int = 0
    """Of the connection that is spoken to."""

    @property
    def now(self) -> float:
        return trio.current_time()

    @property
    def speaks(self) -> bool:
        """Whether there is a speaker of our own."""
        return self.playback is not None

    def send(self, event: ClientEvent) -> None:
        """To the server of this connection. In an outage it is dropped: a resume restores from the record instead."""
        self.control.send_nowait(Send(self.epoch, event))
        if self.fan_out.wants_protocol:
            self.emit(events.ClientEventSent(at=self.now, event=event))

    def set_microphone(self, gate: Literal["open", "muted", "closed"], tail_ms: int, commit: bool) -> None:
        self.control.send_nowait(SetMicrophone(self.epoch, gate, tail_ms, commit))

    def play(self, item: PlaybackItem) -> None:
        if self.playback is not None:
            self.playback.send_nowait(item)

    def run_tool(self, item: ToolItem) -> None:
        """Raises: `trio.WouldBlock` when too many calls wait."""
        self.tool_calls.send_nowait(item)

    def emit(self, event: events.SessionEvent) -> None:
        self.fan_out.emit(event)

    def report(self, message: str, *, code: str | None, source: Literal["server", "protocol", "session"]) -> None:
        """An error that does not end the session."""
        log.warning("session.error", message=message, code=code, source=source)
        self.emit(events.ErrorReported(at=self.now, message=message, code=code, source=source))

    def close(self) -> None:
        for end in (self.control, self.playback, self.tool_calls):
            if end is not None:
                end.close()
