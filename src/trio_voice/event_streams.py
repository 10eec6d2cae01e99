"""Session events on their way to the application: a stream for each listener, and the sending side of them all.

Who sends are the conversation, and for sound alone the downlink, the uplink and playback. The invariant: a sender never
waits, and nothing of an interrupted turn is handed to a listener after the interruption.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container
from typing import TypeVar

import trio

from trio_voice.errors import SessionEnded
from trio_voice.events import PROTOCOL_EVENTS, SOUND_EVENTS, ResponseAudio, SessionEvent

E = TypeVar("E", bound=SessionEvent)

EVENTS_CAPACITY = 4096
CATCH_UP_PASSES, QUIET_PASSES = 256, 4
"""Turns of the scheduler that a slow listener gives to others: until nothing came in the last few."""
SLOW_LISTENER_S = 0.005
"""One that takes longer for an event is slow: it may have kept others from what has come."""
PIECES: tuple[type[SessionEvent], ...] = (ResponseAudio, *SOUND_EVENTS)
"""Of sound: the first to go where there is no room."""


class EventStream:
    """One listener's session events: `async for event in stream`. Ends when the session does.

    When full: the oldest piece of audio is dropped, or, where there is none, the oldest event; both are counted. An
    interruption takes the interrupted turn's audio out of the queue, so that a slow listener learns of it at once
    and never plays what must not be heard.
    Cancellation: safe, nothing is lost.
    """

    def __init__(
        self, *, audio: bool = False, protocol: bool = False, sound: bool = False, capacity: int = EVENTS_CAPACITY
    ) -> None:
        self.audio = audio
        self.protocol = protocol
        self.sound = sound
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
            victim = next((queued for queued in self._queue if isinstance(queued, PIECES)), self._queue[0])
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

    def subscribe(self, *, audio: bool = False, protocol: bool = False, sound: bool = False) -> EventStream:
        stream = EventStream(audio=audio, protocol=protocol, sound=sound)
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
    def wants_sound(self) -> bool:
        return any(stream.sound for stream in self._streams)

    @property
    def dropped(self) -> int:
        return sum(stream.dropped_events for stream in self._streams)

    def emit(self, event: SessionEvent) -> None:
        """Never waits."""
        is_audio, is_protocol = isinstance(event, ResponseAudio), isinstance(event, PROTOCOL_EVENTS)
        is_sound = isinstance(event, SOUND_EVENTS)
        for stream in self._streams:
            asked_for = stream.only is None or event.name in stream.only
            asked_for = asked_for and (stream.audio or not is_audio) and (stream.protocol or not is_protocol)
            if asked_for and (stream.sound or not is_sound):
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
