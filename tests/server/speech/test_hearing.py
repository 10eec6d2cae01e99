"""The detector and the recogniser, on the caller's recordings and on noise."""

from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trio_voice.audio import resample
from trio_voice.server.speech.detector import probabilities
from trio_voice.server.speech.recogniser import LARGEST_GAIN, PEAK, SILENCE_SAMPLES, pieces, prepared
from trio_voice.server.speech.stop import Stop

from .caller_recordings import caller_lines, telling

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.server.speech.recogniser import MoonshineRecogniser

LINES = caller_lines()
RANDOM = np.random.default_rng(20_261_122)


def noise(count: int, rms: float) -> Samples:
    return (RANDOM.standard_normal(count) * rms).astype(np.int16)


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


@given(st.lists(st.sampled_from([0.0, 0.2, 0.9, 1.0]), max_size=200), st.integers(20, 60))
def test_pieces_are_short_in_order_and_leave_out_only_silence(speech: list[float], longest: int) -> None:
    runs = pieces(speech, longest)
    assert all(len(run) <= longest for run in runs)
    assert all(before.stop <= after.start for before, after in itertools.pairwise(runs))
    kept = {window for run in runs for window in run}
    left_out = [likely if at not in kept else 0.0 for at, likely in enumerate(speech)]
    assert all(min(two) < 0.5 for two in itertools.pairwise(left_out))


def test_a_long_utterance_parts_in_its_pause() -> None:
    speech = [1.0] * 40 + [0.0] * 10 + [1.0] * 40
    first, second = pieces(speech, 60)
    assert 40 <= first.stop <= 50
    assert second == range(first.stop, 91)


@pytest.mark.speech
class TestDetector:
    def test_it_finds_where_speech_begins_and_ends(self) -> None:
        from trio_voice.server.speech.detector import SileroDetector

        spoken = resample(LINES["03-weather"].samples, 24_000, 16_000)
        quiet = noise(16_000, rms=30)
        found = list(probabilities(np.concatenate([quiet, spoken, quiet]), SileroDetector()))
        before, after = len(quiet) // 512, (len(quiet) + len(spoken)) // 512
        assert max(found[:before]) < 0.5
        assert np.mean(np.array(found[before + 8 : after - 8]) > 0.5) > 0.85
        assert max(found[after + 15 :]) < 0.5

    def test_noise_alone_is_no_speech(self) -> None:
        from trio_voice.server.speech.detector import SileroDetector

        assert np.mean(np.array(list(probabilities(noise(48_000, rms=1500), SileroDetector()))) > 0.5) < 0.05

    def test_a_window_of_another_length_is_refused(self) -> None:
        from trio_voice.server.speech.detector import SileroDetector

        with pytest.raises(ValueError, match="512 samples at 16 kHz, this one has 480"):
            SileroDetector().probability(np.zeros(480, np.int16))

    def test_a_lent_model_comes_back_and_remembers_nothing(self) -> None:
        from trio_voice.server.speech.detector import DetectorPool

        pool = DetectorPool()
        pool.fill(1)
        spoken = resample(LINES["04-count"].samples, 24_000, 16_000)[4_000:]
        windows = [spoken[at : at + 512] for at in range(0, 16_000, 512)]
        first = pool.lend()
        model = first._model
        fresh = [first.probability(window) for window in windows]
        del first
        gc.collect()
        second = pool.lend()
        assert second._model is model
        assert [second.probability(window) for window in windows] == fresh


@pytest.mark.speech
@pytest.mark.parametrize("name", sorted(LINES))
def test_the_callers_lines_are_recognised(recogniser: MoonshineRecogniser, name: str) -> None:
    line = LINES[name]
    heard = recogniser.recognise(line.samples, 24_000, Stop())
    for phrase in line.heard:
        assert telling(phrase) in telling(heard.text), heard.text
    assert heard.audio_ms == pytest.approx(len(line.samples) / 24)


@pytest.mark.speech
@pytest.mark.parametrize("name", ["04-count", "05-transfer", "07-other-order"])
def test_they_are_recognised_in_a_quiet_room_too(recogniser: MoonshineRecogniser, name: str) -> None:
    shifted = np.concatenate([np.zeros(137, np.int16), LINES[name].samples])
    heard = recogniser.recognise((shifted * 0.6).astype(np.int16) + noise(len(shifted), rms=20), 24_000, Stop())
    for phrase in LINES[name].heard:
        assert telling(phrase) in telling(heard.text), heard.text


@pytest.mark.speech
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_any_rate_is_heard(recogniser: MoonshineRecogniser, rate_hz: int) -> None:
    samples = resample(LINES["03-weather"].samples, 24_000, rate_hz)
    assert "weather" in recogniser.recognise(samples, rate_hz, Stop()).text


@pytest.mark.speech
def test_nothing_is_heard_where_nothing_was_said(recogniser: MoonshineRecogniser) -> None:
    for sound in (np.zeros(48_000, np.int16), noise(48_000, rms=1000), np.zeros(10, np.int16)):
        assert recogniser.recognise(sound, 24_000, Stop()).text == ""


@pytest.mark.speech
def test_a_long_utterance_is_heard_in_pieces(recogniser: MoonshineRecogniser) -> None:
    names = ["03-weather", "05-transfer", "04-count", "07-other-order"]
    long = np.concatenate([LINES[name].samples for name in names])
    heard = recogniser.recognise(long, 24_000, Stop())
    assert heard.audio_ms > 14_000
    for words in ("weather", "billing department", "please count", "where is my order"):
        assert words in heard.text.lower()


@pytest.mark.speech
def test_a_stopped_recognition_hears_no_more(recogniser: MoonshineRecogniser) -> None:
    stop = Stop()
    stop.set()
    assert recogniser.recognise(LINES["03-weather"].samples, 24_000, stop).text == ""
