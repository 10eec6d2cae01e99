"""What a session can be told: audio, connection, capabilities; and the states it can be in.

Core ring: values only. Every limit is checked here, before anything is opened or sent.
"""

from __future__ import annotations

import enum
import re
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs

from trio_voice.audio import AudioFormat
from trio_voice.dialects import DIALECTS, Dialect, dialect_named
from trio_voice.errors import ConfigError


def url_shown(url: str) -> str:
    """An address for people: without its parameters and whoever logs in with it, where a key may be."""
    scheme, _, rest = url.partition("://")
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _in_range(low: float, high: float, hint: str) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            raise ConfigError(f"{attribute.name}={value!r} is outside {low}..{high}; {hint}")

    return check


class AgentCapability(enum.Enum):
    """What an agent can do. A session opens only the devices and offers only the tools that these ask for."""

    VOICE_INPUT = "voice_input"
    VOICE_OUTPUT = "voice_output"
    TEXT_INPUT = "text_input"
    TEXT_OUTPUT = "text_output"
    FUNCTION_CALLING = "function_calling"
    TRANSCRIPTION = "transcription"


ALL_CAPABILITIES = frozenset(AgentCapability)


class SessionState(enum.Enum):
    """Where a conversation stands, from the user's side."""

    INITIALIZING = "initializing"
    CONNECTED = "connected"
    LISTENING = "listening"
    PROCESSING = "processing"
    RESPONDING = "responding"
    PAUSED = "paused"
    DISCONNECTED = "disconnected"


class ConnectionState(enum.Enum):
    """Where the WebSocket stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"


OPENAI_HOST = urlsplit(DIALECTS["openai"].url).hostname

EchoPolicy: TypeAlias = Literal["off", "gate", "aec"]


@attrs.frozen
class AudioInputConfig:
    """How the microphone is heard."""

    sample_rate_hz: int = attrs.field(default=24_000, validator=_in_range(8_000, 48_000, "24000 is usual"))
    chunk_ms: int = attrs.field(default=20, validator=_in_range(5, 500, "20 is usual"))
    """Length of one frame, captured and sent."""
    capacity_ms: int = attrs.field(default=200, validator=_in_range(20, 2000, "200 is usual"))
    """How much sound may wait for the wire before the oldest is dropped."""
    utterance_capacity_ms: int = attrs.field(default=30_000, validator=_in_range(0, 120_000, "30000 is usual"))
    """Longest utterance that a lost connection does not lose: its sound is kept until its words are known."""
    wait_for_device: bool = False
    """Begin without a microphone where there is none, and open it when there is one."""
    echo: EchoPolicy = "off"
    """What is done about the agent's voice in the microphone. `aec` takes it out (`pip install 'trio-voice[aec]'`);
    `gate` sends silence while the agent sounds; `off` is for headphones, and devices that cancel it themselves."""
    gate_tail_ms: int = attrs.field(default=250, validator=_in_range(0, 2000, "250 is usual"))
    """How long the gate stays shut after the agent's last sound, as the room goes on sounding."""
    noise_suppression: bool = False
    """Take out steady noise; needs the extra `[aec]`."""
    auto_gain: bool = False
    """Bring a quiet voice up; needs the extra `[aec]`."""

    def __attrs_post_init__(self) -> None:
        if self.echo not in ("off", "gate", "aec"):
            raise ConfigError(f"echo={self.echo!r} is no policy; it is 'off', 'gate' or 'aec'")
        if self.processes and self.chunk_ms % 10:
            raise ConfigError(
                f"chunk_ms={self.chunk_ms} cannot be processed: echo='aec', noise_suppression and auto_gain work on "
                "10 ms at a time; use a multiple of 10"
            )

    @property
    def processes(self) -> bool:
        """Whether the WebRTC audio processing of the extra `[aec]` is asked for."""
        return self.echo == "aec" or self.noise_suppression or self.auto_gain

    @property
    def format(self) -> AudioFormat:
        return AudioFormat("pcm16", self.sample_rate_hz)


