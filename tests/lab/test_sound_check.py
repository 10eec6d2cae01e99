"""`trio-voice devices --test` on real devices, in a pipe."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from program import program

from .pulse import AudioLab
from .test_speaker import samples

pytestmark = pytest.mark.device


async def test_the_tone_is_heard_and_ctrl_c_ends_it_in_order(lab: AudioLab) -> None:
    arguments = ["--test", "--output", lab.speaker, "--input", lab.microphone, "--seconds", "60"]
    async with lab.listen() as heard, program("devices", *arguments) as check:
        await check.until("dBFS, loudest")
        await heard.until(lambda pcm: bool(samples(pcm[-2_400:]).any()))
        check.process.send_signal(signal.SIGINT)
        assert await check.ended(within_s=5) == 0
    assert 3_000 <= np.abs(samples(bytes(heard.pcm)).astype(int)).max() <= 3_300
