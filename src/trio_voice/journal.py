"""The journal: every event of a session with its time, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import attrs
import msgspec

from trio_voice import events
from trio_voice.channels import EventStream
from trio_voice.protocol import RemoteProtocolError, UnknownEvent, wire_name


async def write(stream: EventStream, path: Path) -> None:
    """Write the events of `stream` until the session ends. Times are seconds since the first one.

    Sound is left out: a piece of it is written as its length in bytes.
    """
    started_at: float | None = None
    with path.open("w", encoding="utf-8") as file:
        async for event in stream:
            started_at = event.at if started_at is None else started_at
            _write(file, event, started_at)


def _write(file: IO[str], event: events.SessionEvent, started_at: float) -> None:
    row: dict[str, Any] = {"t": round(event.at - started_at, 4), "event": event.name}
    match event:
        case events.ServerEventReceived():
            row["server"] = _plain(event.event)
        case events.ClientEventSent():
            row["client"] = _plain(event.event)
        case _:
            row |= attrs.asdict(event, filter=lambda attribute, _: attribute.name != "at")
    file.write(msgspec.json.encode(_without_sound(row)).decode() + "\n")


def _plain(event: Any) -> Any:
    match event:
        case UnknownEvent():
            return {"type": event.type, "unknown": True}
        case RemoteProtocolError():
            return {"type": "protocol error", "reason": event.reason}
        case _:
            return {"type": wire_name(event), **msgspec.structs.asdict(event)}


def _without_sound(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, msgspec.Struct):
        return _without_sound(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {key: _without_sound(item) for key, item in value.items() if item is not msgspec.UNSET}
    if isinstance(value, list | tuple):
        return [_without_sound(item) for item in value]
    return value
