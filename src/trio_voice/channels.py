"""The channel table: every way in which two actors talk, on one page.

    channel          from → to                          capacity     when full
    frames           capture → uplink                   200 ms       the oldest is dropped, counted
    control          conversation → uplink              1024 items   the connection is given up
    playback         downlink, conversation → playback  4096 items   the connection is given up (1)
    reference        the loudspeaker's thread → capture 512 blocks   the oldest is dropped (2)
    tool calls       conversation → tool executor       256 items    the call is answered with an error
    inbox            everyone → conversation            4096 items   the connection is given up (1)
    session events   conversation → application         4096 each    audio, then the oldest, is dropped, counted

(1) By the downlink, which is the only sender that a peer can make quick. From any other it would be a fault of this
package, and ends the session with `trio.WouldBlock`.
(2) Only with an echo policy: a `PlaybackReference` (`echo.py`), since the device's thread may not touch Trio. It is
full only when nothing is captured, and so nobody misses what is dropped.

Who closes: the sender closes its end when it ends. No actor waits to send: each send is `send_nowait`, so an actor
that falls behind can cost a connection or a frame, never a deadlock, and the downlink never waits for anyone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

import attrs
import trio

from trio_voice.errors import ConfigError, SessionEnded
from trio_voice.events import PROTOCOL_EVENTS, DeviceLost, DeviceRestored, ResponseAudio, SessionEvent
from trio_voice.tool_items import ToolNews

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent
    from trio_voice.playback_buffer import ItemPosition
    from trio_voice.protocol import ClientEvent, RemoteProtocolError, ServerEvent, UnknownEvent
    from trio_voice.utterances import SentAudio
    from trio_voice.voice_activity import VoiceChange

T = TypeVar("T")
E = TypeVar("E", bound=SessionEvent)

CONTROL_CAPACITY = 1024
PLAYBACK_CAPACITY = 4096
TOOL_CAPACITY = 256
INBOX_CAPACITY = 4096
EVENTS_CAPACITY = 4096
CATCH_UP_PASSES, QUIET_PASSES = 256, 4
"""Turns of the scheduler that a slow listener gives to others: until nothing came in the last few."""
SLOW_LISTENER_S = 0.005
"""One that takes longer for an event is slow: it may have kept others from what has come."""


# --- conversation → uplink ------------------------------------------------------------------------


@attrs.frozen
class Send:
    """Put `event` on the wire."""

    event: ClientEvent


@attrs.frozen
class SetMicrophone:
    """What the uplink does with frames: send them, send silence instead, or send nothing.

    `closed` first sends `tail_ms` of silence: a server's voice detection waits for it to end the utterance.
    `commit` ends the utterance at this very frame, for servers that leave turns to us.
    """

    gate: Literal["open", "muted", "closed"]
    tail_ms: int = 0
    commit: bool = False


UplinkItem: TypeAlias = Send | SetMicrophone


# --- downlink, conversation → playback ------------------------------------------------------------


@attrs.frozen
class Play:
    """Sound of `turn`."""

    turn: int
    item_id: str
    content_index: int
    pcm: bytes


@attrs.frozen
class Interrupt:
    """Forget `turn` and all before it; answered by `Interrupted`."""

    turn: int


@attrs.frozen
class EndTurn:
    """All sound of `turn` has been handed over."""

    turn: int


@attrs.frozen
class Hold:
    """Fall silent and keep the rest (`held=True`), or go on with it."""

    held: bool


@attrs.frozen
class Duck:
    """Play at `gain` times the level from here on, 0 to 1, reached within `ramp_ms`; 1 is full level again.

    An interruption of the turn that sounds ends it.
    """

    gain: float
    ramp_ms: float = 50.0


PlaybackItem: TypeAlias = Play | Interrupt | EndTurn | Hold | Duck


# --- everyone → conversation ----------------------------------------------------------------------


@attrs.frozen
class FromServer:
    """An event of connection `epoch`; `turn` numbers the response that it belongs to, if it belongs to one."""

    epoch: int
    turn: int | None
    event: ServerEvent | UnknownEvent | RemoteProtocolError


@attrs.frozen
class LinkUp:
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


@attrs.define(eq=False)
class Handover:
    """Asks the conversation to move to a new connection once it is configured, if nothing is going on just then."""

    forced: bool = False
    """Move in any case: the old connection is about to be ended."""
    answered: trio.Event = attrs.Factory(trio.Event)
    accepted: bool = False


@attrs.frozen
class LinkDown:
    """Connection `epoch` is gone. `attempt` is the number of the coming attempt to reconnect; None: there is none."""

    epoch: int
    reason: str
    attempt: int | None = None
    delay_ms: float = 0.0


@attrs.frozen
class TurnStarted:
    """The first sample of `turn` reached the speaker."""

    turn: int


@attrs.frozen
class TurnPlayed:
    """Everything of `turn` was heard."""

    turn: int
    positions: tuple[ItemPosition, ...]


@attrs.frozen
class Interrupted:
    """Playback has forgotten `turn`; this is how far each of its items had got."""

    turn: int
    positions: tuple[ItemPosition, ...]
    discarded_ms: float


@attrs.frozen
class VoiceHeard:
    """The microphone's own detection: a voice began, has lasted for `min_speech_ms`, or ended."""

    change: VoiceChange


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
    "approve",
    "reject",
]


