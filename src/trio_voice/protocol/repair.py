"""Server events that are nearly right, made usable: the second look of `codec.decode_server_event`.

Core ring: pure. Other servers of the protocol get small things wrong: a fraction where milliseconds are whole
numbers, "pcm16" for a format object, an error that is a string. Losing `response.done` or `speech_started`
for that would leave a turn open or the agent talking. The invariant: a field is dropped only where the event
means the same without it, so never one that has no default, nor anything inside an item or its content.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from trio_voice.protocol.items import ErrorDetail
from trio_voice.protocol.server_events import ErrorEvent, ServerEvent

MAX_DROPPED_FIELDS = 32
AUDIO_DELTAS = ("response.output_audio.delta", "response.audio.delta")

_PATH = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_MEANINGFUL = (".item.", ".item[", ".part.", ".response.output[", ".error.")


def repaired(raw: str | bytes, type_: str, decoder: msgspec.json.Decoder[Any]) -> ServerEvent | None:
    """The event without its malformed fields, or None where it would mean something else without them."""
    try:
        fields = msgspec.json.decode(raw)
        if type_ == "error":
            return _error(fields)
        if type_ in AUDIO_DELTAS and "delta" not in fields and "audio" in fields:
            fields["delta"] = fields.pop("audio")  # vLLM-omni
        return _without_malformed(fields, decoder)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return None  # ValueError: an integer of more digits than Python prints


def _error(fields: dict[str, Any]) -> ErrorEvent | None:
    detail = fields.get("error")
    if not isinstance(detail, dict):
        detail = {**fields, "type": None, "event_id": None, "message": detail or fields.get("message")}
    known = {name: _text(detail.get(name)) for name in ErrorDetail.__struct_fields__}
    if known["message"] is None and known["code"] is None:
        return None
    return ErrorEvent(event_id=_text(fields.get("event_id")) or "", error=ErrorDetail(**known))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _without_malformed(fields: dict[str, Any], decoder: msgspec.json.Decoder[Any]) -> ServerEvent | None:
    for _ in range(MAX_DROPPED_FIELDS):
        try:
            event: ServerEvent = decoder.decode(msgspec.json.encode(fields))
        except msgspec.ValidationError as failure:
            path = _PATH.search(str(failure))
            if path is None or path[1].startswith(_MEANINGFUL) or not _drop(fields, path[1]):
                return None
        else:
            return event
    return None


def _drop(fields: dict[str, Any], path: str) -> bool:
    """Delete the value at the path, or the smallest one around it that the path names."""
    steps: list[Any] = [name or int(index) for name, index in _STEP.findall(path.partition("[...]")[0])]
    if not steps:
        return False
    at: Any = fields
    for step in steps[:-1]:
        at = at[step]
    del at[steps[-1]]
    return True
