"""A journal as people look at it: what was said and done, both sides as sound, and what a picture is drawn from.

Pure. The invariant: second 0 of all of it is the moment in which the server had taken the configuration.
"""

from __future__ import annotations

import attrs

from trio_voice.events import Connected
from trio_voice.journal import Journal
from trio_voice.picture.record import Recording, recording_of
from trio_voice.picture.scene import Entry, Scene
from trio_voice.picture.sounds import Sounds, sounds_of


@attrs.frozen(eq=False)
class Replayed:
    """A conversation, from its journal."""

    journal: Journal
    started_at: float
    """On the journal's clock."""
    entries: tuple[Entry, ...]
    sounds: Sounds | None
    """None where the journal has no sound."""
    recording: Recording


def replayed(journal: Journal) -> Replayed:
    """Lay out what `journal` holds."""
    header, told = journal.header, journal.events
    connected = (event.at for event in told if isinstance(event, Connected))
    started_at = next(connected, told[0].at if told else 0.0)
    ended_at = max((event.at for event in told), default=started_at)
    scene = Scene()
    entries = [entry for event in told for entry in scene.apply(event)]
    entries += scene.rest()
    sounds = sounds_of(
        told,
        started_at=started_at,
        ended_at=ended_at,
        input_rate_hz=header.input_rate_hz,
        speaker_rate_hz=header.speaker_rate_hz,
    )
    recording = recording_of(
        told,
        started_at=started_at,
        ended_at=ended_at,
        caller_pcm=sounds.caller if sounds is not None else None,
        agent_pcm=sounds.agent if sounds is not None else None,
        rate_hz=sounds.rate_hz if sounds is not None else 24_000,
    )
    return Replayed(journal, started_at, tuple(entries), sounds, recording)
