"""Ephemeral keys: made with the real key by a program that has it, and given to one that must not (a browser, say).

Edge: one HTTP request, over the stream that `wire.py` opens.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs
import h11
import msgspec
import trio
import trio.abc
from msgspec import UNSET
from msgspec.structs import replace

from trio_voice import http1, wire
from trio_voice.config import ConnectionOptions
from trio_voice.errors import ConfigError, WireLost
from trio_voice.protocol import SessionConfig
from trio_voice.supervisor import OpenStream, address_of

MAX_ANSWER_BYTES = 1024 * 1024


@attrs.frozen
class ClientSecret:
    """An ephemeral key. Not shown by `repr`: read `value`."""

    value: str = attrs.field(repr=False)
    """`ek_…`: it takes the place of an API key until it expires."""
    expires_at: float
    """In Unix seconds."""


class _Answer(msgspec.Struct):
    value: str
    expires_at: float = 0.0


async def client_secret(
    connection: ConnectionOptions,
    session: SessionConfig | None = None,
    *,
    expires_after_s: int = 600,
    open_stream: OpenStream | None = None,
) -> ClientSecret:
    """Make an ephemeral key with the `api_key` of `connection`. A session that is opened with it begins as `session`.

    `open_stream`: makes the byte stream in place of the network, for tests.

    Raises: `ConfigError` for a time outside of 10..7200 seconds; `WireLost` when the server does not give one within
    `connect_timeout_ms`, with what it said.
    """
    if not 10 <= expires_after_s <= 7200:
        raise ConfigError(f"expires_after_s={expires_after_s} is outside 10..7200; 600 is usual")
    settings = session or SessionConfig()
    if not settings.model:
        settings = replace(settings, model=connection.model or UNSET)
    body = {"expires_after": {"anchor": "created_at", "seconds": expires_after_s}, "session": settings}
    address = _address(connection)
    timeout_s = connection.connect_timeout_ms / 1000
    with trio.move_on_after(timeout_s) as patience:
        stream = await open_stream() if open_stream is not None else await wire.connect(address)
        async with stream:
            status, answer = await _post(stream, address, msgspec.json.encode(body))
    if patience.cancelled_caught:
        raise WireLost(f"{address.shown} did not answer within {timeout_s:g} s", retryable=True)
    if status >= 400:
        raise wire.rejected(address, status, answer)
    try:
        made = msgspec.json.decode(answer, type=_Answer)
    except msgspec.MsgspecError as error:
        raise WireLost(f"{address.shown} answered no client secret ({error})", retryable=False) from None
    return ClientSecret(made.value, made.expires_at)


def _address(connection: ConnectionOptions) -> wire.Address:
    parts = urlsplit(connection.url)
    url = f"http{parts.scheme.removeprefix('ws')}://{parts.netloc}{parts.path.rstrip('/')}/client_secrets"
    return attrs.evolve(address_of(connection), url=url)


async def _post(stream: trio.abc.Stream, address: wire.Address, body: bytes) -> tuple[int, bytes]:
    """One request, one answer. Raises: `WireLost`."""
    parts = urlsplit(address.url)
    headers = [("Host", parts.netloc.rpartition("@")[2]), ("Content-Type", "application/json")]
    headers += [("Content-Length", str(len(body))), ("Connection", "close"), *address.headers]
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_BYTES)
    status, answer = 0, b""
    try:
        request = h11.Request(method="POST", target=parts.path, headers=headers)
        await http1.send(peer, stream, request, h11.Data(data=body), h11.EndOfMessage())
        while not isinstance(event := await http1.next_event(peer, stream), h11.EndOfMessage | h11.ConnectionClosed):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data) and len(answer) < MAX_ANSWER_BYTES:
                answer += event.data
    except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
        raise WireLost(f"{address.shown} did not answer as a web server does", retryable=True) from None
    if not status:
        raise WireLost(f"{address.shown} hung up without an answer", retryable=True)
    return status, answer
