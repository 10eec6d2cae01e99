"""trio-voice: a Trio-native runtime for realtime voice agents.

The signal path, in the order in which sound travels:

    devices/       microphone and speaker: PortAudio, WAV files
    capture        microphone → frames
    uplink         control first, then frames → wire
    wire           one WebSocket
    downlink       wire → typed events
    conversation   the conductor: turns, barge-in, truncation, history, tools
    playback       playback buffer → speaker; reports the heard position
    tools          the tool executor
    supervisor     the connection's nursery
    session        all of it together: start reading there

Around it: `protocol/` (the Realtime API without I/O), `agent` and `function_tools`, `config`, `events`, `errors`,
`channels` (the channel table), `tracker`, `journal`, `picture/`; `server/` (the same protocol from the other side),
`testing/`, `cli`, `demo/`.
"""

from __future__ import annotations

# ruff: noqa: I001 - what is talked to, what it is told, what it tells, what can go wrong
from trio_voice.voice_agent import VoiceAgent as VoiceAgent
from trio_voice.agent import RealtimeAgent as RealtimeAgent
from trio_voice.function_tools import FunctionTool as FunctionTool, tool as tool
from trio_voice.session import RealtimeSession as RealtimeSession
from trio_voice.config import (
    AgentCapability as AgentCapability,
    AudioInputConfig as AudioInputConfig,
    AudioOutputConfig as AudioOutputConfig,
    ConnectionOptions as ConnectionOptions,
    ConnectionState as ConnectionState,
    SessionState as SessionState,
)
from trio_voice.audio import AudioFormat as AudioFormat, Frame as Frame
from trio_voice.tracker import (
    ConversationTracker as ConversationTracker,
    ConversationTurn as ConversationTurn,
    SessionMetrics as SessionMetrics,
    ToolUse as ToolUse,
    TranscriptLine as TranscriptLine,
)
from trio_voice.errors import (
    ConfigError as ConfigError,
    DeviceError as DeviceError,
    EngineMissing as EngineMissing,
    SessionEnded as SessionEnded,
    ToolSchemaError as ToolSchemaError,
    TrioVoiceError as TrioVoiceError,
    WireLost as WireLost,
)
