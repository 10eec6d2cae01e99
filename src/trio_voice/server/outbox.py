"""What waits to be sent to one client: the only way out of a connection.

Everything that speaks to the client emits here; one task takes frames out and sends them. Emitting never
waits, so reading the client's events never waits on its reading ours. The invariant: the queue is bounded.
Streams of deltas `await room()` first and so go at the client's pace; when what cannot wait fills the queue
all the same, the client is taken for dead: `overflowed` is set and the connection ends.
"""

from __future__ import annotations

import random
import string
from collections import deque

import trio
from msgspec.structs import replace

from trio_voice.dialects import DIALECTS
from trio_voice.protocol.server_events import ServerEvent
from trio_voice.server.played import PlayedDialect

ID_ALPHABET = string.ascii_letters + string.digits
ID_OF_BYTE = bytes(ord(ID_ALPHABET[byte % len(ID_ALPHABET)]) for byte in range(256))
ID_LENGTH = 21
ROOM_FRAMES = 64
"""Deltas wait while this many frames are queued: 6.4 s of sound in deltas of 100 ms."""
MAX_FRAMES = 4_096
MAX_CHARS = 128 * 1024 * 1024
"""An hour's sound of one item, retrieved, is about this long."""


class Ids:
    """Names things as the real server does, from the given source of randomness."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def new(self, prefix: str) -> str:
        return f"{prefix}_{self._letters(ID_LENGTH)}"

    def padding(self, text: str) -> str:
        """The `obfuscation` of a delta: makes its length say less about its words."""
        return self._letters(16 - len(text) % 16)

    def _letters(self, count: int) -> str:
        # Some letters are a little more frequent than others; `choices` costs five times as much.
        return self._rng.randbytes(count).translate(ID_OF_BYTE).decode()


class Outbox:
    """The frames of one connection, first in, first out."""

    def __init__(self, ids: Ids, played: PlayedDialect | None = None) -> None:
        self.ids = ids
        self.played = played or PlayedDialect(DIALECTS["trio-voice"])
        self.overflowed = trio.Event()
        """The client reads too slowly to live."""
        self._frames: deque[str] = deque()
        self._chars = 0
        self._closed = False
        self._arrived = trio.Event()
        self._left = trio.Event()

    def emit(self, event: ServerEvent) -> None:
        """Queue an event under a new id. After `close` and after an overflow it goes nowhere."""
        if self._closed or self.overflowed.is_set():
            return
        frame = self.played.frame(replace(event, event_id=self.ids.new("event")))
        if frame is None:
            return
        if len(self._frames) >= MAX_FRAMES or self._chars + len(frame) > MAX_CHARS:
            self.overflowed.set()
            return
        self._frames.append(frame)
        self._chars += len(frame)
        self._arrived.set()

    async def room(self) -> None:
        """Wait until a stream may go on. A checkpoint, always."""
        await trio.lowlevel.checkpoint()
        while len(self._frames) >= ROOM_FRAMES and not self._closed:
            self._left = trio.Event()
            await self._left.wait()

    async def take(self) -> str | None:
        """The next frame; None when closed and empty."""
        while not self._frames:
            if self._closed:
                return None
            self._arrived = trio.Event()
            await self._arrived.wait()
        frame = self._frames.popleft()
        self._chars -= len(frame)
        self._left.set()
        return frame

    def close(self) -> None:
        """Nothing more will be emitted; what is queued may still be taken."""
        self._closed = True
        self._arrived.set()
        self._left.set()
