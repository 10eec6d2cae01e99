"""A recorder: a conversation, and a folder with all that is left of it.

    python examples/recorder.py [FOLDER]

Afterwards the folder has `conversation.wav` (the customer left, the agent right, as it was heard), `journal.jsonl`
(every event with its time) and `transcript.txt`.
"""

import sys
from pathlib import Path

import numpy as np
import trio

from trio_voice import AudioFormat, Frame, RealtimeAgent, RealtimeSession, journal
from trio_voice.audio import Samples, samples_of
from trio_voice.demo.caller import SCRIPT, converse
from trio_voice.devices.wav import write_wav
from trio_voice.server.process import server_at_hand
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

AGENT = RealtimeAgent(instructions="You are the agent of Acme Store. Be brief.", greets_first=True)
FIRST_LINES = SCRIPT[2:3]


class Tap:
    """Keeps a copy of every frame that passes: of the microphone's or of the loudspeaker's."""

    def __init__(self) -> None:
        self.pcm = bytearray()

    def start(self, audio_format: AudioFormat) -> None:
        self.audio_format = audio_format

    def filter(self, frame: Frame) -> Frame:
        self.pcm += frame.pcm
        return frame


async def record(folder: Path) -> None:
    said, heard = Tap(), Tap()
    microphone = ScriptedMicrophone()  # a recorded customer; your own: PortAudioMicrophone() and PortAudioSpeaker()
    async with server_at_hand() as connection:
        session = RealtimeSession(
            AGENT,
            connection=connection,
            microphone=microphone,
            speaker=RecordingSpeaker(),
            capture_filters=[said],
            playback_filters=[heard],
        )
        log = session.events(protocol=True)  # it ends with the session
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.write, log, folder / "journal.jsonl")
            async with session:
                await converse(session, microphone, [], FIRST_LINES)
    write_wav(folder / "conversation.wav", said.audio_format.rate_hz, *in_step(said, heard))
    lines = "".join(f"{line.role}: {line.text}\n" for line in session.transcript())
    (folder / "transcript.txt").write_text(lines, encoding="utf-8")
    print(lines)


def in_step(said: Tap, heard: Tap) -> list[Samples]:
    """Both sides, of one length. The microphone was opened a moment after the loudspeaker; they ended together."""
    sides = [samples_of(bytes(tap.pcm)) for tap in (said, heard)]
    longest = max(len(side) for side in sides)
    return [np.concatenate([np.zeros(longest - len(side), np.int16), side]) for side in sides]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "recording")
    folder.mkdir(parents=True, exist_ok=True)
    trio.run(record, folder)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    main()
