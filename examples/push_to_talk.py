"""Push-to-talk: the agent listens while a key is held. Here a recorded customer holds it.

With a microphone of your own, put `PortAudioMicrophone()` and `PortAudioSpeaker()` of `trio_voice.devices.portaudio`
in place of the two devices, and call `start_listening()` and `stop_listening()` as your key goes down and up.
"""

import trio

from trio_voice import RealtimeAgent, RealtimeSession, events
from trio_voice.demo.caller import recording
from trio_voice.server.process import server_at_hand
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

AGENT = RealtimeAgent(instructions="Count when you are asked to.", turn_detection=None)


async def main() -> None:
    microphone, speaker = ScriptedMicrophone(), RecordingSpeaker()
    async with (
        server_at_hand() as connection,
        RealtimeSession(AGENT, connection=connection, microphone=microphone, speaker=speaker) as session,
    ):
        stream = session.events()
        await session.start_listening()  # the key goes down
        await microphone.say(recording("04-count", session.audio_input.sample_rate_hz).tobytes())
        await session.stop_listening()  # and up: the turn is over, and an answer asked for
        await stream.wait_for(events.PlaybackStart)
        await trio.sleep(2)
        await session.start_listening()  # down again, while the agent counts: it falls silent
        interruption = await stream.wait_for(events.Interruption)
        print(f"interrupted after {interruption.heard_ms / 1000:.1f} s")
        await session.stop_listening()
        for line in session.transcript():
            print(f"{line.role}: {line.text}")


if __name__ == "__main__":
    trio.run(main)
