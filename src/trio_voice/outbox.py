"""What the conversation can say, and to whom: the sending ends that it holds, with a verb for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import trio
from msgspec import Struct
from msgspec.structs import replace

from trio_voice import events
from trio_voice.channels import (
    CheckText,
    EventFanOut,
    PlaybackItem,
    Send,
    SendingEnd,
    SetMicrophone,
    UplinkItem,
    offer,
)
from trio_voice.dialects import DIALECTS, Dialect
from trio_voice.logs import log
from trio_voice.protocol import (
    ClientEvent,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemTruncate,
    server_events as on,
)
from trio_voice.tool_items import ToolItem

UNCONFIRMED_CAPACITY = 256
"""When full the oldest is forgotten: a server that confirms nothing must not cost memory for ever."""


class Outbox(Struct, eq=False):
    """Synchronous, every verb of it: nothing here waits."""

    playback: trio.MemorySendChannel[PlaybackItem] | None
    tool_calls: SendingEnd[ToolItem]
    fan_out: EventFanOut
    checks: SendingEnd[CheckText]
    control: trio.MemorySendChannel[UplinkItem] | None = None
    """To the connection that is spoken to; None in an outage."""
    is_open: bool = False
    """Its server has taken the configuration. Before that nothing is said: what it has to know, a resume tells it."""
    dropped_control: int = 0
    """Events for a server that was not there."""
    unconfirmed: dict[str, ClientEvent] | None = None
    """Where the server keeps the conversation: changes of its items that it has not confirmed, by what confirms them.
    None: it does not, and a resume tells it everything."""
    dialect: Dialect = DIALECTS["trio-voice"]
    _created: int = 0

    @property
    def now(self) -> float:
        return trio.current_time()

    @property
    def speaks(self) -> bool:
        """Whether there is a speaker of our own."""
        return self.playback is not None

    def send(self, event: ClientEvent) -> None:
        """To the server of this connection. In an outage it is dropped: a resume restores from the record instead.

        What the server does not understand is not sent: the record is right without it.
        """
        self.send_all([event])

    def send_all(self, events_in_order: Sequence[ClientEvent]) -> None:
        """As `send`, in this order, however many there are."""
        wanted = [event for event in events_in_order if self.dialect.takes(event)]
        if self.unconfirmed is not None:
            wanted = [self._to_be_confirmed(event, self.unconfirmed) for event in wanted]
        if not self.is_open:
            self.dropped_control += len(wanted)
            return
        if wanted:
            self._to_uplink(Send(wanted[0], tuple(wanted[1:])))
        if self.fan_out.wants_protocol:
            for event in wanted:
                self.emit(events.ClientEventSent(at=self.now, event=event))

    def _to_be_confirmed(self, event: ClientEvent, unconfirmed: dict[str, ClientEvent]) -> ClientEvent:
        match event:
            case ConversationItemCreate(item=item):
                if not item.id:  # without an id of ours its confirmation could not be told from others
                    self._created += 1
                    item = replace(item, id=f"created_{self._created}")
                    event = replace(event, item=item)
                unconfirmed[f"conversation.item.added {item.id}"] = event
            case ConversationItemTruncate(item_id=item_id):
                unconfirmed[f"conversation.item.truncated {item_id}"] = event
            case ConversationItemDelete(item_id=item_id):
                unconfirmed[f"conversation.item.deleted {item_id}"] = event
        if len(unconfirmed) > UNCONFIRMED_CAPACITY:
            del unconfirmed[next(iter(unconfirmed))]
        return event

    def confirm(self, event: object) -> None:
        """The server has carried out a change of an item."""
        if self.unconfirmed is None:
            return
        match event:
            case on.ConversationItemAdded() | on.ConversationItemCreated() | on.ConversationItemDone():
                self.unconfirmed.pop(f"conversation.item.added {event.item.id}", None)
            case on.ConversationItemTruncated():
                self.unconfirmed.pop(f"conversation.item.truncated {event.item_id}", None)
            case on.ConversationItemDeleted():
                self.unconfirmed.pop(f"conversation.item.deleted {event.item_id}", None)

    def set_microphone(self, gate: Literal["open", "muted", "closed"], tail_ms: int, commit: bool) -> None:
        self._to_uplink(SetMicrophone(gate, tail_ms, commit))

    def connect(self, control: trio.MemorySendChannel[UplinkItem] | None) -> None:
        """Speak to this connection from now on, once it is open."""
        if self.control is not None:
            self.control.close()
        self.control, self.is_open = control, False

    def configure(self, event: ClientEvent) -> None:
        """The one thing that is said before the connection is open."""
        self._to_uplink(Send(event))
        if self.fan_out.wants_protocol:
            self.emit(events.ClientEventSent(at=self.now, event=event))

    def _to_uplink(self, item: UplinkItem) -> None:
        if self.control is None:
            self.dropped_control += 1
            return
        try:
            self.control.send_nowait(item)
        except trio.BrokenResourceError:  # it died a moment ago; the news is on its way
            self.dropped_control += 1
        except trio.WouldBlock:
            self.dropped_control += 1
            self.connect(None)  # the uplink takes the closed channel for the end of the connection

    def play(self, item: PlaybackItem) -> None:
        if self.playback is not None:
            offer(self.playback, item)

    def run_tool(self, item: ToolItem) -> None:
        """Raises: `trio.WouldBlock` when too many calls wait."""
        offer(self.tool_calls, item)

    def check(self, item: CheckText) -> None:
        """Raises: `trio.WouldBlock` when too many words wait to be looked at."""
        offer(self.checks, item)

    def emit(self, event: events.SessionEvent) -> None:
        self.fan_out.emit(event)

    def report(
        self, message: str, *, code: str | None, source: Literal["server", "protocol", "session", "guardrail"]
    ) -> None:
        """An error that does not end the session."""
        log.warning("session.error", message=message, code=code, source=source)
        self.emit(events.ErrorReported(at=self.now, message=message, code=code, source=source))

    def close(self) -> None:
        for end in (self.control, self.playback, self.tool_calls, self.checks):
            if end is not None:
                end.close()
