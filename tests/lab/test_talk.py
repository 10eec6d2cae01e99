"""`trio-voice talk` as a person uses it: a real microphone, a real loudspeaker, its own server."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio

from program import program
from trio_voice.audio import PCM16_24K, level_dbfs
from trio_voice.demo.caller import __file__ as caller_file
from trio_voice.devices.wav import read_wav

from .pulse import AudioLab

pytestmark = [pytest.mark.device, pytest.mark.speech]

QUESTION = Path(caller_file).parent / "caller" / "01-order.wav"
AGENT = """
import attrs
from trio_voice.demo import customer_service
AGENT = attrs.evolve(customer_service.AGENT, greets_first=False)
"""
AUDIBLE_DBFS = -45.0
PAUSE = bytes(PCM16_24K.bytes_of_ms(1500))
"""After the question, as a person would: the server waits for half a second of it."""


def audible(pcm: bytes) -> bool:
    window = PCM16_24K.bytes_of_ms(100)
    return any(level_dbfs(pcm[at : at + window]) > AUDIBLE_DBFS for at in range(0, len(pcm), window))


async def test_a_question_spoken_into_the_microphone_is_answered_through_the_loudspeaker(
    lab: AudioLab, tmp_path: Path
) -> None:
    pytest.importorskip("moonshine_voice")
    (tmp_path / "patient.py").write_text(AGENT)
    account = tmp_path / "summary.json"
    arguments = ["--mic", lab.microphone, "--speaker", lab.speaker, "--agent", "patient:AGENT"]
    async with (
        lab.listen("speaker") as heard,
        program("talk", *arguments, "--summary", str(account), cwd=str(tmp_path)) as talk,
    ):
        await talk.until("Connected")  # and listening
        assert not audible(bytes(heard.pcm))
        await lab.play(read_wav(QUESTION, PCM16_24K.rate_hz).tobytes() + PAUSE)
        await talk.until("  you    ")
        with trio.fail_after(20):
            await heard.until(audible)
        talk.process.send_signal(signal.SIGINT)
        assert await talk.ended(within_s=5) == 0
        assert await talk.complained() == ""
    said = json.loads(account.read_text())["transcript"]
    assert [line["role"] for line in said][:2] == ["user", "agent"]
