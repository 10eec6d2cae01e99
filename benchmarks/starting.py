"""What starting costs: importing trio_voice in a new process, and connecting on loopback."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import attrs

from benchmarks import processes
from benchmarks.downlink import FLOOR

IMPORTS = ("trio", "trio_voice", "trio_voice.session")
AIM_IMPORT_MS, AIM_CONNECT_MS = 300.0, 10.0
CONNECTORS = (FLOOR, "callback")


@attrs.frozen
class ImportTime:
    """Of one package, in new processes with warm file caches, the interpreter's own start not counted."""

    package: str
    median_ms: float
    runs_ms: list[float]


@attrs.frozen
class ConnectTime:
    """Until the server has taken the configuration."""

    variant: str
    first_ms: float
    """In a new process, with whatever is imported late; median over the processes."""
    later_ms: float
    """Median of all others."""


def import_times(runs: int) -> list[ImportTime]:
    """Alternately, after one run of each that fills the caches and does not count, unless it is the only one."""
    taken: dict[str, list[float]] = {package: [] for package in IMPORTS}
    # As on a user's machine, where the first start leaves bytecode for the next.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(runs + 1 if runs > 1 else 1):
        for package, runs_ms in taken.items():
            code = f"import time; t = time.perf_counter(); import {package}; print((time.perf_counter() - t) * 1000)"
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            runs_ms.append(float(done.stdout))
    counted = {package: times[-runs:] for package, times in taken.items()}
    return [ImportTime(package, statistics.median(times), times) for package, times in counted.items()]


def connect_times(rounds: int, count: int) -> list[ConnectTime]:
    """Alternately; `count` connections, one after the other, in each process."""
    taken: dict[str, list[list[float]]] = {variant: [] for variant in CONNECTORS}
    with processes.paced_server() as base:
        for _ in range(rounds):
            for variant, processes_ms in taken.items():
                measured = processes.client(variant, f"{base}?count=0", count=count, connect=True, timeout_s=60)
                processes_ms.append(measured["connect_ms"])
    return [
        ConnectTime(
            variant,
            statistics.median(times[0] for times in processes_ms),
            statistics.median(time for times in processes_ms for time in times[1:]),
        )
        for variant, processes_ms in taken.items()
    ]
