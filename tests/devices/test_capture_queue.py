from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trio_voice.devices.capture_queue import BACKLOG_MS, CaptureQueue

RATE_HZ = 24_000
FRAME_SAMPLES = 480
BLOCK_S = FRAME_SAMPLES / RATE_HZ
DEVICE_AGE_S = 0.015
"""How old a block is when it arrives from a device that is well."""


def numbered(start: int, count: int) -> bytes:
    """Samples that say where they stand."""
    return np.arange(start, start + count, dtype=np.int64).astype("<i2").tobytes()


class Device:
    """Pushes numbered blocks, each at the time a device would."""

    def __init__(self) -> None:
        self.queue = CaptureQueue(RATE_HZ, FRAME_SAMPLES)
        self.captured = 0

    def push(self, count: int = FRAME_SAMPLES, *, age_s: float = DEVICE_AGE_S, arrived: float | None = None) -> None:
        adc_time = self.captured / RATE_HZ
        self.queue.push(numbered(self.captured, count), adc_time, adc_time + age_s if arrived is None else arrived)
        self.captured += count

    def frames(self) -> list[tuple[bytes, float]]:
        return list(iter(self.queue.take_frame, None))


@given(st.lists(st.integers(1, 2_000), max_size=15))
def test_a_prompt_reader_gets_every_sample_in_whole_frames(sizes: list[int]) -> None:
    device = Device()
    frames = []
    for size in sizes:
        device.push(size)
        frames += device.frames()
    assert all(len(pcm) == 2 * FRAME_SAMPLES for pcm, _ in frames)
    assert b"".join(pcm for pcm, _ in frames) == numbered(0, device.captured // FRAME_SAMPLES * FRAME_SAMPLES)
    assert [adc_time for _, adc_time in frames] == pytest.approx([i * BLOCK_S for i in range(len(frames))])
    assert device.queue.dropped_frames == 0


@given(st.lists(st.one_of(st.integers(1, 1_500), st.just("take")), max_size=60))
def test_a_slow_reader_gets_whole_runs_in_order_and_every_gap_is_counted(steps: list[int | str]) -> None:
    device = Device()
    missing = expected = 0
    for step in steps:
        if isinstance(step, int):
            device.push(step)
            continue
        taken = device.queue.take_frame()
        if taken is None:
            continue
        pcm, adc_time = taken
        first = round(adc_time * RATE_HZ)
        assert pcm == numbered(first, FRAME_SAMPLES)
        assert first >= expected
        missing += first - expected
        expected = first + FRAME_SAMPLES
        assert device.queue.dropped_frames == -(-missing // FRAME_SAMPLES)


def test_a_reader_that_was_away_finds_no_more_than_the_backlog() -> None:
    device = Device()
    for _ in range(100):
        device.push()
    frames = device.frames()
    kept_ms = len(frames) * FRAME_SAMPLES * 1000 / RATE_HZ
    assert BACKLOG_MS <= kept_ms <= BACKLOG_MS + 20
    assert frames[-1][0] == numbered(99 * FRAME_SAMPLES, FRAME_SAMPLES)
    assert device.queue.dropped_frames == 100 - len(frames)


@given(st.integers(20, 200), st.booleans())
def test_a_backlog_that_bursts_in_after_a_stall_is_dropped_down_to_the_fresh_part(
    stalled_blocks: int, reader_keeps_up: bool
) -> None:
    device = Device()
    for _ in range(5):
        device.push()
    assert len(device.frames()) == 5
    resumed_at = (5 + stalled_blocks) * BLOCK_S + DEVICE_AGE_S
    received: list[float] = []
    for block in range(stalled_blocks):
        device.push(arrived=resumed_at + block * 0.0001)
        if reader_keeps_up:
            received += [resumed_at - adc_time for _, adc_time in device.frames()]
    received += [resumed_at - adc_time for _, adc_time in device.frames()]
    assert received
    assert max(received) <= BACKLOG_MS / 1000 + DEVICE_AGE_S + BLOCK_S
    assert device.queue.dropped_frames == stalled_blocks - len(received)


def test_sound_that_is_called_old_but_comes_in_real_time_is_kept() -> None:
    device = Device()
    device.push()
    frames = device.frames()
    for _ in range(50):
        device.push(age_s=0.6)
        frames += device.frames()
    assert len(frames) == 50  # the last one waits to see what follows it
    assert device.queue.dropped_frames == 0
