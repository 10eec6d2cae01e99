"""The server's socket: TCP, the WebSocket handshake, who may come in, and closing in bounded time.

Edge: the only file of the server that knows trio_websocket. The invariant: a connection costs its own tasks
and nothing else; whatever a peer does or does not do, it is closed within `CLOSING_S` of its end, and no other
connection notices.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.utilities import ProtocolError

from trio_voice.logs import log
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.server.brain import Brain
from trio_voice.server.client_secrets import Begun, answer_request
from trio_voice.server.connection import MAX_FRAME_BYTES, Opening
from trio_voice.server.converse import Ending, converse
from trio_voice.server.refusals import Refused
from trio_voice.server.server_settings import DEFAULT_MODEL, ServerSettings
from trio_voice.server.session_settings import default_session, updated, without_model

PATH = "/v1/realtime"
SECRETS_PATH = f"{PATH}/client_secrets"
POST = b"POST "
KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""How a browser, which cannot set headers, shows its key."""
HANDSHAKE_S = 10.0
CLOSING_S = 1.0
RECEIVE_BYTES = 65_536
"""Of the socket at a time: with the library's 4 KiB a message costs twice the time."""
UNREAD_FRAMES = 16
"""The library stops answering pings while a frame waits for room here."""
SHUTTING_DOWN = Ending(1001, "The server is shutting down.")
BROKEN = Ending(1011, "The server failed.")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@attrs.frozen
class Listening:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What a client connects to; a model may be added as `?model=`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}{PATH}"


