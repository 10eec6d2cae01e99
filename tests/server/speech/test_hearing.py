"""The detector and the recogniser, on the caller's recordings and on noise."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from caller_recordings import caller_lines, telling

from trio_voice.audio import resample
from trio_voice.server.speech.recogniser import LARGEST_GAIN, PEAK, SILENCE_SAMPLES, prepared

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.server.brain import SpeechDetector
    from trio_voice.server.speech.recogniser import MoonshineRecogniser

LINES = caller_lines()
RANDOM = np.random.default_rng(20_261_122)


def noise(count: int, rms: float) -> Samples:
    return (RANDOM.standard_normal(count) * rms).astype(np.int16)


def probabilities(detector: SpeechDetector, samples: Samples) -> list[float]:
    return [detector.probability(samples[at : at + 512]) for at in range(0, len(samples) - 511, 512)]


def test_quiet_speech_is_raised_but_not_without_limit() -> None:
    loud, faint = np.full(1600, 300, np.int16), np.full(1600, 300, np.int16)
    loud[::2], faint[::2] = -10_000, -10_000
    faint = (faint // 300).astype(np.int16)
    assert np.abs(prepared(loud)).max() == pytest.approx(PEAK)
    assert np.abs(prepared(faint)).max() == pytest.approx(np.ptp(faint) / 2 / 32768 * LARGEST_GAIN, rel=0.01)


def test_silence_stands_on_both_sides_and_an_offset_is_gone() -> None:
    audio = prepared(np.tile(np.array([900, 1100], np.int16), 800))
    assert len(audio) == 1600 + 2 * SILENCE_SAMPLES
    assert not audio[:SILENCE_SAMPLES].any()
    assert not audio[-SILENCE_SAMPLES:].any()
    assert audio.mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.speech
class TestDetector:
    def test_it_finds_where_speech_begins_and_ends(self) -> None:
        from trio_voice.server.speech.detector import SileroDetector

        spoken = resample(LINES["03-weather"].samples, 24_000, 16_000)
        quiet = noise(16_000, rms=30)
        found = probabilities(SileroDetector(), np.concatenate([quiet, spoken, quiet]))
        before, after = len(quiet) // 512, (len(quiet) + len(spoken)) // 512
        assert max(found[:before]) < 0.5
        assert np.mean(np.array(found[before + 8 : after - 8]) > 0.5) > 0.85
        assert max(found[after + 15 :]) < 0.5

    def test_noise_alone_is_no_speech(self) -> None:
        from trio_voice.server.speech.detector import SileroDetector

        assert np.mean(np.array(probabilities(SileroDetector(), noise(48_000, rms=1500))) > 0.5) < 0.05

    def test_a_window_of_another_length_is_refused(self) -> None:
        from trio_voice.server.speech.detector import SileroDetector

        with pytest.raises(ValueError, match="512 samples at 16 kHz, this one has 480"):
            SileroDetector().probability(np.zeros(480, np.int16))

    def test_a_lent_model_comes_back_and_remembers_nothing(self) -> None:
        from trio_voice.server.speech.detector import DetectorPool

        pool = DetectorPool()
        pool.fill(1)
        spoken = resample(LINES["04-count"].samples, 24_000, 16_000)
        first = pool.lend()
        model = first._model
        fresh = probabilities(first, spoken)
        del first
        gc.collect()
        second = pool.lend()
        assert second._model is model
        assert probabilities(second, spoken) == fresh


@pytest.mark.speech
@pytest.mark.parametrize("name", sorted(LINES))
@pytest.mark.parametrize("lead", ["clean", "quiet room"])
def test_the_callers_lines_are_recognised(recogniser: MoonshineRecogniser, name: str, lead: str) -> None:
    line = LINES[name]
    samples = line.samples
    if lead == "quiet room":
        samples = (np.concatenate([np.zeros(137, np.int16), samples]) * 0.6).astype(np.int16)
        samples = samples + noise(len(samples), rms=20)
    heard = recogniser.recognise(samples, 24_000)
    for phrase in line.heard:
        assert telling(phrase) in telling(heard.text), heard.text
    assert heard.audio_ms == pytest.approx(len(samples) / 24)


@pytest.mark.speech
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_any_rate_is_heard(recogniser: MoonshineRecogniser, rate_hz: int) -> None:
    samples = resample(LINES["03-weather"].samples, 24_000, rate_hz)
    assert "weather" in recogniser.recognise(samples, rate_hz).text


@pytest.mark.speech
def test_nothing_is_heard_where_nothing_was_said(recogniser: MoonshineRecogniser) -> None:
    for sound in (np.zeros(48_000, np.int16), noise(48_000, rms=1000), np.zeros(10, np.int16)):
        assert recogniser.recognise(sound, 24_000).text == ""
