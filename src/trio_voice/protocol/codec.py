"""Text frames to events and back: the only place where JSON is read or written.

Core ring: pure. The downlink gives each frame to `decode_server_event`, the uplink sends what `encode`
returns, the local server uses the mirror images. The invariant: decoding never raises, whatever the frame
holds; what it cannot understand is a value too (`UnknownEvent`, `RemoteProtocolError`); the reader goes on.

The usual path is one msgspec decode of one tagged union (7-10 µs for a 4.8 kB audio delta, base64 included).
Only when that fails is the frame looked at again, to say what was wrong with it, or to mend it (`repair`).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from trio_voice.protocol.beta import session_to_ga
from trio_voice.protocol.client_events import CLIENT_EVENTS, ClientEvent
from trio_voice.protocol.repair import repaired
from trio_voice.protocol.server_events import (
    BETA_SERVER_EVENTS,
    OTHER_SERVER_EVENTS,
    SERVER_EVENTS,
    ServerEvent,
    SessionCreated,
    SessionUpdated,
)
from trio_voice.protocol.session_config import SessionConfig

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Longer frames are not parsed. The longest legitimate ones are a 15 MiB append and a retrieved item's sound
(about 3.8 MB a minute)."""

MAX_EXCERPT_CHARS = 200

NOT_UTF8 = "not UTF-8: frames are JSON text"
TOO_DEEP = "nested too deep to be read"


class UnknownEvent(Struct, frozen=True):
    """A well-formed event of a type that this package does not know: another server's, or a newer one's."""

    type: str
    raw: str
    """The whole frame, as received."""


class RemoteProtocolError(Struct, frozen=True):
    """A frame that is no event, as a value: the peer's mistake never ends our reader."""

    reason: str
    """What was wrong, with the path of the field where there is one."""
    raw: str
    """The frame's beginning, at most 200 characters, safe to log."""
    type: str | None = None
    event_id: str | None = None
    """Of the frame, where they could be read; a server echoes a client's `event_id` in its error."""


Undecodable: TypeAlias = UnknownEvent | RemoteProtocolError

_WITH_SESSION = (SessionCreated, SessionUpdated)

_encoder = msgspec.json.Encoder()
_shallow = msgspec.json.Decoder(dict[str, msgspec.Raw])


def encode(event: ClientEvent | ServerEvent | dict[str, Any]) -> str:
    """The text frame of an event, or of one that is rewritten already (`beta`).

    Raises: `UnicodeEncodeError` for text with a lone surrogate, which JSON in UTF-8 cannot carry.
    """
    return _encoder.encode(event).decode()


def decode_server_event(
    raw: str | bytes, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> ServerEvent | UnknownEvent | RemoteProtocolError:
    """The event in a frame from a server; names of the beta give subclasses of the GA's events."""
    if _is_longer(raw, max_bytes):
        return _too_long(raw, max_bytes)
    try:
        event: ServerEvent = _server_decoder().decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as failure:
        result = _explain(raw, failure, _server_types())
        if isinstance(result, RemoteProtocolError) and result.type is not None:
            return repaired(raw, result.type, _server_decoder()) or result
        return result
    return _with_settings(event, raw) if type(event) in _WITH_SESSION else event


def _with_settings(event: ServerEvent, raw: str | bytes) -> ServerEvent:
    """A beta server's session is flat: its settings are put where the GA has them."""
    assert isinstance(event, SessionCreated | SessionUpdated)
    try:
        flat = msgspec.json.decode(raw)["session"]
        if "type" in flat:
            return event
        return replace(event, session=msgspec.convert(flat | session_to_ga(flat), SessionConfig))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):  # in what was skipped before, as nobody wanted it
        return event


def decode_client_event(
    raw: str | bytes, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> ClientEvent | UnknownEvent | RemoteProtocolError:
    """The event in a frame from a client."""
    if _is_longer(raw, max_bytes):
        return _too_long(raw, max_bytes)
    try:
        event: ClientEvent = _client_decoder().decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as failure:
        return _explain(raw, failure, _client_types())
    return event


@functools.cache
def _server_decoder() -> msgspec.json.Decoder[Any]:
    return _union_decoder(SERVER_EVENTS + BETA_SERVER_EVENTS + OTHER_SERVER_EVENTS)


@functools.cache
def _client_decoder() -> msgspec.json.Decoder[Any]:
    return _union_decoder(CLIENT_EVENTS)


def _union_decoder(classes: Sequence[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(functools.reduce(operator.or_, classes))


@functools.cache
def _server_types() -> frozenset[str]:
    return frozenset(wire_name(cls) for cls in SERVER_EVENTS + BETA_SERVER_EVENTS + OTHER_SERVER_EVENTS)


@functools.cache
def _client_types() -> frozenset[str]:
    return frozenset(wire_name(cls) for cls in CLIENT_EVENTS)


def wire_name(event: ServerEvent | ClientEvent | type[ServerEvent] | type[ClientEvent]) -> str:
    """The `type` of an event, or of all events of a class, on the wire."""
    return str(event.__struct_config__.tag)


def _is_longer(raw: str | bytes, max_bytes: int) -> bool:
    length = len(raw)
    if length > max_bytes:
        return True
    if isinstance(raw, bytes) or raw.isascii() or 4 * length <= max_bytes:
        return False
    return len(raw.encode(errors="surrogatepass")) > max_bytes


def _too_long(raw: str | bytes, max_bytes: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"the frame is longer than the limit of {max_bytes} bytes", _excerpt(raw))


def _explain(raw: str | bytes, failure: Exception, known: frozenset[str]) -> Undecodable:
    """Why the frame failed to decode; an unknown type is no failure."""
    excerpt = _excerpt(raw)
    if isinstance(failure, UnicodeError) or not _is_utf8(raw):
        return RemoteProtocolError(NOT_UTF8, excerpt)
    try:
        fields = _shallow.decode(raw)
        type_ = msgspec.json.decode(fields["type"]) if "type" in fields else None
        event_id = msgspec.json.decode(fields["event_id"]) if "event_id" in fields else None
    except msgspec.ValidationError:
        return RemoteProtocolError("an event is a JSON object, and this is another JSON value", excerpt)
    except msgspec.DecodeError as malformed:
        return RemoteProtocolError(f"not JSON: {malformed}", excerpt)
    except RecursionError:
        return RemoteProtocolError(TOO_DEEP, excerpt)
    if "type" not in fields:
        return RemoteProtocolError("the event has no `type`", excerpt)
    if not isinstance(type_, str):
        return RemoteProtocolError("the event's `type` is not a string", excerpt)
    if type_ not in known:
        return UnknownEvent(type_, raw if isinstance(raw, str) else raw.decode())
    reason = TOO_DEEP if isinstance(failure, RecursionError) else str(failure)
    return RemoteProtocolError(reason, excerpt, type_, event_id if isinstance(event_id, str) else None)


def _is_utf8(raw: str | bytes) -> bool:
    try:
        raw.encode() if isinstance(raw, str) else raw.decode()
    except UnicodeError:
        return False
    return True


def _excerpt(raw: str | bytes) -> str:
    # Cut first, so 16 MiB are not copied; and again, since escapes are longer than what they stand for.
    head = raw[:MAX_EXCERPT_CHARS]
    text = head.decode(errors="backslashreplace") if isinstance(head, bytes) else head
    return text.encode(errors="backslashreplace").decode()[:MAX_EXCERPT_CHARS]
