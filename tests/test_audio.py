from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trio_voice.audio import (
    AudioFormat,
    Encoding,
    Samples,
    StreamResampler,
    decode_g711,
    encode_g711,
    level_dbfs,
    resample,
    samples_of,
)
from trio_voice.server.scripted import tone

RATES_HZ = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]
rates = st.sampled_from(RATES_HZ)
encodings: st.SearchStrategy[Encoding] = st.sampled_from(["pcm16", "pcmu", "pcma"])
formats = st.builds(AudioFormat, encodings, rates)
G711: list[Literal["pcmu", "pcma"]] = ["pcmu", "pcma"]


@given(formats, st.integers(0, 100_000_000))
def test_samples_to_milliseconds_and_back_is_where_it_began(audio_format: AudioFormat, samples: int) -> None:
    assert audio_format.samples_of_ms(audio_format.ms_of_samples(samples)) == samples


@given(formats, st.floats(0, 4_000_000))
def test_lengths_are_whole_samples_rounded_down(audio_format: AudioFormat, duration_ms: float) -> None:
    samples = audio_format.samples_of_ms(duration_ms)
    assert audio_format.ms_of_samples(samples) <= duration_ms + 1e-6
    assert audio_format.ms_of_samples(samples + 1) > duration_ms - 1e-6
    assert audio_format.bytes_of_ms(duration_ms) == samples * audio_format.bytes_per_sample
    assert audio_format.ms_of_bytes(audio_format.bytes_of_ms(duration_ms)) == audio_format.ms_of_samples(samples)


def test_the_usual_frame() -> None:
    assert AudioFormat().bytes_of_ms(20) == 960
    assert AudioFormat("pcmu", 8_000).bytes_of_ms(20) == 160
    assert AudioFormat().ms_of_bytes(961) == 20


@pytest.mark.parametrize("rate_hz", [0, 7_999, 48_001])
def test_a_rate_nobody_uses_is_refused(rate_hz: int) -> None:
    with pytest.raises(ValueError, match=r"outside 8000\.\.48000"):
        AudioFormat(rate_hz=rate_hz)


def test_an_odd_byte_is_no_sample() -> None:
    assert samples_of(b"\x01\x00\xff\xff").tolist() == [1, -1]
    with pytest.raises(ValueError):
        samples_of(b"\x01\x00\xff")


# --- G.711 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "code", "value"),
    [
        ("pcmu", 0xFF, 0),
        ("pcmu", 0x7F, 0),
        ("pcmu", 0x00, -32124),
        ("pcmu", 0x80, 32124),
        ("pcmu", 0xFE, 8),
        ("pcmu", 0xEF, 132),
        ("pcmu", 0x8F, 16764),
        ("pcma", 0xD5, 8),
        ("pcma", 0x55, -8),
        ("pcma", 0x2A, -32256),
        ("pcma", 0xAA, 32256),
        ("pcma", 0xD4, 24),
        ("pcma", 0xC5, 264),
    ],
)
def test_codes_of_the_standard(encoding: Literal["pcmu", "pcma"], code: int, value: int) -> None:
    assert samples_of(decode_g711(bytes([code]), encoding)).tolist() == [value]
    assert decode_g711(encode_g711(np.array([value], "<i2").tobytes(), encoding), encoding) == decode_g711(
        bytes([code]), encoding
    )


@pytest.mark.parametrize("encoding", G711)
def test_every_code_comes_back_as_the_same_sound(encoding: Literal["pcmu", "pcma"]) -> None:
    sound = decode_g711(bytes(range(256)), encoding)
    assert decode_g711(encode_g711(sound, encoding), encoding) == sound
    assert len(set(samples_of(sound).tolist())) == (255 if encoding == "pcmu" else 256)


