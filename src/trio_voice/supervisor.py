"""The supervisor: connections come and go inside the session nursery; device, playback, tools and conversation stay.

    session nursery
     └─ supervisor
         └─ connection nursery      wire pump · uplink · downlink · liveness

Each connection is a nursery of its own: when one of its tasks dies, all of it goes at once. One that was lost and may
come back is made again, with backoff; what cannot come back ends the session with the `WireLost` that says why. Before
the server's own limit a successor is made first and takes over between two turns (*rotation*): only then does the old
one go. Each connection has an epoch and a control channel of its own, so nothing of one reaches another.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlsplit

import trio
import trio.abc
from msgspec import Struct, field

from trio_voice import downlink, liveness, uplink
from trio_voice.audio import Frame
from trio_voice.channels import (
    CONTROL_CAPACITY,
    DropOldest,
    EventFanOut,
    Handover,
    InboxItem,
    LinkDown,
    LinkUp,
    PlaybackItem,
    UplinkItem,
    offer,
)
from trio_voice.config import AudioInputConfig, ConnectionOptions, ConnectionState, url_shown
from trio_voice.conversation_view import ConversationView
from trio_voice.downlink import Configuration
from trio_voice.errors import WireLost
from trio_voice.liveness import RoundTrips
from trio_voice.logs import log
from trio_voice.protocol.turns import TurnNumbers
from trio_voice.restart_policy import Attempts, Backoff, rotation_delay_s
from trio_voice.uplink import UplinkStatistics
from trio_voice.utterances import SentAudio

if TYPE_CHECKING:
    from trio_voice import wire

OpenStream: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes the byte stream of a connection, in place of the network: for tests."""

HEALTHY_AFTER_S = 10.0
QUIET_CHECK_S = 0.25
ROTATION_RETRY_S = 5.0
LAST_MOMENT_S = 10.0
"""Before the server's limit: then the move is made in mid-turn rather than not at all."""
SHORTEST_LIFETIME_S = 10.0
"""A session said to end sooner means that this machine's clock is wrong: no reason to connect again and again."""


class Link(Struct, eq=False):
    """What every connection of a session needs: the ends of its channels, its options, and what it keeps count of."""

    frames: DropOldest[Frame] | None
    inbox: trio.MemorySendChannel[InboxItem]
    playback: trio.MemorySendChannel[PlaybackItem] | None
    fan_out: EventFanOut
    view: ConversationView
    options: ConnectionOptions
    audio_input: AudioInputConfig
    open_stream: OpenStream | None = None
    wall_clock: Callable[[], float] = time.time
    """Only to read `expires_at`, which is a date."""
    rng: random.Random = field(default_factory=random.Random)
    output_rate_hz: int = 24_000
    state: ConnectionState = ConnectionState.DISCONNECTED
    epoch: int = 0
    """Of the newest connection."""
    uplink: UplinkStatistics = field(default_factory=UplinkStatistics)
    round_trips: RoundTrips = field(default_factory=RoundTrips)
    turns: TurnNumbers = field(default_factory=TurnNumbers)
    conversation_id: str = ""
    """Of the conversation that the server keeps, where it does: see `ConnectionOptions.native_resume`."""

    def tell(self, news: LinkUp | LinkDown) -> None:
        offer(self.inbox, news)

    def close(self) -> None:
        microphone = self.frames.receiver if self.frames is not None else None
        for end in (microphone, self.inbox, self.playback):
            if end is not None:
                end.close()


class _Connection(Struct, eq=False):
    """One that is open, or was."""

    epoch: int
    sent: SentAudio
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    configuration: Configuration = field(default_factory=Configuration)
    opened_at: float = field(default_factory=trio.current_time)
    loss: WireLost = field(default_factory=lambda: WireLost("the connection ended", retryable=True))
    over: trio.Event = field(default_factory=trio.Event)


async def run(link: Link) -> None:
    """Connect, and stay connected.

    Raises: `WireLost` when the first connection cannot be made, or a lost one not again.
    Closes: every end in `link`.
    """
    link.state = ConnectionState.CONNECTING
    attempts = Attempts(HEALTHY_AFTER_S)
    try:
        async with trio.open_nursery() as connections:
            current = await _connect(link, connections)
            while True:
                link.state = ConnectionState.CONNECTED
                successor = await _until_lost_or_rotated(link, current, connections)
                current = successor or await _reconnect(link, current, attempts, connections)
    finally:
        link.state = ConnectionState.DISCONNECTED
        link.close()


