"""The agent: who speaks, what it knows, which tools it has. A value; a session brings it to life.

Core ring: pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import attrs
from msgspec import UNSET
from msgspec.structs import replace

from trio_voice.agent_rules import (
    NoiseReductionType,
    ReasoningEffort,
    as_words,
    check_choice,
    check_flag,
    check_include,
    check_noise_reduction,
    check_prompt,
    check_range,
    check_tool_choice,
    check_tracing,
    check_transcription,
    check_truncation,
    check_turn_detection,
    check_voice,
    check_words,
)
from trio_voice.agent_tool import AgentTool
from trio_voice.config import (
    ALL_CAPABILITIES,
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    InterruptionPolicy,
)
from trio_voice.errors import ConfigError
from trio_voice.interruption import as_told
from trio_voice.protocol import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    Reasoning,
    SessionConfig,
    Transcription,
    TurnDetection,
    VoiceId,
    WireAudioFormat,
)

if TYPE_CHECKING:  # what an agent has none of is not imported: its converter does that
    from trio_voice.agent_settings import Filler, IdlePrompts, Prompt, RetentionRatio, Tracing
    from trio_voice.guardrail_functions import Check, InputGuardrail, OutputGuardrail
    from trio_voice.handoff_tools import Handoff
    from trio_voice.mcp_servers import HostedMcpTool, McpServer

Instructions: TypeAlias = "str | Callable[[Any], str]"
"""A text, or a plain function of the session's context that makes one."""


def _as_tools(given: Sequence[AgentTool | HostedMcpTool | Callable[..., Any]]) -> tuple[AgentTool | HostedMcpTool, ...]:
    if given == ():
        return ()
    from trio_voice.function_tools import tool
    from trio_voice.mcp_servers import HostedMcpTool

    return tuple(each if isinstance(each, AgentTool | HostedMcpTool) else tool(each) for each in given)


def _as_servers(given: Iterable[McpServer]) -> tuple[McpServer, ...]:
    return tuple(given)


def _as_capabilities(given: Iterable[AgentCapability]) -> frozenset[AgentCapability]:
    return frozenset(given)


def _as_output_guardrails(given: Iterable[OutputGuardrail | Check]) -> tuple[OutputGuardrail, ...]:
    if given == ():
        return ()
    from trio_voice.guardrail_functions import OutputGuardrail, as_guardrails, output_guardrail

    return as_guardrails(given, OutputGuardrail, output_guardrail)


def _as_input_guardrails(given: Iterable[InputGuardrail | Check]) -> tuple[InputGuardrail, ...]:
    if given == ():
        return ()
    from trio_voice.guardrail_functions import InputGuardrail, as_guardrails, input_guardrail

    return as_guardrails(given, InputGuardrail, input_guardrail)


def _as_handoffs(given: Iterable[Handoff | RealtimeAgent]) -> tuple[Handoff, ...]:
    if given == ():
        return ()
    from trio_voice.handoff_tools import as_handoffs

    return as_handoffs(given)


