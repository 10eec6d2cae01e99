"""What a real device measures: PortAudio on a private PulseAudio whose monitor hears every sample that was played.

The audio lab of the tests is the sound card. Every sample played is another number, so what comes out of the monitor
says by itself which sample it is, and from which turn. The work is done in a process of its own
(`benchmarks.devices_run`), since PortAudio may be left unfit by a sound server that dies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

TESTS = Path(__file__).parents[1] / "tests"
BLOCKS = (128, 240, 480)
AIM_SILENT_MS = {128: 20.0, 240: 40.0, 480: 60.0}
AIM_POSITION_SAMPLES = 480
AIM_BACK_MS = 1000.0
TIMEOUT_S = 600.0


@attrs.frozen
class Plan:
    """How much is measured."""

    interruptions: int = 50
    """For each size of block."""
    restarts: int = 10
    """Of the sound server, killed in mid-sentence."""
    realtime: bool = False
    """The measuring process, the sound server and the recorder run before all other processes."""


QUICK = Plan(interruptions=3, restarts=1)


@attrs.frozen
class Interruptions:
    """Many interruptions at one size of block."""

    block_samples: int
    silent_p50_ms: float
    """From the interruption until the last sample was heard on the monitor."""
    silent_p99_ms: float
    silent_most_ms: float
    stale_samples: int
    """Heard of an interrupted turn after another turn had begun."""
    written_samples: int
    """Sound that the device took."""
    heard_samples: int
    """Of it, on the monitor."""
    position_p50_samples: float
    """How far the heard position was from the monitor's, either way."""
    position_most_samples: int
    late_callbacks: int
    underflows: int


@attrs.frozen
class Restarts:
    """The sound server killed in mid-sentence and started again."""

    restarts: int
    back_p50_ms: float
    """From its first answer until the loudspeaker took the rest of the sentence; in the air it is some 50 ms later."""
    back_most_ms: float
    repeated_most_samples: int
    """Of the sentence, heard before the death and played again."""
    lost_most_samples: int
    """Of the sentence, neither heard before the death nor played again."""
    finished: int
    """Sentences that were played to the end."""
    abandoned: int
    """Streams whose closing had to be given up: PortAudio 19.6 may spin in one for ever."""


@attrs.frozen
class Result:
    microphone_runs: int
    microphone_exact: int
    """Runs in which everything played to the microphone was captured, bit for bit."""
    interruptions: tuple[Interruptions, ...]
    restarts: Restarts


def measure(plan: Plan) -> Result:
    """Run it all in a process of its own.

    Raises: `RuntimeError` with its output if it fails.
    """
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "benchmarks.devices_run", json.dumps(attrs.asdict(plan))]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False, errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"the devices could not be measured (exit {done.returncode}):\n{done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Result(
        measured["microphone_runs"],
        measured["microphone_exact"],
        tuple(Interruptions(**each) for each in measured["interruptions"]),
        Restarts(**measured["restarts"]),
    )
