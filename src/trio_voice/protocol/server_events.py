"""The forty-six events that a server sends, each the CamelCase of its wire name, and the beta's names.

Core ring: pure values. `codec.decode_server_event` makes them on the way in, the local server makes and
encodes them on the way out. The invariant: what the real server always sends is always encoded (a default of
0, "" or null included), what it sends at times is `UNSET` until set. Decoding is lenient where other servers
leave out what only orders or labels an event (event_id, response_id, the two indexes), and strict about what
the event means.

Each beta name is a subclass of the GA event it became, so `case ResponseOutputAudioDelta()` matches both.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct

from trio_voice.protocol.items import (
    ContentPart,
    Conversation,
    ErrorDetail,
    Item,
    Maybe,
    ReportedError,
)
from trio_voice.protocol.responses import RateLimit, Response, TranscriptionUsage
from trio_voice.protocol.session_config import SessionConfig


class ServerEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """The base of all events that a server sends."""

    event_id: str = ""


class _OutputEvent(ServerEvent, frozen=True, kw_only=True):
    """The base of what belongs to an item of a response's output."""

    response_id: str = ""
    item_id: str
    output_index: int = 0


class _ContentEvent(_OutputEvent, frozen=True, kw_only=True):
    """The base of what belongs to one content part of an item of a response's output."""

    content_index: int = 0


class _ItemIdEvent(ServerEvent, frozen=True, kw_only=True):
    """The base of what is about an item named by its id alone."""

    item_id: str


class ErrorEvent(ServerEvent, frozen=True, kw_only=True, tag="error"):
    """Something was refused or went wrong. Most are harmless, and the session stays open."""

    error: ErrorDetail


class SessionCreated(ServerEvent, frozen=True, kw_only=True, tag="session.created"):
    """The first event of a connection: the settings in effect."""

    session: SessionConfig


class SessionUpdated(ServerEvent, frozen=True, kw_only=True, tag="session.updated"):
    """The whole settings, after a `session.update`."""

    session: SessionConfig


class RateLimitsUpdated(ServerEvent, frozen=True, kw_only=True, tag="rate_limits.updated"):
    """What is left of the limits, after each response began."""

    rate_limits: list[RateLimit]


class ConversationCreated(ServerEvent, frozen=True, kw_only=True, tag="conversation.created"):
    """The default conversation exists."""

    conversation: Conversation


