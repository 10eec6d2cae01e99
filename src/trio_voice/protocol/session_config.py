"""What a session is told, and what the server says it is: `session.update`, `session.created`, `.updated`.

Core ring: pure values. The invariant: only what was set is encoded; `UNSET` (absent) leaves a setting as it
is, `None` (null) clears it. `merged` is that rule as a function; a server keeps its sessions with it.

One struct serves both directions, so it has the fields that only a server fills in (`id`, `expires_at`).
Fields of the beta's flat session (`modalities`, `voice`, `input_audio_format` …) are unknown and skipped.
"""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from trio_voice.protocol.items import Maybe, Tool

AnyStruct = TypeVar("AnyStruct", bound=Struct)

G711_RATE_HZ = 8_000
PCM_RATE_HZ = 24_000
"""What `audio/pcm` means where no rate is given; OpenAI accepts no other."""


class WireAudioFormat(Struct, frozen=True):
    """How sound is coded on the wire: `audio/pcm` (16 bit, little-endian, mono), `/pcmu` or `/pcma`."""

    type: str = "audio/pcm"
    rate: Maybe[int] = UNSET

    @property
    def rate_hz(self) -> int:
        """The sample rate, also where the wire leaves it out."""
        return self.rate or (PCM_RATE_HZ if self.type == "audio/pcm" else G711_RATE_HZ)


class NoiseReduction(Struct, frozen=True, kw_only=True):
    """Noise reduction at the server: `near_field` (headset) or `far_field` (laptop)."""

    type: Maybe[str] = UNSET
    strength: Maybe[float] = UNSET


class Transcription(Struct, frozen=True, kw_only=True):
    """Writing down of the user's words, by another model than the one that answers."""

    model: Maybe[str] = UNSET
    language: Maybe[str] = UNSET
    prompt: Maybe[str] = UNSET
    languages: Maybe[list[str]] = UNSET
    keywords: Maybe[list[str]] = UNSET
    delay: Maybe[str] = UNSET


class TurnDetection(Struct, frozen=True, kw_only=True):
    """When the user's turn is over: `server_vad` by silence, `semantic_vad` by meaning."""

    type: str = "server_vad"
    create_response: Maybe[bool] = UNSET
    interrupt_response: Maybe[bool] = UNSET
    # server_vad
    threshold: Maybe[float] = UNSET
    prefix_padding_ms: Maybe[int] = UNSET
    silence_duration_ms: Maybe[int] = UNSET
    idle_timeout_ms: Maybe[int] = UNSET
    # semantic_vad
    eagerness: Maybe[str] = UNSET


class VoiceId(Struct, frozen=True):
    """A custom voice; the built-in ones are named by a plain string."""

    id: str


class AudioInput(Struct, frozen=True, kw_only=True):
    """The user's sound. `turn_detection=None` turns the detection off: the client commits."""

    format: Maybe[WireAudioFormat] = UNSET
    noise_reduction: Maybe[NoiseReduction] = UNSET
    transcription: Maybe[Transcription] = UNSET
    turn_detection: Maybe[TurnDetection] = UNSET


class AudioOutput(Struct, frozen=True, kw_only=True):
    """The agent's sound. The voice is fixed once it has spoken."""

    format: Maybe[WireAudioFormat] = UNSET
    voice: Maybe[str | VoiceId] = UNSET
    speed: Maybe[float] = UNSET


class AudioConfig(Struct, frozen=True, kw_only=True):
    """Sound in both directions."""

    input: Maybe[AudioInput] = UNSET
    output: Maybe[AudioOutput] = UNSET


class Reasoning(Struct, frozen=True, kw_only=True):
    """How hard a reasoning model thinks before it speaks."""

    effort: Maybe[str] = UNSET


class SessionConfig(Struct, frozen=True, kw_only=True):
    """Settings: a change of some (`session.update`) or the whole (`session.created`, `.updated`)."""

    type: str = "realtime"
    """`realtime` or `transcription`; a session never changes it."""
    object: Maybe[str] = UNSET
    id: Maybe[str] = UNSET
    model: Maybe[str] = UNSET
    """Fixed after connecting."""
    expires_at: Maybe[int | float] = UNSET
    """When the server will end the session, in Unix seconds. Only a server sets it."""
    instructions: Maybe[str] = UNSET
    output_modalities: Maybe[list[str]] = UNSET
    """`["audio"]` or `["text"]`."""
    audio: Maybe[AudioConfig] = UNSET
    tools: Maybe[list[Tool]] = UNSET
    tool_choice: Maybe[str | dict[str, Any]] = UNSET
    parallel_tool_calls: Maybe[bool] = UNSET
    max_output_tokens: Maybe[int | str] = UNSET
    """1..4096, or `inf`."""
    reasoning: Maybe[Reasoning] = UNSET
    include: Maybe[list[str]] = UNSET
    prompt: Maybe[dict[str, Any]] = UNSET
    tracing: Maybe[str | dict[str, Any]] = UNSET
    truncation: Maybe[str | dict[str, Any]] = UNSET


def merged(current: AnyStruct, update: AnyStruct) -> AnyStruct:
    """The settings in effect after `update`: only its present fields change, at every depth.

    A nested value of another `type` (server_vad to semantic_vad, PCM to G.711) replaces the old one whole,
    because the old one's other fields mean nothing to it. Lists and plain mappings are replaced whole too.
    """
    changes: dict[str, Any] = {}
    for name in update.__struct_fields__:
        new = getattr(update, name)
        if isinstance(new, UnsetType):
            continue
        old = getattr(current, name)
        nested = isinstance(new, Struct) and type(new) is type(old)
        if nested and _same_type(old, new):
            new = merged(old, new)
        changes[name] = new
    return replace(current, **changes)


def _same_type(old: Struct, new: Struct) -> bool:
    old_type, new_type = getattr(old, "type", UNSET), getattr(new, "type", UNSET)
    return isinstance(new_type, UnsetType) or old_type == new_type
