"""The input buffer's time line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trio_voice.audio import AudioFormat, encode_g711
from trio_voice.server.brain import VAD_WINDOW_SAMPLES
from trio_voice.server.input_audio import InputAudio
from trio_voice.server.scripted import marked_samples, tone


@given(st.lists(st.integers(0, 4000), max_size=20), st.data())
def test_positions_survive_clearing_and_dropping(chunks: list[int], data: st.DataObject) -> None:
    audio = InputAudio(AudioFormat("pcm16", 24_000))
    everything = np.zeros(0, np.int16)
    held_from = 0
    for chunk in chunks:
        samples = marked_samples(3, chunk, start=len(everything))
        audio.append(samples.tobytes())
        everything = np.concatenate([everything, samples])
        drop = data.draw(st.none() | st.integers(0, len(everything)))
        if drop is not None:
            audio.drop_before(drop / 24)
            held_from = max(held_from, drop)
        assert audio.received_ms == pytest.approx(len(everything) / 24)
        assert audio.held_samples == len(everything) - held_from
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(everything))] * 2)))
        np.testing.assert_array_equal(
            audio.between(start / 24, end / 24), everything[max(start, held_from) : max(end, held_from)]
        )


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_windows_are_the_same_sound_at_16_khz(rate_hz: int) -> None:
    audio = InputAudio(AudioFormat("pcm16", rate_hz))
    audio.watch()
    sound = tone(440, 1000, rate_hz)
    windows = []
    for start in range(0, len(sound), rate_hz // 50):
        audio.append(sound[start : start + rate_hz // 50].tobytes())
        windows += list(audio.windows())
    assert {len(window) for window in windows} == {VAD_WINDOW_SAMPLES}
    assert 26 <= len(windows) <= 31  # of 31.25; the resampler holds a little back
    heard = np.concatenate(windows).astype(float)[2000:10000]
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * 16_000 / len(heard) == pytest.approx(440, abs=4)


def test_g711_is_decoded() -> None:
    audio = InputAudio(AudioFormat("pcmu", 8_000))
    sound = tone(300, 100, 8_000)
    audio.append(encode_g711(sound.tobytes(), "pcmu"))
    assert audio.held_ms == 100
    error = audio.between(0, 100).astype(int) - sound.astype(int)
    assert np.abs(error).max() < 600


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="whole 16-bit samples"):
        InputAudio(AudioFormat()).append(b"abc")


def test_another_format_goes_on_where_the_last_one_was() -> None:
    audio = InputAudio(AudioFormat("pcmu", 8_000), started_ms=1234)
    audio.append(bytes(800))
    assert audio.received_ms == 1334
    assert len(audio.between(1284, 9999)) == 400
