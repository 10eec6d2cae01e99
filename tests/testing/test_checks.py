"""What the simulation hears with, at both ends: cheap, and for scripted people as exact as the real thing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from trio_voice.audio import StreamResampler
from trio_voice.server.brain import VAD_WINDOW_SAMPLES
from trio_voice.server.scripted import marked_samples, tone
from trio_voice.testing.hearing import CheapDetector, CheapResampler, Ear, in_order

FRAME = 480


def loud_windows(resampler: StreamResampler | CheapResampler, pcm: bytes) -> list[float]:
    heard = b"".join(resampler.convert(pcm[start : start + 2 * FRAME]) for start in range(0, len(pcm), 2 * FRAME))
    samples = np.frombuffer(heard, "<i2")
    windows = [samples[start : start + VAD_WINDOW_SAMPLES] for start in range(0, len(samples), VAD_WINDOW_SAMPLES)]
    return [CheapDetector().probability(window) for window in windows if len(window) == VAD_WINDOW_SAMPLES]


def test_speech_is_heard_where_the_filter_hears_it() -> None:
    speech = bytes(48_000) + tone(440, 1000, 24_000).tobytes() + bytes(48_000)
    cheap, filtered = (loud_windows(kind(24_000, 16_000), speech) for kind in (CheapResampler, StreamResampler))
    assert sum(cheap) > 25
    assert abs(len(cheap) - len(filtered)) <= 1
    assert sum(one != other for one, other in zip(cheap, filtered, strict=False)) <= 2, "its edges, by a window"


@given(st.lists(st.binary(max_size=40).map(lambda chunk: chunk[: len(chunk) & ~1])))
def test_chunks_leave_no_seam(chunks: list[bytes]) -> None:
    resampler = CheapResampler(24_000, 16_000)
    whole = b"".join(chunks)
    assert b"".join(resampler.convert(chunk) for chunk in chunks) == CheapResampler(24_000, 16_000).convert(whole)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 700), st.integers(0, 2)), max_size=8))
def test_the_ear_keeps_each_sample_with_its_place(played: list[tuple[int, int, int]]) -> None:
    """Against one sample after the other, looked at alone."""
    ear = Ear()
    sounded: dict[int, int] = {}
    for turn, count, blocks_of_silence in played:
        ear.write(bytes(100) * blocks_of_silence)
        samples = marked_samples(turn, count, 7 * turn)
        sounded |= {ear.position + index: int(sample) for index, sample in enumerate(samples)}
        if count:
            ear.write(samples.tobytes())
    found = {
        run.at + index: run.mark * 256 + int(place) for run in ear.runs() for index, place in enumerate(run.places)
    }
    assert found == sounded


@given(st.integers(0, 70_000), st.integers(1, 70_000))
def test_only_the_beginning_of_an_answer_is_in_order(first: int, second: int) -> None:
    def runs(*pieces: tuple[int, int]) -> bool:
        ear = Ear()
        for start, count in pieces:
            ear.write(marked_samples(1, count, start).tobytes() if count else b"")
            ear.write(bytes(10))
        return in_order(ear.runs())

    assert runs((0, first), (first, second))
    assert not runs((0, first), (first + 1, second))
