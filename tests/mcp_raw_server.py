"""An MCP server of the kind before 2026, written by hand, with the manners that its arguments name.

python tests/mcp_raw_server.py [deaf] [stubborn] [chatty] [once=FILE] [pages] [dies]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

MANNERS = sys.argv[1:]
ONCE = [Path(manner.removeprefix("once=")) for manner in MANNERS if manner.startswith("once=")]
tools = ["one", "two", "more", "child", "wide"]


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def listed(params: dict[str, Any]) -> dict[str, Any]:
    described = [{"name": name, "description": f"Tool {name}.", "inputSchema": {"type": "object"}} for name in tools]
    if "pages" not in MANNERS:
        return {"tools": described}
    at = int(params.get("cursor", 0))
    return {"tools": described[at : at + 1], **({"nextCursor": str(at + 1)} if at + 1 < len(described) else {})}


def called(name: str) -> str:
    if name == "more":
        tools.append("extra")
        say(method="notifications/tools/list_changed")
    if name == "child":
        return str(subprocess.Popen(["sleep", "600"]).pid)
    if name == "wide":
        sys.stdout.write("x" * 20_000_000)
    return f"{name}: {os.getpid()}"


def main() -> None:
    if ONCE and ONCE[0].exists():
        sys.exit("it has run before")
    for path in ONCE:
        path.write_text(str(os.getpid()))
    if "dies" in MANNERS:
        sys.exit("the database is missing")
    if "stubborn" in MANNERS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "chatty" in MANNERS:
        sys.stdout.write("Welcome to the server!\n{}\n[]\n\n\xff\n")
        sys.stderr.write("starting …\n" * 100_000)
    if "deaf" in MANNERS:
        sys.stderr.write("waiting for the database\n")
        sys.stderr.flush()
        signal.pause()
    for line in sys.stdin:
        message = json.loads(line)
        method, params, number = message.get("method"), message.get("params") or {}, message.get("id")
        if number is None:
            continue
        if method == "initialize":
            about = {"name": "raw", "version": "1"}
            capable = {"tools": {"listChanged": True}}
            say(id=number, result={"protocolVersion": "2025-06-18", "capabilities": capable, "serverInfo": about})
        elif method == "tools/list":
            say(id=number, result=listed(params))
        elif method == "tools/call":
            say(id=number, result={"content": [{"type": "text", "text": called(params["name"])}]})
        else:
            say(id=number, error={"code": -32601, "message": f"no method {method}"})
    while "stubborn" in MANNERS:
        signal.pause()


if __name__ == "__main__":
    main()
