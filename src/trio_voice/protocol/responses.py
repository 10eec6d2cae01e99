"""An answer of the model: asked for (`ResponseConfig`), reported (`Response`), and what it cost.

Core ring: pure values that `response.create` and the response events carry.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct

from trio_voice.protocol.items import Item, Maybe, ReportedError, Tool
from trio_voice.protocol.session_config import AudioConfig, Reasoning


class ResponseConfig(Struct, frozen=True, kw_only=True):
    """What `response.create` asks for beyond the session's settings, for this one response."""

    instructions: Maybe[str] = UNSET
    output_modalities: Maybe[list[str]] = UNSET
    audio: Maybe[AudioConfig] = UNSET
    """Only `output` counts."""
    tools: Maybe[list[Tool]] = UNSET
    tool_choice: Maybe[str | dict[str, Any]] = UNSET
    parallel_tool_calls: Maybe[bool] = UNSET
    max_output_tokens: Maybe[int | str] = UNSET
    reasoning: Maybe[Reasoning] = UNSET
    conversation: Maybe[str] = UNSET
    """`auto`, or `none` for an answer outside the conversation."""
    input: Maybe[list[Item]] = UNSET
    """What to answer in place of the conversation; may hold items of type `item_reference`."""
    metadata: Maybe[dict[str, str]] = UNSET
    prompt: Maybe[dict[str, Any]] = UNSET


class CachedTokensDetails(Struct, frozen=True, kw_only=True):
    """Which of the cached tokens were of which kind."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET
    image_tokens: Maybe[int] = UNSET


class InputTokenDetails(Struct, frozen=True, kw_only=True):
    """What a response read."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET
    image_tokens: Maybe[int] = UNSET
    cached_tokens: Maybe[int] = UNSET
    cached_tokens_details: Maybe[CachedTokensDetails] = UNSET


class OutputTokenDetails(Struct, frozen=True, kw_only=True):
    """What a response wrote."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET
    reasoning_tokens: Maybe[int] = UNSET


class Usage(Struct, frozen=True, kw_only=True):
    """What a response cost, in tokens."""

    total_tokens: Maybe[int] = UNSET
    input_tokens: Maybe[int] = UNSET
    output_tokens: Maybe[int] = UNSET
    input_token_details: Maybe[InputTokenDetails] = UNSET
    output_token_details: Maybe[OutputTokenDetails] = UNSET


class TranscriptionUsage(Struct, frozen=True, kw_only=True):
    """What a transcription cost: `duration` in seconds, or `tokens`."""

    type: Maybe[str] = UNSET
    seconds: Maybe[float] = UNSET
    total_tokens: Maybe[int] = UNSET
    input_tokens: Maybe[int] = UNSET
    output_tokens: Maybe[int] = UNSET
    input_token_details: Maybe[InputTokenDetails] = UNSET


class RateLimit(Struct, frozen=True, kw_only=True):
    """How much of `requests` or `tokens` is left, and when it is whole again."""

    name: Maybe[str] = UNSET
    limit: Maybe[int] = UNSET
    remaining: Maybe[int] = UNSET
    reset_seconds: Maybe[float] = UNSET


class StatusDetails(Struct, frozen=True, kw_only=True):
    """Why a response ended as it did."""

    type: Maybe[str] = UNSET
    reason: Maybe[str] = UNSET
    """`turn_detected`, `client_cancelled`, `max_output_tokens` or `content_filter`."""
    error: Maybe[ReportedError] = UNSET


class Response(Struct, frozen=True, kw_only=True):
    """One answer of the model: under way in `response.created`, over in `response.done`.

    The real server sends every field every time, null where there is nothing yet; so do we.
    """

    object: str | None = "realtime.response"
    id: str = ""
    status: str | None = None
    """`in_progress`, `completed`, `cancelled`, `incomplete` or `failed`."""
    status_details: StatusDetails | None = None
    output: Maybe[list[Item]] = []
    conversation_id: str | None = None
    """Null for a response outside the conversation."""
    output_modalities: Maybe[list[str]] = UNSET
    modalities: Maybe[list[str]] = UNSET
    """The beta's name of `output_modalities`."""
    max_output_tokens: int | str | None = None
    audio: Maybe[AudioConfig] = UNSET
    usage: Usage | None = None
    metadata: dict[str, Any] | None = None
