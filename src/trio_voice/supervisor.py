"""The supervisor: one connection nursery inside the session nursery; when the wire dies, all of it goes at once.

    session nursery
     └─ supervisor
         └─ connection nursery      wire pump · uplink · downlink · heartbeat

Device, playback, tools and conversation live outside and are not touched. A connection that was lost and may come
back is made again, with backoff; what cannot come back ends the session with the `WireLost` that says why.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlsplit

import attrs
import trio
import trio.abc

from trio_voice import downlink, uplink
from trio_voice.audio import Frame
from trio_voice.channels import EventFanOut, InboxItem, LinkDown, LinkUp, PlaybackItem, UplinkItem
from trio_voice.config import AudioInputConfig, ConnectionOptions, ConnectionState
from trio_voice.errors import WireLost
from trio_voice.protocol.turns import TurnNumbers
from trio_voice.restart_policy import Attempts, Backoff
from trio_voice.uplink import UplinkStatistics

if TYPE_CHECKING:
    from trio_voice import wire


OpenStream: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes the byte stream of a connection, in place of the network: for tests."""

HEALTHY_AFTER_S = 10.0


@attrs.define(eq=False)
class Link:
    """The ends of the session's channels that a connection needs, and what the session may see of it."""

    control: trio.MemoryReceiveChannel[UplinkItem]
    frames: trio.MemoryReceiveChannel[Frame] | None
    inbox: trio.MemorySendChannel[InboxItem]
    playback: trio.MemorySendChannel[PlaybackItem] | None
    fan_out: EventFanOut
    state: ConnectionState = ConnectionState.DISCONNECTED
    epoch: int = 0
    """Numbers connections from 1; nothing of an earlier one reaches a later one."""
    connected_at: float | None = None
    """When a server last took the configuration: only then is it a connection."""
    uplink: UplinkStatistics = attrs.Factory(UplinkStatistics)
    turns: TurnNumbers = attrs.Factory(TurnNumbers)

    def tell(self, news: LinkUp | LinkDown) -> None:
        with suppress(trio.BrokenResourceError):  # the conversation may have ended first
            self.inbox.send_nowait(news)

    def close(self) -> None:
        for end in (self.control, self.frames, self.inbox, self.playback):
            if end is not None:
                end.close()


async def run(
    link: Link,
    *,
    options: ConnectionOptions,
    audio_input: AudioInputConfig,
    open_stream: OpenStream | None = None,
    rng: random.Random | None = None,
) -> None:
    """Connect, and stay connected.

    Raises: `WireLost` when the first connection cannot be made, or a lost one not again.
    Closes: every end in `link`.
    """
    backoff = Backoff(
        options.max_reconnect_attempts if options.auto_reconnect else 0,
        options.reconnect_delay_ms / 1000,
        options.reconnect_backoff_multiplier,
    )
    attempts, rng = Attempts(HEALTHY_AFTER_S), rng or random.Random()
    link.state = ConnectionState.CONNECTING
    try:
        while True:
            link.epoch += 1
            connected_at = link.connected_at
            try:
                await _connection(link, options, audio_input, open_stream)
            except* WireLost as group:
                lost = _first(group)
            is_first = link.connected_at is None
            held_s = 0.0
            if link.connected_at is not None and link.connected_at != connected_at:
                held_s = trio.current_time() - link.connected_at
            attempt = attempts.next(held_s)
            delay_s = backoff.delay_s(attempt, rng) if lost.retryable and not is_first else None
            link.tell(LinkDown(link.epoch, lost.reason, None if delay_s is None else attempt, (delay_s or 0.0) * 1000))
            if delay_s is None:
                raise lost if is_first or attempt == 1 else _gave_up(lost, attempt - 1)
            link.state = ConnectionState.RECONNECTING
            await trio.sleep(delay_s)
    finally:
        link.state = ConnectionState.DISCONNECTED
        link.close()


def _gave_up(lost: WireLost, attempts: int) -> WireLost:
    return WireLost(
        f"gave up after {attempts} attempts to reconnect; the last: {lost.reason}", retryable=lost.retryable
    )


async def _connection(
    link: Link, options: ConnectionOptions, audio_input: AudioInputConfig, open_stream: OpenStream | None
) -> None:
    """One WebSocket's life. Any of its tasks failing ends all of them."""
    from trio_voice import wire  # here: trio_websocket takes 70 ms to import

    async with trio.open_nursery() as connection:
        opened = await connection.start(
            partial(
                wire.run,
                address_of(options),
                connect_timeout_s=options.connect_timeout_ms / 1000,
                stream=await open_stream() if open_stream is not None else None,
            )
        )
        epoch, configured = link.epoch, trio.Event()
        link.turns.start_connection()
        playback = link.playback.clone() if link.playback is not None else None
        frames = link.frames.clone() if link.frames is not None else None
        send = partial(uplink.run, input_format=audio_input.format, statistics=link.uplink)
        connection.start_soon(send, opened, epoch, link.control.clone(), frames)
        link.tell(LinkUp(epoch))
        receive = partial(downlink.run, turns=link.turns, fan_out=link.fan_out, configured=configured)
        connection.start_soon(receive, opened, epoch, link.inbox.clone(), playback)
        connection.start_soon(_heartbeat, opened, options)
        await _configuration_taken(configured, options)
        link.state, link.connected_at = ConnectionState.CONNECTED, trio.current_time()


async def _configuration_taken(configured: trio.Event, options: ConnectionOptions) -> None:
    timeout_s = options.connect_timeout_ms / 1000
    with trio.move_on_after(timeout_s) as waiting:
        await configured.wait()
    if waiting.cancelled_caught:
        raise WireLost(
            f"{options.url} connected but did not answer session.update within {timeout_s:g} s; "
            "does it speak the Realtime protocol?",
            retryable=True,
        )


async def _heartbeat(opened: wire.Wire, options: ConnectionOptions) -> None:
    """Notice a dead peer. Any byte counts as life, so a ping is sent only into silence."""
    interval_s, timeout_s = options.heartbeat_interval_ms / 1000, options.heartbeat_timeout_ms / 1000
    while True:
        await trio.sleep_until(opened.last_received_at + interval_s)
        if trio.current_time() < opened.last_received_at + interval_s:
            continue
        pinged_at = trio.current_time()
        with trio.move_on_after(timeout_s):
            await opened.ping()
        if opened.last_received_at < pinged_at:
            raise WireLost(
                f"the server has been silent for {interval_s + timeout_s:g} s and answered no ping",
                retryable=True,
            )


def address_of(options: ConnectionOptions) -> wire.Address:
    """The URL and the handshake's headers."""
    from trio_voice import wire

    url = options.url
    if options.model is not None and "model=" not in urlsplit(url).query:
        url += ("&" if "?" in url else "?") + f"model={quote(options.model)}"
    headers = list(options.headers)
    if options.api_key:
        headers.append(
            ("api-key", options.api_key) if options.azure else ("Authorization", f"Bearer {options.api_key}")
        )
    return wire.Address(url, headers)


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
