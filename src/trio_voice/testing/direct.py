"""A wire without bytes, for simulations that are about the conversation and not about the network.

Stands in for `wire.run` and for the server's end of a connection. Sound passes as the event it is, neither encoded nor
packed into frames; the few other events as their JSON. The invariant: order, loss and closing are as on a real wire.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from trio_voice import dialects, downlink, playback, wire
from trio_voice.errors import WireLost
from trio_voice.protocol import InputAudioBufferAppend, ResponseOutputAudioDelta, decode_server_event, encode
from trio_voice.protocol.codec import decode_client_event
from trio_voice.server import connection, played, responses
from trio_voice.testing.faults import FATAL_FAULTS, Fault, FaultKind
from trio_voice.testing.server import Direction, FaultyServer, ServedConnection

DIRECT_FAULTS: frozenset[FaultKind] = frozenset(
    (
        "drop", "reset", "half_open", "close_1001", "close_1008", "close_1011", "close_1012", "close_1013",
        "close_4000", "garbage", "duplicates", "late_events", "refused", "hangs", "tls_failure",
        "status_401", "status_403", "status_503",
    )
)  # fmt: skip
"""Those that can happen where there are no bytes."""


DIRECT_FRAME_MS = 500
"""Of sound in both directions: it is the number of pieces that costs time, and nothing is looked for that depends on
their size."""


class Carried(str):
    """The beginning of an event's JSON, enough to tell what it is, and the event itself."""

    event: InputAudioBufferAppend | ResponseOutputAudioDelta


def _carry(encode: Callable[[Any], str]) -> Callable[[Any], str]:
    def carry(event: Any) -> str:
        if isinstance(event, InputAudioBufferAppend):
            carried = Carried('{"type":"input_audio_buffer.append"')
        elif isinstance(event, ResponseOutputAudioDelta):
            carried = Carried('{"type":"response.output_audio.delta"')
        else:
            return encode(event)
        carried.event = event
        return carried

    return carry


def _unpack(decode: Callable[..., Any]) -> Callable[..., Any]:
    return lambda raw, **options: raw.event if isinstance(raw, Carried) else decode(raw, **options)


@contextmanager
def without_bytes() -> Iterator[None]:
    """Sessions made in here use wires of this kind."""
    places: list[tuple[Any, str, Any]] = [
        (wire, "run", _run),
        (dialects, "encode", _carry(encode)),
        (played, "encode", _carry(encode)),
        (downlink, "decode_server_event", _unpack(decode_server_event)),
        (connection, "decode_client_event", _unpack(decode_client_event)),
        (responses, "DELTA_MS", DIRECT_FRAME_MS),
        (playback, "REPORT_INTERVAL_S", DIRECT_FRAME_MS / 2000),  # nothing changes between two pulls
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


async def _next(channel: trio.MemoryReceiveChannel[str]) -> str:
    """What has arrived is had without a pass of Trio's loop: there are a few messages in a row, never a flood."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        return channel.receive_nowait()
    except trio.WouldBlock:
        return await channel.receive()


class DirectWire:
    """The client's end, in place of a `Wire` and of the stream beneath it."""

    def __init__(self) -> None:
        self.to_server, self.at_server = trio.open_memory_channel[str](math.inf)
        self.to_client, self.at_client = trio.open_memory_channel[str](math.inf)
        self.opened = trio.Event()
        self.loss = WireLost("the connection was closed", retryable=True)
        self.is_lost = self.is_dead = False
        self.last_received_at = self.last_message_at = trio.current_time()
        self.struck: list[Fault] = []

    @property
    def has_room(self) -> bool:
        return not self.is_lost

    def put(self, text: str) -> bool:
        if self.is_lost:
            raise self.loss
        if not self.is_dead:
            self.to_server.send_nowait(text)
        return True

    async def receive(self) -> str:
        try:
            text = await _next(self.at_client)
        except trio.EndOfChannel:
            raise self.loss from None
        self.last_received_at = self.last_message_at = trio.current_time()
        return text

    async def ping(self) -> None:
        if self.is_dead:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.last_received_at = trio.current_time()

    async def strike(self, fault: Fault) -> None:
        self.struck.append(fault)
        if fault.kind == "half_open":
            self.is_dead = True
        else:
            self.lose(WireLost(f"the connection was lost ({fault.kind})", retryable=True))
        await trio.lowlevel.checkpoint()

    def lose(self, loss: WireLost) -> None:
        if not self.is_lost and not self.is_dead:
            self.is_lost, self.loss = True, loss
            self.opened.set()
            self.to_client.close()
            self.to_server.close()


async def _run(
    address: wire.Address,
    *,
    connect_timeout_s: float,
    stream: Any,
    task_status: trio.TaskStatus[DirectWire] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.move_on_after(connect_timeout_s) as waiting:
        await stream.opened.wait()
    if waiting.cancelled_caught:
        raise WireLost(f"no handshake within {connect_timeout_s:g} s", retryable=True)
    if stream.is_lost:
        raise stream.loss
    try:
        task_status.started(stream)
        await trio.sleep_forever()
    finally:
        stream.lose(WireLost("the connection is closed", retryable=True))


class _DirectConnection(ServedConnection):
    """The server's end."""

    client_end: Any

    async def shake_hands(self) -> bool:
        await trio.lowlevel.checkpoint()
        if not self.client_end.is_dead:
            self.client_end.opened.set()
        return True

    async def reject(self, status: int) -> None:
        await trio.lowlevel.checkpoint()
        fatal = f"status_{status}" in FATAL_FAULTS
        self.client_end.lose(WireLost(f"the server answered {status}", retryable=not fatal))

    async def receive(self) -> str | None:
        try:
            text = await _next(self.client_end.at_server)
        except trio.EndOfChannel:
            return None
        self._watch(self, "received", text)
        return text

    async def close(self, code: int, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()
        fatal = f"close_{code}" in FATAL_FAULTS
        self.client_end.lose(WireLost(f"the connection was closed ({code}): {reason}", retryable=not fatal))

    async def wait_close(self) -> None:
        await trio.lowlevel.checkpoint()

    async def _say(self, text: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.client_end.is_lost and not self.client_end.is_dead:
            self.client_end.to_client.send_nowait(text)


class DirectServer(FaultyServer):
    """A `FaultyServer` whose connections are of this kind."""

    async def _made(self, number: int, faults: list[Fault]) -> tuple[Any, ServedConnection]:
        await trio.lowlevel.checkpoint()
        end = DirectWire()
        for fault in faults:
            if fault.kind in ("drop", "reset", "half_open"):
                await end.strike(fault)
        end.is_dead = end.is_dead or any(fault.kind == "hangs" for fault in faults)
        served: Any = _DirectConnection(number, end, _Nothing(), self._saw)  # type: ignore[arg-type]
        return end, served


class _Nothing(trio.abc.Stream):
    """Where there are no bytes."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


__all__ = ["DIRECT_FAULTS", "Carried", "DirectServer", "DirectWire", "Direction", "without_bytes"]
