"""The benchmark runs from its script and its figures make sense. How large they are is not for a test to say."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = [sys.executable, "-m", "benchmarks.client"]

pytestmark = [
    pytest.mark.timeout(180),  # three benchmarks, one after the other
    pytest.mark.skipif(
        not time.get_clock_info("perf_counter").implementation.startswith("clock_gettime(CLOCK_MONOTONIC"),
        reason="send times are compared between processes, which needs Linux's CLOCK_MONOTONIC",
    ),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    environment = {**os.environ, "PYTHON": sys.executable, "VENV": str(out / "none")}
    command = [str(ROOT / "scripts" / "bench"), "--quick", "--out", str(out)]
    command += [word for name in ("downlink", "import", "connect") for word in ("--only", name)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    read: dict[str, Any] = json.loads((out / "results.json").read_text())
    read["printed"] = done.stdout
    return read


def test_every_variant_received_every_event(results: dict[str, Any]) -> None:
    plan = results["downlink"]["plan"]
    received = {name: variant["events"] for name, variant in results["downlink"]["variants"].items()}
    assert received == dict.fromkeys(
        ("floor", "websocket", "callback", "events", "speaker"), plan["count"] * plan["rounds"]
    )


def test_latencies_and_costs_are_positive_and_ordered(results: dict[str, Any]) -> None:
    for variant in results["downlink"]["variants"].values():
        assert 0 < variant["p50_us"] <= variant["p99_us"] < 60e6
        assert variant["cpu_us_per_event"] > 0


def test_ratios_are_to_the_floor(results: dict[str, Any]) -> None:
    variants = results["downlink"]["variants"]
    floor = variants["floor"]
    assert floor["p50_ratio"] == floor["p99_ratio"] == floor["cpu_ratio"] == 1
    for variant in variants.values():
        assert math.isclose(variant["p99_ratio"], variant["p99_us"] / floor["p99_us"])
        assert math.isclose(variant["cpu_ratio"], variant["cpu_us_per_event"] / floor["cpu_us_per_event"])
        low, high = variant["p50_ratio_range"]
        assert low <= variant["p50_ratio"] <= high


def test_starting_is_measured(results: dict[str, Any]) -> None:
    assert all(results["import"][package]["median_ms"] > 0 for package in ("trio", "trio_voice"))
    assert all(results["connect"][variant]["later_ms"] > 0 for variant in ("floor", "callback"))


def test_the_machine_is_named_in_results_and_table(results: dict[str, Any]) -> None:
    machine = results["machine"]
    assert machine["python"] in results["printed"]
    assert machine["cores"] == os.cpu_count()
    assert {"average_before", "average_after", "busy_percent", "stolen_percent"} <= set(results["load"])


def test_a_client_that_fails_fails_the_benchmark(tmp_path: Path) -> None:
    nobody = "ws://127.0.0.1:9/v1/realtime"
    done = subprocess.run([*CLIENT, "callback", nobody, "--count", "1"], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode != 0
