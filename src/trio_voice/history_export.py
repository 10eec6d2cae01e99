"""A conversation as plain values: out of one session as JSON, and into another.

Core ring: pure. The invariant: what is exported, written as JSON, read and imported gives the same items when it is
exported again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import attrs
import msgspec

from trio_voice.errors import ConfigError
from trio_voice.protocol.edits import check_images, check_unicode
from trio_voice.protocol.history import Entry, History
from trio_voice.protocol.resume import CONTINUES
from trio_voice.tracker import ConversationTurn

VERSION = 1
MAX_ITEMS = 10_000
"""Of an imported conversation."""
MAX_TEXT = 1_000_000
"""Characters of one imported item's words."""
MAX_S = 1e9

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class ExportedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item; `heard_text` is how much of `text` reached the user."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    kind: str
    role: Literal["", "user", "assistant", "system"] = ""
    text: Text = ""
    heard_text: Text = ""
    truncated: bool = False
    spoken: bool = False
    images: tuple[str, ...] = ()
    call_id: str = ""
    name: str = ""
    arguments: Text = ""
    output: Text = ""
    at_s: Annotated[float, msgspec.Meta(ge=-MAX_S, le=MAX_S)] = 0.0
    """Since the conversation began."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What of an export a new session begins from; the rest of it is for people."""

    version: int
    items: Annotated[tuple[ExportedItem, ...], msgspec.Meta(max_length=MAX_ITEMS)]
    duration_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_S)] = 0.0
    forgotten_turns: Annotated[int, msgspec.Meta(ge=0)] = 0
    metadata: dict[str, Any] = {}


NOTHING = Exported(version=VERSION, items=())


def export_items(history: Iterable[Entry], began_at: float) -> list[dict[str, Any]]:
    """Without the notes to the model that tell of a lost connection."""
    items = (entry.shown() for entry in history if entry.text != CONTINUES)
    return [
        {
            field: list(value) if field == "images" else value
            for field, value in attrs.asdict(item).items()
            if field != "at"
        }
        | {"at_s": round(item.at - began_at, 3)}
        for item in items
    ]


def export_turns(turns: Iterable[ConversationTurn], began_at: float) -> list[dict[str, Any]]:
    return [_export_turn(turn, began_at) for turn in turns]


def _export_turn(turn: ConversationTurn, began_at: float) -> dict[str, Any]:
    plain = attrs.asdict(turn, filter=lambda field, _: field.name not in ("started_at", "ended_at", "usage"))
    plain["item_ids"], plain["tool_calls"] = list(turn.item_ids), [attrs.asdict(use) for use in turn.tool_calls]
    plain["started_s"] = round(turn.started_at - began_at, 3)
    plain["ended_s"] = None if turn.ended_at is None else round(turn.ended_at - began_at, 3)
    return plain | {"usage": turn.usage.as_dict()}


def read(exported: Mapping[str, Any]) -> Exported:
    """Raises: `ConfigError`, with the path of what is wrong."""
    try:
        read = msgspec.convert(dict(exported), Exported)
    except (msgspec.ValidationError, TypeError, ValueError) as failure:
        raise ConfigError(f"history: this is no export of a session: {failure}") from None
    if read.version != VERSION:
        raise ConfigError(f"history: $.version is {read.version}, and this release reads {VERSION}")
    seen: set[str] = set()
    calls: set[str] = set()
    answered: set[str] = set()
    for number, item in enumerate(read.items):
        wrong = _wrong_with(item, seen, calls, answered)
        if wrong:
            raise ConfigError(f"history: $.items[{number}]{wrong}")
    return read


def _wrong_with(item: ExportedItem, seen: set[str], calls: set[str], answered: set[str]) -> str:
    """What is wrong with an item after those that were `seen`; empty for nothing."""
    if item.id in seen:
        return f".id {item.id!r} occurs twice"
    seen.add(item.id)
    for field in ("id", "text", "call_id", "name", "arguments", "output"):
        try:
            check_unicode(f".{field}", getattr(item, field))
        except ConfigError as failure:
            return str(failure)
    if not item.text.startswith(item.heard_text):
        return ".heard_text is not how .text begins"
    if item.text and item.truncated == (item.heard_text == item.text):
        return ".truncated says otherwise than .heard_text: it is true where that is less than .text"
    if item.kind == "message":
        if not item.role:
            return ".role is missing: a message has one"
        try:
            check_images(item.role, item.images)
        except ConfigError as failure:
            return f".images: {failure}"
    elif item.kind == "function_call":
        if not item.call_id or not item.name:
            return f".{'call_id' if not item.call_id else 'name'} is missing: a function_call has one"
        if item.call_id in calls:
            return f".call_id {item.call_id!r} occurs twice"
        calls.add(item.call_id)
    elif item.kind == "function_call_output":
        if item.call_id not in calls:
            return f".call_id {item.call_id!r} is that of no function_call before it"
        if item.call_id in answered:
            return f".call_id {item.call_id!r} is answered twice"
        answered.add(item.call_id)
    return ""


def restore(read: Exported, history: History, began_at: float, turns: int | None = None) -> int:
    """Put the items of an earlier session into `history`, which is empty: those of its newest `turns`, or all.

    Here a turn is what a message of the user begins. Returns how many were forgotten, there or here.
    """
    is_begin = [item.role == "user" for item in read.items]
    number, numbers = -sum(is_begin), []
    for begins in is_begin:
        number += begins
        numbers.append(number)
    answered = {item.call_id: of for item, of in zip(read.items, numbers, strict=True) if item.output}
    left_out = set()
    for item, of in zip(read.items, numbers, strict=True):
        of = answered.get(item.call_id, of) if item.call_id else of
        if turns is not None and of <= -turns:
            left_out.add(of)
        else:
            history.restore(_entry(item, began_at), of)
    return read.forgotten_turns + len(left_out)


def _entry(item: ExportedItem, began_at: float) -> Entry:
    # Half a letter more than was heard: whatever the rounding, the cut falls behind the same letter.
    share = (len(item.heard_text) + 0.5) / max(1, len(item.text)) if item.truncated else 1.0
    return Entry(
        item.id,
        item.kind,
        item.role,
        item.text,
        item.spoken,
        final=True,
        heard_share=share,
        cut=item.truncated,
        call_id=item.call_id,
        name=item.name,
        arguments=item.arguments,
        output=item.output,
        images=item.images,
        at=began_at + item.at_s,
    )