@pytest.mark.parametrize("encoding", G711)
def test_the_error_is_at_most_half_a_step_of_the_segment(encoding: Literal["pcmu", "pcma"]) -> None:
    samples = np.arange(-32768, 32768).astype("<i2")
    decoded = samples_of(decode_g711(encode_g711(samples.tobytes(), encoding), encoding)).astype(int)
    errors = np.abs(decoded - samples)
    loudness = np.abs(samples.astype(int))
    inside = loudness <= (32124 if encoding == "pcmu" else 32256)
    # Sixteen steps to a segment that doubles: half a step is 1/32 of where the segment begins, or the finest step.
    assert (errors[inside] <= np.maximum(8, (loudness[inside] + 132) / 32)).all()
    assert errors.max() <= 32768 - 32124
    assert (np.sign(decoded) * np.sign(samples.astype(int)) >= 0).all() or encoding == "pcma"


@given(st.binary(max_size=200).map(lambda raw: raw[: len(raw) // 2 * 2]), st.sampled_from(G711))
def test_a_sample_is_a_byte(pcm: bytes, encoding: Literal["pcmu", "pcma"]) -> None:
    coded = encode_g711(pcm, encoding)
    assert len(coded) == len(pcm) // 2
    assert len(decode_g711(coded, encoding)) == len(pcm)


# --- rates ----------------------------------------------------------------------------------------


def loudest_hz(samples: Samples, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


@pytest.mark.parametrize("from_hz", RATES_HZ)
@pytest.mark.parametrize("to_hz", RATES_HZ)
def test_a_clip_keeps_its_length_and_pitch(from_hz: int, to_hz: int) -> None:
    converted = resample(tone(1000, 500, from_hz), from_hz, to_hz)
    assert abs(len(converted) - to_hz // 2) <= 1
    assert loudest_hz(converted, to_hz) == pytest.approx(1000, abs=3)
    assert abs(level_dbfs(converted.tobytes()) - level_dbfs(tone(1000, 500, from_hz).tobytes())) < 0.5


@given(rates, rates, st.lists(st.integers(0, 1500), max_size=12))
def test_a_stream_in_pieces_is_as_long_as_in_one(from_hz: int, to_hz: int, sizes: list[int]) -> None:
    total = sum(sizes)
    sound = tone(700, 1000 * (total + 1) / from_hz, from_hz)[:total]
    resampler = StreamResampler(from_hz, to_hz)
    pieces, position = [], 0
    for size in sizes:
        pieces.append(resampler.convert(sound[position : position + size].tobytes()))
        position += size
    pieces.append(resampler.convert(b"", last=True))
    samples = len(b"".join(pieces)) // 2
    assert abs(samples - total * to_hz / from_hz) <= 2


def test_a_stream_has_no_seams() -> None:
    sound = tone(1000, 1000, 48_000)
    resampler = StreamResampler(48_000, 24_000)
    pieces = [resampler.convert(sound[at : at + 960].tobytes()) for at in range(0, len(sound), 960)]
    streamed = samples_of(b"".join([*pieces, resampler.convert(b"", last=True)])).astype(float)
    whole = resample(sound, 48_000, 24_000).astype(float)[: len(streamed)]
    assert np.abs(streamed - whole)[200:-200].max() < 50


# --- loudness -------------------------------------------------------------------------------------


def test_loudness() -> None:
    assert level_dbfs(b"") == level_dbfs(b"\x00") == level_dbfs(bytes(960)) == -96
    assert level_dbfs(np.full(100, -32768, "<i2").tobytes()) == pytest.approx(0, abs=0.01)
    assert level_dbfs(tone(1000, 100, 24_000, amplitude=1.0).tobytes()) == pytest.approx(-3.01, abs=0.05)


@given(st.lists(st.integers(-16_384, 16_383), min_size=1, max_size=50))
def test_twice_as_loud_is_six_decibels(samples: list[int]) -> None:
    quiet = level_dbfs(np.array(samples, "<i2").tobytes())
    loud = level_dbfs((2 * np.array(samples)).astype("<i2").tobytes())
    assert -96 <= quiet <= loud <= 0
    if quiet > -90:
        assert loud - quiet == pytest.approx(6.02, abs=0.01)
