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

Around it: `protocol/` (the Realtime API without I/O), `agent`, `agent_settings`, `function_tools`, `config`, `events`,
`errors`, `channels` (the channel table), `tracker`, `logs`, `loop_watch`, `journal`, `picture/`; `server/` (the same
protocol from the other side), `testing/`, `cli`, `demo/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# ruff: noqa: I001 - what is talked to, what it is told, what it tells, what can go wrong
if TYPE_CHECKING:
    from trio_voice.voice_agent import VoiceAgent as VoiceAgent
    from trio_voice.agent import RealtimeAgent as RealtimeAgent
    from trio_voice.agent_settings import (
        Filler as Filler,
        IdlePrompts as IdlePrompts,
        Prompt as Prompt,
        RetentionRatio as RetentionRatio,
        Tracing as Tracing,
    )
    from trio_voice.agent_tool import AgentTool as AgentTool, ToolContext as ToolContext, silent as silent
    from trio_voice.function_tools import FunctionTool as FunctionTool, tool as tool
    from trio_voice.mcp_servers import (
        HostedMcpTool as HostedMcpTool,
        McpServerHttp as McpServerHttp,
        McpServerStdio as McpServerStdio,
    )
    from trio_voice.guardrail_functions import (
        GuardrailContext as GuardrailContext,
        InputGuardrail as InputGuardrail,
        OutputGuardrail as OutputGuardrail,
        Trip as Trip,
        input_guardrail as input_guardrail,
        output_guardrail as output_guardrail,
    )
    from trio_voice.handoff_tools import Handoff as Handoff, handoff as handoff
    from trio_voice.session import RealtimeSession as RealtimeSession
    from trio_voice.config import (
        AgentCapability as AgentCapability,
        AudioInputConfig as AudioInputConfig,
        AudioOutputConfig as AudioOutputConfig,
        ConnectionOptions as ConnectionOptions,
        ConnectionState as ConnectionState,
        InterruptionPolicy as InterruptionPolicy,
        SessionState as SessionState,
    )
    from trio_voice.client_secrets import ClientSecret as ClientSecret, client_secret as client_secret
    from trio_voice.audio import AudioFormat as AudioFormat, Frame as Frame
    from trio_voice.tracker import (
        ConversationTracker as ConversationTracker,
        ConversationTurn as ConversationTurn,
        SessionMetrics as SessionMetrics,
        ToolUse as ToolUse,
        TranscriptLine as TranscriptLine,
    )
    from trio_voice.protocol.history import HistoryItem as HistoryItem
    from trio_voice.usage import Prices as Prices, TokenUsage as TokenUsage
    from trio_voice.loop_watch import LoopWatch as LoopWatch
    from trio_voice.errors import (
        ConfigError as ConfigError,
        DeviceError as DeviceError,
        EngineMissing as EngineMissing,
        HistoryError as HistoryError,
        JournalError as JournalError,
        McpServerError as McpServerError,
        SessionEnded as SessionEnded,
        ToolArgumentsError as ToolArgumentsError,
        ToolSchemaError as ToolSchemaError,
        TrioVoiceError as TrioVoiceError,
        WireLost as WireLost,
    )

_PUBLIC = {
    "voice_agent": ("VoiceAgent",),
    "agent": ("RealtimeAgent",),
    "agent_settings": ("Filler", "IdlePrompts", "Prompt", "RetentionRatio", "Tracing"),
    "agent_tool": ("AgentTool", "ToolContext", "silent"),
    "function_tools": ("FunctionTool", "tool"),
    "mcp_servers": ("HostedMcpTool", "McpServerHttp", "McpServerStdio"),
    "guardrail_functions": (
        "GuardrailContext",
        "InputGuardrail",
        "OutputGuardrail",
        "Trip",
        "input_guardrail",
        "output_guardrail",
    ),
    "handoff_tools": ("Handoff", "handoff"),
    "session": ("RealtimeSession",),
    "config": (
        "AgentCapability",
        "AudioInputConfig",
        "AudioOutputConfig",
        "ConnectionOptions",
        "ConnectionState",
        "InterruptionPolicy",
        "SessionState",
    ),
    "client_secrets": ("ClientSecret", "client_secret"),
    "audio": ("AudioFormat", "Frame"),
    "tracker": ("ConversationTracker", "ConversationTurn", "SessionMetrics", "ToolUse", "TranscriptLine"),
    "protocol.history": ("HistoryItem",),
    "usage": ("Prices", "TokenUsage"),
    "loop_watch": ("LoopWatch",),
    "errors": (
        "ConfigError",
        "DeviceError",
        "EngineMissing",
        "HistoryError",
        "JournalError",
        "McpServerError",
        "SessionEnded",
        "ToolArgumentsError",
        "ToolSchemaError",
        "TrioVoiceError",
        "WireLost",
    ),
}
"""The same names by module. Each is loaded when it is first asked for: a program that wants one of them does not wait
for all, and `import trio_voice` takes no time. A test holds the two lists together."""

_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}


if not TYPE_CHECKING:  # a type checker takes the list above, and knows what is not in it

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
