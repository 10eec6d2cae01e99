"""The local server's ephemeral keys: who may have one, what it opens, and the HTTP request that asks for it.

Edge. Beside the WebSocket on the same port (`listen.py`). The invariant: a key is made once, is good until it expires,
and is forgotten then.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import attrs
import h11
import msgspec
import trio
import trio.abc

from trio_voice import http1
from trio_voice.protocol.session_config import SessionConfig

MAX_SECRETS = 1000
"""Good at the same time; then the oldest is forgotten."""
MAX_BODY_BYTES = 1024 * 1024
RECEIVE_BYTES = 65_536
SHORTEST_S, LONGEST_S, USUAL_S = 10, 7200, 600

Refusal = tuple[int, str, str]
"""Status, code and message."""


class _ExpiresAfter(msgspec.Struct):
    anchor: str = "created_at"
    seconds: int = USUAL_S


class Wanted(msgspec.Struct):
    """What a request may say."""

    expires_after: _ExpiresAfter = msgspec.field(default_factory=_ExpiresAfter)
    session: SessionConfig = msgspec.field(default_factory=SessionConfig)


@attrs.define(eq=False)
class ClientSecrets:
    """Those of one server."""

    clock: Callable[[], float]
    _good: dict[str, tuple[float, SessionConfig]] = attrs.Factory(dict)

    def new(self, seconds: int, session: SessionConfig) -> tuple[str, float]:
        """A new one, and when it expires."""
        now = self.clock()
        self._good = {value: entry for value, entry in self._good.items() if entry[0] > now}
        if len(self._good) >= MAX_SECRETS:
            del self._good[next(iter(self._good))]
        value, expires_at = f"ek_{secrets.token_urlsafe(24)}", now + seconds
        self._good[value] = (expires_at, session)
        return value, expires_at

    def session_of(self, key: str) -> SessionConfig | None:
        """What a session that is opened with `key` begins as; None where it is no key, or is one no more."""
        expires_at, session = self._good.get(key, (0.0, SessionConfig()))
        return session if self.clock() < expires_at else None


class Begun(trio.abc.Stream):
    """A stream of which the first bytes were looked at: it gives them again."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._looked_at = b""

    async def first(self, count: int) -> bytes:
        """The first bytes, `count` of them or more, or all there are."""
        while len(self._looked_at) < count:
            received = await self._inner.receive_some(RECEIVE_BYTES)
            if not received:
                break
            self._looked_at += received
        return self._looked_at

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._looked_at:
            return await self._inner.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        given, self._looked_at = self._looked_at[:max_bytes], self._looked_at[max_bytes or len(self._looked_at) :]
        return given

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def answer_request(
    stream: trio.abc.Stream,
    made: ClientSecrets,
    *,
    refuse: Callable[[str, dict[str, str]], Refusal | None],
    check: Callable[[SessionConfig], Refusal | None],
) -> None:
    """Read one HTTP request and answer it. `refuse`: by its path and headers; `check`: by the session that it wants."""
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BODY_BYTES)
    body, request = b"", None
    try:
        while not isinstance(event := await http1.next_event(peer, stream), h11.EndOfMessage | h11.ConnectionClosed):
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    return
    except h11.ProtocolError:
        return
    if request is None:
        return
    status, answer = _answer(request, body, made, refuse, check)
    content = json.dumps(answer).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content))), ("Connection", "close")]
    response = h11.Response(status_code=status, headers=headers)
    await http1.send(peer, stream, response, h11.Data(data=content), h11.EndOfMessage())


def _answer(
    request: h11.Request,
    body: bytes,
    made: ClientSecrets,
    refuse: Callable[[str, dict[str, str]], Refusal | None],
    check: Callable[[SessionConfig], Refusal | None],
) -> tuple[int, dict[str, Any]]:
    headers = {name.decode().lower(): value.decode(errors="replace") for name, value in request.headers}
    refusal = refuse(request.target.decode(errors="replace"), headers)
    if refusal is not None:
        return _error(refusal)
    try:
        wanted = msgspec.json.decode(body or b"{}", type=Wanted)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return _error((400, "invalid_json", f"The request could not be read: {error}."))
    seconds = wanted.expires_after.seconds
    if not SHORTEST_S <= seconds <= LONGEST_S:
        return _error(
            (400, "invalid_value", f"expires_after.seconds={seconds} is not from {SHORTEST_S} to {LONGEST_S}.")
        )
    refusal = check(wanted.session)
    if refusal is not None:
        return _error(refusal)
    value, expires_at = made.new(seconds, wanted.session)
    return 200, {"value": value, "expires_at": int(expires_at), "session": msgspec.to_builtins(wanted.session)}


def _error(refusal: Refusal) -> tuple[int, dict[str, Any]]:
    status, code, message = refusal
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
