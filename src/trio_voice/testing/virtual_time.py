"""Trio's clock for a simulation: it jumps to whatever is due next as soon as nothing can run.

As `trio.testing.MockClock(autojump_threshold=0)`, but for less: the jump takes no pass of Trio's loop, and what happens
many times a second for hours, a frame of the microphone or a block of the loudspeaker, needs neither a cancel scope
nor, for the loudspeaker, a task. The invariant: what is due happens in the order of its time, and of two that are due
at once the one that was asked for first. Like `MockClock` it does not see threads or sockets.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
import trio.abc

STANDS_STILL = 50_000
"""Looks at the clock with no time between them: a task waits again and again for what is past. Another clock would go
on meanwhile, and so does this one then, by a second."""


LOOKS_OUTSIDE_AT = 64
"""Passes of Trio's loop between two looks at sockets, in a world that has none: a signal has to be seen."""


@contextmanager
def without_sockets() -> Iterator[None]:
    """Spares Trio's loop its call to the system in each pass, where nothing is awaited: an eighth of all the time."""
    if sys.platform != "linux":
        yield
        return
    from trio._core._run import TheIOManager  # type: ignore[attr-defined]  # there is no public name for it

    passes = itertools.cycle(range(LOOKS_OUTSIDE_AT))
    look = TheIOManager.get_events

    def seldom(self: Any, timeout: float) -> Any:
        return look(self, timeout) if timeout > 0 or not next(passes) else []

    TheIOManager.get_events = seldom  # type: ignore[method-assign]  # for the while, and put back
    try:
        yield
    finally:
        TheIOManager.get_events = look  # type: ignore[method-assign]  # as it was


class VirtualClock(trio.abc.Clock):
    """Begins at 0. For one `trio.run`."""

    def __init__(self) -> None:
        self._now = 0.0
        self._looks = 0
        self.stood_still_at: float | None = None
        """The first time at which it would have done so for ever."""
        self._due: list[tuple[float, int, Callable[[], bool]]] = []
        self._order = itertools.count()

    def start_clock(self) -> None:
        """Trio's loop begins."""

    def current_time(self) -> float:
        self._looks += 1
        if self._looks > STANDS_STILL:
            self.stood_still_at = self._now if self.stood_still_at is None else self.stood_still_at
            self._go_on(self._now + 1.0)
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by Trio's loop when no task can run: go on to the next deadline, or to what is due before it."""
        due = self._due
        while due and due[0][0] <= deadline:
            at, _, happen = heapq.heappop(due)
            self._go_on(at)
            if happen():
                return 0.0
        if deadline == float("inf"):
            return deadline
        self._go_on(deadline)
        return 0.0

    def _go_on(self, at: float) -> None:
        if at > self._now:
            self._now, self._looks = at, 0

    async def sleep_until(self, at: float) -> None:
        """As `trio.sleep_until`. Cancellation: as there."""
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

        def wake() -> bool:
            if task is None:
                return False
            trio.lowlevel.reschedule(task)
            return True

        def forget(_: object) -> trio.lowlevel.Abort:
            nonlocal task
            task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._ask(at, wake)
        await trio.lowlevel.wait_task_rescheduled(forget)

    @contextmanager
    def every(self, interval_s: float, happen: Callable[[], None]) -> Iterator[None]:
        """Inside, `happen` is called now and after each `interval_s`. It must not wake a task."""
        due_at, over = self._now, False

        def tick() -> bool:
            nonlocal due_at
            if not over:
                happen()
                due_at += interval_s
                self._ask(due_at, tick)
            return False

        self._ask(due_at, tick)
        try:
            yield
        finally:
            over = True

    def _ask(self, at: float, happen: Callable[[], bool]) -> None:
        heapq.heappush(self._due, (at, next(self._order), happen))
