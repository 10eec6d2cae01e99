"""The scripted brain's samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from trio_voice.server.scripted import LoudnessDetector, marked_samples, tone, turns_in


@given(st.integers(0, 126), st.integers(1, 2000), st.integers(0, 100_000))
def test_each_sample_tells_its_turn_and_none_is_silence(turn: int, count: int, start: int) -> None:
    samples = marked_samples(turn, count, start)
    assert samples.dtype == np.int16
    assert len(samples) == count
    assert np.all(samples != 0)
    assert turns_in(samples) == [turn]
    np.testing.assert_array_equal(samples[1:], marked_samples(turn, count - 1, start + 1))


def test_turns_are_told_apart_and_silence_belongs_to_none() -> None:
    mixed = np.concatenate([marked_samples(4, 10), np.zeros(5, np.int16), marked_samples(2, 1)])
    assert turns_in(mixed) == [2, 4]


def test_the_detector_hears_loudness() -> None:
    detector = LoudnessDetector()
    assert detector.probability(tone(200, 32, 16_000)) == 1.0
    assert detector.probability(tone(200, 32, 16_000, amplitude=0.001)) == 0.0