@attrs.define(eq=False)
class Command:
    """Something the application asked for. `done` is set when it has been carried out, or `lost`."""

    do: CommandName
    text: str = ""
    instructions: str | None = None
    interruptible: bool = True
    agent: RealtimeAgent | None = None
    call_id: str = ""
    """Of the tool's call that is approved or rejected."""
    done: trio.Event = attrs.Factory(trio.Event)
    lost: bool = False
    """The session ended first."""
    refused: ConfigError | None = None
    """Why it was not carried out."""
    in_time: bool = False
    """It was about a call that waited for it."""


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
    | Command
    | DeviceNews
)


# --- channels that Trio does not have -------------------------------------------------------------


def offer(channel: trio.MemorySendChannel[T], item: T) -> None:
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


class DropOldest(Generic[T]):
    """The sending side of a memory channel that makes room by dropping the oldest item, and counts it.

    Trio has no such channel. Owning a clone of the receiving end is what lets the sender make room.
    """

    def __init__(self, capacity: int) -> None:
        self._send, self.receiver = trio.open_memory_channel[T](capacity)
        self._evict = self.receiver.clone()
        self.dropped = 0

    def send_nowait(self, item: T) -> None:
        """Never waits and never fails for want of room; while nobody listens the newest are kept for the next."""
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            self._evict.receive_nowait()
            self.dropped += 1
            self._send.send_nowait(item)

    def drain(self) -> int:
        """Drop everything that waits; returns how many items."""
        drained = 0
        while True:
            try:
                self._evict.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                self.dropped += drained
                return drained
            drained += 1

    def close(self) -> None:
        self._send.close()
        self._evict.close()


