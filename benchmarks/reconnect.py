"""From a reset socket to a resumed session, on loopback, while the agent speaks and the microphone is open.

The server resets the connection (TCP RST) and notes when; the session connects again, configures, restores the
conversation and opens the uplink. Both sides are trio-voice, each in a process and on a core of its own, and share a
clock. The wait before a second attempt is not in it: the first attempt follows at once.
"""

from __future__ import annotations

import json
import subprocess
import sys

import attrs

from benchmarks.downlink import percentile
from benchmarks.machine import cores

AIM_MS = 110.0
TIMEOUT_S = 120.0
CLIENT = "benchmarks.reconnect_client"


@attrs.frozen
class Plan:
    """How much is measured."""

    resets: int = 50
    exchanges: int = 10
    """Questions and answers before the first reset: each resume restores them."""
    realtime: bool = False
    """Both sides run before all other processes."""


QUICK = Plan(resets=3, exchanges=2)


@attrs.frozen
class Result:
    """Times from the reset; gaps over all of it."""

    resets: int
    connected_p50_ms: float
    """To `Connected(resumed=True)`: the server has taken the configuration."""
    connected_p99_ms: float
    uplink_p50_ms: float
    """To the first frame of the microphone on the wire, behind the restored conversation. Frames are 20 ms apart."""
    uplink_p99_ms: float
    gap_ms: float
    """Silence in the answer that played from the first reset to the last."""
    latest_block_ms: float
    """How late the speaker was served at most: a device's own buffer has to bridge it."""


def measure(plan: Plan) -> Result:
    """Run server and client.

    Raises: `RuntimeError` with its output if the client fails.
    """
    first = ["--realtime"] if plan.realtime else []
    server_core, client_core = (first if core is None else [*first, "--core", str(core)] for core in cores())
    command = [sys.executable, "-m", "benchmarks.reconnect_server", *server_core]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url, _, door = server.stdout.readline().strip().partition(" ")
            if not door:
                raise RuntimeError(f"the server did not start (exit {server.wait()}); its error is above")
            client = [sys.executable, "-m", CLIENT, url, door, *client_core]
            client += ["--count", str(plan.resets), "--exchanges", str(plan.exchanges)]
            done = subprocess.run(client, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        finally:
            server.communicate()  # the end of its input ends it
    if done.returncode:
        raise RuntimeError(f"the client failed (exit {done.returncode}):\n{done.stderr}")
    measured = json.loads(done.stdout)
    connected_ms, uplink_ms = measured["connected_ms"], measured["uplink_ms"]
    return Result(
        resets=len(connected_ms),
        connected_p50_ms=percentile(connected_ms, 50),
        connected_p99_ms=percentile(connected_ms, 99),
        uplink_p50_ms=percentile(uplink_ms, 50),
        uplink_p99_ms=percentile(uplink_ms, 99),
        gap_ms=measured["gap_ms"],
        latest_block_ms=measured["latest_block_ms"],
    )
