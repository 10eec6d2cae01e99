"""The channel table: every way in which two actors talk, on one page.

    channel          from → to                          capacity     when full
    frames           capture → uplink (4)               200 ms       the oldest is dropped, counted
    control          conversation → uplink              1024 items   the connection is given up
    playback         downlink, conversation → playback  4096 items   the connection is given up (1)
    reference        the loudspeaker's thread → capture 512 blocks   the oldest is dropped (2)
    tape             the loudspeaker's thread → playback 512 blocks  the oldest is dropped (3)
    tool calls       conversation → tool executor       256 items    the call is answered with an error
    MCP calls        tool executor → an MCP server's    64 items     the call is answered with an error
    checks           conversation → guardrails          256 items    the words are not looked at, and this is reported
    inbox            everyone → conversation            4096 items   the connection is given up (1)
    session events   conversation → application         4096 each    audio, then the oldest, is dropped, counted

(1) By the downlink, which is the only sender that a peer can make quick. From any other it would be a fault of this
package, and ends the session with `trio.WouldBlock`.
(2) Only with an echo policy: a `PlaybackReference` (`echo.py`), since the device's thread may not touch Trio. It is
full only when nothing is captured, and so nobody misses what is dropped.
(3) Only while somebody listens to the sound itself (`session.events(sound=True)`): a `Tape` (`tape.py`). It is emptied
five times a second; full, the event loop has stood still for seconds.
(4) While nothing waits in it and the socket has room, the uplink's step runs in capture's own: `DropOldest.taker`.

The executor and the guardrails begin with the first item that is sent to them, an `OnDemand` (`on_demand.py`): most
sessions have none.

Who closes: the sender closes its end when it ends. No actor waits to send: each send is `send_nowait`, so an actor
that falls behind can cost a connection or a frame, never a deadlock, and the downlink never waits for anyone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

import trio
from msgspec import Struct, field

from trio_voice.drop_oldest import DropOldest as DropOldest
from trio_voice.errors import TrioVoiceError
from trio_voice.event_streams import (
    EVENTS_CAPACITY as EVENTS_CAPACITY,
    EventFanOut as EventFanOut,
    EventStream as EventStream,
)
from trio_voice.events import DeviceLost, DeviceRestored
from trio_voice.mcp_tools import McpTools
from trio_voice.on_demand import OnDemand as OnDemand
from trio_voice.tool_items import ToolNews

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent
    from trio_voice.guardrail_functions import Guardrail, Trip
    from trio_voice.playback_buffer import ItemPosition
    from trio_voice.protocol import ClientEvent, RemoteProtocolError, ServerEvent, UnknownEvent
    from trio_voice.protocol.edits import HistoryEdit
    from trio_voice.utterances import SentAudio
    from trio_voice.voice_activity import VoiceChange

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

CONTROL_CAPACITY = 1024
PLAYBACK_CAPACITY = 4096
TOOL_CAPACITY = 256
CHECK_CAPACITY = 256
INBOX_CAPACITY = 4096


# --- conversation → uplink ------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Put `event` on the wire, and then those `following` it: a long record is one item of the channel."""

    event: ClientEvent
    following: tuple[ClientEvent, ...] = ()


class SetMicrophone(Struct, frozen=True):
    """What the uplink does with frames: send them, send silence instead, or send nothing.

    `closed` first sends `tail_ms` of silence: a server's voice detection waits for it to end the utterance.
    `commit` ends the utterance at this very frame, for servers that leave turns to us.
    """

    gate: Literal["open", "muted", "closed"]
    tail_ms: int = 0
    commit: bool = False


UplinkItem: TypeAlias = Send | SetMicrophone


# --- downlink, conversation → playback ------------------------------------------------------------


class Play(Struct, frozen=True):
    """Sound of `turn`."""

    turn: int
    item_id: str
    content_index: int
    pcm: bytes


class Interrupt(Struct, frozen=True):
    """Forget `turn` and all before it; answered by `Interrupted`."""

    turn: int


class EndTurn(Struct, frozen=True):
    """All sound of `turn` has been handed over."""

    turn: int


class Hold(Struct, frozen=True):
    """Fall silent and keep the rest (`held=True`), or go on with it."""

    held: bool


class Duck(Struct, frozen=True):
    """Play at `gain` times the level from here on, 0 to 1, reached within `ramp_ms`; 1 is full level again.

    An interruption of the turn that sounds ends it.
    """

    gain: float
    ramp_ms: float = 50.0


PlaybackItem: TypeAlias = Play | Interrupt | EndTurn | Hold | Duck


# --- conversation → guardrails ----------------------------------------------------------------------


class CheckText(Struct, frozen=True):
    """Have each of `guardrails` look at `text`: all the words of the item so far. Each answers with `Checked`, unless
    newer words of the item have come by then."""

    kind: Literal["output", "input", "text"]
    """The agent's words, the user's, or those that the application is about to say for the user."""
    item_id: str
    turn: int | None
    text: str
    final: bool
    agent: RealtimeAgent
    guardrails: tuple[Guardrail, ...]


