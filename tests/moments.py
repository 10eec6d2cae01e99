"""Visiting every moment of a run: how often chosen tasks come to rest is counted, and the run is repeated for each.

What the tests of cancellation stand on. The number of moments visited is asserted, so that visiting nothing fails.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
import pytest
import trio
from trio._core import _run as trio_run  # seeded as hypothesis does it: a moment must be the same one in each run
from trio.testing import MockClock

LEAVING_S = 1.1
"""The second that a peer has to agree to the end, and some slack for the scheduler."""
HANG_S = 300.0


@attrs.define(eq=False)
class Moments(trio.abc.Instrument):
    """Counts how often chosen tasks come to rest, and does something at the n-th time."""

    at: float = math.inf
    act: Callable[[], None] = lambda: None
    is_chosen: Callable[[str], bool] = lambda name: True
    root: trio.Nursery | None = None
    """Only tasks in it, and those that they start, count."""
    count: int = 0
    acted_at: float | None = None
    members: set[trio.lowlevel.Task] = attrs.Factory(set)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and (nursery is self.root or nursery.parent_task in self.members):
            self.members.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.members.discard(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.acted_at is not None or task not in self.members or not self.is_chosen(task.name):
            return
        self.count += 1
        if self.count == self.at:
            self.acted_at = trio.current_time()
            self.act()


Body = Callable[[Moments], Awaitable[None]]
"""One run: sets `act` and `root`, and asserts what must be so at its end."""


def run_once(body: Body, moments: Moments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    trio_run._r.seed(0)

    async def main() -> None:
        alive = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(HANG_S):
            await body(moments)
        assert trio.lowlevel.current_statistics().tasks_living == alive

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[moments])


def at_each_moment(
    body: Body,
    monkeypatch: pytest.MonkeyPatch,
    *,
    at_least: int,
    at_most: int = 10_000,
    is_chosen: Callable[[str], bool] = lambda name: True,
) -> int:
    """Run `body` once for each moment, or for `at_most` of them, evenly. Returns how many moments there are."""
    reference = Moments(is_chosen=is_chosen)
    run_once(body, reference, monkeypatch)
    visited = 0
    for moment in evenly(reference.count, at_most):
        moments = Moments(at=moment, is_chosen=is_chosen)
        try:
            run_once(body, moments, monkeypatch)
        except BaseException as error:
            error.add_note(f"cancelled at moment {moment} of {reference.count}")
            raise
        visited += moments.acted_at is not None
    gc.collect()  # a stream or a generator left behind is a warning, and a warning is an error
    assert visited >= at_least, f"only {visited} of {reference.count} moments were visited"
    return reference.count


def evenly(count: int, at_most: int) -> Iterable[int]:
    if count <= at_most:
        return range(1, count + 1)
    return sorted({1 + round(step * (count - 1) / (at_most - 1)) for step in range(at_most)})


async def run_target(moments: Moments, target: Callable[[], Awaitable[None]], neighbours: Iterable[Any] = ()) -> None:
    """Run an actor beside its neighbours, in a scope that `moments` cancels; assert that it is left in time."""
    scope, left_at = trio.CancelScope(), 0.0

    async def in_scope() -> None:
        nonlocal left_at
        with scope:
            await target()
        left_at = trio.current_time()

    moments.act = scope.cancel
    async with trio.open_nursery() as outer:
        for neighbour in neighbours:
            outer.start_soon(neighbour)
        async with trio.open_nursery() as nursery:
            moments.root = nursery
            nursery.start_soon(in_scope)
        outer.cancel_scope.cancel()
    if moments.acted_at is not None:
        assert left_at - moments.acted_at <= LEAVING_S


def is_closed(channel: trio.MemorySendChannel[Any] | trio.MemoryReceiveChannel[Any]) -> bool:
    """Whether the actor at the other end has gone."""
    counts = channel.statistics()
    if isinstance(channel, trio.MemorySendChannel):
        return counts.open_receive_channels == 0
    return counts.open_send_channels == 0
