"""Frames that a server might send, and what a hostile or broken one makes of them. Pure: all chance from one RNG.

The examples are built from the event classes themselves, so that a new event is in the pool the day it is written.
"""

from __future__ import annotations

import base64
import random
import types
import typing
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import UnsetType

from trio_voice.protocol.codec import wire_name
from trio_voice.protocol.server_events import BETA_SERVER_EVENTS, SERVER_EVENTS

Frame: TypeAlias = str | bytes
EVENT_CLASSES: tuple[Any, ...] = (*SERVER_EVENTS, *BETA_SERVER_EVENTS)

IDS = ("r1", "r2", "r3", "i1", "i2", "i3", "c1", "c2", "", "item_user")
WORDS = ("order", "nobody", "completed", "cancelled", "failed", "in_progress", "message", "function_call", "assistant")
STATUSES = ("completed", "cancelled", "incomplete", "failed", "in_progress", "", "no such status")
CODES = ("conversation_already_has_active_response", "response_cancel_not_active", "input_audio_buffer_commit_empty")
KINDS = ("message", "function_call", "function_call_output", "output_audio", "unheard of")
ABSURD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**64 - 1, -(2**63), 1.5, -0.0, 1e308, "", "a", "\0",
    "\u202e\U0001f600", "x" * 5000, "AAAA", "AAA", "no base64!", [], [[]], [None] * 50, {}, {"": {}}, {"type": "x"},
)  # fmt: skip
RAW_TOKENS = (
    "NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, '"\\ud800"', "nul", "[" * 2000, '{"a":' * 2000, "", ",", "}",
    '"\\u0000"', "-", "0x10", "'a'", "/**/1",
)  # fmt: skip


def any_frame(rng: random.Random) -> Frame:
    """One frame: most are nearly right, some are noise."""
    roll = rng.random()
    event = example(rng.choice(EVENT_CLASSES), rng)
    if roll < 0.15:
        return encoded(event)
    if roll < 0.65:
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            event = mutated(event, rng)
        return encoded(event)
    if roll < 0.80:
        return with_raw_token(encoded(event), rng)
    if roll < 0.97:
        return with_bytes_changed(encoded(event).encode(), rng)
    return rng.randbytes(rng.randrange(64))


def encoded(event: Any) -> str:
    return msgspec.json.encode(event).decode()


# --- examples -------------------------------------------------------------------------------------


def example(cls: Any, rng: random.Random) -> dict[str, Any]:
    """An event of class `cls` with plausible values, as plain JSON."""
    return {"type": wire_name(cls), **_fields(cls, rng, 0)}


def _fields(cls: Any, rng: random.Random, depth: int) -> dict[str, Any]:
    left_out = 0.5 if depth < 3 else 0.9
    return {
        name: _value(annotation, name, rng, depth + 1)
        for name, annotation, required in _shape(cls)
        if required or rng.random() > left_out
    }


_shapes: dict[Any, list[tuple[str, Any, bool]]] = {}


def _shape(cls: Any) -> list[tuple[str, Any, bool]]:
    if cls not in _shapes:
        _shapes[cls] = [(field.encode_name, field.type, field.required) for field in msgspec.structs.fields(cls)]
    return _shapes[cls]


_BY_NAME: dict[str, Callable[[random.Random], Any]] = {
    "status": lambda rng: rng.choice(STATUSES),
    "role": lambda rng: rng.choice(("user", "assistant", "system", "")),
    "arguments": lambda rng: rng.choice(("{}", '{"what": "pizza"}', "no JSON", "")),
    "name": lambda rng: rng.choice(("order", "nobody", "")),
    "conversation_id": lambda rng: rng.choice(("conv", "conv", None)),
    "code": lambda rng: rng.choice(CODES),
    "type": lambda rng: rng.choice(KINDS),
}
_BY_TYPE: dict[Any, Callable[[random.Random], Any]] = {
    str: lambda rng: rng.choice(WORDS),
    int: lambda rng: rng.choice((0, 1, 2, 20, 1000)),
    float: lambda rng: rng.choice((0.0, 0.5, 20.0)),
    bool: lambda rng: rng.random() < 0.5,
    bytes: lambda rng: base64.b64encode(rng.randbytes(rng.choice((0, 1, 2, 3, 960, 961, 4800)))).decode(),
    type(None): lambda rng: None,
    Any: lambda rng: rng.choice(ABSURD),
}


def _value(annotation: Any, name: str, rng: random.Random, depth: int) -> Any:
    if name in _BY_NAME:
        return _BY_NAME[name](rng)
    if name.endswith("id"):
        return rng.choice(IDS)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        choices = [one for one in typing.get_args(annotation) if one is not UnsetType]
        return _value(rng.choice(choices), name, rng, depth)
    if origin is list:
        (of,) = typing.get_args(annotation)
        return [_value(of, "", rng, depth + 1) for _ in range(rng.choice((0, 1, 1, 2)) if depth < 5 else 0)]
    if origin is dict:
        return {"a": "b"} if rng.random() < 0.5 else {}
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _fields(annotation, rng, depth + 1)
    return _BY_TYPE.get(annotation, _BY_TYPE[str])(rng)


# --- mutations ------------------------------------------------------------------------------------


def mutated(event: Any, rng: random.Random) -> Any:
    """A copy with one place in it changed: dropped, replaced, exchanged, repeated, or under another name."""
    copy = msgspec.json.decode(msgspec.json.encode(event))
    places: list[tuple[Any, Any]] = []
    _collect(copy, places)
    if not places:
        return copy
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 | 2:
            holder[key] = rng.choice(ABSURD)
        case 3:
            other, other_key = rng.choice(places)
            if not _inside(holder[key], other) and not _inside(other[other_key], holder):
                holder[key], other[other_key] = other[other_key], holder[key]
        case 4:
            if len(places) < 200:
                holder[key] = [holder[key]] * rng.choice((1, 2, 20))
        case _:
            if isinstance(holder, dict):
                holder[rng.choice(("", "type", "item", "delta", "unknown", "event_id"))] = holder[key]
            else:
                holder.append(holder[key])
    return copy


def _inside(tree: Any, wanted: Any) -> bool:
    if tree is wanted:
        return True
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return any(_inside(child, wanted) for child in children)


def _collect(tree: Any, places: list[tuple[Any, Any]]) -> None:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        places.append((tree, key))
        _collect(child, places)


def with_raw_token(text: str, rng: random.Random) -> str:
    """A value replaced by a token that no JSON encoder writes."""
    at = [place for place, sign in enumerate(text) if sign == ":"]
    if not at:
        return text
    start = rng.choice(at) + 1
    end = min((place for place in (text.find(",", start), text.find("}", start)) if place >= 0), default=len(text))
    return text[:start] + rng.choice(RAW_TOKENS) + text[end:]


def with_bytes_changed(raw: bytes, rng: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                del changed[place : place + rng.choice((1, 2, 40))]
            case 1:
                changed[place:place] = rng.randbytes(rng.choice((1, 2, 4)))
            case 2:
                changed[place:place] = changed[place : place + 30]
            case _:
                if place < len(changed):
                    changed[place] = rng.randrange(256)
    return bytes(changed)
