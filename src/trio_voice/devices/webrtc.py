"""Echo cancellation, noise suppression and automatic gain by WebRTC's audio processing: the only import of
pywebrtc_audio, which the extra `[aec]` installs.

Edge, on the signal path. Runs on the Trio thread: a frame of 20 ms takes about 0.4 ms with echo cancellation. The
invariant: the sound given as reference is the one that was in the air, in the same order, without a seam.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, Frame, samples_of
from trio_voice.config import AudioInputConfig
from trio_voice.errors import ConfigError

if TYPE_CHECKING:
    from trio_voice.echo import PlaybackReference

_MISSING = (
    "{what} by WebRTC's audio processing, which is not installed ({reason}). Install it: "
    "pip install 'trio-voice[aec]'. Or do without: echo='gate' sends silence while the agent speaks, "
    "and headphones need nothing."
)


class WebRtcFilter:
    """A `FrameFilter` for the microphone: what `config` asks for of WebRTC's audio processing."""

    def __init__(self, config: AudioInputConfig, reference: PlaybackReference | None) -> None:
        """Raises: `ConfigError` that says what to install."""
        try:
            import pywebrtc_audio
        except ImportError as error:
            asked = {"echo='aec'": config.echo == "aec", "noise_suppression": config.noise_suppression}
            asked["auto_gain"] = config.auto_gain
            what = " and ".join(name for name, wanted in asked.items() if wanted)
            raise ConfigError(_MISSING.format(what=f"{what} is done", reason=error)) from error
        self._make: Any = pywebrtc_audio.AudioProcessor
        self._config = config
        self._reference = reference if config.echo == "aec" else None
        self._processor: Any = None

    def start(self, audio_format: AudioFormat) -> None:
        self._processor = self._make(
            sample_rate=audio_format.rate_hz,
            echo_cancellation=self._reference is not None,
            noise_suppression=self._config.noise_suppression,
            auto_gain_control=self._config.auto_gain,
        )

    def filter(self, frame: Frame) -> Frame:
        near = samples_of(frame.pcm)
        if self._reference is None:
            return attrs.evolve(frame, pcm=self._processor.process(near).tobytes())
        far = self._reference.heard_during(frame.captured_at, len(frame.pcm) // BYTES_PER_SAMPLE)
        return attrs.evolve(frame, pcm=self._processor.process(near, samples_of(far)).tobytes())
