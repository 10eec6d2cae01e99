"""The send time travels inside the sound, so every client reads it the same way: from the PCM it was given.

`time.perf_counter_ns` is CLOCK_MONOTONIC on Linux, one clock for all processes of a machine.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

STAMP_BYTES = 8
PCM_BYTES = 4_800
"""100 ms of pcm16 at 24 kHz: 6,400 characters of base64."""

_HEAD_BYTES = 9
"""A multiple of three, so that the base64 of the rest can be made in advance."""
_REST = base64.b64encode(bytes(range(1, 240)) * 21)[: (PCM_BYTES - _HEAD_BYTES) // 3 * 4]

Take: TypeAlias = Callable[[bytes], bool]
"""Takes a piece of sound as it arrives; True once all were taken."""


_MORE = base64.b64encode(bytes(range(1, 241)) * (PCM_BYTES // 240))


def stamped_base64(pieces: int = 1) -> bytes:
    """`PCM_BYTES` of sound that say when this was called, or so many times as many."""
    stamp = time.perf_counter_ns().to_bytes(STAMP_BYTES, "little")
    return base64.b64encode(stamp + b"\1") + _REST + _MORE * (pieces - 1)


class Arrivals:
    """Notes how long each piece of sound took, and the CPU time of the process over the pieces that count."""

    def __init__(self, warm_up: int, count: int, *, when_warm: Callable[[], None] = lambda: None) -> None:
        self._warm_up = warm_up
        self._last = warm_up + count
        self._when_warm = when_warm
        self._seen = 0
        self._cpu_began_ns = 0
        self.latencies_us: list[float] = []
        self.cpu_us_per_event = 0.0

    def take(self, pcm: bytes) -> bool:
        """One piece has arrived. Returns whether it was the last.

        Raises: `ValueError` for sound of another length: a benchmark of broken sound measures nothing.
        """
        now_ns = time.perf_counter_ns()
        if len(pcm) != PCM_BYTES:
            raise ValueError(f"{len(pcm)} bytes of sound arrived where the server sent {PCM_BYTES}")
        self._seen += 1
        if self._seen > self._warm_up:
            self.latencies_us.append((now_ns - int.from_bytes(pcm[:STAMP_BYTES], "little")) / 1000)
            if self._seen == self._last:
                spent_ns = time.process_time_ns() - self._cpu_began_ns
                self.cpu_us_per_event = spent_ns / 1000 / (self._last - self._warm_up)
                return True
        elif self._seen == self._warm_up:
            self._when_warm()
            self._cpu_began_ns = time.process_time_ns()
        return False


def require_one_clock() -> None:
    """Exit where the send time of one process means nothing to another."""
    if not time.get_clock_info("perf_counter").implementation.startswith("clock_gettime(CLOCK_MONOTONIC"):
        sys.exit("this benchmark compares perf_counter between processes, which needs Linux's CLOCK_MONOTONIC")
