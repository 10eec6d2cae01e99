"""Whether the microphone hears a voice, frame by frame, and for how long: what an interruption is judged by.

Core ring: pure. Time is that of the frames. `EnergyDetector` goes by loudness alone; any other detector fits in its
place that answers frame by frame.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from trio_voice.audio import AudioFormat, Frame, level_dbfs

ONSET_MS = 40
"""A voice that lasts this long has begun; less is a click."""
PAUSE_MS = 200
"""Silence within a word, and between two, is shorter; after this much the voice has ended."""

SOFTEST_VOICE_DBFS = -48.0
ABOVE_NOISE_DB = 12.0
NOISE_RISE_DB_PER_S = 3.0
QUIETEST_NOISE_DBFS = -70.0


class VoiceDetector(Protocol):
    """Tells a voice from the rest. One for each session: it may remember what came before."""

    def start(self, audio_format: AudioFormat) -> None:
        """Frames will come in this format."""

    def is_voice(self, frame: Frame) -> bool:
        """Whether somebody speaks in `frame`. Called on Trio's thread for each frame: well under a millisecond."""


class EnergyDetector:
    """Takes for a voice what is 12 dB louder than the noise, and no softer than -48 dBFS.

    The noise is the softest that was heard lately: it falls at once, and rises by 3 dB a second. Any sound that comes
    on suddenly counts, a slammed door too; `min_speech_ms` passes over short ones.
    """

    def __init__(self) -> None:
        self._noise_dbfs = QUIETEST_NOISE_DBFS
        self._format = AudioFormat()

    def start(self, audio_format: AudioFormat) -> None:
        self._format, self._noise_dbfs = audio_format, QUIETEST_NOISE_DBFS

    def is_voice(self, frame: Frame) -> bool:
        level = level_dbfs(frame.pcm)
        rise = NOISE_RISE_DB_PER_S * self._format.ms_of_bytes(len(frame.pcm)) / 1000
        self._noise_dbfs = max(QUIETEST_NOISE_DBFS, min(level, self._noise_dbfs + rise))
        return level >= max(SOFTEST_VOICE_DBFS, self._noise_dbfs + ABOVE_NOISE_DB)


VoiceChange: TypeAlias = Literal["began", "lasted", "ended"]


class VoiceMeter(Struct, eq=False):
    """Follows a voice: it `began`, it `lasted` for `min_speech_ms`, it `ended`. Pauses of a word do not end it."""

    detector: VoiceDetector
    audio_format: AudioFormat
    min_speech_ms: float
    _onset_ms: float = 0.0
    _spoken_ms: float = 0.0
    _quiet_ms: float = 0.0
    _open: bool = False
    _lasted: bool = False

    def frame(self, frame: Frame) -> VoiceChange | None:
        """What the next frame changes."""
        frame_ms = self.audio_format.ms_of_bytes(len(frame.pcm))
        is_voice = self.detector.is_voice(frame)
        if not self._open:
            self._onset_ms = self._onset_ms + frame_ms if is_voice else 0.0
            if self._onset_ms < ONSET_MS:
                return None
            self._open, self._lasted = True, False
            self._spoken_ms, self._quiet_ms, self._onset_ms = self._onset_ms, 0.0, 0.0
            return "began"
        if not is_voice:
            self._quiet_ms += frame_ms
            self._open = self._quiet_ms < PAUSE_MS
            return None if self._open else "ended"
        self._spoken_ms += self._quiet_ms + frame_ms
        self._quiet_ms = 0.0
        if self._lasted or self._spoken_ms < self.min_speech_ms:
            return None
        self._lasted = True
        return "lasted"
