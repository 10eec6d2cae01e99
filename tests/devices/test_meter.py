from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from trio.testing import MockClock

from trio_voice.audio import PCM16_24K, AudioFormat
from trio_voice.devices import OpenSpeaker, Pull
from trio_voice.devices.meter import Meter, MeteredMicrophone, MeteredSpeaker
from trio_voice.devices.wav import SoftwareSpeaker, WavMicrophone, write_wav

LOUD = np.full(24_000, 16_384, np.int16)
"""A second at -6 dBFS."""
SILENCE_DBFS = -96.0


def test_a_meter_shows_the_last_100_ms_alone() -> None:
    meter = Meter()
    meter.start(PCM16_24K)
    assert meter.level_dbfs() == SILENCE_DBFS
    meter.note(LOUD.tobytes())
    assert meter.level_dbfs() == pytest.approx(-6.02, abs=0.01)
    meter.note(bytes(PCM16_24K.bytes_of_ms(50)))
    assert meter.level_dbfs() == pytest.approx(-9.03, abs=0.01)
    meter.note(bytes(PCM16_24K.bytes_of_ms(50)))
    assert meter.level_dbfs() == SILENCE_DBFS


async def test_a_microphone_is_heard_as_without_its_meter(tmp_path: object, autojump_clock: MockClock) -> None:
    path = f"{tmp_path}/loud.wav"
    write_wav(path, 24_000, LOUD)
    metered = MeteredMicrophone(WavMicrophone(path, ends=True))
    async with metered.open(PCM16_24K, 20) as opened:
        heard = b"".join([(await opened.receive()).pcm for _ in range(50)])
        assert metered.meter.level_dbfs() == pytest.approx(-6.02, abs=0.01)
    assert heard == LOUD.tobytes()
    assert metered.meter.level_dbfs() == SILENCE_DBFS
    assert metered.name == path


class Drinking:
    """A speaker that has drunk one block by the time it is open."""

    name = "drinking"
    got = b""

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        self.got = pull(480)
        yield SoftwareSpeaker()


async def test_a_speaker_is_given_what_the_meter_shows() -> None:
    drinking = Drinking()
    metered = MeteredSpeaker(drinking)
    async with metered.open(PCM16_24K, lambda count: LOUD[:count].tobytes()):
        assert drinking.got == LOUD[:480].tobytes()
        assert metered.meter.level_dbfs() == pytest.approx(-6.02, abs=0.01)
    assert metered.meter.level_dbfs() == SILENCE_DBFS
