"""The servers of the Realtime protocol and what sets them apart: a table, and no code for any one of them.

Core ring: pure values. A session reads its server's row to know where it is, how a key is shown, which shape its events
have, and what must not be asked of it; the local server plays a row, for tests. What nobody here knows of a server is
listed as unknown, and treated as if the server could not do it.

The invariant: what a dialect lacks is not sent; what cannot work without it is a `ConfigError` before anything is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import attrs
from msgspec import UNSET
from msgspec.structs import replace

from trio_voice.errors import ConfigError
from trio_voice.protocol import beta
from trio_voice.protocol.client_events import (
    ClientEvent,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ResponseCancel,
    SessionUpdate,
)
from trio_voice.protocol.codec import encode
from trio_voice.protocol.session_config import SessionConfig, WireAudioFormat

Shape: TypeAlias = Literal["ga", "lifted", "beta"]
"""How settings look on the wire. `ga`: nested, as OpenAI has them since 2025. `beta`: flat, as it had them before, with
other names for six server events. `lifted`: as `ga`, but the voice and the turn detection are at the top."""

Auth: TypeAlias = Literal["bearer", "api-key", "subprotocol"]
"""How the key is shown: as bearer token, in the header `api-key`, or as a browser has to, in a subprotocol."""

Capability: TypeAlias = Literal[
    "truncate",
    "delete",
    "retrieve",
    "cancel",
    "commit",
    "clear",
    "semantic_vad",
    "transcription_model",
    "text_output",
    "response_created",
    "truncated",
]

CAPABILITIES: dict[Capability, str] = {
    "truncate": "`conversation.item.truncate`: the model forgets what was not heard",
    "delete": "`conversation.item.delete`",
    "retrieve": "`conversation.item.retrieve`",
    "cancel": "`response.cancel`",
    "commit": "`input_audio_buffer.commit`: push-to-talk",
    "clear": "`input_audio_buffer.clear`",
    "semantic_vad": "turn detection by meaning",
    "transcription_model": "the client chooses the model that writes down the user's words",
    "text_output": "answers in writing only",
    "response_created": "`response.created` comes before anything else of an answer",
    "truncated": "a truncation is confirmed by `conversation.item.truncated`",
}

CAPABILITY_OF: dict[type[ClientEvent], Capability] = {
    ConversationItemTruncate: "truncate",
    ConversationItemDelete: "delete",
    ConversationItemRetrieve: "retrieve",
    ResponseCancel: "cancel",
    InputAudioBufferCommit: "commit",
    InputAudioBufferClear: "clear",
}

ANY_RATE = range(8_000, 48_001)
OPENAI_TRANSCRIPTION_MODEL = "gpt-4o-mini-transcribe"


def _capabilities(*names: Capability) -> frozenset[Capability]:
    return frozenset(names)


@attrs.frozen
class Dialect:
    """One kind of server. Make a row of your own for another: `attrs.evolve(DIALECTS["openai"], name=…, url=…)`."""

    name: str
    url: str
    """Where it is; what is in braces is for the user to fill in."""
    model: str | None = None
    """The default; None where the user has to name one, or there is nothing to choose."""
    needs_model: bool = False
    auth: Auth = "bearer"
    shape: Shape = "ga"
    input_rates_hz: Sequence[int] = (24_000,)
    """What it takes, the default first."""
    output_rates_hz: Sequence[int] = (24_000,)
    lacks: frozenset[Capability] = frozenset()
    unknown: frozenset[Capability] = frozenset()
    """Not known to us, and so not used."""
    transcription_model: str | None = None
    """In place of OpenAI's, where an agent leaves the default."""
    pcm_name: str = "pcm16"
    """What the beta shape calls 16-bit samples. It names no rate."""
    nested_functions: bool = False
    """A tool's name, description and parameters are in an object of their own, `function`."""
    cumulative_transcripts: bool = False
    """The user's words come as `….updated` events, each with all of them so far."""
    native_resume: bool = False
    """It keeps a conversation whose connection was lost."""
    session_settings: Mapping[str, Any] = MappingProxyType({})
    """Sent with every `session.update`."""
    session_limit_min: int | None = None
    """How long a session may last; counts where the server itself does not say."""

    sound_is_elsewhere: bool = False
    """Of a connection that controls a call: see `ConnectionOptions.call_id`."""

    def has(self, capability: Capability) -> bool:
        return capability not in self.lacks and capability not in self.unknown

    def takes(self, event: ClientEvent) -> bool:
        """Whether the server understands events of this kind."""
        needed = CAPABILITY_OF.get(type(event))
        return needed is None or self.has(needed)

    def check(self, config: SessionConfig) -> None:
        """Raises: `ConfigError` for settings that this server would not take, or not as they are meant."""
        audio = config.audio
        if not audio or not audio.input:
            return
        if config.type == "transcription" and self.shape != "ga":
            raise ConfigError(f"dialect {self.name!r} is not known to hold sessions that only transcribe")
        self._check_rate(audio.input.format or WireAudioFormat(), self.input_rates_hz, "AudioInputConfig", "hears")
        if audio.output:
            speech = audio.output.format or WireAudioFormat()
            self._check_rate(speech, self.output_rates_hz, "AudioOutputConfig", "speaks")
        detection = audio.input.turn_detection
        if detection and detection.type == "semantic_vad" and not self.has("semantic_vad"):
            raise ConfigError(
                f"dialect {self.name!r} {self._says('semantic_vad')} turn detection by meaning; "
                'use TurnDetection(type="server_vad")'
            )
        if detection is None and not self.has("commit"):
            raise ConfigError(
                f"dialect {self.name!r} {self._says('commit')} input_audio_buffer.commit, and push-to-talk needs it; "
                "give the agent a turn_detection"
            )
        if config.output_modalities == ["text"] and not self.has("text_output"):
            raise ConfigError(
                f"dialect {self.name!r} {self._says('text_output')} answers in writing; give the agent "
                "AgentCapability.VOICE_OUTPUT, and the session no speaker if there is none"
            )

    def frame(self, event: ClientEvent) -> str:
        """The text frame of an event, in this server's shape."""
        if not isinstance(event, beta.REWRITTEN):
            return encode(event)
        if isinstance(event, SessionUpdate):
            event = self._without_formats(self._with_own_transcription(event))
        if self.shape == "beta":
            fields = beta.from_ga(event, pcm_name=self.pcm_name, nested_functions=self.nested_functions)
        elif isinstance(event, SessionUpdate) and self.shape == "lifted":
            fields = beta.lifted(event)
        else:
            return encode(event)
        if isinstance(event, SessionUpdate):
            fields["session"] |= self.session_settings
        return encode(fields)

    def _without_formats(self, event: SessionUpdate) -> SessionUpdate:
        """The formats of a call were settled by whoever made it."""
        audio = event.session.audio
        if not self.sound_is_elsewhere or not audio:
            return event
        heard = replace(audio.input, format=UNSET) if audio.input else audio.input
        spoken = replace(audio.output, format=UNSET) if audio.output else audio.output
        return replace(event, session=replace(event.session, audio=replace(audio, input=heard, output=spoken)))

    def _with_own_transcription(self, event: SessionUpdate) -> SessionUpdate:
        """The default model of an agent is OpenAI's, which others do not have."""
        audio = event.session.audio
        words = audio.input.transcription if audio and audio.input else None
        if not audio or not audio.input or not words:
            return event
        wanted = words.model
        if not self.has("transcription_model"):
            wanted = UNSET
        elif wanted == OPENAI_TRANSCRIPTION_MODEL:
            wanted = self.transcription_model or UNSET
        heard = replace(audio.input, transcription=replace(words, model=wanted))
        return replace(event, session=replace(event.session, audio=replace(audio, input=heard)))

    def _check_rate(self, wire: WireAudioFormat, allowed: Sequence[int], config: str, does: str) -> None:
        if wire.type != "audio/pcm" or wire.rate_hz in allowed:
            return
        rates = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else " or ".join(map(str, allowed))
        raise ConfigError(
            f"dialect {self.name!r} {does} at {rates} Hz, not at {wire.rate_hz}; "
            f"use {config}(sample_rate_hz={self._nearest(allowed)})"
        )

    def _nearest(self, allowed: Sequence[int]) -> int:
        return 24_000 if 24_000 in allowed else allowed[0]

    def _says(self, capability: Capability) -> str:
        return "knows no" if capability in self.lacks else "is not known to have"

    @property
    def input_rate_hz(self) -> int:
        """The default of the microphone."""
        return self._nearest(self.input_rates_hz)

    @property
    def output_rate_hz(self) -> int:
        """The default of the answers."""
        return self._nearest(self.output_rates_hz)


