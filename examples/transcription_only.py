"""Only writes down what is said: no agent answers. Here a recorded caller speaks.

    python examples/transcription_only.py

With a microphone of your own, put `PortAudioMicrophone()` of `trio_voice.devices.portaudio` in its place.
"""

import trio

from trio_voice import AgentCapability, RealtimeAgent, RealtimeSession, events
from trio_voice.channels import EventStream
from trio_voice.demo.caller import recording
from trio_voice.server.process import server_at_hand
from trio_voice.testing import ScriptedMicrophone

SCRIBE = RealtimeAgent("Scribe", capabilities={AgentCapability.VOICE_INPUT, AgentCapability.TRANSCRIPTION})
SAID = ("03-weather", "04-count", "06-goodbye")


async def written(stream: EventStream) -> str:
    """The words of one utterance, when they are complete."""
    line = await stream.wait_for(events.Transcript)
    while not line.final:
        line = await stream.wait_for(events.Transcript)
    return line.text


async def main() -> None:
    microphone = ScriptedMicrophone()
    async with (
        server_at_hand() as connection,
        RealtimeSession(SCRIBE, connection=connection, microphone=microphone) as session,
    ):
        stream = session.events()
        await session.start_listening()
        for name in SAID:
            await microphone.say(recording(name, session.audio_input.sample_rate_hz).tobytes())
            print(await written(stream))
        roles = {line.role for line in session.transcript()}
    print(f"{len(session.turns())} utterances, said by: {', '.join(sorted(roles))}")


if __name__ == "__main__":
    trio.run(main)
