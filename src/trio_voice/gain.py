"""How loud sound is played: a gain that moves in a straight line, for fading in and for ducking.

Core ring: pure. It scales samples, and neither drops nor repeats any; at full gain they pass as they are, bit by bit.
"""

from __future__ import annotations

from trio_voice.audio import BYTES_PER_SAMPLE, samples_of


class Gain:
    """Scales `pcm16` sound by a factor between 0 and 1."""

    def __init__(self) -> None:
        import numpy as np  # here, and not in a device's thread at the first sample that has to be scaled

        self._np = np
        self._level = self._target = 1.0
        self._left = 0

    def move(self, target: float, ramp_samples: int) -> None:
        """Reach `target` after so many samples from now, in a straight line; 0: at once."""
        self._target, self._left = target, ramp_samples
        if not ramp_samples:
            self._level = target

    def set(self, level: float) -> None:
        """Be at `level` now."""
        self.move(level, 0)

    def apply(self, pcm: memoryview) -> memoryview:
        """The same number of samples, scaled."""
        if not self._left and self._level == 1.0:
            return pcm
        np = self._np
        count = len(pcm) // BYTES_PER_SAMPLE
        gains = np.full(count, self._target)
        moving = min(count, self._left)
        if moving:
            step = (self._target - self._level) / self._left
            gains[:moving] = self._level + step * np.arange(1, moving + 1)
            self._left -= moving
            self._level = float(gains[moving - 1]) if self._left else self._target
        return memoryview(np.rint(samples_of(pcm) * gains).astype("<i2").tobytes())
