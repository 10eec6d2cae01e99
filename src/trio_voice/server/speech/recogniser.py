"""Turns one utterance into words with Moonshine's tiny English model.

Blocking, and one utterance at a time: `brain.py` calls it in a worker thread behind a limiter.

Two settings keep the model from inventing a leading "You": its own voice detection is switched off
(`vad_threshold` 0), since the server has already cut the utterance, and 160 ms of silence stand on each side.
What holds no speech is not given to it at all, for it would find words in noise; and no more than 10 s at a
time, for its cost grows with the square of the length (6 s of sound take 0.5 s, 30 s took 11 s and 1.5 GB).
"""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np

from trio_voice.audio import resample
from trio_voice.server.brain import VAD_WINDOW_SAMPLES
from trio_voice.server.speech.detector import SileroDetector, probabilities
from trio_voice.server.speech.stop import Stop

if TYPE_CHECKING:
    import numpy.typing as npt

    from trio_voice.audio import Samples

RECOGNISER_RATE_HZ = 16_000
SILENCE_SAMPLES = RECOGNISER_RATE_HZ * 160 // 1000
LONGEST_PIECE_WINDOWS = 312
"""10 s of sound."""
SPEECH_PROBABILITY = 0.5
PEAK = 0.7
"""Of full scale, to which quiet speech is raised."""
LARGEST_GAIN = 10.0
"""+20 dB: more would only raise the noise of an empty room."""


@attrs.frozen
class Recognised:
    """The words of an utterance, empty when there were none, and what it took to find them."""

    text: str
    audio_ms: float
    took_ms: float


class Recogniser(Protocol):
    """An engine that hears. Both methods block: call them in a thread, one at a time."""

    def load(self) -> None:
        """Load what is slow to load; a second call does nothing."""

    def recognise(self, samples: Samples, rate_hz: int, stop: Stop) -> Recognised:
        """The words of one utterance, or those found before `stop` was set."""


class MoonshineRecogniser:
    """Moonshine tiny (English) from the weights inside its wheel."""

    def __init__(self) -> None:
        self._transcriber: Any = None
        self._detector: SileroDetector | None = None

    def load(self) -> None:
        if self._transcriber is not None:
            return
        from moonshine_voice import ModelArch, get_model_path
        from moonshine_voice.transcriber import Transcriber

        self._detector = SileroDetector()
        self._transcriber = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY, options={"vad_threshold": 0.0})

    def recognise(self, samples: Samples, rate_hz: int, stop: Stop) -> Recognised:
        started_at = time.perf_counter()
        self.load()
        assert self._detector is not None
        at_16k = resample(samples, rate_hz, RECOGNISER_RATE_HZ)
        found = []
        for piece in _pieces_of(at_16k, self._detector):
            if stop.is_set:
                break
            start, end = piece.start * VAD_WINDOW_SAMPLES, piece.stop * VAD_WINDOW_SAMPLES
            found.append(self._words(prepared(at_16k[start:end])))
        text = " ".join(words for words in found if words)
        return Recognised(text, len(samples) * 1000 / rate_hz, (time.perf_counter() - started_at) * 1000)

    def _words(self, audio: npt.NDArray[np.float32]) -> str:
        """Call the C library itself.

        The package's own method copies the samples through a list, and back with every line: for 4 s of
        sound on a busy machine the first copy alone held the interpreter's lock for 111 ms. The version is
        pinned, so its private names are safe to use.
        """
        from moonshine_voice.errors import check_error
        from moonshine_voice.moonshine_api import TranscriptC

        transcript = ctypes.POINTER(TranscriptC)()
        check_error(
            self._transcriber._lib.moonshine_transcribe_without_streaming(
                self._transcriber._handle,
                audio.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                len(audio),
                RECOGNISER_RATE_HZ,
                0,
                ctypes.byref(transcript),
            )
        )
        if not transcript:
            return ""
        found = transcript.contents
        lines = [found.lines[index].text for index in range(found.line_count)]
        words = [ctypes.string_at(line).decode("utf-8", "ignore").strip() for line in lines if line]
        return " ".join(word for word in words if word)


def _pieces_of(samples: Samples, detector: SileroDetector) -> list[range]:
    speech = probabilities(samples, detector)
    windows = len(samples) // VAD_WINDOW_SAMPLES
    if windows < LONGEST_PIECE_WINDOWS:  # the usual case: look no further than the first speech
        return [range(windows + 1)] if _has_speech(speech) else []
    return pieces(list(speech))


def pieces(speech: Sequence[float], longest: int = LONGEST_PIECE_WINDOWS) -> list[range]:
    """The windows to recognise together: all of them, or, of a long utterance, runs that part where speech is
    least likely; runs without two windows of speech in a row are left out. The last partial window of the
    utterance, if any, belongs to the last run, hence the open end of one window.
    """
    runs = []
    start, end = 0, len(speech) + 1
    while end - start > longest:
        # In the later half of what may be one piece, the quietest fifth of a second.
        candidates = range(start + longest // 2, start + longest - 5)
        cut = min(candidates, key=lambda at: sum(speech[at : at + 5])) + 2
        runs.append(range(start, cut))
        start = cut
    runs.append(range(start, end))
    return [run for run in runs if _has_speech(speech[run.start : run.stop])]


def _has_speech(speech: Iterable[float]) -> bool:
    return any(min(two) >= SPEECH_PROBABILITY for two in itertools.pairwise(speech))


def prepared(samples: Samples) -> npt.NDArray[np.float32]:
    """Floats of `samples` with quiet speech raised and silence on both sides."""
    audio = samples.astype(np.float32) / 32768
    audio -= audio.mean(dtype=np.float64)  # a microphone's constant offset is not sound
    peak = float(np.abs(audio).max(initial=0.0))
    if 0 < peak < PEAK:
        audio *= min(LARGEST_GAIN, PEAK / peak)
    silence = np.zeros(SILENCE_SAMPLES, np.float32)
    return np.ascontiguousarray(np.concatenate([silence, audio, silence]), dtype=np.float32)
