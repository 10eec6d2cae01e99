"""The eleven events that a client sends, each named after its wire name in CamelCase.

Core ring: pure values. The conversation and the uplink make them, `codec.encode` writes them, the local
server reads them back. An event may carry an `event_id` of the client's own, which `error` echoes.
The invariant: an absent field stays absent (`UNSET`), since to the server null is a value.
"""

from __future__ import annotations

from msgspec import UNSET, Struct

from trio_voice.protocol.items import Item, Maybe
from trio_voice.protocol.responses import ResponseConfig
from trio_voice.protocol.session_config import SessionConfig


class ClientEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """The base of all events that a client sends."""

    event_id: Maybe[str] = UNSET


class SessionUpdate(ClientEvent, frozen=True, kw_only=True, tag="session.update"):
    """Change settings; answered by `session.updated` with all of them."""

    session: SessionConfig


class InputAudioBufferAppend(ClientEvent, frozen=True, kw_only=True, tag="input_audio_buffer.append"):
    """The user's sound, in the session's input format; at most 15 MiB."""

    audio: bytes


class InputAudioBufferCommit(ClientEvent, frozen=True, kw_only=True, tag="input_audio_buffer.commit"):
    """Make the sound so far (at least 100 ms) the user's message."""


class InputAudioBufferClear(ClientEvent, frozen=True, kw_only=True, tag="input_audio_buffer.clear"):
    """Throw the sound so far away."""


class OutputAudioBufferClear(ClientEvent, frozen=True, kw_only=True, tag="output_audio_buffer.clear"):
    """Fall silent. WebRTC and SIP only: on a WebSocket the client owns playback."""


class ConversationItemCreate(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.create"):
    """Put an item into the conversation, at its end or behind `previous_item_id` (`root`: at the head)."""

    item: Item
    previous_item_id: Maybe[str] = UNSET


class ConversationItemRetrieve(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.retrieve"):
    """Ask for the server's copy of an item."""

    item_id: str


class ConversationItemTruncate(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.truncate"):
    """Cut an assistant's spoken message where the user stopped hearing it."""

    item_id: str
    content_index: int = 0
    audio_end_ms: int


class ConversationItemDelete(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.delete"):
    """Remove an item from the conversation."""

    item_id: str


class ResponseCreate(ClientEvent, frozen=True, kw_only=True, tag="response.create"):
    """Ask for an answer now."""

    response: Maybe[ResponseConfig] = UNSET


class ResponseCancel(ClientEvent, frozen=True, kw_only=True, tag="response.cancel"):
    """Stop an answer; with none under way the server answers a harmless error."""

    response_id: Maybe[str] = UNSET


CLIENT_EVENTS: tuple[type[ClientEvent], ...] = (
    SessionUpdate,
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    InputAudioBufferClear,
    OutputAudioBufferClear,
    ConversationItemCreate,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    ConversationItemDelete,
    ResponseCreate,
    ResponseCancel,
)
