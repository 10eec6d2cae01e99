"""Both sides of a conversation as one sound each, from the pieces that a session told.

Pure: `AudioSent` and `AudioPlayed` events in, samples out. The invariant: sample n of both is at n / `rate_hz` seconds
after the start, with silence where nothing was sent or played.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import numpy as np

from trio_voice.audio import Samples, resample, samples_of
from trio_voice.events import AudioPlayed, AudioSent, SessionEvent

SEAM_S = 0.01
"""Pieces closer than this to their neighbour's end follow on it: clocks jitter, sound does not."""


@attrs.frozen(eq=False)
class Sounds:
    """What the microphone sent and what the loudspeaker played."""

    rate_hz: int
    caller: Samples
    agent: Samples


def sounds_of(
    session_events: Iterable[SessionEvent],
    *,
    started_at: float,
    ended_at: float,
    input_rate_hz: int = 24_000,
    speaker_rate_hz: int = 24_000,
) -> Sounds | None:
    """Lay out the pieces between two times on the clock of the events; None where there are none."""
    sent: list[tuple[float, bytes]] = []
    played: list[tuple[float, bytes]] = []
    for event in session_events:
        if isinstance(event, AudioSent):
            sent.append((event.captured_at, event.pcm))
        elif isinstance(event, AudioPlayed):
            played.append((event.heard_at, event.pcm))
    if not sent and not played:
        return None
    rate_hz = max(input_rate_hz, speaker_rate_hz)
    caller = _laid_out(sent, started_at, ended_at, input_rate_hz)
    agent = _laid_out(played, started_at, ended_at, speaker_rate_hz)
    return Sounds(rate_hz, resample(caller, input_rate_hz, rate_hz), resample(agent, speaker_rate_hz, rate_hz))


def _laid_out(pieces: list[tuple[float, bytes]], started_at: float, ended_at: float, rate_hz: int) -> Samples:
    sound = np.zeros(max(0, round((ended_at - started_at) * rate_hz)), np.int16)
    following = -len(sound)
    for at, pcm in pieces:
        samples = samples_of(pcm)
        start = round((at - started_at) * rate_hz)
        if abs(start - following) <= SEAM_S * rate_hz:
            start = following
        following = start + len(samples)
        inside = samples[max(0, -start) : max(0, len(sound) - start)]
        sound[max(0, start) : max(0, start) + len(inside)] = inside
    return sound
