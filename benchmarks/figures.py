"""What a benchmark found: figures, each with what was aimed at, and the summary of all that a person reads last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table


@attrs.frozen
class Figure:
    """One number that was aimed at."""

    name: str
    value: float
    unit: str = ""
    aim: float | None = None
    at_least: bool = False
    """More is better; else less is."""

    @property
    def is_met(self) -> bool | None:
        """None where nothing is aimed at."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim

    @property
    def aimed_at(self) -> str:
        return "" if self.aim is None else f"{'≥' if self.at_least else '≤'} {self.aim:g}"


@attrs.frozen
class Options:
    """How a person asked for it."""

    quick: bool = False
    realtime: bool = False
    wall_minutes: float = 0.0
    """Of the long run: real ones; 0: an hour of virtual time."""
    progress: Callable[[str], None] = lambda _: None


@attrs.frozen
class Outcome:
    """Of one benchmark."""

    measured: dict[str, Any]
    """For `results.json`."""
    figures: Sequence[Figure] = ()


def tell(console: Console, outcomes: dict[str, Outcome]) -> None:
    """Print all figures beside what was aimed at."""
    table = Table(title="Beside what is aimed at", title_justify="left")
    table.add_column("benchmark", no_wrap=True)
    table.add_column("figure")
    for heading in ("measured", "aim", "met"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, outcome in outcomes.items():
        for figure in outcome.figures:
            met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[figure.is_met]
            table.add_row(name, figure.name, f"{figure.value:.3g} {figure.unit}".strip(), figure.aimed_at, met)
    if table.row_count:
        console.print(table)
