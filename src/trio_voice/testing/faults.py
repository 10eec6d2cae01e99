"""What can go wrong on the way to a server, as values, and a byte stream to which it happens.

Stands between the WebSocket code and the network, or a stream in memory. The invariant: everything that happens is
in the `Fault`s that were struck, on Trio's clock and with the given randomness, so a schedule prints, replays and
shrinks.
"""

from __future__ import annotations

import random
from typing import Literal, TypeAlias, get_args

import attrs
import trio
import trio.abc

StreamFault: TypeAlias = Literal["drop", "reset", "half_open", "stall", "delay", "jitter", "tiny_chunks", "corrupt"]
"""What happens to bytes: end of stream; reset; nothing passes any more and nobody says so; nothing passes for a
while; everything is late; everything is late by chance; a byte at a time; a bit is wrong."""

ServerFault: TypeAlias = Literal[
    "close_1001",
    "close_1008",
    "close_1011",
    "close_1012",
    "close_1013",
    "close_4000",
    "never_answers_close",
    "garbage",
    "oversized",
    "duplicates",
    "late_events",
]
"""What the server does: closes with a code; leaves our Close unanswered; sends what is no JSON; sends more than any
message may hold; says things twice; goes on sending a response that is over."""

ConnectFault: TypeAlias = Literal["refused", "hangs", "tls_failure", "status_401", "status_403", "status_503"]
"""What the next attempt to connect meets."""

FaultKind: TypeAlias = StreamFault | ServerFault | ConnectFault

STREAM_FAULTS: tuple[StreamFault, ...] = get_args(StreamFault)
SERVER_FAULTS: tuple[ServerFault, ...] = get_args(ServerFault)
CONNECT_FAULTS: tuple[ConnectFault, ...] = get_args(ConnectFault)
FAULT_KINDS: tuple[FaultKind, ...] = (*STREAM_FAULTS, *SERVER_FAULTS, *CONNECT_FAULTS)

FATAL_FAULTS: frozenset[FaultKind] = frozenset(("close_1008", "close_4000", "status_401", "status_403"))
"""After these a client must not come back."""

TINY_BYTES = 600
"""How much of a stream comes in tiny chunks before it flows again: the whole of it would take minutes of CPU."""


@attrs.frozen
class Fault:
    """One thing that goes wrong. At once, unless `at_s` or `after_bytes` says otherwise."""

    kind: FaultKind
    at_s: float | None = None
    """Seconds after the connection was made."""
    after_bytes: int | None = None
    """Received on the connection."""
    duration_s: float = 0.0
    """Of a stall, a delay or a jitter."""
    delay_s: float = 0.0
    """By how much a delay makes late, and a jitter at most."""


