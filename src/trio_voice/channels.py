"""The channel table: every way in which two actors talk, on one page.

| channel      | from → to                              | items                     | capacity        | when full              |
|--------------|----------------------------------------|---------------------------|-----------------|------------------------|
| frames       | capture → uplink                       | `Frame`                   | 200 ms          | oldest dropped, counted|
| control      | conversation → uplink                  | `Send`, `SetMicrophone`   | 1024 items      | connection given up    |
| playback     | downlink, conversation → playback      | `Play`, `Interrupt`, …    | 4096 items      | connection given up    |
| tool calls   | conversation → tool executor           | `RunTool`, `CancelTurn`   | 256 items       | call answered as error |
| inbox        | everyone → conversation                | the classes below         | 4096 items      | connection given up    |
| session events | conversation → application           | `SessionEvent`            | 4096 items each | audio first, then the oldest, dropped, counted |

Who closes: the sender closes its end when it ends. No actor waits to send: each send is `send_nowait`, so an actor
that falls behind can cost a connection or a frame, never a deadlock, and the downlink never waits for anyone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import attrs
import trio

from trio_voice.events import ResponseAudio, SessionEvent

if TYPE_CHECKING:
    from trio_voice.playback_buffer import ItemPosition
    from trio_voice.protocol import ClientEvent, RemoteProtocolError, ServerEvent, UnknownEvent

T = TypeVar("T")

CONTROL_CAPACITY = 1024
PLAYBACK_CAPACITY = 4096
TOOL_CAPACITY = 256
INBOX_CAPACITY = 4096
EVENTS_CAPACITY = 4096


# --- conversation → uplink ------------------------------------------------------------------------


@attrs.frozen
class Send:
    """Put `event` on the wire of connection `epoch`; on any other it is dropped, never replayed."""

    epoch: int
    event: ClientEvent


@attrs.frozen
class SetMicrophone:
    """What the uplink does with frames: send them, send silence instead, or send nothing.

    `closed` first sends `tail_ms` of silence: a server's voice detection waits for it to end the utterance.
    `commit` ends the utterance at this very frame, for servers that leave turns to us.
    """

    epoch: int
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


PlaybackItem: TypeAlias = Play | Interrupt | EndTurn | Hold


# --- conversation → tool executor -----------------------------------------------------------------


@attrs.frozen
class RunTool:
    """A completed function call of `turn`."""

    turn: int
    call_id: str
    tool: str
    arguments: str


@attrs.frozen
class CancelTurn:
    """`turn` was interrupted: end those of its tools whose policy is to be cancelled."""

    turn: int


ToolItem: TypeAlias = RunTool | CancelTurn


# --- everyone → conversation ----------------------------------------------------------------------


@attrs.frozen
class FromServer:
    """An event of connection `epoch`; `turn` numbers the response that it belongs to, if it belongs to one."""

    epoch: int
    turn: int | None
    event: ServerEvent | UnknownEvent | RemoteProtocolError


@attrs.frozen
class LinkUp:
    """Connection `epoch` is open; nothing has been said on it."""

    epoch: int


@attrs.frozen
class LinkDown:
    """Connection `epoch` is gone."""

    epoch: int
    reason: str


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
class ToolStarted:
    turn: int
    call_id: str
    tool: str
    arguments: str


@attrs.frozen
class ToolResult:
    """`output` is the JSON text (or plain text) that the model is told."""

    turn: int
    call_id: str
    tool: str
    output: str
    failed: bool
    duration_ms: float


@attrs.frozen
class Command:
    """Something the application asked for. `done` is set when it has been carried out."""

    do: Literal["listen", "stop_listening", "pause", "resume", "mute", "unmute", "interrupt", "respond", "text"]
    text: str = ""
    instructions: str | None = None
    done: trio.Event = attrs.field(factory=trio.Event, eq=False)


InboxItem: TypeAlias = (
    FromServer | LinkUp | LinkDown | TurnStarted | TurnPlayed | Interrupted | ToolStarted | ToolResult | Command
)


# --- channels that Trio does not have -------------------------------------------------------------


class DropOldest(Generic[T]):
    """The sending side of a memory channel that makes room by dropping the oldest item, and counts it.

    Trio has no such channel. Owning a clone of the receiving end is what lets the sender make room.
    """

    def __init__(self, capacity: int) -> None:
        self._send, self.receiver = trio.open_memory_channel[T](capacity)
        self._evict = self.receiver.clone()
        self.dropped = 0

    def send_nowait(self, item: T) -> None:
        """Never waits and never fails for want of room. Raises `trio.BrokenResourceError` when nobody listens."""
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

    def __init__(self, *, protocol: bool = False, capacity: int = EVENTS_CAPACITY) -> None:
        self._queue: deque[SessionEvent] = deque()
        self._capacity = capacity
        self._waiting = trio.lowlevel.ParkingLot()
        self._closed = False
        self.protocol = protocol
        self.dropped_events = 0

    def put(self, event: SessionEvent) -> None:
        """Never waits."""
        if self._closed:
            return
        if len(self._queue) >= self._capacity:
            victim = next((queued for queued in self._queue if isinstance(queued, ResponseAudio)), self._queue[0])
            self._queue.remove(victim)
            self.dropped_events += 1
        self._queue.append(event)
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
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            await self._waiting.park()
        return self._queue.popleft()

    async def wait_for(self, event_type: type[Any]) -> Any:
        """The next event of `event_type`, passing over others. Raises `trio.EndOfChannel` if the session ends first."""
        async for event in self:
            if isinstance(event, event_type):
                return event
        raise trio.EndOfChannel