async def _reconnect(link: Link, lost: _Connection, attempts: Attempts, connections: trio.Nursery) -> _Connection:
    """A connection in place of the one that was lost. Raises: `WireLost` when it is time to give up."""
    link.state = ConnectionState.RECONNECTING
    options = link.options
    backoff = Backoff(
        options.max_reconnect_attempts if options.auto_reconnect else 0,
        options.reconnect_delay_ms / 1000,
        options.reconnect_backoff_multiplier,
    )
    epoch, loss, held_s = lost.epoch, lost.loss, trio.current_time() - lost.opened_at
    while True:
        attempt = attempts.next(held_s)
        delay_s = backoff.delay_s(attempt, link.rng) if loss.retryable else None
        if delay_s is None:
            link.tell(LinkDown(epoch, loss.reason))
            raise loss if attempt == 1 else _gave_up(loss, attempt - 1)
        link.tell(LinkDown(epoch, loss.reason, attempt, delay_s * 1000))
        await trio.sleep(delay_s)
        try:
            return await _connect(link, connections)
        except WireLost as failure:
            epoch, loss, held_s = link.epoch, failure, 0.0


async def _until_lost_or_rotated(link: Link, current: _Connection, connections: trio.Nursery) -> _Connection | None:
    """Wait. Returns the successor that has taken over, or None when `current` is lost."""
    lifetime_s = _lifetime_s(link, current)
    if lifetime_s is None:
        await current.over.wait()
        return None
    successor: _Connection | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_over, current, nursery.cancel_scope)
        last_moment = trio.current_time() + lifetime_s - min(LAST_MOMENT_S, lifetime_s / 20)
        await trio.sleep(rotation_delay_s(lifetime_s, link.options.session_margin_ms / 1000))
        while successor is None:
            successor = await _rotate(link, connections, last_moment)
            if successor is None:
                await trio.sleep(min(ROTATION_RETRY_S, lifetime_s / 100))
        log.info("connection.rotated", epoch=successor.epoch)
        current.scope.cancel()
        nursery.cancel_scope.cancel()
    return successor


def _lifetime_s(link: Link, connection: _Connection) -> float | None:
    """How long the server will let this connection live; None when it does not say, or the clocks do not agree."""
    if connection.configuration.expires_at is None:
        limit_min = link.options.server.session_limit_min
        return None if limit_min is None else connection.opened_at + 60 * limit_min - trio.current_time()
    lifetime_s = connection.configuration.expires_at - link.wall_clock()
    if lifetime_s < SHORTEST_LIFETIME_S:
        log.warning("rotation.impossible", lifetime_s=lifetime_s, advice="is the clock of this machine right?")
        return None
    return lifetime_s


async def _rotate(link: Link, connections: trio.Nursery, last_moment: float) -> _Connection | None:
    """Make a successor between two turns and offer it to the conversation. None: not now."""
    while link.view.turn_in_progress and trio.current_time() < last_moment:  # noqa: ASYNC110 - it need not be exact
        await trio.sleep(QUIET_CHECK_S)
    handover = Handover(forced=trio.current_time() >= last_moment)
    try:
        successor = await _connect(link, connections, handover)
    except WireLost as failure:
        log.info("rotation.failed", reason=failure.reason)
        return None
    return successor if handover.accepted else None


async def _cancel_when_over(connection: _Connection, scope: trio.CancelScope) -> None:
    await connection.over.wait()
    scope.cancel()


