"""A channel for what is worth less the older it is: the microphone's frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class DropOldest(Generic[T]):
    """The sending side of a memory channel that makes room by dropping the oldest item, and counts it.

    Trio has no such channel. Owning a clone of the receiving end is what lets the sender make room.
    """

    def __init__(self, capacity: int) -> None:
        self._send, self.receiver = trio.open_memory_channel[T](capacity)
        self._evict = self.receiver.clone()
        self.dropped = 0
        self.taker: Callable[[T], bool] | None = None
        """A step of the receiver's, run in the sender's own, if the receiver has any: of each item it is asked first
        whether it takes it. It answers False unless all items before have been dealt with, and never raises."""

    def send_nowait(self, item: T) -> None:
        """Never waits and never fails for want of room; while nobody listens the newest are kept for the next."""
        if self.taker is not None and self.taker(item):
            return
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
