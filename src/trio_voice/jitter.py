"""How much sound to gather before a turn begins to play, from how late its pieces have come.

Core ring: pure. Arrival times are arguments. The playback buffer owns one and asks it each time a turn begins, or goes
on after an underrun.
"""

from __future__ import annotations

WEIGHT = 1 / 16
"""Of a new piece in the running means: the gain of RFC 3550, section 6.4.1 and A.8. A piece has no say any more after
some fifty others."""
DEVIATIONS = 4


class JitterEstimator:
    """Learns from every piece of sound; tells the prebuffer, in milliseconds between two bounds.

    The delay of piece i of a turn is how long a player that had begun with the turn's first piece would have stood
    still by then, with t the arrival and s the sound that came before the piece:

        n = max(0, (t[i] - t[0]) - s[i])

    A server that sends faster than real time has none, however unevenly it sends. From it come a mean, a mean
    deviation, and what is gathered:

        d = d + (n - d) / 16          v = v + (|n - d| - v) / 16          prebuffer = d + 4 v

    This is algorithm 1 of Ramjee, Kurose, Towsley and Schulzrinne, "Adaptive playout mechanisms for packetized audio
    applications in wide-area networks" (INFOCOM 1994), with RFC 3550's weight, so that it learns within one answer. As
    there, the new value counts where sound begins, never in the middle of it.

    A delay beyond the upper bound is a pause of the sender, which no prebuffer bridges: it counts as the bound, once.
    """

    def __init__(self, initial_ms: float, bounds_ms: tuple[float, float]) -> None:
        self._low_ms, self._high_ms = bounds_ms
        self._mean_ms = 0.0
        self.jitter_ms = initial_ms / DEVIATIONS
        """The mean deviation `v`."""
        self._turn = 0
        self._began_at = 0.0
        self._sound_ms = 0.0

    @property
    def prebuffer_ms(self) -> float:
        """What is to be gathered now."""
        return min(self._high_ms, max(self._low_ms, self._mean_ms + DEVIATIONS * self.jitter_ms))

    def observe(self, turn: int, arrived_at: float, duration_ms: float) -> float:
        """A piece of `turn` came at `arrived_at` seconds. Returns its delay in milliseconds."""
        if turn != self._turn:
            self._turn, self._began_at, self._sound_ms = turn, arrived_at, 0.0
        since_ms = (arrived_at - self._began_at) * 1000
        delay_ms = max(0.0, since_ms - self._sound_ms)
        if delay_ms > self._high_ms:
            self._began_at, self._sound_ms = arrived_at, 0.0
        self._sound_ms += duration_ms
        counted_ms = min(delay_ms, self._high_ms)
        self._mean_ms += (counted_ms - self._mean_ms) * WEIGHT
        self.jitter_ms += (abs(counted_ms - self._mean_ms) - self.jitter_ms) * WEIGHT
        return delay_ms
