"""The items of one conversation, in order, each with its sound and how far it was heard.

Between the connection, which carries out the client's wishes, and responses, which append. Pure. The
invariant: every id occurs once, and what a brain is shown of an assistant's message is never more than what
was sent, nor, once the client truncated it, more than what was heard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
from msgspec import UNSET
from msgspec.structs import replace

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, encode_g711, samples_of
from trio_voice.protocol.items import ContentPart, Item, Maybe
from trio_voice.server.refusals import Refused

if TYPE_CHECKING:
    from trio_voice.audio import Samples

MAX_ITEMS = 10_000
"""Of one conversation; more is a client gone wild, as an hour's talk has hundreds."""

ITEM_FIELDS = {
    "message": ("role", "content"),
    "function_call": ("name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "mcp_approval_response": ("approval_request_id", "approve"),
    "mcp_approval_request": ("name", "arguments", "server_label"),
    "mcp_list_tools": ("server_label", "tools"),
    "mcp_call": ("name", "arguments", "server_label"),
}
"""What each type of item must have when a client creates it."""

CONTENT_OF_ROLE = {
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text",),
    "system": ("input_text",),
}


@attrs.frozen
class Clause:
    """Words that were spoken, and how many samples they took."""

    text: str
    samples: int


@attrs.define
class Sound:
    """The samples of one message: `pcm16` inside, in `format`'s encoding when a client retrieves them."""

    format: AudioFormat
    pcm: bytearray = attrs.Factory(bytearray)
    clauses: list[Clause] = attrs.Factory(list)
    """Empty for the user's sound."""

    @property
    def samples(self) -> int:
        return len(self.pcm) // BYTES_PER_SAMPLE

    @property
    def duration_ms(self) -> float:
        return self.samples * 1000 / self.format.rate_hz

    def encoded(self) -> bytes:
        if self.format.encoding == "pcm16":
            return bytes(self.pcm)
        return encode_g711(bytes(self.pcm), self.format.encoding)

    def cut(self, samples: int) -> None:
        """Keep the first `samples`, and the words that were said wholly within them."""
        kept: list[Clause] = []
        left = samples
        for clause in self.clauses:
            kept.append(Clause(heard_words(clause, left), min(clause.samples, left)))
            left -= clause.samples
            if left <= 0:
                break
        self.clauses = kept
        del self.pcm[samples * BYTES_PER_SAMPLE :]

    def heard(self) -> Samples:
        return samples_of(bytes(self.pcm))

    def words(self) -> str:
        """Of the agent's sound that is kept."""
        return "".join(clause.text for clause in self.clauses).strip()


@attrs.define
class Entry:
    """An item as the wire shows it, and what the wire does not."""

    item: Item
    sound: Sound | None = None
    truncated: bool = False
    """Its transcript is gone, and stays gone."""

    @property
    def id(self) -> str:
        return self.item.id or ""


class ConversationItems:
    """The default conversation."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        return tuple(self._entries)

    @property
    def heard_ms(self) -> float:
        """Of the user's sound, in all."""
        sounds = (entry.sound for entry in self._entries if entry.item.role == "user")
        return sum(sound.duration_ms for sound in sounds if sound is not None)

    def find(self, item_id: str) -> Entry | None:
        return next((entry for entry in reversed(self._entries) if entry.id == item_id), None)

    def add(self, entry: Entry, previous_item_id: Maybe[str] = UNSET) -> str | None:
        """Insert behind `previous_item_id` (`root`: at the head; absent: at the end); the id it now follows.

        Raises: `Refused` for an unknown predecessor, an id that is taken, or too many items.
        """
        if self.find(entry.id) is not None:
            raise Refused(
                f"Error adding item: an item with id '{entry.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        if len(self._entries) >= MAX_ITEMS:
            raise Refused(f"The conversation is full: {MAX_ITEMS} items. Delete some.", code="conversation_full")
        index = len(self._entries)
        if previous_item_id == "root":
            index = 0
        elif previous_item_id:
            index = self._index(previous_item_id) + 1
        self._entries.insert(index, entry)
        return self._entries[index - 1].id if index else None

    def previous_id(self, item_id: str) -> str | None:
        """The id that `item_id` follows now; None when it is the first, or gone."""
        previous = None
        for entry in self._entries:
            if entry.id == item_id:
                return previous
            previous = entry.id
        return None

    def retrieve(self, item_id: str) -> Item:
        """The item with its sound. Raises: `Refused` when unknown."""
        entry = self._known(item_id, "retriev")
        if entry.sound is None:
            return entry.item
        audio = entry.sound.encoded()
        parts = [replace(p, audio=audio) if p.type in SPOKEN else p for p in entry.item.parts]
        return replace(entry.item, content=parts)

    def delete(self, item_id: str) -> None:
        """Raises: `Refused` when unknown."""
        self._entries.remove(self._known(item_id, "delet"))

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an assistant's spoken message at `audio_end_ms`; its transcript is deleted.

        Raises: `Refused` as the real server does: an unknown item, not an assistant's, without sound yet,
        or shorter than `audio_end_ms`.
        """
        entry = self._known(item_id, "truncat")
        if entry.item.type != "message" or entry.item.role != "assistant":
            raise Refused("Only model output messages can be truncated.", param="item_id")
        sound = entry.sound
        if sound is None or not (sound.samples or entry.truncated):
            raise Refused(
                f"Item '{item_id}' has no audio content to truncate.",
                code="unsupported_content_type",
                param="content_index",
            )
        if content_index != 0:
            raise Refused(f"Item '{item_id}' has no content part {content_index}.", param="content_index")
        if audio_end_ms < 0:
            raise Refused("'audio_end_ms' must not be negative.", param="audio_end_ms")
        samples = sound.format.samples_of_ms(audio_end_ms)
        if samples > sound.samples:
            raise Refused(
                f"Audio content of {sound.duration_ms:.0f}ms is already shorter than {audio_end_ms}ms",
                param="audio_end_ms",
            )
        sound.cut(samples)
        entry.truncated = True
        parts = [replace(part, transcript=UNSET) for part in entry.item.parts]
        entry.item = replace(entry.item, content=parts)

    def for_brain(self) -> list[Item]:
        """What there is to answer: without what is still being made, and of speech only what was heard."""
        shown = (shown_to_brain(entry) for entry in self._entries)
        return [item for item in shown if item is not None]

    def _known(self, item_id: str, verb: str) -> Entry:
        entry = self.find(item_id)
        if entry is None:
            raise Refused(
                f"Error {verb}ing item: the item with id '{item_id}' does not exist.",
                code=f"item_{verb}e_invalid_item_id",
                param="item_id",
            )
        return entry

    def _index(self, item_id: str) -> int:
        for index, entry in enumerate(self._entries):
            if entry.id == item_id:
                return index
        raise Refused(
            f"Error adding item: the previous item with id '{item_id}' does not exist.",
            code="item_create_invalid_previous_item_id",
            param="previous_item_id",
        )


SPOKEN = ("input_audio", "output_audio")


def shown_to_brain(entry: Entry) -> Item | None:
    item = entry.item
    if item.status == "in_progress":
        return None
    if not entry.truncated or entry.sound is None:
        return item
    words = entry.sound.words()
    if not words:
        return None
    return replace(item, content=[ContentPart("output_audio", transcript=words)])


def heard_words(clause: Clause, samples: int) -> str:
    """The words of `clause` that were over after `samples`, by their share of its characters."""
    if samples >= clause.samples:
        return clause.text
    heard = 0
    for word in re.finditer(r"\s*\S+", clause.text):
        if word.end() * clause.samples > max(0, samples) * len(clause.text):
            break
        heard = word.end()
    return clause.text[:heard]


def check_created(item: Item, at: str = "item") -> None:
    """Raises: `Refused` when a client may not create `item`, which it sent as the parameter `at`."""
    if item.type not in ITEM_FIELDS:
        raise Refused(
            f"Invalid value: '{item.type}'. Supported values are: {', '.join(ITEM_FIELDS)}.",
            param=f"{at}.type",
        )
    for name in ITEM_FIELDS[item.type]:
        if getattr(item, name) in (UNSET, None):
            raise Refused(
                f"Missing required parameter: '{at}.{name}'.",
                code="missing_required_parameter",
                param=f"{at}.{name}",
            )
    if item.type != "message":
        return
    allowed = CONTENT_OF_ROLE.get(item.role or "")
    if allowed is None:
        raise Refused(
            f"Invalid value: '{item.role}'. Supported values are: {', '.join(CONTENT_OF_ROLE)}.",
            param=f"{at}.role",
        )
    for index, part in enumerate(item.parts):
        if part.type not in allowed:
            raise Refused(
                f"Invalid value: '{part.type}'. The {item.role} may have: {', '.join(allowed)}."
                + (" Restore what the assistant said as output_text." if item.role == "assistant" else ""),
                param=f"{at}.content[{index}].type",
            )
        needed = {"input_audio": "audio", "input_image": "image_url"}.get(part.type, "text")
        if getattr(part, needed) in (UNSET, None):
            raise Refused(
                f"Missing required parameter: '{at}.content[{index}].{needed}'.",
                code="missing_required_parameter",
                param=f"{at}.content[{index}].{needed}",
            )
