"""Start the processes that are measured, pinned apart; read what they say."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from benchmarks.machine import cores

START_TIMEOUT_S = 30
SAYING_TIMEOUT_S = 10


@contextmanager
def _started(module: str) -> Iterator[tuple[IO[str], str]]:
    """A server of ours on a core of its own: its standard output, and its port. The end of its input ends it."""
    core, _ = cores()
    command = [sys.executable, "-m", module, *_pinned(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the server did not start (exit {process.wait()}); its error is above")
        try:
            yield process.stdout, port
        finally:
            process.stdin.close()
            process.wait(timeout=START_TIMEOUT_S)


@contextmanager
def paced_server() -> Iterator[str]:
    """A `paced_server` on a core of its own; gives its URL without parameters."""
    with _started("benchmarks.paced_server") as (_, port):
        yield f"ws://127.0.0.1:{port}/v1/realtime"


class LoadServer:
    """A `load_server` that runs."""

    def __init__(self, lines: IO[str], port: str) -> None:
        self.base = f"ws://127.0.0.1:{port}/v1/realtime"
        self._said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def _listen(self, lines: IO[str]) -> None:
        for line in lines:
            self._said.put(line)

    def said(self) -> Any:
        """What it has measured of the next connection that ended.

        Raises: `RuntimeError` if none does in time.
        """
        try:
            return json.loads(self._said.get(timeout=SAYING_TIMEOUT_S))
        except queue.Empty:
            raise RuntimeError("the server heard nothing of what was sent") from None


@contextmanager
def load_server() -> Iterator[LoadServer]:
    """A `load_server` on a core of its own."""
    with _started("benchmarks.load_server") as (said, port):
        yield LoadServer(said, port)


def run(module: str, *arguments: str, timeout_s: float, python: str = sys.executable) -> Any:
    """Run a module of ours in a new process, on the clients' core; returns the JSON that it prints last.

    Raises: `RuntimeError` with its output if it fails or takes too long.
    """
    _, core = cores()
    command = [python, "-m", module, *arguments, *_pinned(core)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"{module} {' '.join(arguments)} took more than {timeout_s:g} s") from late
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed (exit {done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


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