class EventStream:
    """One listener's session events: `async for event in stream`. Ends when the session does.

    When full: the oldest piece of audio is dropped, or, where there is none, the oldest event; both are counted. An
    interruption takes the interrupted turn's audio out of the queue, so that a slow listener learns of it at once
    and never plays what must not be heard.
    Cancellation: safe, nothing is lost.
    """

    def __init__(self, *, audio: bool = False, protocol: bool = False, capacity: int = EVENTS_CAPACITY) -> None:
        self.audio = audio
        self.protocol = protocol
        self.only: Container[str] | None = None
        """The names of the events that are wanted; None: all."""
        self.dropped_events = 0
        self._put_count = 0
        self._given_at = math.inf
        self._queue: deque[SessionEvent] = deque()
        self._capacity = capacity
        self._waiting = trio.lowlevel.ParkingLot()
        self._closed = False

    def put(self, event: SessionEvent) -> None:
        """Never waits."""
        if len(self._queue) >= self._capacity:
            victim = next((queued for queued in self._queue if isinstance(queued, ResponseAudio)), self._queue[0])
            self._queue.remove(victim)
            self.dropped_events += 1
        self._queue.append(event)
        self._put_count += 1
        self._waiting.unpark()

    def discard_audio(self, turn: int) -> None:
        """Take out the audio of `turn` and of earlier ones."""
        self._queue = deque(
            event for event in self._queue if not (isinstance(event, ResponseAudio) and event.turn <= turn)
        )

    def close(self) -> None:
        """No more will come: what waits is still given, then the iteration ends."""
        self._closed = True
        self._waiting.unpark_all()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> SessionEvent:
        is_slow = trio.current_time() - self._given_at >= SLOW_LISTENER_S
        while True:
            if is_slow:
                await self._let_others_catch_up()
            elif self._queue or self._closed:
                await trio.lowlevel.checkpoint()  # others get a turn although nothing has to be waited for
            if self._queue:
                self._given_at = trio.current_time()
                return self._queue.popleft()
            if self._closed:
                raise StopAsyncIteration
            await self._waiting.park()

    async def _let_others_catch_up(self) -> None:
        """What has arrived is dealt with before the next event is given, although nothing has to be waited for.

        A message takes a few passes of the scheduler on its way. If each pass cost a listener's 20 ms of computing, an
        interruption would stand behind a second of sound that is still in the socket.
        """
        quiet = 0
        for _ in range(CATCH_UP_PASSES):
            before = self._put_count
            await trio.lowlevel.checkpoint()
            quiet = quiet + 1 if self._put_count == before else 0
            if quiet == QUIET_PASSES:
                return

    async def wait_for(self, event_type: type[E]) -> E:
        """The next event of `event_type`, passing over others.

        Raises: `SessionEnded` if the session ends first.
        """
        async for event in self:
            if isinstance(event, event_type):
                return event
        raise SessionEnded(f"the session ended before any {event_type.__name__} event")


class EventFanOut:
    """The sending side of all event streams of a session.

    The conversation sends here. Sound alone may also come straight from the downlink, which saves it a hop: `pass_by`
    takes it when it belongs to the turn that the conversation has opened, and an interruption shuts that door in the
    same step in which it takes queued sound away.
    """

    def __init__(self) -> None:
        self._streams: list[EventStream] = []
        self._closed = False
        self.open_turn: int | None = None
        """The turn whose sound may pass the conversation by."""

    def subscribe(self, *, audio: bool = False, protocol: bool = False) -> EventStream:
        stream = EventStream(audio=audio, protocol=protocol)
        if self._closed:
            stream.close()
        else:
            self._streams.append(stream)
        return stream

    @property
    def wants_audio(self) -> bool:
        return any(stream.audio for stream in self._streams)

    @property
    def wants_protocol(self) -> bool:
        return any(stream.protocol for stream in self._streams)

    @property
    def dropped(self) -> int:
        return sum(stream.dropped_events for stream in self._streams)

    def emit(self, event: SessionEvent) -> None:
        """Never waits."""
        is_audio, is_protocol = isinstance(event, ResponseAudio), isinstance(event, PROTOCOL_EVENTS)
        for stream in self._streams:
            asked_for = stream.only is None or event.name in stream.only
            if asked_for and (stream.audio or not is_audio) and (stream.protocol or not is_protocol):
                stream.put(event)

    def pass_by(self, turn: int, item_id: str, pcm: bytes) -> bool:
        """Deliver sound of `turn` at once. False when it has to go through the conversation.

        Only right after everything that arrived before has been dealt with, or the order of events would change.
        """
        if turn != self.open_turn or self.wants_protocol:
            return False
        if self.wants_audio:
            self.emit(ResponseAudio(at=trio.current_time(), turn=turn, item_id=item_id, pcm=pcm))
        return True

    def discard_audio(self, turn: int) -> None:
        if self.open_turn is not None and self.open_turn <= turn:
            self.open_turn = None
        for stream in self._streams:
            stream.discard_audio(turn)

    def close(self) -> None:
        self._closed = True
        for stream in self._streams:
            stream.close()