@attrs.frozen
class RealtimeAgent:
    """An agent's part of a conversation.

    Raises: `ConfigError` for settings that no server would take, `ToolSchemaError` for a tool that cannot be offered.
    """

    name: str = "agent"
    instructions: Instructions = ""
    """A function is called with the session's context whenever a server has to be told: when a connection is
    configured, and when the agent takes over."""
    tools: tuple[AgentTool | HostedMcpTool, ...] = attrs.field(default=(), converter=_as_tools)
    """`@tool` functions; a plain typed function is turned into one. And MCP servers that the Realtime server calls."""
    mcp_servers: tuple[McpServer, ...] = attrs.field(default=(), converter=_as_servers)
    """MCP servers that the session itself runs or reaches; their tools are offered behind `tools`."""
    handoffs: tuple[Handoff, ...] = attrs.field(default=(), converter=_as_handoffs)
    """Agents that the model may hand the conversation over to; an agent alone, or what `handoff()` makes of one."""
    voice: str | VoiceId | None = None
    """A name, or the id of a voice of your own; None leaves it to the server."""
    model: str | None = None
    """None: that of the connection."""
    turn_detection: TurnDetection | None = attrs.Factory(TurnDetection)
    """When the user's turn is over. None: never by itself; `stop_listening()` ends it (push-to-talk)."""
    interruption: InterruptionPolicy = attrs.Factory(InterruptionPolicy)
    """How the user's voice interrupts the agent."""
    transcription: str | Transcription | None = "gpt-4o-mini-transcribe"
    """The model that writes down the user's words, or what more it has to be told; None: nobody does."""
    noise_reduction: NoiseReductionType | None = None
    """At the server: for a headset (`near_field`), or for a laptop or a room (`far_field`)."""
    speed: float | None = None
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the tool that the model has to call."""
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio | None = None
    """What the server does when the conversation has outgrown the model."""
    reasoning_effort: ReasoningEffort | None = None
    prompt: Prompt | None = None
    """A prompt that is kept at the server."""
    tracing: Literal["auto"] | Tracing | None = None
    """The server's own trace of the session."""
    include: tuple[str, ...] = attrs.field(default=(), converter=as_words)
    output_guardrails: tuple[OutputGuardrail, ...] = attrs.field(default=(), converter=_as_output_guardrails)
    """They look at what the agent says; a plain function is made one."""
    input_guardrails: tuple[InputGuardrail, ...] = attrs.field(default=(), converter=_as_input_guardrails)
    """They look at what the user says."""
    capabilities: frozenset[AgentCapability] = attrs.field(default=ALL_CAPABILITIES, converter=_as_capabilities)
    greets_first: bool = False
    """Speak before the user does."""
    greeting: str | None = None
    """What it says then, word for word; None leaves the words to the model."""
    idle_prompts: IdlePrompts | None = None
    """What it says when nobody has said anything for a while."""
    filler: Filler | None = None
    """What it says when a tool keeps the user waiting."""

    def __attrs_post_init__(self) -> None:
        names = [function.name for function in (*self.tools, *self.handoffs)]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            hint = "; give the handoff a tool_name=" if any(each.name in twice for each in self.handoffs) else ""
            raise ConfigError(f"agent {self.name!r} has two tools named {min(twice)!r}; rename one{hint}")
        if not isinstance(self.instructions, str) and not callable(self.instructions):
            raise ConfigError(f"instructions={self.instructions!r} are no text, and no function that makes one")
        self._check_abilities()
        self._check_servers()
        check_turn_detection(self.turn_detection)
        check_voice(self.voice)
        if self.model is not None:
            check_words("model", self.model)
        if self.speed is not None:
            check_range("speed", self.speed, 0.25, 1.5)
        if self.max_output_tokens not in (None, "inf"):
            check_range("max_output_tokens", self.max_output_tokens, 1, 4096, "None or 'inf' sets no limit")
        if self.reasoning_effort is not None:
            check_choice("reasoning_effort", self.reasoning_effort, get_args(ReasoningEffort))
        check_flag("parallel_tool_calls", self.parallel_tool_calls)
        check_prompt(self.prompt)
        detection = self.turn_detection
        if self.idle_prompts is not None and detection is not None and detection.idle_timeout_ms:
            raise ConfigError(
                "idle_prompts and turn_detection.idle_timeout_ms would both break the silence; leave one of them out"
            )
        self._settings()

    def _check_servers(self) -> None:
        if not self.mcp_servers:
            return
        from trio_voice.mcp_servers import McpServerHttp, McpServerStdio

        for server in self.mcp_servers:
            if not isinstance(server, McpServerStdio | McpServerHttp):
                raise ConfigError(f"mcp_servers has {server!r}; it takes McpServerStdio(…) and McpServerHttp(…)")
        servers = [server.name for server in self.mcp_servers]
        if len(set(servers)) < len(servers):
            raise ConfigError(f"agent {self.name!r} has two MCP servers of one name: {servers}; give each a name=")

    def _check_abilities(self) -> None:
        if not self.capabilities & {
            AgentCapability.VOICE_OUTPUT,
            AgentCapability.TEXT_OUTPUT,
            AgentCapability.TRANSCRIPTION,
        }:
            raise ConfigError(
                f"agent {self.name!r} can neither speak nor write nor transcribe; give it VOICE_OUTPUT, TEXT_OUTPUT "
                "or TRANSCRIPTION"
            )
        if self.greeting is not None:
            check_words("greeting", self.greeting)
        if not self.transcribes_only:
            return
        if self.transcription is None:
            raise ConfigError(f"agent {self.name!r} only transcribes: transcription=None leaves it nothing to do")
        for name in ("tools", "handoffs", "greets_first", "greeting", "idle_prompts", "filler", "prompt", "tracing"):
            if getattr(self, name):
                raise ConfigError(
                    f"agent {self.name!r} only transcribes: {name} has no meaning; give it VOICE_OUTPUT or TEXT_OUTPUT"
                )

    @property
    def runnable(self) -> tuple[AgentTool, ...]:
        """Those of them that the session runs."""
        return tuple(tool for tool in self.offered if isinstance(tool, AgentTool))

    def can(self, capability: AgentCapability) -> bool:
        return capability in self.capabilities

    @property
    def transcribes_only(self) -> bool:
        """It writes down what the user says, and never answers."""
        return not self.capabilities & {AgentCapability.VOICE_OUTPUT, AgentCapability.TEXT_OUTPUT}

    @property
    def offered(self) -> tuple[AgentTool | HostedMcpTool, ...]:
        """The tools that the model is told of."""
        return (*self.tools, *self.handoffs) if self.can(AgentCapability.FUNCTION_CALLING) else ()

    def instructed(self, context: object) -> str:
        """The instructions, now.

        Raises: `ConfigError` where the function that makes them fails, or gives no text.
        """
        if isinstance(self.instructions, str):
            return self.instructions
        try:
            made = self.instructions(context)
        except Exception as error:
            raise ConfigError(
                f"the instructions of agent {self.name!r} could not be made: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(made, str):
            raise ConfigError(
                f"the instructions of agent {self.name!r} are {made!r}, not a text; a plain function that returns one "
                "is needed"
            )
        return made

    def session_config(
        self, audio_input: AudioInputConfig, audio_output: AudioOutputConfig, *, context: object = None
    ) -> SessionConfig:
        """Everything the server has to know. Both formats are always said: a server may have others in mind.

        Raises: `ConfigError` where the instructions cannot be made.
        """
        hearing = AudioInput(
            format=WireAudioFormat("audio/pcm", audio_input.sample_rate_hz),
            noise_reduction=check_noise_reduction(self.noise_reduction),
            transcription=self._transcription(),
            turn_detection=as_told(self.interruption, self.turn_detection),
        )
        if self.transcribes_only:
            included = check_include(self.include) or UNSET
            return SessionConfig(type="transcription", audio=AudioConfig(input=hearing), include=included)
        speaking = AudioOutput(
            format=WireAudioFormat("audio/pcm", audio_output.sample_rate_hz),
            voice=self.voice or UNSET,
            speed=UNSET if self.speed is None else self.speed,
        )
        return replace(
            self._settings(),
            instructions=self.instructed(context),
            audio=AudioConfig(input=hearing, output=speaking),
            tools=[function.wire_tool() for function in self.offered],
        )

    def _transcription(self) -> Transcription | None:
        if self.transcription is None or not self.can(AgentCapability.TRANSCRIPTION):
            return None
        if isinstance(self.transcription, str):
            return Transcription(model=self.transcription)
        return self.transcription

    def _settings(self) -> SessionConfig:
        """What has nothing to do with sound. Raises: `ConfigError`."""
        check_noise_reduction(self.noise_reduction)
        check_transcription(self._transcription())
        names = [function.name for function in self.offered]
        return SessionConfig(
            output_modalities=["audio"] if self.can(AgentCapability.VOICE_OUTPUT) else ["text"],
            tool_choice=check_tool_choice(self.tool_choice, names),
            parallel_tool_calls=UNSET if self.parallel_tool_calls is None else self.parallel_tool_calls,
            max_output_tokens=UNSET if self.max_output_tokens is None else self.max_output_tokens,
            truncation=UNSET if self.truncation is None else check_truncation(self.truncation),
            reasoning=UNSET if self.reasoning_effort is None else Reasoning(effort=self.reasoning_effort),
            prompt=UNSET if self.prompt is None else self.prompt.wire(),
            tracing=UNSET if self.tracing is None else check_tracing(self.tracing),
            include=check_include(self.include) or UNSET,
        )