class FaultyStream(trio.abc.Stream):
    """`inner`, until a fault strikes: by the schedule given, or by `strike`.

    Cancellation: as with any stream, a `send_all` cancelled half way leaves it unusable.
    """

    def __init__(
        self, inner: trio.abc.Stream, schedule: tuple[Fault, ...] = (), *, rng: random.Random | None = None
    ) -> None:
        self._inner = inner
        self._rng = rng or random.Random(0)
        self._opened_at = trio.current_time()
        self._waiting = sorted(schedule, key=lambda fault: (fault.at_s or 0.0, fault.after_bytes or 0))
        self._fate: Literal["", "drop", "reset", "half_open"] = ""
        self._closed = trio.Event()
        self._stalled_until = self._late_until = 0.0
        self._delay_s, self._jitters = 0.0, False
        self._tiny_bytes = self._tiny_sent = 0
        self._corrupts = False
        self._kept = b""
        self.received_bytes = self.sent_bytes = 0
        self.struck: list[Fault] = []
        """What has happened so far."""

    async def strike(self, fault: Fault) -> None:
        """Let `fault` happen now."""
        if self._fate or self._closed.is_set():
            return
        self.struck.append(fault)
        now = trio.current_time()
        match fault.kind:
            case "drop" | "reset":
                self._fate = fault.kind
                await trio.aclose_forcefully(self._inner)  # wakes whoever waits in receive_some
            case "half_open":
                self._fate = "half_open"
            case "stall":
                self._stalled_until = max(self._stalled_until, now + fault.duration_s)
            case "delay" | "jitter":
                self._late_until, self._delay_s = now + fault.duration_s, fault.delay_s
                self._jitters = fault.kind == "jitter"
            case "tiny_chunks":
                self._tiny_bytes = self._tiny_sent = TINY_BYTES
            case "corrupt":
                self._corrupts = True
            case _:
                raise ValueError(f"{fault.kind} cannot happen to a byte stream; strike the server with it")

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._kept:
            await trio.lowlevel.checkpoint()
            return self._deal_out(max_bytes)
        if self._waiting:
            await self._strike_what_is_due()
        try:
            received = await self._inner.receive_some(max_bytes) if self._fate != "half_open" else b""
        except trio.ClosedResourceError:
            return self._end_or_raise()
        if self._waiting or self._late_until or self._stalled_until:
            self.received_bytes += len(received)
            await self._strike_what_is_due()
            await self._be_late()
        else:
            self.received_bytes += len(received)
        if self._fate == "half_open":
            await self._closed.wait()
        if self._fate:
            return self._end_or_raise()
        if self._corrupts and received:
            self._corrupts = False
            spoilt = bytearray(received)
            spoilt[self._rng.randrange(len(spoilt))] ^= 0x80
            received = spoilt
        if self._tiny_bytes and received:
            self._kept = bytes(received)
            return self._deal_out(max_bytes)
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._waiting:
            await self._strike_what_is_due()
        if self._late_until or self._stalled_until:
            await self._be_late()
        self._check_open()
        if self._fate == "half_open":
            await trio.lowlevel.checkpoint()
            return
        self.sent_bytes += len(data)
        try:
            while self._tiny_sent and data:
                self._tiny_sent -= 1
                await self._inner.send_all(data[:1])
                data = data[1:]
            await self._inner.send_all(data)
        except trio.ClosedResourceError:
            self._check_open()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        self._check_open()
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._closed.set()
        if self._fate == "half_open":  # the peer is not told
            await trio.lowlevel.checkpoint()
            return
        await self._inner.aclose()

    # --- inside -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise trio.ClosedResourceError("this stream was closed")
        if self._fate in ("drop", "reset"):
            raise trio.BrokenResourceError(f"the peer is gone: {self._fate}")

    def _end_or_raise(self) -> bytes:
        if self._closed.is_set():
            raise trio.ClosedResourceError("this stream was closed")
        if self._fate == "drop":
            return b""
        if self._fate == "reset":
            raise trio.BrokenResourceError("connection reset by peer")
        raise trio.ClosedResourceError("the stream beneath was closed")

    def _deal_out(self, max_bytes: int | None) -> bytes:
        size = 1 if self._tiny_bytes > 0 else len(self._kept)
        self._tiny_bytes = max(0, self._tiny_bytes - 1)
        size = size if max_bytes is None else min(size, max_bytes)
        piece, self._kept = self._kept[:size], self._kept[size:]
        return piece

    async def _strike_what_is_due(self) -> None:
        now = trio.current_time()
        for fault in tuple(self._waiting):
            due = fault.at_s is None or now >= self._opened_at + fault.at_s
            if due and self.received_bytes >= (fault.after_bytes or 0):
                self._waiting.remove(fault)
                await self.strike(fault)

    async def _be_late(self) -> None:
        now = trio.current_time()
        if now < self._stalled_until:
            with trio.move_on_at(self._stalled_until):
                await self._closed.wait()
        if now < self._late_until:
            delay_s = self._rng.uniform(0.0, self._delay_s) if self._jitters else self._delay_s
            with trio.move_on_after(delay_s):
                await self._closed.wait()


class _Half(trio.abc.Stream):
    """One end of `quick_pair`."""

    def __init__(self) -> None:
        self._peer: _Half = self
        self._arrived = bytearray()
        self._ended = self._closed = False
        self._reader: trio.lowlevel.Task | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        if not self._arrived and not self._ended:
            self._reader = trio.lowlevel.current_task()

            def forget(_: object) -> trio.lowlevel.Abort:
                self._reader = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(forget)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        size = len(self._arrived) if max_bytes is None else min(max_bytes, len(self._arrived))
        received = self._arrived[:size]
        del self._arrived[:size]
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        if self._peer._closed:
            raise trio.BrokenResourceError("the other end was closed")
        self._peer._arrived += data
        self._peer._wake()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._closed = True
        self._peer._ended = True
        self._wake()
        self._peer._wake()
        await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            trio.lowlevel.reschedule(reader)


def quick_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """As `trio.testing.memory_stream_pair`, but for the checkpoints that look for tasks in conflict.

    They are most of what a conversation in virtual time costs: without them it takes a little more than half as long.
    """
    one, other = _Half(), _Half()
    one._peer, other._peer = other, one
    return one, other