_ROWS = (
    Dialect(
        "openai",
        "wss://api.openai.com/v1/realtime",
        model="gpt-realtime-2.1",
        transcription_model=OPENAI_TRANSCRIPTION_MODEL,
        session_limit_min=60,
    ),
    Dialect(
        "azure",
        "wss://{resource}.openai.azure.com/openai/v1/realtime",
        needs_model=True,
        auth="api-key",
        transcription_model=OPENAI_TRANSCRIPTION_MODEL,
        session_limit_min=60,
    ),
    Dialect(
        "azure-voice-live",
        "wss://{resource}.services.ai.azure.com/voice-live/realtime?api-version=2026-04-10",
        needs_model=True,
        auth="api-key",
        shape="beta",
        unknown=_capabilities("semantic_vad"),
        transcription_model=OPENAI_TRANSCRIPTION_MODEL,
    ),
    Dialect(
        "xai",
        "wss://api.x.ai/v1/realtime",
        model="grok-voice-latest",
        shape="lifted",
        input_rates_hz=ANY_RATE,
        output_rates_hz=ANY_RATE,
        lacks=_capabilities("truncate", "text_output"),
        unknown=_capabilities("delete", "retrieve", "semantic_vad", "truncated"),
        transcription_model="grok-transcribe",
        cumulative_transcripts=True,
        native_resume=True,
        session_settings=MappingProxyType({"resumption": {"enabled": True}}),
        session_limit_min=60,
    ),
    Dialect(
        "qwen",
        "wss://dashscope-intl.aliyuncs.com/api-ws/v1/realtime",
        needs_model=True,
        shape="beta",
        input_rates_hz=(16_000,),
        lacks=_capabilities("truncate", "truncated"),
        unknown=_capabilities("delete", "retrieve", "semantic_vad"),
        transcription_model="gummy-realtime-v1",
        pcm_name="pcm",
        nested_functions=True,
        session_limit_min=120,
    ),
    Dialect(
        "stepfun",
        "wss://api.stepfun.com/v1/realtime",
        needs_model=True,
        shape="beta",
        lacks=_capabilities("truncate", "truncated", "semantic_vad", "text_output"),
        unknown=_capabilities("delete", "retrieve", "transcription_model"),
    ),
    Dialect(
        "localai",
        "ws://localhost:8080/v1/realtime",
        needs_model=True,
        input_rates_hz=ANY_RATE,
        output_rates_hz=ANY_RATE,
        lacks=_capabilities("transcription_model"),
        unknown=_capabilities("truncated"),
    ),
    Dialect(
        "hf-s2s",
        "ws://localhost:8765/v1/realtime",
        lacks=_capabilities("truncate", "truncated", "delete", "retrieve", "clear", "response_created"),
        unknown=_capabilities("semantic_vad", "transcription_model", "text_output"),
    ),
    Dialect(
        "speaches",
        "ws://localhost:8000/v1/realtime",
        needs_model=True,
        shape="beta",
        lacks=_capabilities("truncate", "truncated", "cancel", "retrieve"),
        unknown=_capabilities("semantic_vad", "transcription_model"),
    ),
    Dialect(
        "vllm-omni",
        "ws://localhost:8000/v1/realtime",
        input_rates_hz=(16_000,),
        unknown=_capabilities(
            "truncate", "truncated", "delete", "retrieve", "cancel", "clear", "semantic_vad", "transcription_model"
        ),
    ),
    Dialect(
        "trio-voice",
        "ws://127.0.0.1:8765/v1/realtime",
        input_rates_hz=ANY_RATE,
        output_rates_hz=ANY_RATE,
        transcription_model=OPENAI_TRANSCRIPTION_MODEL,
    ),
    Dialect(
        "trio-voice-beta",
        "ws://127.0.0.1:8765/v1/realtime",
        shape="beta",
        transcription_model=OPENAI_TRANSCRIPTION_MODEL,
    ),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({row.name: row for row in _ROWS})
"""`trio-voice` is the local server of this package, which has all of the protocol; `trio-voice-beta` the same, started
with `--beta`."""


def dialect_named(given: str | Dialect | None) -> Dialect | None:
    """The row of that name; a row of the user's own as it is.

    Raises: `ConfigError` for a name that is none.
    """
    if given is None or isinstance(given, Dialect):
        return given
    if given not in DIALECTS:
        raise ConfigError(f"dialect={given!r} is not known; known are: {', '.join(DIALECTS)}")
    return DIALECTS[given]
