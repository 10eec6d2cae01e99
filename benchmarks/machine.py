"""Where figures were taken: processor, versions, load and stolen time. Without them a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import attrs

PACKAGES = ("trio", "trio-websocket", "wsproto", "msgspec", "websockets", "orjson")


def pin(core: int | None) -> None:
    """Keep this process on one core, where the system can."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def run_first() -> None:
    """Have this process run before all ordinary ones from now on: for measuring on a machine that is not quiet.

    Raises: `PermissionError` without the right to it (root has it, or CAP_SYS_NICE).
    """
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def cores() -> tuple[int | None, int | None]:
    """One core for the server and one for the client; (None, None) where there are not two, or no telling."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else (None, None)


def facts() -> dict[str, object]:
    """The machine and the versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": _system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "pinned": cores() != (None, None),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.platform()


@attrs.frozen
class Ticks:
    """What all cores have done since the start, in ticks; zeros where the system does not say."""

    total: int = 0
    busy: int = 0
    stolen: int = 0

    @classmethod
    def now(cls) -> Ticks:
        try:
            first = Path("/proc/stat").read_text().split("\n", 1)[0]
        except OSError:
            return cls()
        user, nice, system, idle, waiting, hard, soft, stolen = (int(value) for value in first.split()[1:9])
        total = user + nice + system + idle + waiting + hard + soft + stolen
        return cls(total, total - idle - waiting - stolen, stolen)

    def shares_until(self, later: Ticks) -> dict[str, float]:
        """Percent of all cores' time between here and `later`."""
        total = max(1, later.total - self.total)
        return {
            "busy_percent": round(100 * (later.busy - self.busy) / total, 1),
            "stolen_percent": round(100 * (later.stolen - self.stolen) / total, 2),
        }


def load_average() -> float:
    return round(os.getloadavg()[0], 2)
