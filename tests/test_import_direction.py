"""Imports point inward only: core ← actors ← edges. Checked on the syntax tree, so a lazy import counts too."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import trio_voice

ROOT = Path(trio_voice.__file__).parent

CORE_MODULES = {
    "audio", "errors", "config", "events", "playback_buffer", "agent", "function_tools", "tracker",
    "agent_tool", "tool_schema", "tool_items",
    "protocol", "logs", "restart_policy", "tool_ledger", "utterances", "gain", "jitter", "tracks",
    "mcp_servers", "dialects", "output_rate",
    "tape", "interruption", "voice_activity", "frame_filters", "echo", "server_detection", "text_frames",
    "agent_settings", "agent_rules", "agent_in_charge",
    "guardrail_functions", "handoff_tools",
    "pauses", "usage", "history_export", "turn_record",
}  # fmt: skip
ACTOR_MODULES = {
    "channels", "capture", "uplink", "downlink", "conversation", "playback", "tools", "supervisor", "session",
    "loop_watch", "turn_reports", "session_figures", "journal", "voice_agent", "barge_in", "device_recovery",
    "tool_calls", "hosted_calls", "mcp_tools", "tool_offer", "history_edits", "session_history", "drop_oldest",
    "conversation_view", "conversation_parts", "connections", "answers", "commands",
    "microphone_gate", "on_demand",
    "event_streams", "forgetting", "guardrails", "guarding", "handoffs",
    "agent_change", "initiative",
    "liveness", "outbox", "user_turn", "asking", "resumption", "transcripts", "__init__",
}  # fmt: skip

CORE_MAY = {"attrs", "msgspec", "numpy", "soxr", "structlog"}
ACTORS_MAY = CORE_MAY | {"trio"}

ONLY_IMPORTER = {
    "sounddevice": {"devices/sound_system.py"},
    "trio_websocket": {"wire.py", "server/listen.py"},
    "soxr": {"audio.py"},
    "pywebrtc_audio": {"devices/webrtc.py"},
    "opentelemetry": {"otel.py"},
    "mcp": {"mcp_client.py", "mcp_process.py"},
    "anyio": {"mcp_process.py"},
    "starlette": {"devices/line_server.py"},
    "hypercorn": {"devices/line_server.py"},
}
"""One file per outside thing."""

EXTRAS = ("trio_voice.devices.webrtc", "trio_voice.devices.silero")

MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def ring_of(module: str) -> str:
    first = module.split("/")[0].removesuffix(".py")
    return "core" if first in CORE_MODULES else "actors" if first in ACTOR_MODULES else "edges"


def imports_of(source: str) -> list[str]:
    """Every module that `source` imports, wherever the statement stands, but not for type checking only."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append(node.module)
            found.extend(f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("trio_voice"))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


def violations(module: str, source: str) -> list[str]:
    ring, wrong = ring_of(module), []
    for name in imports_of(source):
        top = name.split(".")[0]
        if top == "trio_voice":
            target = name.split(".")[1] if "." in name else "__init__"
            if not (ROOT / f"{target}.py").exists() and not (ROOT / target).is_dir():
                continue  # a name from the public face
            inner = {"core": {"core"}, "actors": {"core", "actors"}, "edges": {"core", "actors", "edges"}}[ring]
            protocols_of_devices = target == "devices" and name.count(".") <= 2 and ring == "actors"
            wire_of_supervisor = target == "wire" and module == "supervisor.py"
            # Made where it is configured, and loaded only there: who asks for neither needs no extra.
            extras_of_session = module == "session.py" and name.startswith(EXTRAS)
            client_of_tools = module == "mcp_tools.py" and name.startswith("trio_voice.mcp_client")
            allowed_outward = protocols_of_devices or wire_of_supervisor or extras_of_session or client_of_tools
            if ring_of(target) not in inner and not allowed_outward:
                wrong.append(f"{module} ({ring}) imports {name} ({ring_of(target)})")
        elif top not in sys.stdlib_module_names:
            allowed = {"core": CORE_MAY, "actors": ACTORS_MAY}.get(ring)
            if allowed is not None and top not in allowed:
                wrong.append(f"{module} ({ring}) imports {name}")
            if top in ONLY_IMPORTER and module not in ONLY_IMPORTER[top]:
                wrong.append(f"{module} imports {name}, which only {', '.join(ONLY_IMPORTER[top])} may")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_inward(module: str) -> None:
    assert violations(module, (ROOT / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("playback_buffer.py", "import trio"),
        ("protocol/codec.py", "from trio_voice.channels import Play"),
        ("downlink.py", "import trio_websocket"),
        ("conversation.py", "def f():\n    from trio_voice.devices.portaudio import PortAudioSpeaker"),
        ("devices/wav.py", "import sounddevice"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, source: str) -> None:
    assert violations(module, source)