async def _connect(link: Link, connections: trio.Nursery, handover: Handover | None = None) -> _Connection:
    """Open a connection and have it configured; with `handover`, have it taken or refused as well.

    Raises: `WireLost` if that does not come about in time.
    Cancellation: the connection goes, unless the conversation has already moved to it.
    """
    link.epoch += 1
    connection = _Connection(link.epoch, SentAudio(link.audio_input.format, link.audio_input.utterance_capacity_ms))
    control: trio.MemorySendChannel[UplinkItem] = await connections.start(_live, link, connection)
    remembers = bool(link.conversation_id or link.options.call_id)
    link.tell(LinkUp(connection.epoch, control, connection.sent, handover, remembers))
    timeout_s = link.options.connect_timeout_ms / 1000
    is_ready = False
    try:
        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_over, connection, nursery.cancel_scope)
                await connection.configuration.taken.wait()
                if handover is not None:
                    await handover.answered.wait()
                is_ready = handover is None or handover.accepted
                nursery.cancel_scope.cancel()
        if is_ready and link.options.native_resume and link.options.call_id is None:
            link.conversation_id = connection.configuration.conversation_id or link.conversation_id
        if is_ready or handover is not None:
            return connection
        if connection.over.is_set():
            raise connection.loss
        raise WireLost(
            f"{url_shown(link.options.url)} connected but did not answer session.update within {timeout_s:g} s; "
            "does it speak the Realtime protocol?",
            retryable=True,
        )
    finally:
        if not is_ready:
            connection.scope.cancel()


async def _live(
    link: Link,
    connection: _Connection,
    *,
    task_status: trio.TaskStatus[trio.MemorySendChannel[UplinkItem]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """One connection's life, from the first byte to the last.

    Raises: `WireLost` if it never opens; when it is lost later, that is noted in `connection.loss`.
    """
    from trio_voice import wire  # here: trio_websocket takes 70 ms to import

    control, control_items = trio.open_memory_channel[UplinkItem](CONTROL_CAPACITY)
    is_open = False
    try:
        with connection.scope:
            async with trio.open_nursery() as nursery:
                stream = await link.open_stream() if link.open_stream is not None else None
                timeout_s = link.options.connect_timeout_ms / 1000
                address = address_of(link.options, link.conversation_id)
                opened = await nursery.start(partial(wire.run, address, connect_timeout_s=timeout_s, stream=stream))
                is_open = True
                _begin(link, connection, opened, control_items, nursery)
                task_status.started(control)
                del task_status  # it would keep the nursery of the start
                await liveness.watch(opened, link.view, link.options, link.round_trips, nursery)
    except* WireLost as group:
        connection.loss = _first(group)
        if not is_open:
            raise connection.loss from None
    finally:
        control_items.close()
        connection.over.set()


def _begin(
    link: Link,
    connection: _Connection,
    opened: wire.Wire,
    control: trio.MemoryReceiveChannel[UplinkItem],
    nursery: trio.Nursery,
) -> None:
    """Send and receive on an open connection."""
    send = partial(uplink.run, sent=connection.sent, dialect=link.options.server, fan_out=link.fan_out)
    send = partial(send, input_format=link.audio_input.format, statistics=link.uplink)
    nursery.start_soon(send, opened, control, link.frames)
    playback = link.playback.clone() if link.playback is not None else None
    receive = partial(downlink.run, turns=link.turns, fan_out=link.fan_out)
    receive = partial(receive, configuration=connection.configuration, output_rate_hz=link.output_rate_hz)
    nursery.start_soon(receive, opened, connection.epoch, link.inbox.clone(), playback)


def _gave_up(loss: WireLost, attempts: int) -> WireLost:
    reason = f"gave up after {attempts} attempts to reconnect; the last: {loss.reason}"
    return WireLost(reason, retryable=loss.retryable)


def address_of(options: ConnectionOptions, conversation_id: str = "") -> wire.Address:
    """The URL and the handshake's headers. `conversation_id`: of the one to take up again."""
    from trio_voice import wire

    url = options.url
    named = {"conversation_id": conversation_id}
    if options.call_id is not None:
        named["call_id"] = options.call_id
    elif options.model is not None and "model=" not in urlsplit(url).query:
        named = {"model": options.model, **named}
    for name, value in named.items():
        if value:
            url += ("&" if "?" in url else "?") + f"{name}={quote(value)}"
    headers, protocols = list(options.headers), []
    if options.api_key:
        match options.server.auth:
            case "bearer":
                headers.append(("Authorization", f"Bearer {options.api_key}"))
            case "api-key":
                headers.append(("api-key", options.api_key))
            case "subprotocol":
                protocols = ["realtime", f"openai-insecure-api-key.{options.api_key}"]
    return wire.Address(url, headers, protocols)


def _first(group: BaseExceptionGroup[WireLost]) -> WireLost:
    """The loss that says most: one that must not be retried, else the first that happened."""
    losses: list[WireLost] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        elif isinstance(error, WireLost):
            losses.append(error)
    return next((loss for loss in losses if not loss.retryable), losses[0])
