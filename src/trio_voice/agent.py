"""The agent: who speaks, what it knows, which tools it has. A value; a session brings it to life.

Core ring: pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import attrs
from msgspec import UNSET

from trio_voice.agent_tool import AgentTool
from trio_voice.config import (
    ALL_CAPABILITIES,
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    InterruptionPolicy,
)
from trio_voice.errors import ConfigError
from trio_voice.function_tools import tool
from trio_voice.guardrail_functions import (
    Check,
    InputGuardrail,
    OutputGuardrail,
    as_guardrails,
    input_guardrail,
    output_guardrail,
)
from trio_voice.interruption import as_told
from trio_voice.protocol import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    Maybe,
    SessionConfig,
    Transcription,
    TurnDetection,
    WireAudioFormat,
)


def _as_tools(functions: Sequence[AgentTool | Callable[..., Any]]) -> tuple[AgentTool, ...]:
    return tuple(given if isinstance(given, AgentTool) else tool(given) for given in functions)


def _as_capabilities(given: Iterable[AgentCapability]) -> frozenset[AgentCapability]:
    return frozenset(given)


def _as_output_guardrails(given: Iterable[OutputGuardrail | Check]) -> tuple[OutputGuardrail, ...]:
    return as_guardrails(given, OutputGuardrail, output_guardrail)


def _as_input_guardrails(given: Iterable[InputGuardrail | Check]) -> tuple[InputGuardrail, ...]:
    return as_guardrails(given, InputGuardrail, input_guardrail)


@attrs.frozen
class RealtimeAgent:
    """An agent's part of a conversation.

    Raises: `ConfigError` for settings that no server would take, `ToolSchemaError` for a tool that cannot be offered.
    """

    name: str = "agent"
    instructions: str = ""
    tools: tuple[AgentTool, ...] = attrs.field(default=(), converter=_as_tools)
    """`@tool` functions; a plain typed function is turned into one."""
    voice: str | None = None
    """None leaves it to the server."""
    turn_detection: TurnDetection | None = attrs.Factory(TurnDetection)
    """When the user's turn is over. None: never by itself; `stop_listening()` ends it (push-to-talk)."""
    interruption: InterruptionPolicy = attrs.Factory(InterruptionPolicy)
    """How the user's voice interrupts the agent."""
    transcription_model: str | None = "gpt-4o-mini-transcribe"
    transcription_language: str | None = None
    speed: float | None = None
    tool_choice: Literal["auto", "none", "required"] = "auto"
    max_output_tokens: int | None = None
    output_guardrails: tuple[OutputGuardrail, ...] = attrs.field(default=(), converter=_as_output_guardrails)
    """They look at what the agent says; a plain function is made one."""
    input_guardrails: tuple[InputGuardrail, ...] = attrs.field(default=(), converter=_as_input_guardrails)
    """They look at what the user says."""
    capabilities: frozenset[AgentCapability] = attrs.field(default=ALL_CAPABILITIES, converter=_as_capabilities)
    greets_first: bool = False
    """Speak before the user does."""

    def __attrs_post_init__(self) -> None:
        names = [function.name for function in self.tools]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError(f"agent {self.name!r} has two tools named {min(twice)!r}; rename one")
        if self.speed is not None and not 0.25 <= self.speed <= 1.5:
            raise ConfigError(f"speed={self.speed} is outside 0.25..1.5")
        if self.max_output_tokens is not None and not 1 <= self.max_output_tokens <= 4096:
            raise ConfigError(f"max_output_tokens={self.max_output_tokens} is outside 1..4096; None sets no limit")
        if not self.capabilities & {AgentCapability.VOICE_OUTPUT, AgentCapability.TEXT_OUTPUT}:
            raise ConfigError(f"agent {self.name!r} can neither speak nor write; give it VOICE_OUTPUT or TEXT_OUTPUT")

    def can(self, capability: AgentCapability) -> bool:
        return capability in self.capabilities

    def session_config(self, audio_input: AudioInputConfig, audio_output: AudioOutputConfig) -> SessionConfig:
        """Everything the server has to know. Both formats are always said: a server may have others in mind."""
        transcription: Maybe[Transcription] = UNSET
        if self.transcription_model and self.can(AgentCapability.TRANSCRIPTION):
            transcription = Transcription(model=self.transcription_model, language=self.transcription_language or UNSET)
        functions = self.tools if self.can(AgentCapability.FUNCTION_CALLING) else ()
        return SessionConfig(
            instructions=self.instructions,
            output_modalities=["audio"] if self.can(AgentCapability.VOICE_OUTPUT) else ["text"],
            audio=AudioConfig(
                input=AudioInput(
                    format=WireAudioFormat("audio/pcm", audio_input.sample_rate_hz),
                    transcription=transcription,
                    turn_detection=as_told(self.interruption, self.turn_detection),
                ),
                output=AudioOutput(
                    format=WireAudioFormat("audio/pcm", audio_output.sample_rate_hz),
                    voice=self.voice or UNSET,
                    speed=self.speed or UNSET,
                ),
            ),
            tools=[function.wire_tool() for function in functions],
            tool_choice=self.tool_choice,
            max_output_tokens=self.max_output_tokens or UNSET,
        )
