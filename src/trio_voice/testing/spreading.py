"""Work spread over processes, its results in the order of the work.

Between `simulate.py` and the conversations. The invariant: what comes out does not depend on how many processes there
are; and none of them is left, however it ends.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from trio_voice import logs

T = TypeVar("T")
R = TypeVar("R")


def devote_process() -> None:
    """Make this process one for simulations: no log; cycles are looked for seldom, and not in the modules."""
    logs.prepare()  # now, not in the first conversation
    logging.getLogger("trio_voice").setLevel(logging.CRITICAL)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _devote_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    devote_process()


def _end_with_parent() -> None:
    """A first process that was killed ends nobody: a worker would wait for it, or work on, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def spread(work: Callable[[T], R], items: Iterable[T], jobs: int) -> Generator[R, None, None]:
    """`work` of each item, in order, by `jobs` processes; by this one if that is 1. Close it to end them all.

    `items` may be endless: they are taken as they are needed, and a few ahead. Raises: what `work` does.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    before = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, mp_context=context, initializer=_devote_worker)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(work, item))
            if len(waiting) > jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for process in multiprocessing.active_children():
            if process not in before:
                process.kill()
        executor.shutdown(cancel_futures=True)
