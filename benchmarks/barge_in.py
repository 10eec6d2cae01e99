"""How soon an application learns that the user speaks, while it is slow and has sixty pieces of sound before it.

From the server's `speech_started` to the application's `Interruption`, on loopback; and whether any sound of the
interrupted answer reached it after that, and all of the next one. Server and client are in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import attrs

from benchmarks.barge_in_client import VARIANTS
from benchmarks.downlink import percentile
from benchmarks.machine import cores

AIM_MS = 5.0
TIMEOUT_S = 300.0
CLIENT = "benchmarks.barge_in_client"


@attrs.frozen
class Plan:
    """How much is measured."""

    times: int = 20
    """Interruptions of each variant."""
    realtime: bool = False
    """Both sides run before all other processes."""


QUICK = Plan(times=1)


@attrs.frozen
class Result:
    """One variant. Times from the server's word to the application, None where there is no such way."""

    variant: str
    interruptions: int
    callback_p50_ms: float | None
    callback_p99_ms: float | None
    """In a callback, `session.on("interruption")`."""
    listener_p50_ms: float
    listener_p99_ms: float
    """In the stream in which the sound is taken too: behind the piece that is being worked on."""
    stale_bytes: int
    """Sound of an interrupted answer that the application got after it had learned of the interruption."""
    speaker_stale_samples: int
    whole_answers: int
    """Answers after an interruption that arrived whole, of as many."""


def measure(plan: Plan) -> list[Result]:
    """Run server and client for each variant.

    Raises: `RuntimeError` with its output if the client fails.
    """
    return [_measure(variant, plan) for variant in VARIANTS]


def _measure(variant: str, plan: Plan) -> Result:
    common = ["--times", str(plan.times), *(["--realtime"] if plan.realtime else [])]
    server_core, client_core = ([] if core is None else ["--core", str(core)] for core in cores())
    command = [sys.executable, "-m", "benchmarks.barge_in_server", *common, *server_core]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"the server did not start (exit {server.wait()}); its error is above")
            client = [sys.executable, "-m", CLIENT, variant, f"ws://127.0.0.1:{port}/v1/realtime", *common]
            done = subprocess.run(
                [*client, *client_core], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        finally:
            server.communicate()  # the end of its input ends it
    if done.returncode:
        raise RuntimeError(f"the client failed (exit {done.returncode}):\n{done.stderr}")
    measured = json.loads(done.stdout.splitlines()[-1])  # after what the session logged
    callback_ms, listener_ms = measured.pop("callback_ms"), measured.pop("listener_ms")
    return Result(
        variant=variant,
        interruptions=len(listener_ms),
        callback_p50_ms=percentile(callback_ms, 50) if callback_ms else None,
        callback_p99_ms=percentile(callback_ms, 99) if callback_ms else None,
        listener_p50_ms=percentile(listener_ms, 50),
        listener_p99_ms=percentile(listener_ms, 99),
        **measured,
    )