@attrs.frozen
class AudioOutputConfig:
    """How the answer is played."""

    sample_rate_hz: int = attrs.field(default=24_000, validator=_in_range(8_000, 48_000, "24000 is usual"))
    device_rate_hz: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_in_range(8_000, 48_000, "48000 is usual"))
    )
    """The rate at which the loudspeaker is opened, when it is not that of the wire; sound is converted."""
    prebuffer_ms: int = attrs.field(default=100, validator=_in_range(0, 2000, "100 is usual"))
    """Sound gathered before a turn begins to play, so that a late packet is not heard as a gap: to begin with. Then it
    follows the jitter that is measured, between the two bounds."""
    shortest_prebuffer_ms: int = attrs.field(
        default=attrs.Factory(lambda self: min(40, self.prebuffer_ms), takes_self=True),
        validator=_in_range(0, 2000, "40 is usual"),
    )
    longest_prebuffer_ms: int = attrs.field(
        default=attrs.Factory(lambda self: max(400, self.prebuffer_ms), takes_self=True),
        validator=_in_range(0, 2000, "400 is usual"),
    )
    capacity_ms: int = attrs.field(default=600_000, validator=_in_range(1000, 3_600_000, "ten minutes is usual"))
    """How much unheard sound is kept. Servers send faster than real time; what comes beyond is dropped and counted, and
    so is the rest of its item."""
    fade_ms: int = attrs.field(default=5, validator=_in_range(0, 20, "5 is usual"))
    """A cut decays over this long instead of popping, and what follows it begins softly; 0 changes no sample."""
    wait_for_device: bool = False
    """Begin without a loudspeaker where there is none, and open it when there is one."""

    def __attrs_post_init__(self) -> None:
        for name in ("prebuffer_ms", "longest_prebuffer_ms"):
            if getattr(self, name) >= self.capacity_ms:
                raise ConfigError(
                    f"{name}={getattr(self, name)} does not fit into capacity_ms={self.capacity_ms}: "
                    "a turn would never begin to play; use less of the one or more of the other"
                )
        if not self.shortest_prebuffer_ms <= self.prebuffer_ms <= self.longest_prebuffer_ms:
            raise ConfigError(
                f"prebuffer_ms={self.prebuffer_ms} is not between shortest_prebuffer_ms={self.shortest_prebuffer_ms} "
                f"and longest_prebuffer_ms={self.longest_prebuffer_ms}; make all three the same for a fixed prebuffer"
            )

    @property
    def format(self) -> AudioFormat:
        return AudioFormat("pcm16", self.sample_rate_hz)

    @property
    def device_format(self) -> AudioFormat:
        """What the loudspeaker is opened with."""
        return AudioFormat("pcm16", self.device_rate_hz or self.sample_rate_hz)


@attrs.frozen
class InterruptionPolicy:
    """How the user's voice interrupts the agent. The default leaves it to the server, at once."""

    by: Literal["server", "local", "manual"] = "server"
    """`server`: when its voice detection reports speech. `local`: when the microphone's own detection hears it, for
    servers that report late. `manual`: never; `interrupt()` does. Whoever spoke meanwhile is answered afterwards."""
    min_speech_ms: int = attrs.field(default=0, validator=_in_range(0, 2000, "300 passes over coughs and 'mm-hm'"))
    """How long the user has to speak for an interruption to count. Until then the agent's voice is lowered."""
    duck_gain: float = attrs.field(default=0.25, validator=_in_range(0, 1, "0.25 is usual"))
    """How loud the agent goes on meanwhile: 1 is unchanged, 0 is silent."""
    detector: Literal["energy", "silero"] = "energy"
    """The microphone's own voice detection: by loudness, or silero's model (`pip install 'trio-voice[local]'`)."""
    greeting: bool = True
    """Whether the greeting of an agent that `greets_first` may be interrupted."""

    def __attrs_post_init__(self) -> None:
        if self.by not in ("server", "local", "manual"):
            raise ConfigError(f"by={self.by!r} is no way to interrupt; it is 'server', 'local' or 'manual'")
        if self.detector not in ("energy", "silero"):
            raise ConfigError(f"detector={self.detector!r} is not known; it is 'energy' or 'silero'")
        if self.by == "manual" and self.min_speech_ms:
            raise ConfigError(
                f"min_speech_ms={self.min_speech_ms} has no meaning with by='manual', where no speech interrupts"
            )

    @property
    def listens_itself(self) -> bool:
        """Whether a voice detection of our own is needed."""
        return self.by == "local" or self.min_speech_ms > 0


