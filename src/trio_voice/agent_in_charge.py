"""The agent that answers, and what the server has to be told of it: at each connection, and when another takes over.

Core ring: pure. The invariant: after an update the server holds the settings of the agent in charge and none that only
the one before it had, but for the voice, which is fixed once it was heard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from trio_voice.agent import RealtimeAgent
from trio_voice.config import AudioInputConfig, AudioOutputConfig, ConnectionOptions
from trio_voice.dialects import DIALECTS, Dialect
from trio_voice.errors import ConfigError
from trio_voice.protocol import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    Maybe,
    SessionConfig,
    Transcription,
    TurnDetection,
    VoiceId,
)

AnyStruct = TypeVar("AnyStruct", bound=Struct)

DEFAULTS = SessionConfig(
    audio=AudioConfig(
        input=AudioInput(
            transcription=Transcription(language=None, prompt=None, languages=None, keywords=None, delay=None),
            turn_detection=TurnDetection(
                create_response=True,
                interrupt_response=True,
                threshold=0.5,
                prefix_padding_ms=300,
                silence_duration_ms=500,
                idle_timeout_ms=None,
                eagerness="auto",
            ),
        ),
        output=AudioOutput(speed=1.0),
    ),
    parallel_tool_calls=True,
    max_output_tokens="inf",
    truncation="auto",
    prompt=None,
)
"""What a setting is where nobody has set it, as the protocol says. Reasoning, tracing, what is included and the voice
have no such value: they stay as they were."""


class AgentInCharge(Struct, eq=False):
    """`context` is the application's own object, which instructions may be made of."""

    agent: RealtimeAgent
    audio_input: AudioInputConfig = field(default_factory=AudioInputConfig)
    audio_output: AudioOutputConfig = field(default_factory=AudioOutputConfig)
    context: object = None
    model: str | None = None
    """Of the session: it does not change."""
    server: Dialect = DIALECTS["trio-voice"]
    has_spoken: bool = False
    """The user knows its voice: another one is not taken by a server any more, and would be a surprise."""
    told: SessionConfig | None = None
    """What the server was last told, and took."""
    equip: Callable[[RealtimeAgent], RealtimeAgent] = lambda agent: agent
    """Gives an agent the tools that its MCP servers have at present."""

    def __post_init__(self) -> None:
        self._check(self.agent)

    def _check(self, agent: RealtimeAgent) -> None:
        """Raises: `ConfigError` for what these devices, or this server, cannot do."""
        check_hearing(agent, self.audio_input)
        silent = attrs.evolve(agent, instructions="")  # which are made when they are needed
        self.server.check(silent.session_config(self.audio_input, self.audio_output))

    def configuration(self) -> SessionConfig:
        """All that a new connection has to be told.

        Raises: `ConfigError`, see `RealtimeAgent.session_config`.
        """
        config = self.equipped.session_config(self.audio_input, self.audio_output, context=self.context)
        if self.has_spoken and self.told is not None:
            config = with_voice(config, _voice(self.told))
        return config

    def successor(self, agent: RealtimeAgent) -> SessionConfig:
        """What makes `agent` take over: its settings, and the defaults of what only the present one has set.

        Raises: `ConfigError` for an agent that cannot, see `check_succession`.
        """
        check_succession(self.agent, agent, self.model)
        self._check(agent)
        config = self.equip(agent).session_config(self.audio_input, self.audio_output, context=self.context)
        if self.has_spoken:
            config = with_voice(config, UNSET)
        return config if self.told is None else _with_resets(self.told, config, DEFAULTS)

    @property
    def equipped(self) -> RealtimeAgent:
        """The agent with all the tools that it has now."""
        return self.equip(self.agent)

    def retooled(self) -> SessionConfig | None:
        """What a server that was configured has to be told of the agent's tools; None when it knows them."""
        tools = [tool.wire_tool() for tool in self.equipped.offered]
        if self.told is None or tools == (self.told.tools or []):
            return None
        self.told = replace(self.told, tools=tools)
        return SessionConfig(tools=tools)

    @property
    def standing_instructions(self) -> str:
        """As the server was told them."""
        return (self.told.instructions if self.told is not None else "") or ""

    def take_over(self, agent: RealtimeAgent, config: SessionConfig) -> None:
        """The server has taken it."""
        voice = _voice(config)
        if not voice and self.told is not None:
            config = with_voice(config, _voice(self.told))
        self.agent, self.told = agent, config


