"""The loaded engines; each loads once for all tests of this directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trio_voice.server.speech.recogniser import MoonshineRecogniser
    from trio_voice.server.speech.voice import PiperVoice


@pytest.fixture(scope="session")
def recogniser() -> MoonshineRecogniser:
    pytest.importorskip("moonshine_voice")
    from trio_voice.server.speech.recogniser import MoonshineRecogniser

    engine = MoonshineRecogniser()
    engine.load()
    return engine


@pytest.fixture(scope="session")
def voice() -> PiperVoice:
    """Without the model's noise, so that a test hears the same samples each time."""
    pytest.importorskip("onnxruntime")
    from trio_voice.server.speech.voice import PiperVoice

    engine = PiperVoice(lively=False)
    for load in engine.loads():
        load()
    return engine
