"""What an application may do to the record of a conversation: put in, replace, delete, forget all.

Core ring: pure values, checked when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

import attrs
from msgspec import Struct

from trio_voice.errors import ConfigError
from trio_voice.protocol.items import ContentPart, Item

Role: TypeAlias = Literal["user", "assistant", "system"]

MAX_IMAGES_BYTES = 10 * 1024 * 1024
"""Of the data URLs of one item, together. The microphone waits while they are sent."""

_IMAGE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


def _as_images(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


@attrs.frozen
class Inject:
    """Put a message at the end of the conversation.

    Raises: `ConfigError` for a role that there is not, for no words, and for images that no server would take.
    """

    role: Role
    text: str
    images: tuple[str, ...] = attrs.field(default=(), converter=_as_images)
    respond: bool = False

    def __attrs_post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ConfigError(f"role={self.role!r} is none of {', '.join(get_args(Role))}")
        if not self.text.strip() and not self.images:
            raise ConfigError("inject() needs words or an image; there are neither")
        check_unicode("inject()", self.text)
        check_images(self.role, self.images)

    def item(self, item_id: str) -> Item:
        return message(self.role, self.text, self.images, item_id)


@attrs.frozen
class EditItem:
    """Give a message other words. Raises: `ConfigError` for none: an item without words is a deleted one."""

    item_id: str
    text: str

    def __attrs_post_init__(self) -> None:
        if not self.text.strip():
            raise ConfigError("edit_item() needs words; to take the item away, delete_item() it")
        check_unicode("edit_item()", self.text)


class DeleteItem(Struct, frozen=True):
    """Take an item away: from the record, and from what the model knows."""

    item_id: str


class ResetHistory(Struct, frozen=True):
    """Take all items away."""


HistoryEdit: TypeAlias = Inject | EditItem | DeleteItem | ResetHistory


def check_words(what: str, text: str) -> None:
    """Raises: `ConfigError` for what cannot be said: nothing, or what is no Unicode."""
    if not text.strip():
        raise ConfigError(f"{what} needs words; the text is empty")
    check_unicode(what, text)


def check_unicode(what: str, text: str) -> None:
    """Raises: `ConfigError` for what cannot be sent: half of a surrogate pair, as a string cut in two leaves it."""
    try:
        text.encode()
    except UnicodeEncodeError as failure:
        raise ConfigError(f"{what} was given text that is not Unicode: {failure}") from None


def check_images(role: str, images: tuple[str, ...]) -> None:
    """Raises: `ConfigError` for images that no server would take."""
    if images and role != "user":
        raise ConfigError(f"images are for the user's messages; a message of {role!r} has none")
    for number, image in enumerate(images):
        if not _IMAGE.fullmatch(image):
            raise ConfigError(
                f"images[{number}] is no data URL of a PNG or JPEG: it has to look like 'data:image/png;base64,iVBO…'"
            )
    size = sum(map(len, images))
    if size > MAX_IMAGES_BYTES:
        raise ConfigError(
            f"the images of one item are {size} bytes as data URLs, more than {MAX_IMAGES_BYTES}: make them smaller, "
            "or put them into several items"
        )


def message(role: str, text: str, images: tuple[str, ...], item_id: str) -> Item:
    """A message as the server is to create it: speech becomes text, since that is all a client can create."""
    if role == "assistant":
        return Item.assistant_text(text, id=item_id)
    content = [ContentPart("input_text", text=text)] if text.strip() else []
    content += [ContentPart("input_image", image_url=image) for image in images]
    return Item(type="message", role=role, content=content, id=item_id)
