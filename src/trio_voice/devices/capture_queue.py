"""Between a microphone's audio thread and Trio: blocks in, frames out. Pure; times are given.

The one invariant: no more than `BACKLOG_MS` of sound is kept, the oldest goes first, and every sample
that was captured is either given out in order, still kept, or counted as dropped.
"""

from __future__ import annotations

import collections
import contextlib

import attrs

from trio_voice.audio import BYTES_PER_SAMPLE

BACKLOG_MS = 200
"""What is kept for a reader that is late, besides the frame it is about to take."""


@attrs.frozen
class _Block:
    start_sample: int
    pcm: bytes
    adc_time: float
    arrived: float

    @property
    def end_sample(self) -> int:
        return self.start_sample + len(self.pcm) // BYTES_PER_SAMPLE


class CaptureQueue:
    """Blocks in from the audio thread, frames out to Trio: bounded, oldest dropped first, every drop counted.

    Blocks carry their position in samples, so the reader finds what was dropped as a gap, exactly, whoever
    dropped it; the threads share a deque and nothing else. A frame never spans a gap.
    """

    def __init__(self, rate_hz: int, frame_samples: int) -> None:
        self._rate_hz = rate_hz
        self._frame_samples = frame_samples
        self._backlog_samples = max(rate_hz * BACKLOG_MS // 1000, frame_samples)
        self._blocks: collections.deque[_Block] = collections.deque()
        self._captured_samples = 0
        self._usual_age = float("inf")
        self._partial = bytearray()
        self._partial_adc_time = 0.0
        self._next_sample = 0
        self._dropped_samples = 0

    @property
    def dropped_frames(self) -> int:
        """Frames' worth of sound that was captured and never given out, rounded up."""
        return -(-self._dropped_samples // self._frame_samples)

    def push(self, pcm: bytes, adc_time: float, arrived: float) -> None:
        """Called by the audio thread, times in seconds of the stream's clock. Never blocks."""
        block = _Block(self._captured_samples, pcm, adc_time, arrived)
        self._captured_samples = block.end_sample
        self._blocks.append(block)
        with contextlib.suppress(IndexError):  # the reader was quicker
            while self._captured_samples - self._blocks[0].start_sample > self._backlog_samples + self._frame_samples:
                self._blocks.popleft()

    def take_frame(self) -> tuple[bytes, float] | None:
        """Called by the Trio thread: the next frame and its ADC time; None when it is not complete."""
        size = self._frame_samples * BYTES_PER_SAMPLE
        while len(self._partial) < size:
            block = self._take_block()
            if block is None:
                return None
            if block.start_sample != self._next_sample:
                kept = len(self._partial) // BYTES_PER_SAMPLE
                self._dropped_samples += block.start_sample - self._next_sample + kept
                self._partial.clear()
            if not self._partial:
                self._partial_adc_time = block.adc_time
            self._partial += block.pcm
            self._next_sample = block.end_sample
        frame, adc_time = bytes(self._partial[:size]), self._partial_adc_time
        del self._partial[:size]
        self._partial_adc_time += self._frame_samples / self._rate_hz
        return frame, adc_time

    def _take_block(self) -> _Block | None:
        """The next block that is not part of a stale backlog.

        After a stall (of the sound server, or of this process) what piled up arrives within milliseconds,
        and is seconds old. A block is stale when it is `BACKLOG_MS` older on arrival than the device's
        blocks are at best, AND the next one came right behind it. Age alone would not do: when a source
        resumes that was suspended for 0.6 s, PulseAudio calls all that follows 0.6 s old, for many
        seconds, though it comes in real time; a rule of age alone would keep the microphone silent for as
        long.
        """
        while self._blocks:
            try:
                block = self._blocks[0]
                age = block.arrived - block.adc_time
                self._usual_age = min(self._usual_age, age)
                if age > self._usual_age + BACKLOG_MS / 1000:
                    if len(self._blocks) < 2:
                        return None  # the next block tells
                    block_s = len(block.pcm) / BYTES_PER_SAMPLE / self._rate_hz
                    if self._blocks[1].arrived - block.arrived < block_s / 2:
                        self._blocks.popleft()
                        continue
                return self._blocks.popleft()
            except IndexError:  # the audio thread dropped it meanwhile
                continue
        return None
