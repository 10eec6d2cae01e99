"""The supervisor: one connection nursery inside the session nursery; when the wire dies, all of it goes at once.

    session nursery
     └─ supervisor
         └─ connection nursery      wire pump · uplink · downlink · heartbeat

Device, playback, tools and conversation live outside and are not touched. In this version a lost connection ends
the session with the `WireLost` that says why.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import attrs
import trio

from trio_voice import downlink, uplink
from trio_voice.audio import Frame
from trio_voice.channels import InboxItem, LinkDown, LinkUp, PlaybackItem, UplinkItem
from trio_voice.config import AudioInputConfig, ConnectionOptions, ConnectionState
from trio_voice.errors import WireLost
from trio_voice.protocol.turns import TurnNumbers
from trio_voice.uplink import UplinkStatistics

if TYPE_CHECKING:
    from trio_voice import wire


@attrs.define(eq=False)
class Link:
    """The ends of the session's channels that a connection needs, and what the session may see of it."""

    control: trio.MemoryReceiveChannel[UplinkItem]
    frames: trio.MemoryReceiveChannel[Frame] | None
    inbox: trio.MemorySendChannel[InboxItem]
    playback: trio.MemorySendChannel[PlaybackItem] | None
    state: ConnectionState = ConnectionState.DISCONNECTED
    uplink: UplinkStatistics = attrs.Factory(UplinkStatistics)
    turns: TurnNumbers = attrs.Factory(TurnNumbers)

    def close(self) -> None:
        for end in (self.control, self.frames, self.inbox, self.playback):
            if end is not None:
                end.close()


async def run(
    link: Link,
    *,
    options: ConnectionOptions,
    audio_input: AudioInputConfig,
    stream: trio.abc.Stream | None = None,
) -> None:
    """Connect, and stay connected.

    Raises: `WireLost` when the connection cannot be made, or is lost.
    Closes: every end in `link`.
    """
    epoch = 1
    try:
        link.state = ConnectionState.CONNECTING
        await _connection(link, epoch, options, audio_input, stream)
    except* WireLost as group:
        lost = _first(group)
        with suppress(trio.BrokenResourceError):  # the conversation may have ended first
            link.inbox.send_nowait(LinkDown(epoch, lost.reason))
        raise lost from None
    finally:
        link.state = ConnectionState.DISCONNECTED
        link.close()


async def _connection(
    link: Link,
    epoch: int,
    options: ConnectionOptions,
    audio_input: AudioInputConfig,
    stream: trio.abc.Stream | None,
) -> None:
    """One WebSocket's life. Any of its tasks failing ends all of them."""
    from trio_voice import wire  # here: trio_websocket takes 70 ms to import

    async with trio.open_nursery() as connection:
        opened = await connection.start(
            partial(
                wire.run,
                address_of(options),
                connect_timeout_s=options.connect_timeout_ms / 1000,
                stream=stream,
            )
        )
        link.state = ConnectionState.CONNECTED
        link.turns.start_connection()
        playback = link.playback.clone() if link.playback is not None else None
        frames = link.frames.clone() if link.frames is not None else None
        send = partial(uplink.run, input_format=audio_input.format, statistics=link.uplink)
        connection.start_soon(send, opened, epoch, link.control.clone(), frames)
        link.inbox.send_nowait(LinkUp(epoch))
        receive = partial(downlink.run, turns=link.turns)
        connection.start_soon(receive, opened, epoch, link.inbox.clone(), playback)
        connection.start_soon(_heartbeat, opened, options)


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
