"""The voice says what it is given: heard again by the recogniser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trio_voice.server.speech.stop import Stop
from trio_voice.server.speech.voice import CACHED_SAMPLES, SENTENCE_PAUSE_MS

from .caller_recordings import telling

if TYPE_CHECKING:
    from trio_voice.server.speech.recogniser import MoonshineRecogniser
    from trio_voice.server.speech.voice import PiperVoice

pytestmark = pytest.mark.speech


def test_an_order_status_is_understood(voice: PiperVoice, recogniser: MoonshineRecogniser) -> None:
    sound = voice.synthesise("Your order ORD-12345 was shipped and will arrive on Tuesday.", 24_000, 1.0, Stop())
    heard = recogniser.recognise(sound, 24_000, Stop()).text
    for words in ("your order", "12345", "arrive on Tuesday"):
        assert telling(words) in telling(heard), heard


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 48_000])
def test_the_rate_changes_the_samples_and_not_the_duration(voice: PiperVoice, rate_hz: int) -> None:
    sound = voice.synthesise("Good morning.", rate_hz, 1.0, Stop())
    assert sound.dtype == np.int16
    assert len(sound) / rate_hz == pytest.approx(
        len(voice.synthesise("Good morning.", 24_000, 1.0, Stop())) / 24_000, abs=0.01
    )
    assert np.abs(sound).max() > 3000


def test_speed_shortens(voice: PiperVoice) -> None:
    slow = voice.synthesise("This takes as long as it takes.", 24_000, 0.75, Stop())
    quick = voice.synthesise("This takes as long as it takes.", 24_000, 1.5, Stop())
    assert len(quick) < 0.65 * len(slow)


def test_a_sentence_ends_in_a_breath(voice: PiperVoice) -> None:
    sound = voice.synthesise("That is all.", 24_000, 1.0, Stop())
    assert not sound[-24 * SENTENCE_PAUSE_MS :].any()


@pytest.mark.parametrize("clause", ["", "  ", "...", "🎉", "?!"])
def test_what_has_no_words_makes_no_sound(voice: PiperVoice, clause: str) -> None:
    assert len(voice.synthesise(clause, 24_000, 1.0, Stop())) == 0


@pytest.mark.parametrize("clause", ["Zyxwvutski naïve Ängström.", "1.2.3.4 a_b C++ x@y.org", "(((", "ПРИВЕТ"])
def test_odd_words_never_fail(voice: PiperVoice, clause: str) -> None:
    voice.synthesise(clause, 24_000, 1.0, Stop())


def test_the_same_clause_is_the_same_sound_and_costs_nothing_again(voice: PiperVoice) -> None:
    first = voice.synthesise("Is there anything else?", 24_000, 1.0, Stop())
    assert voice.synthesise("Is there anything else?", 24_000, 1.0, Stop()) is first
    voice._cache.clear()
    assert np.array_equal(voice.synthesise("Is there anything else?", 24_000, 1.0, Stop()), first)


def test_the_cache_is_bounded_and_drops_the_oldest(voice: PiperVoice) -> None:
    voice._cache.clear()
    for n in range(4):
        voice._cache[f"filler {n}", 24_000, 1.0] = np.zeros(CACHED_SAMPLES // 4, np.int16)
    voice.synthesise("One more.", 24_000, 1.0, Stop())
    assert [clause for clause, _, _ in voice._cache] == ["filler 1", "filler 2", "filler 3", "One more."]


def test_a_stopped_synthesis_yields_nothing_and_is_not_remembered(voice: PiperVoice) -> None:
    clause = "None of this long sentence is to be heard by anybody at all, whoever may be listening."
    stop = Stop()
    stop.set()
    assert len(voice.synthesise(clause, 24_000, 1.0, stop)) == 0
    assert len(voice.synthesise(clause, 24_000, 1.0, Stop())) > 24_000
