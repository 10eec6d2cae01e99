"""Who holds the event loop up: an instrument that times each step of each task.

All tasks of a Trio run share one thread. A step that computes for 100 ms is 100 ms in which no sound is handed on and
no interruption noticed. The invariant: nothing here waits, and a step that is short leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import trio

from trio_voice.errors import ConfigError
from trio_voice.logs import log
from trio_voice.tracker import LoopStalls

MOST_TASKS = 64
"""Names of tasks that are counted by themselves; a program may make up names without end."""
OTHERS = "others"


@attrs.define(eq=False)
class _Account:
    count: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0

    def add(self, took_ms: float) -> None:
        self.count += 1
        self.total_ms += took_ms
        self.longest_ms = max(self.longest_ms, took_ms)


class LoopWatch(trio.abc.Instrument):
    """Counts the steps of tasks that take longer than `threshold_ms`, by the name of the task.

    Give it to a session (`RealtimeSession(loop_watch=LoopWatch())`), which installs it while it lives and shows its
    figures in `metrics`; several sessions may share one. Or give it to `trio.run(main, instruments=[watch])`, which
    watches the whole run; a session may be given the same one then.

    A task's first stall, and each that is longer than those before, is logged as `loop.stalled`.
    """

    def __init__(self, threshold_ms: float = 20.0, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` tells real seconds, also where Trio's clock is a virtual one.

        Raises: `ConfigError` for a threshold that is none.
        """
        if not threshold_ms > 0:
            raise ConfigError(f"threshold_ms={threshold_ms!r} is no time; 20 is one frame of the microphone")
        self.threshold_ms = threshold_ms
        self._threshold_s = threshold_ms / 1000
        self._clock = clock
        self._began_at = 0.0
        self._all = _Account()
        self._tasks: dict[str, _Account] = {}
        self._users = 0
        self._whole_run = False

    @property
    def stalls(self) -> LoopStalls:
        """What was seen so far."""
        worst = max(self._tasks, key=lambda name: self._tasks[name].longest_ms, default=None)
        return LoopStalls(self._all.count, self._all.total_ms, self._all.longest_ms, worst)

    def by_task(self) -> Mapping[str, LoopStalls]:
        """The same for each task that was at fault, the longest first."""
        ordered = sorted(self._tasks.items(), key=lambda item: -item[1].longest_ms)
        return {name: LoopStalls(one.count, one.total_ms, one.longest_ms, name) for name, one in ordered}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Installed meanwhile, in the run of the caller."""
        if self._whole_run:
            yield
            return
        if not self._users:
            trio.lowlevel.add_instrument(self)
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                trio.lowlevel.remove_instrument(self)

    # --- what Trio calls --------------------------------------------------------------------------

    def before_run(self) -> None:
        self._whole_run = True

    def after_run(self) -> None:
        self._whole_run = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began_at = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took_s = self._clock() - self._began_at
        if took_s > self._threshold_s:
            self._stalled(task.name, took_s * 1000)

    def _stalled(self, name: str, took_ms: float) -> None:
        self._all.add(took_ms)
        if name not in self._tasks and len(self._tasks) >= MOST_TASKS:
            name = OTHERS
        account = self._tasks.setdefault(name, _Account())
        is_new_longest = took_ms > account.longest_ms
        account.add(took_ms)
        if is_new_longest:
            log.warning("loop.stalled", task=name, took_ms=round(took_ms, 1), threshold_ms=self.threshold_ms)
