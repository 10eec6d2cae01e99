"""What `scripts/bench --only devices` measures, within bounds that hold on a busy machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .pulse import AudioLab

sys.path.insert(0, str(Path(__file__).parents[2]))  # `benchmarks` is no part of what gets installed

from benchmarks import devices_run

pytestmark = pytest.mark.device


@pytest.mark.timeout(180)
async def test_fifty_interruptions_leave_no_stale_sample_and_a_right_account(lab: AudioLab) -> None:
    measured = await devices_run.measure_interruptions(lab, 480, 50)
    assert measured.stale_samples == 0
    assert measured.written_samples > 50 * 4_800
    assert measured.heard_samples <= measured.written_samples
    if not measured.late_callbacks:  # a device that was served late has lost sound, and not by our account
        assert measured.heard_samples >= measured.written_samples - 240, "a null sink swallows 10 ms at the start"
    assert measured.heard_samples >= 0.95 * measured.written_samples
    assert measured.silent_p50_ms <= 100
    assert measured.position_p50_samples <= 480


@pytest.mark.timeout(120)
async def test_sentences_survive_the_death_of_the_sound_server(lab: AudioLab) -> None:
    measured = await devices_run.measure_restarts(lab, 2, [])
    assert measured.finished == 2
    assert measured.lost_most_samples <= 480
    assert measured.repeated_most_samples <= 2_400
    assert measured.back_most_ms <= 5_000
