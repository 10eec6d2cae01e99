"""Sound at a rate that the server names with each piece."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from trio_voice.output_rate import OutputRate
from trio_voice.protocol import ResponseOutputAudioDelta, ResponseOutputAudioDone
from trio_voice.server.scripted import tone

SOUND = tone(440, 300, 16_000).tobytes()


def converted(pieces: list[bytes]) -> bytes:
    rate = OutputRate(24_000)
    out = b""
    for piece in pieces:
        out += sound_of(rate, ResponseOutputAudioDelta(item_id="item_1", delta=piece, sample_rate_hz=16_000))
    return out + sound_of(rate, ResponseOutputAudioDone(item_id="item_1"))


def sound_of(rate: OutputRate, event: ResponseOutputAudioDelta | ResponseOutputAudioDone) -> bytes:
    return b"".join(piece.delta for piece in rate.fitted(event) if isinstance(piece, ResponseOutputAudioDelta))


@given(st.lists(st.integers(0, len(SOUND)), max_size=12))
def test_wherever_the_pieces_are_cut_it_is_the_same_sound(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SOUND)]
    pieces = [SOUND[start:end] for start, end in pairwise(edges)]
    whole = converted([SOUND])
    assert len(whole) == len(SOUND) * 3 // 2
    assert len(converted(pieces)) == len(whole)


@pytest.mark.parametrize("rate_hz", [-5, 1, 7_999, 48_001, 2**40])
def test_what_is_no_rate_is_passed_over(rate_hz: int) -> None:
    event = ResponseOutputAudioDelta(item_id="item_1", delta=b"\1", sample_rate_hz=rate_hz)
    assert OutputRate(24_000).fitted(event) == [event]