class ConversationItemAdded(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.added"):
    """An item entered the conversation; its content may still grow."""

    previous_item_id: str | None = None
    item: Item


class ConversationItemDone(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.done"):
    """An item is complete."""

    previous_item_id: str | None = None
    item: Item


class ConversationItemCreated(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.created"):
    """The beta's `conversation.item.added`."""

    previous_item_id: str | None = None
    item: Item


class ConversationItemRetrieved(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.retrieved"):
    """The server's copy of an item, its sound included."""

    item: Item


class ConversationItemTruncated(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.truncated"):
    """An item was cut; its transcript is gone at the server."""

    item_id: str
    content_index: int = 0
    audio_end_ms: int


class ConversationItemDeleted(_ItemIdEvent, frozen=True, kw_only=True, tag="conversation.item.deleted"):
    """An item left the conversation."""


class ConversationItemInputAudioTranscriptionDelta(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.delta"
):
    """More of the user's words."""

    item_id: str
    content_index: int = 0
    delta: str = ""
    logprobs: Any = UNSET
    obfuscation: Maybe[str] = UNSET


class ConversationItemInputAudioTranscriptionCompleted(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.completed"
):
    """The user's words, in full."""

    item_id: str
    content_index: int = 0
    transcript: str
    usage: Maybe[TranscriptionUsage] = UNSET
    logprobs: Any = UNSET
    languages: Any = UNSET


class ConversationItemInputAudioTranscriptionUpdated(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.updated"
):
    """The user's words so far, all of them, in place of those told before (xAI)."""

    item_id: str
    content_index: int = 0
    transcript: str = ""


class ConversationItemInputAudioTranscriptionFailed(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.failed"
):
    """The user's words could not be written down; the model heard them all the same."""

    item_id: str
    content_index: int = 0
    error: ReportedError


class ConversationItemInputAudioTranscriptionSegment(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.segment"
):
    """Who said which of the user's words; times in seconds."""

    item_id: str
    content_index: int = 0
    id: str = ""
    text: str
    speaker: str = ""
    start: float = 0.0
    end: float = 0.0


class InputAudioBufferCommitted(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.committed"):
    """The user's sound became the item `item_id`."""

    previous_item_id: str | None = None
    item_id: str


class InputAudioBufferCleared(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.cleared"):
    """The user's sound was thrown away."""


class InputAudioBufferSpeechStarted(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.speech_started"):
    """The user began to speak; `item_id` is the item to come. Barge-in needs neither field."""

    audio_start_ms: int = 0
    item_id: str = ""


class InputAudioBufferSpeechStopped(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.speech_stopped"):
    """The user fell silent."""

    audio_end_ms: int = 0
    item_id: str = ""


class InputAudioBufferTimeoutTriggered(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.timeout_triggered"
):
    """The user stayed silent for `idle_timeout_ms`."""

    audio_start_ms: int = 0
    audio_end_ms: int = 0
    item_id: str = ""


class InputAudioBufferDtmfEventReceived(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.dtmf_event_received"
):
    """A key was pressed on the telephone (SIP only). The real server gives it no event_id."""

    event: str
    received_at: int = 0


class OutputAudioBufferStarted(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.started"):
    """The server began to play (WebRTC and SIP only)."""

    response_id: str = ""


class OutputAudioBufferStopped(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.stopped"):
    """The server played all (WebRTC and SIP only)."""

    response_id: str = ""


class OutputAudioBufferCleared(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.cleared"):
    """The server fell silent (WebRTC and SIP only)."""

    response_id: str = ""


class ResponseCreated(ServerEvent, frozen=True, kw_only=True, tag="response.created"):
    """An answer begins."""

    response: Response


class ResponseDone(ServerEvent, frozen=True, kw_only=True, tag="response.done"):
    """An answer ended, in whichever way `response.status` says."""

    response: Response


class ResponseOutputItemAdded(ServerEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    """An answer got another item."""

    response_id: str = ""
    output_index: int = 0
    item: Item


class ResponseOutputItemDone(ServerEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    """An item of an answer is complete: the only event to run a tool from."""

    response_id: str = ""
    output_index: int = 0
    item: Item


class ResponseContentPartAdded(_ContentEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    """An item got another part."""

    part: ContentPart


class ResponseContentPartDone(_ContentEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    """A part is complete."""

    part: ContentPart


class ResponseOutputTextDelta(_ContentEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """More written words."""

    delta: str
    obfuscation: Maybe[str] = UNSET


class ResponseOutputTextDone(_ContentEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    """The written words, in full."""

    text: str


class ResponseOutputAudioDelta(_ContentEvent, frozen=True, kw_only=True, tag="response.output_audio.delta"):
    """More sound, in the session's output format; base64 on the wire only."""

    delta: bytes
    sample_rate_hz: Maybe[int] = UNSET
    """Of this piece, where the server names one (vLLM-omni). OpenAI's does not."""
    obfuscation: Maybe[str] = UNSET


class ResponseOutputAudioDone(_ContentEvent, frozen=True, kw_only=True, tag="response.output_audio.done"):
    """All sound of a part was sent. It has not been heard yet."""


class ResponseOutputAudioTranscriptDelta(
    _ContentEvent, frozen=True, kw_only=True, tag="response.output_audio_transcript.delta"
):
    """More of the words that are spoken."""

    delta: str
    obfuscation: Maybe[str] = UNSET


class ResponseOutputAudioTranscriptDone(
    _ContentEvent, frozen=True, kw_only=True, tag="response.output_audio_transcript.done"
):
    """The spoken words, in full."""

    transcript: str


class ResponseFunctionCallArgumentsDelta(
    _OutputEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"
):
    """More of a call's arguments."""

    call_id: str = ""
    delta: str
    obfuscation: Maybe[str] = UNSET


class ResponseFunctionCallArgumentsDone(
    _OutputEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"
):
    """A call's arguments, in full. Also sent for cancelled responses: run nothing from it."""

    call_id: str = ""
    name: Maybe[str] = UNSET
    arguments: str


class ResponseMcpCallArgumentsDelta(_OutputEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"):
    """More of the arguments of a call that the server itself makes."""

    delta: str
    obfuscation: Maybe[str] = UNSET


class ResponseMcpCallArgumentsDone(_OutputEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"):
    """The arguments of such a call, in full."""

    arguments: str


class ResponseMcpCallInProgress(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call.in_progress"):
    """The server makes the call."""

    item_id: str
    output_index: int = 0


class ResponseMcpCallCompleted(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call.completed"):
    """The call succeeded; its item has the output."""

    item_id: str
    output_index: int = 0


class ResponseMcpCallFailed(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call.failed"):
    """The call failed; its item has the error."""

    item_id: str
    output_index: int = 0


class McpListToolsInProgress(_ItemIdEvent, frozen=True, kw_only=True, tag="mcp_list_tools.in_progress"):
    """The server asks an MCP server for its tools."""


class McpListToolsCompleted(_ItemIdEvent, frozen=True, kw_only=True, tag="mcp_list_tools.completed"):
    """The tools are known; the item lists them."""


class McpListToolsFailed(_ItemIdEvent, frozen=True, kw_only=True, tag="mcp_list_tools.failed"):
    """The MCP server did not answer."""


class ResponseTextDelta(ResponseOutputTextDelta, frozen=True, kw_only=True, tag="response.text.delta"):
    """The beta's name."""


class ResponseTextDone(ResponseOutputTextDone, frozen=True, kw_only=True, tag="response.text.done"):
    """The beta's name."""


class ResponseAudioDelta(ResponseOutputAudioDelta, frozen=True, kw_only=True, tag="response.audio.delta"):
    """The beta's name."""


class ResponseAudioDone(ResponseOutputAudioDone, frozen=True, kw_only=True, tag="response.audio.done"):
    """The beta's name."""


class ResponseAudioTranscriptDelta(
    ResponseOutputAudioTranscriptDelta, frozen=True, kw_only=True, tag="response.audio_transcript.delta"
):
    """The beta's name."""


class ResponseAudioTranscriptDone(
    ResponseOutputAudioTranscriptDone, frozen=True, kw_only=True, tag="response.audio_transcript.done"
):
    """The beta's name."""


SERVER_EVENTS: tuple[type[ServerEvent], ...] = (
    ErrorEvent,
    SessionCreated,
    SessionUpdated,
    RateLimitsUpdated,
    ConversationCreated,
    ConversationItemAdded,
    ConversationItemDone,
    ConversationItemCreated,
    ConversationItemRetrieved,
    ConversationItemTruncated,
    ConversationItemDeleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionFailed,
    ConversationItemInputAudioTranscriptionSegment,
    InputAudioBufferCommitted,
    InputAudioBufferCleared,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    InputAudioBufferTimeoutTriggered,
    InputAudioBufferDtmfEventReceived,
    OutputAudioBufferStarted,
    OutputAudioBufferStopped,
    OutputAudioBufferCleared,
    ResponseCreated,
    ResponseDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseMcpCallArgumentsDelta,
    ResponseMcpCallArgumentsDone,
    ResponseMcpCallInProgress,
    ResponseMcpCallCompleted,
    ResponseMcpCallFailed,
    McpListToolsInProgress,
    McpListToolsCompleted,
    McpListToolsFailed,
)

BETA_SERVER_EVENTS: tuple[type[ServerEvent], ...] = (
    ResponseTextDelta,
    ResponseTextDone,
    ResponseAudioDelta,
    ResponseAudioDone,
    ResponseAudioTranscriptDelta,
    ResponseAudioTranscriptDone,
)

OTHER_SERVER_EVENTS: tuple[type[ServerEvent], ...] = (ConversationItemInputAudioTranscriptionUpdated,)
"""Of servers other than OpenAI's."""