# --- everyone → conversation ----------------------------------------------------------------------


class FromServer(Struct, frozen=True):
    """An event of connection `epoch`; `turn` numbers the response that it belongs to, if it belongs to one."""

    epoch: int
    turn: int | None
    event: ServerEvent | UnknownEvent | RemoteProtocolError


class LinkUp(Struct, frozen=True):
    """Connection `epoch` is open; nothing has been said on it.

    `control` leads to its uplink and to no other: nothing meant for one connection can reach another. `handover`: it
    is to take the place of one that still works.
    """

    epoch: int
    control: trio.MemorySendChannel[UplinkItem]
    sent: SentAudio
    """The user's sound, as far as it has been sent on it."""
    handover: Handover | None = None
    remembers: bool = False
    """The server was asked to take up the conversation that it has."""


class Handover(Struct, eq=False):
    """Asks the conversation to move to a new connection once it is configured, if nothing is going on just then."""

    forced: bool = False
    """Move in any case: the old connection is about to be ended."""
    answered: trio.Event = field(default_factory=trio.Event)
    accepted: bool = False


class LinkDown(Struct, frozen=True):
    """Connection `epoch` is gone. `attempt` is the number of the coming attempt to reconnect; None: there is none."""

    epoch: int
    reason: str
    attempt: int | None = None
    delay_ms: float = 0.0


class TurnStarted(Struct, frozen=True):
    """The first sample of `turn` reached the speaker."""

    turn: int


class TurnPlayed(Struct, frozen=True):
    """Everything of `turn` was heard."""

    turn: int
    positions: tuple[ItemPosition, ...]
    underruns: int = 0
    """Times it ran out in the middle."""


class Interrupted(Struct, frozen=True):
    """Playback has forgotten `turn`; this is how far each of its items had got."""

    turn: int
    positions: tuple[ItemPosition, ...]
    discarded_ms: float
    underruns: int = 0


class VoiceHeard(Struct, frozen=True):
    """The microphone's own detection: a voice began, has lasted for `min_speech_ms`, or ended."""

    change: VoiceChange


class Checked(Struct, frozen=True):
    """What a guardrail says: nothing, a `trip`, or that it failed."""

    check: CheckText
    guardrail: Guardrail
    trip: Trip | None = None
    failure: str | None = None


CommandName: TypeAlias = Literal[
    "listen",
    "stop_listening",
    "pause",
    "resume",
    "mute",
    "unmute",
    "interrupt",
    "respond",
    "text",
    "say",
    "agent",
    "history",
    "approve",
    "reject",
]


class Command(Struct, eq=False):
    """Something the application asked for. `done` is set when it has been carried out, or `lost`."""

    do: CommandName
    text: str = ""
    instructions: str | None = None
    interruptible: bool = True
    passed: bool = False
    """The guardrails have nothing against its text."""
    edit: HistoryEdit | None = None
    agent: RealtimeAgent | None = None
    call_id: str = ""
    """Of the tool's call that is approved or rejected."""
    done: trio.Event = field(default_factory=trio.Event)
    lost: bool = False
    """The session ended first."""
    refused: TrioVoiceError | None = None
    """Why it was not carried out."""
    in_time: bool = False
    """It was about a call that waited for it."""
    item_id: str = ""
    """Of the item that it made."""


DeviceNews: TypeAlias = DeviceLost | DeviceRestored

InboxItem: TypeAlias = (
    FromServer
    | LinkUp
    | LinkDown
    | TurnStarted
    | TurnPlayed
    | Interrupted
    | ToolNews
    | VoiceHeard
    | Checked
    | Command
    | DeviceNews
    | McpTools
)


# --- channels that Trio does not have -------------------------------------------------------------


class SendingEnd(Protocol[T_contra]):
    """Of a memory channel, or an `OnDemand`."""

    def send_nowait(self, item: T_contra, /) -> None: ...

    def close(self) -> None: ...


def offer(channel: SendingEnd[T], item: T) -> None:
    """Send to an actor that may have ended: then the session is ending too, and the item concerns nobody any more."""
    with suppress(trio.BrokenResourceError):
        channel.send_nowait(item)


def at_hand(channel: trio.MemoryReceiveChannel[T]) -> Iterator[T]:
    """What waits in the channel, without waiting: of a burst, each item but the first is had without a hop."""
    while True:
        try:
            item = channel.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return
        yield item


async def receive_until(channel: trio.MemoryReceiveChannel[T], deadline: float) -> T | None:
    """The next item; None when `deadline` comes first."""
    if deadline == math.inf:
        return await channel.receive()
    with trio.move_on_at(deadline):
        return await channel.receive()
    return None
