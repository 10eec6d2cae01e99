"""A recorder: a conversation, and a folder with all that is left of it.

    python examples/recorder.py [FOLDER]

Afterwards the folder has `conversation.wav` (the customer left, the agent right, as it was heard), `journal.jsonl`
(every event with its time, and the sound: `trio-voice replay` shows it) and `transcript.txt`.
"""

import sys
from functools import partial
from pathlib import Path

import trio

from trio_voice import RealtimeAgent, RealtimeSession, journal
from trio_voice.demo.caller import SCRIPT, converse
from trio_voice.devices.wav import write_wav
from trio_voice.picture.replay import replayed
from trio_voice.server.process import server_at_hand
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

AGENT = RealtimeAgent(instructions="You are the agent of Acme Store. Be brief.", greets_first=True)
FIRST_LINES = SCRIPT[2:3]


async def record(folder: Path) -> None:
    microphone = ScriptedMicrophone()  # a recorded customer; your own: PortAudioMicrophone() and PortAudioSpeaker()
    async with server_at_hand() as connection:
        session = RealtimeSession(
            AGENT,
            connection=connection,
            microphone=microphone,
            speaker=RecordingSpeaker(),
        )
        async with trio.open_nursery() as nursery:  # the journal ends with the session
            await nursery.start(partial(journal.write, session, folder / "journal.jsonl", sound=True))
            async with session:
                await converse(session, microphone, [], FIRST_LINES)
    sounds = replayed(journal.read(folder / "journal.jsonl")).sounds
    if sounds is not None:
        write_wav(folder / "conversation.wav", sounds.rate_hz, sounds.caller, sounds.agent)
    lines = "".join(f"{line.role}: {line.text}\n" for line in session.transcript())
    (folder / "transcript.txt").write_text(lines, encoding="utf-8")
    print(lines)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "recording")
    folder.mkdir(parents=True, exist_ok=True)
    trio.run(record, folder)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    main()
