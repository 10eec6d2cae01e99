"""What a conversation is made of: items, their content, tools; and what an error says.

Core ring: pure values that client and server events carry (`client_events.py`, `server_events.py`). Field
names are exactly the wire's names. The invariant: a field that is `UNSET` was absent on the wire and is
absent again when encoded; `None` is the wire's null; so an item survives decoding and encoding unchanged,
but for fields that we do not know.

Other servers of the protocol write null where OpenAI leaves a field out, hence `Maybe`.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, Union

from msgspec import UNSET, Struct, UnsetType

T = TypeVar("T")

Maybe: TypeAlias = Union[T, UnsetType, None]  # noqa: UP007 - a bare TypeVar knows no `|`
"""A value, null, or absent. `UNSET` and `None` are falsy; use `isinstance` where an empty value matters."""

BETA_CONTENT_TYPES = {"text": "output_text", "audio": "output_audio"}
"""What the beta, and the GA's own content_part events, call the content of an assistant's message."""


class ContentPart(Struct, frozen=True):
    """One piece of a message: input_text, input_audio, input_image, output_text or output_audio."""

    type: Maybe[str] = UNSET
    """As on the wire; `kind` is the same with the beta's names made the GA's."""
    text: Maybe[str] = UNSET
    audio: Maybe[bytes] = UNSET
    """Decoded from base64, encoded to it again."""
    transcript: Maybe[str] = UNSET
    image_url: Maybe[str] = UNSET
    detail: Maybe[str] = UNSET

    @property
    def kind(self) -> str:
        """`type` by its GA name in an item: `text` is `output_text`, `audio` is `output_audio`."""
        wire = self.type or ""
        return BETA_CONTENT_TYPES.get(wire, wire)

    @property
    def words(self) -> str:
        """The written or the spoken words of this part; empty when there are none, or not yet."""
        return self.text or self.transcript or ""


class Item(Struct, frozen=True, kw_only=True):
    """One entry of the conversation, of any kind; `type` says which fields to expect.

    `message` (role, content), `function_call` (call_id, name, arguments), `function_call_output` (call_id,
    output), `mcp_list_tools`, `mcp_call`, `mcp_approval_request`, `mcp_approval_response`, `item_reference`.
    """

    type: str
    id: Maybe[str] = UNSET
    object: Maybe[str] = UNSET
    status: Maybe[str] = UNSET
    """`in_progress`, `completed` or `incomplete`."""
    role: Maybe[str] = UNSET
    content: Maybe[list[ContentPart]] = UNSET
    call_id: Maybe[str] = UNSET
    name: Maybe[str] = UNSET
    arguments: Maybe[str] = UNSET
    """A JSON object as text, written by the model: it may be anything."""
    output: Maybe[str] = UNSET
    phase: Maybe[str] = UNSET
    # MCP
    server_label: Maybe[str] = UNSET
    approval_request_id: Maybe[str] = UNSET
    approve: Maybe[bool] = UNSET
    reason: Maybe[str] = UNSET
    tools: Maybe[list[dict[str, Any]]] = UNSET
    error: Any = UNSET

    @classmethod
    def user_text(cls, text: str, *, id: str | UnsetType = UNSET) -> Item:
        """A message the user wrote."""
        return cls(type="message", role="user", content=[ContentPart("input_text", text=text)], id=id)

    @classmethod
    def user_audio(cls, pcm: bytes, *, id: str | UnsetType = UNSET) -> Item:
        """A message the user spoke, in the session's input format."""
        return cls(type="message", role="user", content=[ContentPart("input_audio", audio=pcm)], id=id)

    @classmethod
    def assistant_text(cls, text: str, *, id: str | UnsetType = UNSET) -> Item:
        """What the assistant said: speech too, since creating an item cannot carry the assistant's audio."""
        return cls(type="message", role="assistant", content=[ContentPart("output_text", text=text)], id=id)

    @classmethod
    def system_text(cls, text: str, *, id: str | UnsetType = UNSET) -> Item:
        """A note to the model that neither party said."""
        return cls(type="message", role="system", content=[ContentPart("input_text", text=text)], id=id)

    @classmethod
    def function_call(cls, call_id: str, name: str, arguments: str, *, id: str | UnsetType = UNSET) -> Item:
        """A call the model made; `arguments` is JSON text."""
        return cls(type="function_call", call_id=call_id, name=name, arguments=arguments, id=id)

    @classmethod
    def function_call_output(cls, call_id: str, output: str, *, id: str | UnsetType = UNSET) -> Item:
        """What the tool answered."""
        return cls(type="function_call_output", call_id=call_id, output=output, id=id)

    @classmethod
    def mcp_approval_response(
        cls, approval_request_id: str, approve: bool, *, id: str, reason: str | UnsetType = UNSET
    ) -> Item:
        """The user's answer to an `mcp_approval_request`; the server wants an `id` here."""
        return cls(
            type="mcp_approval_response",
            id=id,
            approval_request_id=approval_request_id,
            approve=approve,
            reason=reason,
        )

    @property
    def parts(self) -> list[ContentPart]:
        """`content`, or an empty list where there is none."""
        return self.content or []

    @property
    def text(self) -> str:
        """All words of the message, written or spoken, joined."""
        return "".join(part.words for part in self.parts)


class Tool(Struct, frozen=True, kw_only=True):
    """A tool offered to the model: a `function`, or with type `mcp` the tools of an MCP server."""

    type: str = "function"
    name: Maybe[str] = UNSET
    description: Maybe[str] = UNSET
    parameters: Maybe[dict[str, Any]] = UNSET
    """The JSON schema of the function's arguments."""
    # MCP
    server_label: Maybe[str] = UNSET
    server_url: Maybe[str] = UNSET
    server_description: Maybe[str] = UNSET
    connector_id: Maybe[str] = UNSET
    tunnel_id: Maybe[str] = UNSET
    authorization: Maybe[str] = UNSET
    headers: Maybe[dict[str, str]] = UNSET
    allowed_tools: Maybe[list[str] | dict[str, Any]] = UNSET
    allowed_callers: Maybe[list[str]] = UNSET
    require_approval: Maybe[str | dict[str, Any]] = UNSET
    defer_loading: Maybe[bool] = UNSET


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """Why the server did not do something. `event_id` names the client event that it answers."""

    type: str | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None


class ReportedError(Struct, frozen=True, kw_only=True):
    """Why a response failed, or the user's words could not be written down."""

    type: Maybe[str] = UNSET
    code: Maybe[str] = UNSET
    message: Maybe[str] = UNSET
    param: Maybe[str] = UNSET


class Conversation(Struct, frozen=True, kw_only=True):
    """The default conversation, as `conversation.created` (beta) names it."""

    id: Maybe[str] = UNSET
    object: Maybe[str] = "realtime.conversation"
