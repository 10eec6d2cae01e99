"""Tools for testing what you build on trio-voice, without a sound card, without a network and without waiting.

* `ScriptedMicrophone`, `RecordingSpeaker`: devices that run on Trio's clock, virtual or real.
* `EchoingRoom`: a microphone that hears the loudspeaker too.
* `memory_server`, `socket_server`: the local server, for a session's `open_stream`, on which a `Fault` can be struck.
* `FaultyStream`: any byte stream, with the same faults.
* `trio_voice.testing.strategies`: hypothesis strategies. `trio_voice.testing.simulate`: whole conversations at speed.
"""

from __future__ import annotations

from trio_voice.testing.devices import (
    RecordingSpeaker as RecordingSpeaker,
    ScriptedMicrophone as ScriptedMicrophone,
    Utterance as Utterance,
)
from trio_voice.testing.faults import Fault as Fault, FaultyStream as FaultyStream
from trio_voice.testing.room import EchoingRoom as EchoingRoom
from trio_voice.testing.server import (
    FaultyServer as FaultyServer,
    ServedConnection as ServedConnection,
    memory_server as memory_server,
    socket_server as socket_server,
)
