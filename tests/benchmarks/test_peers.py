"""Others are measured beside trio-voice, and one that cannot be is named with the reason. The packages are not here."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import pytest
from benchmarks.figures import Options
from benchmarks.load_client import ON_ASYNCIO, VARIANTS
from benchmarks.peers import PEERS, run_peers
from rich.console import Console

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not time.get_clock_info("perf_counter").implementation.startswith("clock_gettime(CLOCK_MONOTONIC"),
        reason="send times are compared between processes, which needs Linux's CLOCK_MONOTONIC",
    ),
]


def environments(out: Path, *names: str) -> None:
    """Have this one stand for the peers' own: it has the openai package, and no framework."""
    for name in names:
        folder = out / "peers" / name
        (folder / "bin").mkdir(parents=True)
        python = folder / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        (folder / "installed").touch()


@pytest.mark.parametrize("name", sorted(PEERS))
def test_each_peer_has_a_client_that_says_how_it_is_configured(name: str) -> None:
    module, function = VARIANTS[name].split(":")
    client = importlib.import_module(module)
    assert callable(getattr(client, function))
    assert client.CONFIGURED == PEERS[name].configured != ""
    assert name in ON_ASYNCIO


def test_a_peer_is_measured_beside_us_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    environments(tmp_path, "raw", "livekit", "pipecat")
    console = Console(record=True, width=200)
    outcome = run_peers(console, Options(quick=True), "raw, livekit, pipecat", tmp_path)
    assert set(outcome.measured["variants"]) == {"floor", "session", "raw"}
    for row in outcome.measured["variants"].values():
        assert min(row["down_ratio"], row["up_ratio"], row["cpu_ratio"]) > 0
    printed = " ".join(console.export_text().split())
    assert "livekit did not run: ModuleNotFoundError: No module named 'livekit'" in printed
    assert "pipecat did not run: ModuleNotFoundError: No module named 'loguru'" in printed
    for name in ("raw", "livekit", "pipecat"):
        assert PEERS[name].configured in printed


def test_one_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such peer: moshi; there are openai-agents, livekit, pipecat, raw"):
        run_peers(Console(), Options(quick=True), "raw,moshi", tmp_path)
