"""Word for word through the whole of it: a session, a socket, the server with its voice; and heard again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio

from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, events
from trio_voice.server.listen import serve
from trio_voice.server.speech.brain import SpeechBrain
from trio_voice.server.speech.stop import Stop
from trio_voice.testing import RecordingSpeaker

if TYPE_CHECKING:
    from trio_voice.server.speech.recogniser import MoonshineRecogniser
    from trio_voice.server.speech.voice import PiperVoice

GREETING = "Good morning, this is the shop."
GOODBYE = "Thank you for calling, and goodbye."


@pytest.mark.speech
async def test_what_is_to_be_said_is_heard_to_the_letter(recogniser: MoonshineRecogniser, voice: PiperVoice) -> None:
    brain, speaker = SpeechBrain(recogniser=recogniser, voice=voice), RecordingSpeaker()
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(lambda task_status: serve(brain, task_status=task_status))
        options = ConnectionOptions(url=listening.url, model=None, connect_timeout_ms=60_000)
        session = RealtimeSession(RealtimeAgent(greeting=GREETING), connection=options, speaker=speaker)
        stream = session.events()
        with trio.fail_after(60):
            async with session:
                await stream.wait_for(events.PlaybackEnd)
                await session.say(GOODBYE, interruptible=False)
                await stream.wait_for(events.PlaybackEnd)
                assert [line.text for line in session.transcript()] == [GREETING, GOODBYE]
        nursery.cancel_scope.cancel()
    heard = recogniser.recognise(np.frombuffer(bytes(speaker.pcm), np.int16), 24_000, Stop()).text
    assert letters(heard) == letters(f"{GREETING} {GOODBYE}")


def letters(text: str) -> str:
    """Without the spaces: the recogniser writes `goodbye` now as one word and now as two."""
    return re.sub(r"\W", "", text).lower()
