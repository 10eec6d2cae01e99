"""Start the processes that are measured, pinned apart; read what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.machine import cores

START_TIMEOUT_S = 30


@contextmanager
def paced_server() -> Iterator[str]:
    """A `paced_server` on a core of its own; gives its URL without parameters."""
    core, _ = cores()
    command = [sys.executable, "-m", "benchmarks.paced_server", *_pinned(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the server did not start (exit {process.wait()}); its error is above")
        try:
            yield f"ws://127.0.0.1:{port}/v1/realtime"
        finally:
            process.communicate(timeout=START_TIMEOUT_S)  # the end of its input ends it


def client(
    variant: str,
    url: str,
    *,
    count: int,
    timeout_s: float,
    warm_up: int = 0,
    connect: bool = False,
    realtime: bool = False,
) -> Any:
    """Run one round of `variant` in a new process; returns what it measured.

    Raises: `RuntimeError` with its output if it fails.
    """
    _, core = cores()
    command = [sys.executable, "-m", "benchmarks.client", variant, url, "--count", str(count)]
    command += ["--warm-up", str(warm_up), *_pinned(core)]
    command += [option for option, wanted in (("--connect", connect), ("--realtime", realtime)) if wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{variant} failed (exit {done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])  # after what the session logged


def _pinned(core: int | None) -> list[str]:
    return [] if core is None else ["--core", str(core)]
