"""silero's voice detection for a microphone: tells a voice from a slammed door. Needs the extra `[local]`.

Edge, on the signal path. Runs on the Trio thread: a window of 32 ms takes about 0.2 ms.
"""

from __future__ import annotations

import numpy as np

from trio_voice.audio import AudioFormat, Frame, StreamResampler, samples_of
from trio_voice.errors import ConfigError
from trio_voice.server.brain import VAD_RATE_HZ, VAD_WINDOW_SAMPLES
from trio_voice.server.speech.detector import SileroDetector

THRESHOLD = 0.5
HYSTERESIS = 0.15


class SileroVoiceDetector:
    """A `VoiceDetector` with silero's model: what the latest whole window of 32 ms holds."""

    def __init__(self) -> None:
        """Raises: `ConfigError` that says what to install. Loading takes 80 to 190 ms."""
        try:
            self._detector = SileroDetector()
        except ImportError as error:
            raise ConfigError(
                f"detector='silero' needs silero's model, which is not installed ({error}). "
                "Install it: pip install 'trio-voice[local]'. Or use detector='energy'."
            ) from error
        self.start(AudioFormat())

    def start(self, audio_format: AudioFormat) -> None:
        self._detector.reset()
        self._resampler = StreamResampler(audio_format.rate_hz, VAD_RATE_HZ)
        self._waiting = np.zeros(0, np.int16)
        self._is_voice = False

    def is_voice(self, frame: Frame) -> bool:
        more = samples_of(self._resampler.convert(frame.pcm))
        self._waiting = np.concatenate([self._waiting, more])
        while len(self._waiting) >= VAD_WINDOW_SAMPLES:
            window, self._waiting = self._waiting[:VAD_WINDOW_SAMPLES], self._waiting[VAD_WINDOW_SAMPLES:]
            threshold = THRESHOLD - HYSTERESIS if self._is_voice else THRESHOLD
            self._is_voice = self._detector.probability(window) >= threshold
        return self._is_voice
