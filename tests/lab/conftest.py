"""The `lab` fixture: tests in this folder run on real PortAudio wherever the audio lab can start."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from .pulse import AudioLab, LabUnavailable, audio_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[AudioLab]:
    """The audio lab; skips with the reason where it cannot start, fails if TRIO_VOICE_REQUIRE_LAB=1."""
    with contextlib.ExitStack() as ends:
        try:
            running = ends.enter_context(audio_lab())
        except LabUnavailable as reason:
            if os.environ.get("TRIO_VOICE_REQUIRE_LAB") == "1":
                pytest.fail(f"TRIO_VOICE_REQUIRE_LAB=1, but the audio lab cannot start: {reason}")
            pytest.skip(f"the audio lab cannot start: {reason}")
        yield running