def with_voice(config: SessionConfig, voice: Maybe[str | VoiceId]) -> SessionConfig:
    if not config.audio or not config.audio.output:
        return config
    return replace(config, audio=replace(config.audio, output=replace(config.audio.output, voice=voice)))


def connection_for(agent: RealtimeAgent, options: ConnectionOptions) -> ConnectionOptions:
    """With the agent's model. A session that only transcribes is asked for by the URL, and names no model there.

    Raises: `ConfigError` where the server needs a model, and none is named.
    """
    if not agent.transcribes_only:
        options = options if agent.model is None else attrs.evolve(options, model=agent.model)
        if options.server.needs_model and not options.names_model:
            raise ConfigError(f"dialect {options.server.name!r} needs a model: pass ConnectionOptions(model=…)")
        return options
    query = urlsplit(options.url).query
    intent = "" if "intent=" in query else ("&" if query else "?") + "intent=transcription"
    return attrs.evolve(options, url=options.url + intent, model=None)


def check_hearing(agent: RealtimeAgent, audio_input: AudioInputConfig) -> None:
    """Raises: `ConfigError` where the noise would be taken out here and at the server."""
    if agent.noise_reduction is not None and audio_input.noise_suppression:
        raise ConfigError(
            f"noise_reduction={agent.noise_reduction!r} of agent {agent.name!r} and noise_suppression=True would take "
            "the noise out twice; leave one of them out"
        )


def check_succession(before: RealtimeAgent, after: RealtimeAgent, model: str | None = None) -> None:
    """Raises: `ConfigError` where a session with `before`, on `model`, cannot go on with `after`."""
    if before.transcribes_only != after.transcribes_only:
        raise ConfigError(f"agents {before.name!r} and {after.name!r}: one answers, the other only transcribes")
    if (before.turn_detection is None) != (after.turn_detection is None):
        raise ConfigError(
            f"agents {before.name!r} and {after.name!r} do not agree on push-to-talk: give both a turn_detection, or "
            "neither"
        )
    ears, other_ears = before.interruption, after.interruption
    if other_ears.listens_itself and (
        not ears.listens_itself
        or (ears.detector, ears.min_speech_ms) != (other_ears.detector, other_ears.min_speech_ms)
    ):
        raise ConfigError(
            f"the interruption of agent {after.name!r} needs a voice detection that the session does not have; give "
            f"agent {before.name!r} the same detector and min_speech_ms"
        )
    if after.model not in (None, before.model, model):
        raise ConfigError(
            f"agent {after.name!r} wants model={after.model!r}, but the model of a session cannot change; leave it out"
        )


def _voice(config: SessionConfig) -> Maybe[str | VoiceId]:
    return config.audio.output.voice if config.audio and config.audio.output else UNSET


def _with_resets(before: AnyStruct, after: AnyStruct, defaults: AnyStruct) -> AnyStruct:
    """`after`, with the default of what is set in `before` and not in `after`, at every depth."""
    if getattr(before, "type", None) != getattr(after, "type", None):
        return after  # another kind replaces all of it
    changes = {}
    for name in after.__struct_fields__:
        old, new, default = (getattr(each, name) for each in (before, after, defaults))
        if new is UNSET and old is not UNSET:
            changes[name] = default
        elif isinstance(new, Struct) and type(new) is type(old) is type(default):
            changes[name] = _with_resets(old, new, default)
    return replace(after, **changes)
