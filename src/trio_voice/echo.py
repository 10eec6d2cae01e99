"""The agent's voice in the user's microphone: what is in the air when, and a gate that shuts meanwhile.

Core ring: pure; the clock is given. `PlaybackReference` is a bounded queue from the loudspeaker's thread to the
capture actor. The invariant: what it gives runs on without a seam, so that an echo canceller can learn the room, and
is moved only when it has been wrong for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs
from msgspec import Struct, field

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, Frame

REFERENCE_BLOCKS = 512
"""Blocks that wait for the capture actor: ten seconds of 20 ms, nearly three of 5 ms. Then the oldest are dropped."""
KEPT_MS = 2000
LEAD_MS = 40.0
"""How much earlier than heard a sample is given, where it is known by then. An echo that seemed to come before its
sound could not be cancelled, and a device's latency is an estimate."""
TOLERANCE_MS = 30.0
WRONG_FRAMES = 5
"""One look at a device's latency may be off by a block. So many in a row are not chance."""


def _nothing() -> int:
    return 0


class PlaybackReference(Struct, eq=False):
    """What the loudspeaker was given, by the time at which it is heard."""

    audio_format: AudioFormat
    clock: Callable[[], float]
    """Seconds, the same as in `Frame.captured_at`."""
    unheard_samples: Callable[[], int] = _nothing
    """The loudspeaker's own account, once it is open."""
    _pulled: int = 0
    _blocks: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=REFERENCE_BLOCKS))
    _window: bytearray = field(default_factory=bytearray)
    _window_start: int = 0
    _position: int | None = None
    _wrong: int = 0

    def push(self, pcm: bytes) -> None:
        """The loudspeaker takes this block. Called in its thread; never waits."""
        self._blocks.append((self._pulled, pcm))
        self._pulled += len(pcm) // BYTES_PER_SAMPLE

    def heard_during(self, captured_at: float, sample_count: int) -> bytes:
        """What was in the air as these samples were captured, a little early at most; silence where nothing is known.

        For one caller, that asks frame after frame.
        """
        self._gather()
        rate_hz = self.audio_format.rate_hz
        in_the_air = self._pulled - self.unheard_samples() - round((self.clock() - captured_at) * rate_hz)
        if self._position is None or self._is_wrong(self._position - in_the_air):
            ahead = self._window_end - (in_the_air + sample_count)
            self._position = in_the_air + max(0, min(ahead, self.audio_format.samples_of_ms(LEAD_MS)))
        # A block that is asked for late would be a gap in the reference: stay behind what is known, from now on.
        self._position = min(self._position, max(in_the_air, self._window_end - sample_count))
        start, self._position = self._position, self._position + sample_count
        return self._between(start, start + sample_count)

    @property
    def _window_end(self) -> int:
        return self._window_start + len(self._window) // BYTES_PER_SAMPLE

    def _is_wrong(self, lead_samples: int) -> bool:
        tolerance = self.audio_format.samples_of_ms(TOLERANCE_MS)
        right = -tolerance <= lead_samples <= self.audio_format.samples_of_ms(LEAD_MS) + tolerance
        self._wrong = 0 if right else self._wrong + 1
        if self._wrong < WRONG_FRAMES:
            return False
        self._wrong = 0
        return True

    def _gather(self) -> None:
        """Take over what the loudspeaker has asked for since; the threads share the queue and a counter."""
        while True:
            try:
                start, pcm = self._blocks.popleft()
            except IndexError:
                break
            if start != self._window_end:
                self._window, self._window_start = bytearray(), start
            self._window += pcm
        surplus = len(self._window) // BYTES_PER_SAMPLE - self.audio_format.samples_of_ms(KEPT_MS)
        if surplus > 0:
            del self._window[: surplus * BYTES_PER_SAMPLE]
            self._window_start += surplus

    def _between(self, start: int, end: int) -> bytes:
        first, last = max(start, self._window_start), min(end, self._window_end)
        if first >= last:
            return bytes((end - start) * BYTES_PER_SAMPLE)
        known = self._window[
            (first - self._window_start) * BYTES_PER_SAMPLE : (last - self._window_start) * BYTES_PER_SAMPLE
        ]
        return bytes((first - start) * BYTES_PER_SAMPLE) + bytes(known) + bytes((end - last) * BYTES_PER_SAMPLE)


class EchoGate(Struct, eq=False):
    """Half duplex: silence in place of the microphone while the loudspeaker sounds, and `tail_ms` longer."""

    reference: PlaybackReference
    tail_ms: float
    _shut_ms: float = 0.0

    def start(self, audio_format: AudioFormat) -> None:
        self._shut_ms = 0.0

    def filter(self, frame: Frame) -> Frame:
        samples = len(frame.pcm) // BYTES_PER_SAMPLE
        heard = self.reference.heard_during(frame.captured_at, samples)
        frame_ms = self.reference.audio_format.ms_of_samples(samples)
        # A frame that begins in the tail is silent whole.
        self._shut_ms = self.tail_ms + frame_ms if any(heard) else self._shut_ms
        if self._shut_ms <= 0:
            return frame
        self._shut_ms -= frame_ms
        return attrs.evolve(frame, pcm=bytes(len(frame.pcm)))
