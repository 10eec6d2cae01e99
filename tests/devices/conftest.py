"""The `lab` fixture: device tests run on real PortAudio wherever the audio lab can start."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.lab.pulse import AudioLab, LabUnavailable, audio_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[AudioLab]:
    """The audio lab; skips with the reason where it cannot start, fails when TRIO_VOICE_REQUIRE_LAB=1."""
    try:
        context = audio_lab()
        running = context.__enter__()
    except LabUnavailable as reason:
        if os.environ.get("TRIO_VOICE_REQUIRE_LAB") == "1":
            pytest.fail(f"TRIO_VOICE_REQUIRE_LAB=1, but the audio lab cannot start: {reason}")
        pytest.skip(f"the audio lab cannot start: {reason}")
    try:
        yield running
    finally:
        context.__exit__(None, None, None)
