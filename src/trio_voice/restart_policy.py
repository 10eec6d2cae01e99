"""When to connect or open again, and when to give up. Core ring: pure; time and chance come in as arguments."""

from __future__ import annotations

import random

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """How long to wait before the n-th attempt to reconnect.

    The first retry is immediate: most losses are momentary. From the second on, the wait is drawn evenly between 0
    and a ceiling that grows by `multiplier` (full jitter), so that a thousand clients of one server do not return at
    the same moment.
    """

    max_attempts: int
    first_delay_s: float
    multiplier: float
    longest_delay_s: float = 30.0

    def delay_s(self, attempt: int, rng: random.Random) -> float | None:
        """Seconds to wait before `attempt` (from 1); None: give up."""
        if attempt > self.max_attempts:
            return None
        if attempt <= 1:
            return 0.0
        ceiling_s = self.longest_delay_s
        if self.first_delay_s * self.multiplier ** min(attempt - 2, 1000) < ceiling_s:
            ceiling_s = self.first_delay_s * self.multiplier ** (attempt - 2)
        return rng.uniform(0.0, ceiling_s)


class Reopening(Struct, frozen=True):
    """How long to wait before a device that failed is opened for the n-th time: longer each time, and for ever.

    A device has one user, so nothing is drawn by chance. The longest wait is what a device that is back waits at most.
    """

    first_delay_s: float = 0.1
    multiplier: float = 2.0
    longest_delay_s: float = 0.5

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait before `attempt` (from 1)."""
        return min(self.longest_delay_s, self.first_delay_s * self.multiplier ** min(max(attempt, 1) - 1, 100))


class Attempts(Struct):
    """Counts attempts in a row. What held for `healthy_after_s` clears the count: connecting or opening alone does
    not, or a server that accepts and drops at once would be hammered for ever."""

    healthy_after_s: float
    count: int = 0

    def next(self, connected_for_s: float) -> int:
        """The number of the coming attempt, after a connection that lasted `connected_for_s`."""
        self.count = 1 if connected_for_s >= self.healthy_after_s else self.count + 1
        return self.count


def rotation_delay_s(lifetime_s: float, margin_s: float) -> float:
    """How long to stay on a connection that the server will end after `lifetime_s`.

    The margin is what is left for finding a quiet moment; of a short life it is half at most.
    """
    return max(0.0, lifetime_s - min(margin_s, lifetime_s / 2))