async def serve(
    brain: Brain,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    session_limit_s: float = 3600.0,
    settings: ServerSettings | None = None,
    task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the Realtime protocol over TCP until cancelled; starts with a `Listening` as its value.

    It listens at once, and answers when the brain has warmed up. `settings`, where given, is taken in place of
    `api_key` and `session_limit_s`.

    Cancellation: connections are closed with 1001, within a second.
    Raises: `OSError` when it cannot listen; whatever the brain's `warm_up` raises.
    """
    settings = settings or ServerSettings(api_key=api_key, session_limit_s=session_limit_s)
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound_port = listeners[0].socket.getsockname()[1]
    warm = trio.Event()
    places = trio.CapacityLimiter(settings.max_connections)

    async def answer(stream: trio.SocketStream) -> None:
        try:
            await _serve_one(stream, brain, settings, warm, places)
        except Exception:  # one connection's trouble is not the others'
            log.exception("connection.failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        task_status.started(Listening(host, bound_port))
        await brain.warm_up()
        warm.set()


async def serve_stream(stream: trio.abc.Stream, brain: Brain, settings: ServerSettings | None = None) -> None:
    """Serve one connection on `stream`, which is closed in the end. Returns when the session is over.

    For any byte stream: a TLS or Unix socket, or half of `trio.testing.memory_stream_pair()`, so that the real
    WebSocket code runs in virtual time.

    Cancellation: closes with 1001, within a second.
    """
    settings = settings or ServerSettings()
    warm = trio.Event()
    try:
        await brain.warm_up()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    warm.set()
    await _serve_one(stream, brain, settings, warm, trio.CapacityLimiter(1))


async def _serve_one(
    stream: trio.abc.Stream,
    brain: Brain,
    settings: ServerSettings,
    warm: trio.Event,
    places: trio.CapacityLimiter,
) -> None:
    """Handshake, conversation, close."""
    place = object()
    try:
        async with trio.open_nursery() as nursery:
            pump: trio.Nursery = await nursery.start(_pump)
            try:
                with trio.move_on_after(HANDSHAKE_S) as handshake:
                    begun = Begun(stream)
                    if (await begun.first(len(POST))).startswith(POST):
                        await _give_secret(begun, settings)
                        return
                    request = await wrap_server_stream(
                        pump,
                        begun,
                        message_queue_size=UNREAD_FRAMES,
                        max_message_size=MAX_FRAME_BYTES,
                        receive_buffer_size=RECEIVE_BYTES,
                    )
                    socket = await _admit(request, settings, places, place)
                if not handshake.cancelled_caught and socket is not None:
                    await _hold(socket, brain, settings, warm, _opening(request, settings))
            finally:
                pump.cancel_scope.cancel()
    except* (ConnectionClosed, ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
        log.info("connection.lost")
    finally:
        if place in places.statistics().borrowers:
            places.release_on_behalf_of(place)
        await trio.aclose_forcefully(stream)


async def _pump(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Lend a nursery to the library's reader that outlives a cancellation until the connection is closed."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await trio.sleep_forever()


async def _admit(
    request: WebSocketRequest, settings: ServerSettings, places: trio.CapacityLimiter, place: object
) -> WebSocketConnection | None:
    """Accept the client, or refuse it before the upgrade with a body that says why."""
    refusal = _refusal(request, settings)
    if refusal is None:
        try:
            places.acquire_on_behalf_of_nowait(place)
        except trio.WouldBlock:
            message = f"{settings.max_connections} clients are connected, which is the limit: try again later."
            refusal = 503, "too_many_connections", message
    if refusal is not None:
        status, code, message = refusal
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        await request.reject(
            status,
            extra_headers=[(b"Content-Type", b"application/json")],
            body=json.dumps({"error": error}).encode(),
        )
        return None
    protocol = "realtime" if "realtime" in request.proposed_subprotocols else None
    socket: WebSocketConnection = await request.accept(subprotocol=protocol)
    return socket


async def _give_secret(stream: trio.abc.Stream, settings: ServerSettings) -> None:
    """Answer a request for an ephemeral key."""

    def refuse(target: str, headers: dict[str, str]) -> tuple[int, str, str] | None:
        path = urlsplit(target).path
        if path != SECRETS_PATH:
            return 404, "not_found", f"Nothing is served at {path}. Ask at {SECRETS_PATH}."
        return _not_let_in(headers, (), settings, ephemeral=False)

    def check(session: SessionConfig) -> tuple[int, str, str] | None:
        try:
            updated(default_session(session_id="", model="", expires_at=0), without_model(session), voice_fixed=False)
        except Refused as refused:
            return 400, refused.code or "invalid_value", refused.message
        return None

    await answer_request(stream, settings.client_secrets, refuse=refuse, check=check)


def _refusal(request: WebSocketRequest, settings: ServerSettings) -> tuple[int, str, str] | None:
    """Status, code and message, or None when the client may come in."""
    path = urlsplit(request.path).path
    if path != PATH:
        return 404, "not_found", f"Nothing is served at {path}. Connect to {PATH}."
    return _not_let_in(_headers(request), request.proposed_subprotocols, settings, ephemeral=True)


def _headers(request: WebSocketRequest) -> dict[str, str]:
    return {name.decode().lower(): value.decode(errors="replace") for name, value in request.headers}


def _keys(headers: Mapping[str, str], protocols: Sequence[str]) -> list[str]:
    """Those that the client shows."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    keys = [bearer.strip()] if scheme.lower() == "bearer" else []
    keys += [headers["api-key"].strip()] if "api-key" in headers else []
    return keys + [
        protocol.removeprefix(KEY_SUBPROTOCOL) for protocol in protocols if protocol.startswith(KEY_SUBPROTOCOL)
    ]


def _not_let_in(
    headers: Mapping[str, str], protocols: Sequence[str], settings: ServerSettings, *, ephemeral: bool
) -> tuple[int, str, str] | None:
    """Why not. `ephemeral`: such a key will do, too."""
    keys = _keys(headers, protocols)
    if ephemeral and any(settings.client_secrets.session_of(key) is not None for key in keys):
        return None
    if settings.api_key is not None:
        if not any(hmac.compare_digest(key.encode(), settings.api_key.encode()) for key in keys):
            wrong = "The API key is wrong" if keys else "No API key was given"
            return (
                401,
                "invalid_api_key",
                f"{wrong}. Send the server's key as 'Authorization: Bearer KEY', "
                f"or from a browser as the subprotocols 'realtime' and '{KEY_SUBPROTOCOL}KEY'.",
            )
    elif not _is_local(headers.get("origin")):
        return (
            403,
            "origin_not_allowed",
            f"Pages of {headers['origin']} may not use this server, as it has no key. Start it with an API key.",
        )
    return None


def _is_local(origin: str | None) -> bool:
    """Without a key, any page open in the user's browser could otherwise talk to a server on localhost.

    An origin of `null` is nobody's: a sandboxed frame of any page has it.
    """
    if origin is None:
        return True
    return urlsplit(origin).hostname in LOOPBACK_HOSTS


def _opening(request: WebSocketRequest, settings: ServerSettings) -> Opening:
    """What the client asked for, by its address and by its key; any name of a model will do."""
    parameters = parse_qs(urlsplit(request.path).query)
    keys = _keys(_headers(request), request.proposed_subprotocols)
    given = next((found for key in keys if (found := settings.client_secrets.session_of(key)) is not None), None)
    model = parameters.get("model", [(given.model if given is not None else None) or DEFAULT_MODEL])[0]
    return Opening(model, given, call_id=parameters.get("call_id", [""])[0])


async def _hold(
    socket: WebSocketConnection, brain: Brain, settings: ServerSettings, warm: trio.Event, opening: Opening
) -> None:
    """Hold the conversation, then close with its reason."""

    async def receive() -> str | bytes | None:
        try:
            return await socket.get_message()
        except ConnectionClosed:
            return None

    async def send(frame: str) -> None:
        try:
            await socket.send_message(frame)
        except ConnectionClosed:
            pass  # receive() finds out too, and ends the conversation

    ending = SHUTTING_DOWN
    try:
        await warm.wait()
        ending = await converse(receive, send, brain, settings, opening)
    except Exception:
        ending = BROKEN
        raise
    finally:
        with trio.move_on_after(CLOSING_S, shield=True):
            await socket.aclose(ending.code, ending.reason)
