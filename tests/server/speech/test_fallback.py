"""The stand-ins: plainly worse, and they work."""

from __future__ import annotations

import numpy as np
import pytest

from trio_voice.server.speech.fallback import EnergyDetector, EspeakVoice, PocketRecogniser
from trio_voice.server.speech.stop import Stop

from .caller_recordings import caller_lines, telling

RANDOM = np.random.default_rng(7)


def windows_of(rms: float, count: int) -> list[np.typing.NDArray[np.int16]]:
    return [(RANDOM.standard_normal(512) * rms).astype(np.int16) for _ in range(count)]


def test_loudness_is_speech_until_it_stays() -> None:
    detector = EnergyDetector()
    quiet = [detector.probability(window) for window in windows_of(20, 60)]
    loud = [detector.probability(window) for window in windows_of(2000, 60)]
    again = [detector.probability(window) for window in windows_of(20, 30)]
    assert max(quiet) < 0.5
    assert min(loud) > 0.5
    assert max(again) < 0.5
    for window in windows_of(2000, 1500):  # a fan: 48 s
        detector.probability(window)
    assert detector.probability(windows_of(2000, 1)[0]) < 0.5


def test_a_noisy_room_raises_the_floor() -> None:
    detector = EnergyDetector()
    assert max(detector.probability(window) for window in windows_of(40, 100)) < 0.5
    assert detector.probability(windows_of(400, 1)[0]) > 0.5


def test_reset_forgets_the_room() -> None:
    detector = EnergyDetector()
    fresh = detector.probability(np.full(512, 50, np.int16))
    for window in windows_of(3000, 2000):
        detector.probability(window)
    detector.reset()
    assert detector.probability(np.full(512, 50, np.int16)) == fresh


@pytest.mark.speech
class TestEspeak:
    def test_it_speaks_at_the_rate_asked_for(self) -> None:
        pytest.importorskip("espeakng_loader")
        voice = EspeakVoice()
        at_24k = voice.synthesise("Your order has been shipped.", 24_000, 1.0, Stop())
        at_8k = voice.synthesise("Your order has been shipped.", 8_000, 1.0, Stop())
        quick = voice.synthesise("Your order has been shipped.", 24_000, 1.5, Stop())
        assert len(at_24k) > 24_000
        assert len(at_8k) / 8_000 == pytest.approx(len(at_24k) / 24_000, abs=0.01)
        assert len(quick) < 0.8 * len(at_24k)
        assert np.abs(at_24k).max() > 3000

    def test_a_stopped_synthesis_yields_nothing(self) -> None:
        pytest.importorskip("espeakng_loader")
        stop = Stop()
        stop.set()
        assert len(EspeakVoice().synthesise("Nothing of this.", 24_000, 1.0, stop)) == 0


@pytest.mark.speech
def test_pocketsphinx_hears_something_of_a_clear_line() -> None:
    pytest.importorskip("pocketsphinx")
    recogniser = PocketRecogniser()
    heard = recogniser.recognise(caller_lines()["05-transfer"].samples, 24_000, Stop())
    assert telling("billing department") in telling(heard.text), heard.text
    assert recogniser.recognise(np.zeros(16_000, np.int16), 16_000, Stop()).text == ""
