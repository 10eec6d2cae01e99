"""What is done to sound on its way: filters between the microphone and the wire, and before the loudspeaker.

Core ring: pure. The invariant: a filter changes samples, never their number, so every position stays true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trio_voice.audio import AudioFormat, Frame


class FrameFilter(Protocol):
    """Anything that takes a frame and gives one of the same length: a gain, a meter, a noise gate.

    One object serves one session and one direction. On capture it is called on Trio's thread. On playback it is called
    in the device's own thread, with a block as frame, whose `captured_at` is how much sound, in seconds, the device has
    asked for before: it must not wait, nor touch Trio.
    """

    def start(self, audio_format: AudioFormat) -> None:
        """Frames will come in this format."""

    def filter(self, frame: Frame) -> Frame:
        """`frame`, changed or not. Must take well under the length of a frame."""


class FilterLine:
    """Filters one behind the other."""

    def __init__(self, filters: Sequence[FrameFilter], audio_format: AudioFormat) -> None:
        self._filters = tuple(filters)
        for each in self._filters:
            each.start(audio_format)

    def filter(self, frame: Frame) -> Frame:
        """Raises: `ValueError` for a filter that changed the length; whatever a filter raises."""
        for each in self._filters:
            filtered = each.filter(frame)
            if len(filtered.pcm) != len(frame.pcm):
                raise ValueError(
                    f"the filter {each!r} made {len(filtered.pcm)} bytes of {len(frame.pcm)}: it may change samples, "
                    "not their number"
                )
            frame = filtered
        return frame
