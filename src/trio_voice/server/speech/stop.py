"""How `brain.py`, on the Trio loop, ends what an engine does in a worker thread.

Invariant: after `set` returns, a model's run that was attached ends within one operator (milliseconds), and
whoever looks at `is_set` sees it.
"""

from __future__ import annotations

import threading
from typing import Any


class Stop:
    """Asks an engine in another thread to end. Set once; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run_options: Any = None
        self._is_set = False

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            if self._run_options is not None:
                self._run_options.terminate = True

    @property
    def is_set(self) -> bool:
        return self._is_set

    def attach(self, run_options: Any) -> None:
        """Let `set` end the model's run that is about to start with `run_options`."""
        with self._lock:
            self._run_options = run_options
            if self._is_set:
                run_options.terminate = True
