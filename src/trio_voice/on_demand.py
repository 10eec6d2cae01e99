"""A channel for what most sessions never have: calls of tools, words to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class OnDemand(Generic[T]):
    """The sending side of a memory channel that is made with the first item, and so is the actor that takes it.

    An actor that waits takes 6 kB, in each of many sessions. `begin` gets the receiving end, to close it; it is called
    in the step in which the first item is sent.
    """

    def __init__(self, capacity: int, begin: Callable[[trio.MemoryReceiveChannel[T]], None]) -> None:
        self._capacity, self._begin = capacity, begin
        self._send: trio.MemorySendChannel[T] | None = None

    def send_nowait(self, item: T) -> None:
        """Raises: as a memory channel's."""
        if self._send is None:
            self._send, receiver = trio.open_memory_channel[T](self._capacity)
            self._begin(receiver)
        self._send.send_nowait(item)

    def close(self) -> None:
        if self._send is not None:
            self._send.close()
