"""Small stand-ins for machines where an engine of the `local` extra has no wheel.

They need the `fallback` extra (espeak-ng is GPL-3) and are plainly worse: espeak-ng sounds like a machine,
PocketSphinx takes four times as long as Moonshine and hears less, and loudness is not speech. They keep the
demo running.

Blocking, like the engines that they stand in for; the same protocols.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trio_voice.audio import resample
from trio_voice.server.brain import VAD_WINDOW_SAMPLES
from trio_voice.server.speech.recogniser import RECOGNISER_RATE_HZ, SILENCE_SAMPLES, Recognised
from trio_voice.server.speech.spoken import spoken_form

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.server.speech.stop import Stop

# --- the voice -----------------------------------------------------------------------------------------

_SYNCHRONOUS = 2
_UTF8 = 1
_RATE_PARAMETER = 1
_DO_NOT_EXIT = 0x8000  # or a missing data file ends the whole process
_WORDS_PER_MINUTE = 165

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakVoice:
    """espeak-ng's formant voice: robotic, and ready in a few milliseconds."""

    def __init__(self) -> None:
        self._library: Any = None
        self._rate_hz = 22_050

    def loads(self) -> Sequence[Callable[[], None]]:
        return (self._load,)

    def _load(self) -> None:
        if self._library is not None:
            return
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if rate_hz <= 0:
            raise RuntimeError(f"espeak-ng found no data under {data.decode()}; install espeakng-loader again")
        library.espeak_SetVoiceByName(b"en-us")
        self._rate_hz = rate_hz
        self._library = library

    def synthesise(self, clause: str, rate_hz: int, speed: float, stop: Stop) -> Samples:
        self._load()
        pieces: list[Samples] = []

        def take(samples: Any, count: int, _: object) -> int:
            if samples and count > 0:
                pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.int16))
            return 1 if stop.is_set else 0  # 1 ends the synthesis

        callback = _SynthCallback(take)
        self._library.espeak_SetSynthCallback(callback)
        self._library.espeak_SetParameter(_RATE_PARAMETER, int(_WORDS_PER_MINUTE * speed), 0)
        spoken = spoken_form(clause).encode()
        self._library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, _UTF8, None, None)
        if stop.is_set or not pieces:
            return np.empty(0, np.int16)
        return resample(np.concatenate(pieces), self._rate_hz, rate_hz)


# --- the recogniser ------------------------------------------------------------------------------------

_CHUNK_BYTES = 2 * RECOGNISER_RATE_HZ // 50
"""PocketSphinx keeps the interpreter's lock while it decodes, so it gets 20 ms of sound at a time."""


class PocketRecogniser:
    """PocketSphinx with its own American English model: small and old."""

    def __init__(self) -> None:
        self._decoder: Any = None

    def load(self) -> None:
        if self._decoder is not None:
            return
        import pocketsphinx

        # Its second pass would run at the end in one go, with the lock held for 0.4 s.
        self._decoder = pocketsphinx.Decoder(samprate=float(RECOGNISER_RATE_HZ), loglevel="FATAL", fwdflat=False)

    def recognise(self, samples: Samples, rate_hz: int, stop: Stop) -> Recognised:
        started_at = time.perf_counter()
        self.load()
        silence = np.zeros(SILENCE_SAMPLES, np.int16)
        at_16k = resample(samples, rate_hz, RECOGNISER_RATE_HZ)
        pcm = np.concatenate([silence, at_16k, silence]).astype("<i2").tobytes()
        self._decoder.start_utt()
        try:
            for start in range(0, len(pcm), _CHUNK_BYTES):
                if stop.is_set:
                    break
                self._decoder.process_raw(pcm[start : start + _CHUNK_BYTES])
                time.sleep(0.0002)  # sleep(0) would often take the lock back at once
        finally:
            self._decoder.end_utt()
        found = self._decoder.hyp()
        text = found.hypstr if found is not None else ""
        return Recognised(text, len(samples) * 1000 / rate_hz, (time.perf_counter() - started_at) * 1000)


# --- the detector --------------------------------------------------------------------------------------

_QUIETEST_DB = -65.0
_MARGIN_DB = 12.0
"""So much louder than the background counts as 0.5."""
_STEEPNESS_DB = 3.0
_FLOOR_RISE_DB = 0.05
"""Per window, 1.6 dB a second: a fan that is switched on stops being speech within some seconds."""


class EnergyDetectors:
    """Makes a detector for each connection; they cost nothing."""

    def fill(self) -> None:
        """Nothing is slow to load."""

    def lend(self) -> EnergyDetector:
        return EnergyDetector()


class EnergyDetector:
    """Takes what is clearly louder than the background for speech. Music and typing are speech to it."""

    def __init__(self) -> None:
        self._floor_db: float | None = None

    def probability(self, window: Samples) -> float:
        """How likely `window` (512 samples at 16 kHz) holds speech, 0..1.

        Raises: ValueError when the window has not exactly 512 samples.
        """
        if len(window) != VAD_WINDOW_SAMPLES:
            raise ValueError(f"a window has {VAD_WINDOW_SAMPLES} samples at 16 kHz, this one has {len(window)}")
        audio = window.astype(np.float32) / 32768
        level_db = max(_QUIETEST_DB, 10 * math.log10(float(np.dot(audio, audio)) / len(audio) + 1e-12))
        floor_db = _QUIETEST_DB + _MARGIN_DB if self._floor_db is None else self._floor_db + _FLOOR_RISE_DB
        self._floor_db = min(floor_db, level_db)
        return 1 / (1 + math.exp((self._floor_db + _MARGIN_DB - level_db) / _STEEPNESS_DB))

    def reset(self) -> None:
        self._floor_db = None
