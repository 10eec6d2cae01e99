"""A small piece of what `scripts/fuzz` does at length, and hostile servers that are known by name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from fuzz import decoder, session
from fuzz.frames import Frame, any_frame
from trio_voice.protocol.history import History
from trio_voice.protocol.turns import TurnNumbers


def test_the_decoder_takes_anything() -> None:
    seen = decoder.run(8000, seed=0)
    assert min(seen["event"], seen["error"], seen["unknown"]) > 100, "all three outcomes were met"


@given(st.lists(st.randoms(use_true_random=False), min_size=1, max_size=5))
def test_the_decoder_takes_anything_that_can_be_shrunk(dice: list[random.Random]) -> None:
    history, turns = History(), TurnNumbers()
    for rng in dice:
        decoder.check(any_frame(rng), history, turns)


def test_sessions_survive_hostile_servers() -> None:
    seen = session.run(40, seed=0)
    assert seen["frames"] > 500
    assert seen["left"] > 10


def delta(size: int, item: str = "i1", response: str = "r1") -> str:
    sound = "AAAA" * (size // 4)
    return (
        f'{{"type": "response.output_audio.delta", "response_id": "{response}", "item_id": "{item}", '
        f'"delta": "{sound}"}}'
    )


def call(number: int) -> str:
    return (
        '{"type": "response.output_item.done", "response_id": "r1", "item": {"type": "function_call", '
        f'"id": "f{number}", "call_id": "c{number}", "name": "order", "arguments": "{{}}", "status": "completed"}}}}'
    )


def text(kind: str, **fields: str) -> str:
    return json.dumps({"type": kind, **fields})


KIB = 1024
SECOND = 48_000
WORD = {"response_id": "r1", "item_id": "i1", "delta": "word "}
FLOODS: dict[str, tuple[Callable[[int], str], int, int]] = {
    "sound without end": (lambda number: delta(SECOND), 400, 6000 * KIB),
    "sound by the sample": (lambda number: delta(8), 400, 800 * KIB),
    "a new response for each piece": (lambda number: delta(8, response=f"r{number}"), 400, 800 * KIB),
    "nonsense": (lambda number: "{" * 1000, 400, 1200 * KIB),
    "unknown events": (lambda number: text(f"new{number}", x="y" * 1000), 400, 800 * KIB),
    "speech without a pause": (lambda number: text("input_audio_buffer.speech_started", item_id="u"), 400, 800 * KIB),
    "words without sound": (lambda number: text("response.output_audio_transcript.delta", **WORD), 400, 800 * KIB),
    "deletions": (lambda number: text("conversation.item.deleted", item_id=f"i{number}"), 400, 800 * KIB),
    "calls of tools": (call, 400, 2000 * KIB),
}
"""What is sent over and over; how often; and how much memory a session may take for it at most."""


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_survived_in_bounded_memory(flood: str) -> None:
    make, count, most = FLOODS[flood]
    frames: list[Frame] = [make(number) for number in range(count)]
    assert session.peak_bytes(frames) < most


def test_an_interruption_of_more_items_than_the_control_channel_holds() -> None:
    """It was a bare `WouldBlock` once; the connection is given up."""
    frames: list[Frame] = [delta(8, item=f"i{number}") for number in range(1500)]
    frames.append(text("input_audio_buffer.speech_started", item_id="u"))
    session.run_session(0, 0, frames, pauses=0.0)
