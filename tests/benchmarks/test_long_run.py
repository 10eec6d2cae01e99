"""The long run holds a conversation, and its session keeps what it was told to. What that weighs is not for a test."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.figures import Options
from rich.console import Console

from benchmarks import long_run, processes, reports_load


@pytest.mark.parametrize("history_turns", [None, 3], ids=["all", "newest"])
def test_a_session_keeps_what_it_was_told_to(history_turns: int | None) -> None:
    found = long_run.main(0.6, virtual=True, history_turns=history_turns)
    assert found["turns"] >= 10
    assert found["tasks_left"] == 0
    assert len(found["memory_mb"]) == len(found["at_minutes"]) >= long_run.SAMPLES - 2
    kept = found["turns"] if history_turns is None else history_turns
    assert 2 * kept - 2 <= found["history_items"] <= 2 * kept


def test_it_is_run_twice_and_only_what_is_bounded_is_aimed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[str, ...]] = []

    def run(module: str, *how: str, timeout_s: float) -> dict[str, Any]:
        runs.append(how)
        bounded = "--history-turns" in how
        found: dict[str, Any] = {"minutes": 60.0, "virtual": True, "turns": 1000}
        found |= {
            "history_turns": 100 if bounded else None,
            "at_minutes": [60],
            "memory_mb": [80.0],
            "growth_mb": 0.1 if bounded else 3.9,
        }
        return found | {"tasks_left": 0, "descriptors_left": 1}

    monkeypatch.setattr(processes, "run", run)
    outcome = reports_load.run_long(Console(quiet=True), Options())
    assert runs == [("--virtual-minutes", "60", "--history-turns", "100"), ("--virtual-minutes", "60")]
    told = {figure.name: (figure.value, figure.aim) for figure in outcome.figures}
    assert told == {
        "memory after the first quarter": (0.1, 3.0),
        "the same where all is kept": (3.9, None),
        "tasks and descriptors left": (2, 0),
    }
