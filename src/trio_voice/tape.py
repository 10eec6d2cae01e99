"""What a loudspeaker took, for those who want to keep it: a bounded queue from its thread to Trio's.

Core ring: pure; the clock is given. The invariant: within one opening of the device the pieces join without a seam, as
they are timed by counting samples; only where pieces were dropped, or not wanted, a gap is left in their times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct, field

from trio_voice.audio import BYTES_PER_SAMPLE

TAPE_BLOCKS = 512
"""Blocks that wait for Trio's thread; then the oldest are dropped. Ten seconds of 20 ms, nearly three of 5 ms."""


class Tape(Struct, eq=False):
    """One opening of a loudspeaker. Written in the device's thread, taken from in Trio's."""

    rate_hz: int
    clock: Callable[[], float]
    """Seconds; may be asked in any thread."""
    latency_samples: int = 0
    """From the moment in which a sample is taken until it is heard."""
    _began_at: float | None = None
    _samples: int = 0
    _blocks: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=TAPE_BLOCKS))
    _taken: bool = False

    @property
    def is_timed(self) -> bool:
        """Pieces were taken already: their times stand."""
        return self._taken

    def record(self, pcm: bytes, *, wanted: bool) -> None:
        """The device took this block. In its thread; never waits."""
        if self._began_at is None:
            self._began_at = self.clock()
        if wanted:
            self._blocks.append((self._samples, pcm))
        self._samples += len(pcm) // BYTES_PER_SAMPLE

    def take(self) -> list[tuple[float, bytes]]:
        """What has come since: when its first sample is heard, and the sound, neighbours joined."""
        joined: list[tuple[int, bytearray]] = []
        while self._blocks:
            start, pcm = self._blocks.popleft()
            if joined and start == joined[-1][0] + len(joined[-1][1]) // BYTES_PER_SAMPLE:
                joined[-1][1].extend(pcm)
            else:
                joined.append((start, bytearray(pcm)))
        self._taken = self._taken or bool(joined)
        began_at = (self._began_at or 0.0) + self.latency_samples / self.rate_hz
        return [(began_at + start / self.rate_hz, bytes(pcm)) for start, pcm in joined]
