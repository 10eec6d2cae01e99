"""The bytes below a wire: one writer, and a reader that takes whole texts past the WebSocket library.

trio-websocket stands on this stream, and the wire beside it. Two invariants. What is to be written, by whomever, is
taken whole and in order in one synchronous step: a cancelled sender leaves no half of a frame behind. And one task
reads at a time, for both: the one that wants messages, or the library while there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import trio
import trio.abc

from trio_voice.text_frames import KEY_BYTES, TextCutter, masked_text

RECEIVE_BYTES = 65_536
"""Read at once. With the library's 4 KiB a 6.4 kB message costs twice the CPU."""
MESSAGE_QUEUE = 64
"""Texts that may wait for the downlink; the library answers pings only while there is room."""


class WireStream(trio.abc.Stream):
    """`inner`, for the library; and texts, for the wire. `begin_writing` has to be set before anything is sent."""

    def __init__(self, inner: trio.abc.Stream, max_text_bytes: int) -> None:
        self._inner = inner
        self._socket: trio.socket.SocketType | None = None
        """Where it takes bytes without waiting; TLS and streams in memory do not."""
        if isinstance(inner, trio.SocketStream) and sys.platform != "win32":
            self._socket = inner.socket
        self.last_received_at = trio.current_time()
        self.ended = trio.Event()
        """The peer has ended, or the stream is closed."""
        self._cutter = TextCutter(max_text_bytes)
        self._texts: list[str] = []
        self._for_library = bytearray()
        self._is_reading = False
        self._wire_reads = False
        """Somebody wants texts, and comes back for the next: then it is they who read."""
        self._read_failure: Exception | None = None
        self._text_waits = trio.lowlevel.ParkingLot()
        self._library_waits = trio.lowlevel.ParkingLot()
        self._unsent: list[bytes] = []
        self.begin_writing: Callable[[], None] | None = None
        """Starts `keep_writing`, when there is first something that the socket has no room for: mostly never."""
        self._more_to_send = trio.lowlevel.ParkingLot()
        self._all_sent = trio.lowlevel.ParkingLot()
        self._is_broken = False

    @property
    def head(self) -> bytes:
        """The beginning of the server's answer to the handshake."""
        return self._cutter.head

    # --- writing ----------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether nothing waits to be sent, on a connection that is not known to be broken."""
        return not self._unsent and not self._is_broken

    def write_text(self, payload: bytes) -> bool:
        """Have a whole message sent; see `write`."""
        return self.write(masked_text(payload, os.urandom(KEY_BYTES)))

    def write(self, piece: bytes) -> bool:
        """Have `piece` sent, after all that was given before, whole or, when the connection breaks, not to its end.

        Synchronous. When full: it is kept, and the answer is False; wait for `flushed` before the next.
        Raises: `trio.BrokenResourceError`.
        """
        if self._is_broken:
            raise trio.BrokenResourceError("the connection is broken")
        if not self._unsent and self._socket is not None:
            sent_bytes = self._write_now(self._socket, piece)
            if sent_bytes == len(piece):
                return True
            piece = piece[sent_bytes:]
        self._unsent.append(piece)
        self._more_to_send.unpark()
        if self.begin_writing is not None:
            self.begin_writing()
            self.begin_writing = None
        return self._socket is None and len(self._unsent) == 1

    def _write_now(self, socket: trio.socket.SocketType, piece: bytes) -> int:
        try:
            return os.write(socket.fileno(), piece)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.give_up_writing()
            raise trio.BrokenResourceError(f"could not send: {error}") from error

    async def flushed(self) -> None:
        """Wait until all that was given has been sent. Raises: `trio.BrokenResourceError`. Cancellation: safe."""
        while self._unsent and not self._is_broken:
            await self._all_sent.park()
        if self._is_broken:
            raise trio.BrokenResourceError("the connection is broken")

    async def keep_writing(self) -> None:
        """Send what the socket had no room for, until cancelled or the connection breaks."""
        try:
            while not self._is_broken:
                if not self._unsent:
                    await self._more_to_send.park()
                elif self._socket is None:
                    piece = self._unsent[0]
                    await self._inner.send_all(piece)
                    self._sent(len(piece))
                else:
                    await trio.lowlevel.wait_writable(self._socket)
                    if not self._is_broken:
                        self._sent(self._write_now(self._socket, self._unsent[0]))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever sends next is told, and the reader finds out by itself
        finally:
            self.give_up_writing()

    def _sent(self, sent_bytes: int) -> None:
        """So much of what waits has gone."""
        if self._is_broken:
            return
        rest = self._unsent.pop(0)[sent_bytes:]
        if rest:
            self._unsent.insert(0, rest)
        elif not self._unsent:
            self._all_sent.unpark_all()

    def give_up_writing(self) -> None:
        """Nothing is written any more: who sends is told that the connection is broken."""
        self._is_broken = True
        self._unsent.clear()
        self._all_sent.unpark_all()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """For the library. Cancellation: what has begun is sent to its end, by `keep_writing`."""
        if self.write(bytes(data)):
            await trio.lowlevel.checkpoint()
        else:
            await self.flushed()

    async def wait_send_all_might_not_block(self) -> None:
        await self.flushed()

    # --- reading ----------------------------------------------------------------------------------

    async def next_text(self) -> str | None:
        """The next message, or None when this one and all that follow are to be had from the library.

        By one task, which must come back soon: until `leave_reading` nobody else reads. Each message of a burst is
        had in a pass of the scheduler of its own: what the one before leads to comes about meanwhile.
        Cancellation: safe, and leaves the reading to the library.
        """
        self._wire_reads = True
        try:
            if self._texts:
                await trio.lowlevel.checkpoint()
            while not self._texts:
                if self._cutter.is_over or self.ended.is_set():
                    self.leave_reading()
                    return None
                if self._is_reading or len(self._for_library) >= RECEIVE_BYTES:
                    await self._text_waits.park()
                else:
                    await self._read()
        except BaseException:
            self.leave_reading()
            raise
        return self._texts.pop(0)

    def leave_reading(self) -> None:
        """Nobody comes for texts any more: the library reads, and finds the peer's answer to our Close."""
        self._wire_reads = False
        self._library_waits.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """For the library: what is no whole text."""
        while True:
            if self._for_library:
                received = bytes(self._for_library)
                self._for_library.clear()
                self._text_waits.unpark_all()
                return received
            if self._read_failure is not None:
                raise self._read_failure
            if self.ended.is_set():
                return b""
            if self._is_reading or self._wire_reads or len(self._texts) >= MESSAGE_QUEUE:
                await self._library_waits.park()
            else:
                await self._read()

    async def _read(self) -> None:
        self._is_reading = True
        try:
            received = await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as failure:
            self._read_failure = failure
            self.ended.set()
        else:
            self.last_received_at = trio.current_time()
            if received:
                texts, for_library = self._cutter.cut(bytes(received))
                self._texts += texts
                self._for_library += for_library
            else:
                self.ended.set()
        finally:
            self._is_reading = False
            self._text_waits.unpark_all()
            if self._for_library or self.ended.is_set():
                self._library_waits.unpark_all()

    async def _receive(self) -> bytes | bytearray:
        if self._socket is None:
            return await self._inner.receive_some(RECEIVE_BYTES)
        # It has most likely been emptied: to try at once, as Trio's stream does, is one call to the system in vain.
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return os.read(self._socket.fileno(), RECEIVE_BYTES)
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError(f"could not receive: {error}") from error

    async def aclose(self) -> None:
        self.ended.set()
        self.give_up_writing()
        self._text_waits.unpark_all()
        self._library_waits.unpark_all()
        await self._inner.aclose()
