"""The settings of one session: the defaults, and what a client may change them to.

Pure; `connection.py` asks it for every `session.update` and `response.create`. The invariant: the effective
configuration is whole (every field the real server reports is there, null or not) and one that works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from trio_voice.audio import AudioFormat, Encoding
from trio_voice.protocol.items import Maybe, Tool
from trio_voice.protocol.responses import ResponseConfig
from trio_voice.protocol.session_config import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    SessionConfig,
    Transcription,
    TurnDetection,
    WireAudioFormat,
    merged,
)
from trio_voice.server.refusals import Refused
from trio_voice.server.turn_detection import TurnRules

DEFAULT_INSTRUCTIONS = "You are a helpful voice assistant. Answer briefly and in the language of the user."
DEFAULT_VOICE = "marin"

SERVER_VAD = TurnDetection(
    type="server_vad",
    threshold=0.5,
    prefix_padding_ms=300,
    silence_duration_ms=500,
    idle_timeout_ms=None,
    create_response=True,
    interrupt_response=True,
)
SEMANTIC_VAD = TurnDetection(type="semantic_vad", eagerness="auto", create_response=True, interrupt_response=True)
SILENCE_OF_EAGERNESS_MS = {"low": 1200, "medium": 600, "auto": 600, "high": 300}
"""There is no model of meaning here: eagerness only chooses how much silence ends a turn."""

ENCODINGS: dict[str, Encoding] = {"audio/pcm": "pcm16", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}
TOOL_CHOICES = ("auto", "none", "required")


def default_session(
    *, session_id: str, model: str, expires_at: int, rates_hz: tuple[int, int] = (24_000, 24_000)
) -> SessionConfig:
    """What `session.created` says. `rates_hz`: in and out."""
    heard, spoken = (WireAudioFormat("audio/pcm", rate_hz) for rate_hz in rates_hz)
    return SessionConfig(
        type="realtime",
        object="realtime.session",
        id=session_id,
        model=model,
        expires_at=expires_at,
        instructions=DEFAULT_INSTRUCTIONS,
        output_modalities=["audio"],
        audio=AudioConfig(
            input=AudioInput(format=heard, noise_reduction=None, transcription=None, turn_detection=SERVER_VAD),
            output=AudioOutput(format=spoken, voice=DEFAULT_VOICE, speed=1.0),
        ),
        tools=[],
        tool_choice="auto",
        max_output_tokens="inf",
        include=None,
        prompt=None,
        tracing=None,
        truncation="auto",
    )


def updated(current: SessionConfig, update: SessionConfig, *, voice_fixed: bool) -> SessionConfig:
    """The settings after a `session.update`.

    Raises: `Refused` for what cannot change any more or cannot work; then nothing of the update applies.
    """
    if update.model and update.model != current.model:
        raise Refused("The model of a session cannot be changed.", param="session.model")
    update = replace(without_model(update), id=UNSET, object=UNSET, expires_at=UNSET)
    session = _whole(merged(current, update))
    if voice_fixed and audio_output(session).voice != audio_output(current).voice:
        raise Refused(
            "Cannot update a conversation's voice if assistant audio is present.",
            code="cannot_update_voice",
            param="session.audio.output.voice",
        )
    _check(session)
    return session


def without_model(update: SessionConfig) -> SessionConfig:
    """What an ephemeral key brings with it, but for the model, which a session has from its beginning."""
    return replace(update, model=UNSET)


def for_response(session: SessionConfig, wanted: ResponseConfig) -> SessionConfig:
    """The settings of one response: the session's, but for what `response.create` overrides.

    Raises: `Refused` for what cannot work.
    """
    output = wanted.audio.output if wanted.audio else UNSET
    settings = merged(
        session,
        SessionConfig(
            type=session.type,
            instructions=wanted.instructions,
            output_modalities=wanted.output_modalities,
            tools=wanted.tools,
            tool_choice=wanted.tool_choice,
            max_output_tokens=wanted.max_output_tokens,
            audio=AudioConfig(output=output) if output else UNSET,
        ),
    )
    settings = _whole(settings)
    _check(settings, "response")
    if wanted.conversation not in ("auto", "none", UNSET, None):
        raise Refused(
            f"Invalid value: '{wanted.conversation}'. Supported values are: 'auto' and 'none'.",
            param="response.conversation",
        )
    if wanted.metadata and len(wanted.metadata) > 16:
        raise Refused("'response.metadata' may have at most 16 pairs.", param="response.metadata")
    return settings


def audio_input(session: SessionConfig) -> AudioInput:
    return (session.audio.input if session.audio else None) or AudioInput()


def audio_output(session: SessionConfig) -> AudioOutput:
    return (session.audio.output if session.audio else None) or AudioOutput()


def audio_format(wire: Maybe[WireAudioFormat]) -> AudioFormat:
    wire = wire or WireAudioFormat()
    return AudioFormat(ENCODINGS[wire.type], wire.rate_hz)


def turn_detection(session: SessionConfig) -> TurnDetection | None:
    return audio_input(session).turn_detection or None


def transcription(session: SessionConfig) -> Transcription | None:
    return audio_input(session).transcription or None


def turn_rules(detection: TurnDetection) -> TurnRules:
    """What the state machine needs to know of the wire's settings."""
    if detection.type == "semantic_vad":
        return TurnRules(silence_duration_ms=SILENCE_OF_EAGERNESS_MS[detection.eagerness or "auto"])
    return TurnRules(
        threshold=_or(detection.threshold, 0.5),
        prefix_padding_ms=_or(detection.prefix_padding_ms, 300),
        silence_duration_ms=_or(detection.silence_duration_ms, 500),
        idle_timeout_ms=detection.idle_timeout_ms or None,
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None or value is UNSET else value


def _whole(session: SessionConfig) -> SessionConfig:
    """Null means "none" where that is a setting; elsewhere the default comes back."""
    audio_in, audio_out = audio_input(session), audio_output(session)
    detection = audio_in.turn_detection
    if detection:
        defaults = SEMANTIC_VAD if detection.type == "semantic_vad" else SERVER_VAD
        if detection.type == defaults.type:
            detection = merged(defaults, _without_nulls(detection))
    words = audio_in.transcription
    if words:
        words = merged(Transcription(model=None, language=None, prompt=None), words)
    audio_in = replace(
        audio_in,
        format=_whole_format(audio_in.format),
        noise_reduction=audio_in.noise_reduction or None,
        transcription=words or None,
        turn_detection=detection or None,
    )
    audio_out = replace(
        audio_out,
        format=_whole_format(audio_out.format),
        voice=audio_out.voice or DEFAULT_VOICE,
        speed=_or(audio_out.speed, 1.0),
    )
    return replace(
        session,
        audio=AudioConfig(input=audio_in, output=audio_out),
        instructions=session.instructions or "",
        tools=session.tools or [],
        tool_choice=session.tool_choice or "auto",
        max_output_tokens=_or(session.max_output_tokens, "inf"),
        output_modalities=session.output_modalities or ["audio"],
        truncation=session.truncation or "auto",
    )


def _without_nulls(detection: TurnDetection) -> TurnDetection:
    nulls = {name: UNSET for name in detection.__struct_fields__ if getattr(detection, name) is None}
    return replace(detection, **nulls)


def _whole_format(wire: Maybe[WireAudioFormat]) -> WireAudioFormat:
    wire = wire or WireAudioFormat()
    return WireAudioFormat(wire.type, wire.rate_hz) if wire.type == "audio/pcm" else wire


def _check(session: SessionConfig, at: str = "session") -> None:
    """Raises: `Refused` for the first setting that cannot work."""
    if session.type not in ("realtime", "transcription"):
        _one_of(session.type, ("realtime", "transcription"), f"{at}.type")
    if session.output_modalities not in (["audio"], ["text"]):
        raise Refused(
            f"Invalid value: {session.output_modalities}. Supported values are: ['audio'] and ['text'].",
            param=f"{at}.output_modalities",
        )
    limit = session.max_output_tokens
    if limit != "inf" and not (isinstance(limit, int) and 1 <= limit <= 4096):
        raise Refused(
            f"Invalid value: {limit!r}. Expected an integer from 1 to 4096, or 'inf'.",
            param=f"{at}.max_output_tokens",
        )
    if isinstance(session.tool_choice, str):
        _one_of(session.tool_choice, TOOL_CHOICES, f"{at}.tool_choice")
    _check_tools(session.tools or [], at)
    audio_in, audio_out = audio_input(session), audio_output(session)
    _check_format(audio_in.format, f"{at}.audio.input.format")
    _check_format(audio_out.format, f"{at}.audio.output.format")
    _in_range(audio_out.speed, 0.25, 1.5, f"{at}.audio.output.speed")
    detection = audio_in.turn_detection
    if detection:
        _check_turn_detection(detection, f"{at}.audio.input.turn_detection")


def _check_turn_detection(detection: TurnDetection, at: str) -> None:
    _one_of(detection.type, ("server_vad", "semantic_vad"), f"{at}.type")
    if detection.type == "semantic_vad":
        _one_of(detection.eagerness or "auto", tuple(SILENCE_OF_EAGERNESS_MS), f"{at}.eagerness")
        return
    _in_range(detection.threshold, 0.0, 1.0, f"{at}.threshold")
    _in_range(detection.prefix_padding_ms, 0, 5_000, f"{at}.prefix_padding_ms")
    _in_range(detection.silence_duration_ms, 0, 10_000, f"{at}.silence_duration_ms")
    _in_range(detection.idle_timeout_ms, 1_000, 60_000, f"{at}.idle_timeout_ms")


def _check_tools(tools: Sequence[Tool], at: str) -> None:
    for index, tool in enumerate(tools):
        _one_of(tool.type, ("function", "mcp"), f"{at}.tools[{index}].type")
        needed = "name" if tool.type == "function" else "server_label"
        if not getattr(tool, needed):
            raise _missing(f"{at}.tools[{index}].{needed}")


def _check_format(wire: Maybe[WireAudioFormat], at: str) -> None:
    if not wire:
        return
    _one_of(wire.type, tuple(ENCODINGS), f"{at}.type")
    if wire.type == "audio/pcm":
        _in_range(wire.rate_hz, 8_000, 48_000, f"{at}.rate")
    elif wire.rate_hz != 8_000:
        raise Refused(f"Invalid value: {wire.rate_hz}. G.711 is 8000 Hz.", param=f"{at}.rate")


def _one_of(value: Any, supported: Sequence[str], param: str) -> None:
    if value not in supported:
        choices = ", ".join(f"'{choice}'" for choice in supported)
        raise Refused(f"Invalid value: '{value}'. Supported values are: {choices}.", param=param)


def _in_range(value: Any, lowest: float, highest: float, param: str) -> None:
    if value is None or value is UNSET:
        return
    if not lowest <= value <= highest:
        raise Refused(f"Invalid '{param}': {value} is not from {lowest} to {highest}.", param=param)


def _missing(param: str) -> Refused:
    return Refused(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def check_names(raw: str | bytes, decoded: SessionConfig | ResponseConfig, at: str) -> None:
    """Look for parameters that nobody knows, in the `session` or `response` of the frame `raw`.

    The codec skips what it does not know, as a client must; a server has to say so, or a misspelt setting
    is silently without effect.

    Raises: `Refused` with `unknown_parameter`, or `missing_required_parameter` for `session.type`.
    """
    fields = msgspec.json.decode(raw).get(at)
    if isinstance(decoded, SessionConfig) and "type" not in fields:
        raise _missing("session.type")
    unknown = _unknown(fields, decoded, at)
    if unknown is not None:
        raise Refused(f"Unknown parameter: '{unknown}'.", code="unknown_parameter", param=unknown)


def _unknown(fields: Any, decoded: Any, at: str) -> str | None:
    if isinstance(decoded, Struct) and isinstance(fields, Mapping):
        for name, value in fields.items():
            if name not in decoded.__struct_fields__:
                return f"{at}.{name}"
            deeper = _unknown(value, getattr(decoded, name), f"{at}.{name}")
            if deeper is not None:
                return deeper
    if isinstance(decoded, list) and isinstance(fields, list):
        for index, (value, element) in enumerate(zip(fields, decoded, strict=False)):
            deeper = _unknown(value, element, f"{at}[{index}]")
            if deeper is not None:
                return deeper
    return None