@attrs.frozen
class ConnectionOptions:
    """Where the server is and how long to wait for it."""

    dialect: Dialect | None = attrs.field(default=None, converter=dialect_named)
    """Which kind of server, by name (see `dialects.py`), or a row of your own. None: OpenAI at its own address,
    elsewhere a server that has all of the protocol."""
    url: str = attrs.field(
        default=attrs.Factory(lambda self: (self.dialect or DIALECTS["openai"]).url, takes_self=True),
        repr=lambda url: repr(url_shown(url)),
    )
    model: str | None = attrs.Factory(lambda self: (self.dialect or DIALECTS["openai"]).model, takes_self=True)
    """Sent as the `model` parameter of the URL; `None` leaves the URL as it is."""
    call_id: str | None = None
    """Of a WebRTC or SIP call whose sound is elsewhere: the session controls it, and plays and hears nothing itself."""
    api_key: str | None = attrs.field(default=None, repr=False)
    """Shown as the dialect has it: mostly as a bearer token."""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    auto_reconnect: bool = True
    """After a loss that may pass. The first connection is not retried: its failure is the application's to see."""
    max_reconnect_attempts: int = attrs.field(default=5, validator=_in_range(0, 1000, "5 is usual"))
    """In a row; a connection that held for ten seconds starts the count anew."""
    reconnect_delay_ms: int = attrs.field(default=1000, validator=_in_range(0, 60_000, "1000 is usual"))
    """The longest wait before the second attempt; the first is immediate."""
    reconnect_backoff_multiplier: float = attrs.field(default=1.5, validator=_in_range(1, 10, "1.5 is usual"))
    session_margin_ms: int = attrs.field(default=120_000, validator=_in_range(0, 3_600_000, "120000 is usual"))
    """How long before the server's own limit a new connection takes over, between two turns (rotation)."""
    response_timeout_ms: int = attrs.field(default=30_000, validator=_in_range(100, 600_000, "30000 is usual"))
    """An answer that was promised and of which nothing comes for this long means that the server hangs."""
    native_resume: bool = attrs.Factory(
        lambda self: self.call_id is not None or bool(self.dialect and self.dialect.native_resume), takes_self=True
    )
    """The server keeps a conversation whose connection was lost and takes it up again by its id (xAI does): a new
    connection asks for it with `conversation_id`, and is told only what the server has not confirmed."""
    connect_timeout_ms: int = attrs.field(default=10_000, validator=_in_range(10, 120_000, "10000 is usual"))
    heartbeat_interval_ms: int = attrs.field(default=30_000, validator=_in_range(10, 600_000, "30000 is usual"))
    heartbeat_timeout_ms: int = attrs.field(default=10_000, validator=_in_range(10, 600_000, "10000 is usual"))
    """A ping not answered in this time, with nothing else received, means that the connection is dead. While a turn is
    in progress both are two seconds at most."""

    @property
    def names_model(self) -> bool:
        """Whether the URL will say which model, or which call."""
        return self.model is not None or self.call_id is not None or "model=" in urlsplit(self.url).query

    @property
    def server(self) -> Dialect:
        """What is known of the server that this leads to."""
        row = self.dialect
        if row is None:
            row = DIALECTS["openai" if urlsplit(self.url).hostname == OPENAI_HOST else "trio-voice"]
        return attrs.evolve(row, sound_is_elsewhere=True) if self.call_id is not None else row

    def __attrs_post_init__(self) -> None:
        shown = url_shown(self.url)
        if "{" in self.url:
            raise ConfigError(f"url={shown!r} is a pattern: pass a url in which the part in braces is filled in")
        if not self.url.startswith(("ws://", "wss://")):
            raise ConfigError(f"url={shown!r} is not a WebSocket address; it must begin with ws:// or wss://")
        try:
            named = urlsplit(self.url).hostname is not None and urlsplit(self.url).port != 0
        except ValueError:
            named = False
        if not named:
            raise ConfigError(f"url={shown!r} names no host or no possible port; it looks like ws://HOST:PORT/PATH")
