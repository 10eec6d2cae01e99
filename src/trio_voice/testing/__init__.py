"""Tools for testing what you build on trio-voice, without a sound card and without waiting.

* `ScriptedMicrophone`, `RecordingSpeaker`: devices that run on Trio's clock, virtual or real.
* The local server in memory: `trio_voice.server.serve_stream` with a `ScriptedBrain`.
"""

from __future__ import annotations

from trio_voice.testing.devices import (
    RecordingSpeaker as RecordingSpeaker,
    ScriptedMicrophone as ScriptedMicrophone,
    Utterance as Utterance,
)
