"""What a session can be told: audio, connection, capabilities; and the states it can be in.

Core ring: values only. Every limit is checked here, before anything is opened or sent.
"""

from __future__ import annotations

import enum
from typing import Any
from urllib.parse import urlsplit

import attrs

from trio_voice.audio import AudioFormat
from trio_voice.errors import ConfigError


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


@attrs.frozen
class AudioInputConfig:
    """How the microphone is heard."""

    sample_rate_hz: int = attrs.field(default=24_000, validator=_in_range(8_000, 48_000, "24000 is usual"))
    chunk_ms: int = attrs.field(default=20, validator=_in_range(5, 200, "20 is usual"))
    """Length of one frame, captured and sent."""
    capacity_ms: int = attrs.field(default=200, validator=_in_range(20, 2000, "200 is usual"))
    """How much sound may wait for the wire before the oldest is dropped."""
    wait_for_device: bool = False
    """Begin without a microphone where there is none, and open it when there is one."""

    @property
    def format(self) -> AudioFormat:
        return AudioFormat("pcm16", self.sample_rate_hz)


@attrs.frozen
class AudioOutputConfig:
    """How the answer is played."""

    sample_rate_hz: int = attrs.field(default=24_000, validator=_in_range(8_000, 48_000, "24000 is usual"))
    prebuffer_ms: int = attrs.field(default=100, validator=_in_range(0, 2000, "100 is usual"))
    """Sound gathered before a turn begins to play, so that a late packet is not heard as a gap."""
    capacity_ms: int = attrs.field(default=600_000, validator=_in_range(1000, 3_600_000, "ten minutes is usual"))
    """How much unheard sound is kept. Servers send faster than real time; what comes beyond is dropped and counted."""
    fade_ms: int = attrs.field(default=5, validator=_in_range(0, 20, "5 is usual"))
    """A cut decays over this long instead of popping."""
    wait_for_device: bool = False
    """Begin without a loudspeaker where there is none, and open it when there is one."""

    def __attrs_post_init__(self) -> None:
        if self.prebuffer_ms >= self.capacity_ms:
            raise ConfigError(
                f"prebuffer_ms={self.prebuffer_ms} does not fit into capacity_ms={self.capacity_ms}: "
                "a turn would never begin to play; use less of the one or more of the other"
            )

    @property
    def format(self) -> AudioFormat:
        return AudioFormat("pcm16", self.sample_rate_hz)


@attrs.frozen
class ConnectionOptions:
    """Where the server is and how long to wait for it."""

    url: str = "wss://api.openai.com/v1/realtime"
    model: str | None = "gpt-realtime-2.1"
    """Sent as the `model` parameter of the URL; `None` leaves the URL as it is."""
    api_key: str | None = attrs.field(default=None, repr=False)
    """Sent as a bearer token; with `azure=True` in the `api-key` header."""
    azure: bool = False
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
    connect_timeout_ms: int = attrs.field(default=10_000, validator=_in_range(10, 120_000, "10000 is usual"))
    heartbeat_interval_ms: int = attrs.field(default=30_000, validator=_in_range(10, 600_000, "30000 is usual"))
    heartbeat_timeout_ms: int = attrs.field(default=10_000, validator=_in_range(10, 600_000, "10000 is usual"))
    """A ping not answered in this time, with nothing else received, means that the connection is dead. While a turn is
    in progress both are two seconds at most."""

    def __attrs_post_init__(self) -> None:
        if not self.url.startswith(("ws://", "wss://")):
            raise ConfigError(f"url={self.url!r} is not a WebSocket address; it must begin with ws:// or wss://")
        try:
            named = urlsplit(self.url).hostname is not None and urlsplit(self.url).port != 0
        except ValueError:
            named = False
        if not named:
            raise ConfigError(f"url={self.url!r} names no host or no possible port; it looks like ws://HOST:PORT/PATH")
