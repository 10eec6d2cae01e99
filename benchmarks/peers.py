"""Other packages beside trio-voice, each in an environment of its own, through its public API, on the same server.

An environment is made when it is first asked for, below the folder of the results, from PyPI. Fair means: what a peer
was configured to do is printed, and one that cannot be installed or does not run is named with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks import load, peer_agents, peer_livekit, peer_pipecat, peer_raw, processes
from benchmarks.figures import Options, Outcome
from benchmarks.load import Round

INSTALL_TIMEOUT_S = 900.0


@attrs.frozen
class Peer:
    """One that can be asked for."""

    requires: tuple[str, ...]
    configured: str


PEERS = {
    "openai-agents": Peer(("openai-agents", "websockets"), peer_agents.CONFIGURED),
    "livekit": Peer(("livekit-agents", "livekit-plugins-openai"), peer_livekit.CONFIGURED),
    "pipecat": Peer(("pipecat-ai[openai]",), peer_pipecat.CONFIGURED),
    "raw": Peer(("openai[realtime]",), peer_raw.CONFIGURED),
}
OURS = ("floor", "session")
SESSIONS = 25


def environment(name: str, where: Path) -> Path:
    """The interpreter of the peer's environment, made on first use.

    Raises: `RuntimeError` saying what pip said.
    """
    folder = where / "peers" / name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    if not stamp.exists():
        steps = (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *PEERS[name].requires, "attrs"],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
            if done.returncode:
                raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
        stamp.touch()
    return python.absolute()


def version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def run_peers(console: Console, options: Options, names: str, out: Path) -> Outcome:
    """Downlink, uplink, CPU and memory of each peer, the floor and trio-voice, alternately."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(asked) - set(PEERS))
    if unknown:
        raise RuntimeError(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    pythons: dict[str, str | None] = dict.fromkeys(OURS)
    notes: list[str] = []
    for name in asked:
        peer = PEERS[name]
        options.progress(f"peers: an environment for {name}")
        try:
            python = environment(name, out)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            notes.append(f"{name} could not be installed: {error}")
            continue
        pythons[name] = str(python)
        package = peer.requires[0].partition("[")[0]
        notes.append(f"{name}: {package} {version(python, package)}; {peer.configured}.")
    rounds: dict[str, list[tuple[Round, Round, Round]]] = {name: [] for name in pythons}
    count, seconds, many = (1, 1.0, 5) if options.quick else (3, 4.0, SESSIONS)
    with processes.load_server() as server:
        for number in range(count):
            for name in list(pythons)[number % len(pythons) :] + list(pythons)[: number % len(pythons)]:
                options.progress(f"peers: round {number + 1} of {count}, {name}")
                try:
                    rounds[name].append(_round(server, name, pythons[name], seconds, many, realtime=options.realtime))
                except RuntimeError as error:
                    if name in OURS:
                        raise
                    notes.append(f"{name} did not run: {str(error).strip().splitlines()[-1]}")
                    del pythons[name], rounds[name]
    notes += [
        f"{name} gathers the frames of 20 ms that it is given: its way up is with the wait for the others."
        for name, of in rounds.items()
        if any(speaks.other_frames for _, speaks, _ in of)
    ]
    measured = _summary(rounds)
    table = Table(title="Peers, on the same server in the same run", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("down p50 ÷ floor", "up p50 ÷ floor", f"CPU ÷ floor, {many} sessions", "MB a session"):
        table.add_column(heading, justify="right")
    for name, row in measured.items():
        cells = (f"{row['down_ratio']:.2f}", f"{row['up_ratio']:.2f}", f"{row['cpu_ratio']:.2f}")
        table.add_row("trio-voice" if name == "session" else name, *cells, f"{row['memory_mb']:.2f}")
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False)  # a configuration may have brackets
    return Outcome({"variants": measured, "notes": notes})


def _round(
    server: processes.LoadServer, name: str, python: str | None, seconds: float, many: int, *, realtime: bool
) -> tuple[Round, Round, Round]:
    """One session that hears, one that speaks, many that do both."""
    measured = partial(load.one_round, server, name, seconds=seconds, realtime=realtime, python=python)
    return (
        measured("down_ms=20", sessions=1, microphone=False),
        measured("frames=1", sessions=1),
        measured("down_ms=100", sessions=many),
    )


def _summary(rounds: dict[str, list[tuple[Round, Round, Round]]]) -> dict[str, Any]:
    down = load.summarise({name: [each[0] for each in of] for name, of in rounds.items()}, up=False)
    up = load.summarise({name: [each[1] for each in of] for name, of in rounds.items()}, up=True)
    many = load.summarise({name: [each[2] for each in of] for name, of in rounds.items()}, up=False)
    return {
        hears.variant: {
            "down_ratio": hears.p50_ratio,
            "down_p50_us": hears.p50_us,
            "down_p99_us": hears.p99_us,
            "up_ratio": speaks.p50_ratio,
            "up_p50_us": speaks.p50_us,
            "up_p99_us": speaks.p99_us,
            "cpu_ratio": both.cpu_ratio,
            "cpu_s": both.cpu_s,
            "memory_mb": both.memory_mb,
        }
        for hears, speaks, both in zip(down, up, many, strict=True)
    }
