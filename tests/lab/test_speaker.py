"""The loudspeaker on real PortAudio."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import numpy.typing as npt
import pytest
import trio

from trio_voice.audio import PCM16_24K
from trio_voice.devices import portaudio
from trio_voice.devices.portaudio import PortAudioSpeaker, list_devices
from trio_voice.errors import DeviceError

from .pulse import AudioLab

pytestmark = pytest.mark.device

LEAD_SAMPLES = 2_400
"""A null sink swallows up to 10 ms when a stream begins, so every test begins with silence."""


class Counting:
    """Pulled from by a speaker: silence, then the numbers 1, 2, 3 …, or silence again once cleared."""

    def __init__(self, length: int = 30_000) -> None:
        self.length = length
        self.position = -LEAD_SAMPLES
        """The number of the last sample pulled."""
        self.cleared = False

    def pull(self, sample_count: int) -> bytes:
        numbers = np.arange(self.position + 1, self.position + sample_count + 1)
        self.position += sample_count
        sounding = (numbers > 0) & (numbers <= self.length) & (not self.cleared)
        return np.where(sounding, numbers, 0).astype("<i2").tobytes()


def samples(pcm: bytes) -> npt.NDArray[np.int16]:
    return np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2")


def sounding(pcm: bytes) -> bool:
    return bool(samples(pcm)[-100:].any())


async def test_what_is_pulled_is_heard_sample_for_sample(lab: AudioLab) -> None:
    source = Counting(length=12_000)
    everything = np.arange(1, 12_001, dtype="<i2").tobytes()
    async with lab.listen() as heard, PortAudioSpeaker(lab.speaker, block_samples=480).open(PCM16_24K, source.pull):
        await heard.until(lambda pcm: any(pcm) and not any(pcm[-4_800:]))
    assert np.trim_zeros(samples(bytes(heard.pcm))).tobytes() == everything


async def test_the_heard_position_is_within_480_samples(lab: AudioLab) -> None:
    source = Counting()
    async with lab.listen() as heard, PortAudioSpeaker(lab.speaker).open(PCM16_24K, source.pull) as speaker:
        await heard.until(sounding)
        errors = []
        for _ in range(10):
            await heard.until_longer_by(40)
            errors.append(source.position - speaker.unheard_samples() - int(samples(bytes(heard.pcm))[-1]))
    assert abs(float(np.median(errors))) <= 480


async def test_silence_follows_a_cleared_buffer_within_100_ms(lab: AudioLab) -> None:
    source = Counting()
    async with (
        lab.listen() as heard,
        PortAudioSpeaker(lab.speaker, block_samples=480).open(PCM16_24K, source.pull),
    ):
        await heard.until(sounding)
        await heard.until_longer_by(200)
        source.cleared = True
        last = source.position
        cleared_at = len(samples(bytes(heard.pcm)))
        await heard.until_longer_by(400)
    sound = np.flatnonzero(samples(bytes(heard.pcm)))
    assert PCM16_24K.ms_of_samples(int(sound[-1]) - cleared_at) <= 100
    assert int(samples(bytes(heard.pcm)).max()) <= last


async def test_a_raising_pull_is_silence_and_is_reported(lab: AudioLab) -> None:
    def pull(sample_count: int) -> bytes:
        raise RuntimeError("no cake")

    async with lab.listen() as heard, PortAudioSpeaker(lab.speaker).open(PCM16_24K, pull) as speaker:
        failed = await speaker.wait_failed()
        await heard.until_longer_by(100)
    assert "no cake" in str(failed)
    assert isinstance(failed.__cause__, RuntimeError)
    assert not samples(bytes(heard.pcm)).any()


async def test_a_pull_of_the_wrong_length_is_reported(lab: AudioLab) -> None:
    async with PortAudioSpeaker(lab.speaker).open(PCM16_24K, lambda sample_count: bytes(7)) as speaker:
        assert "gave 7 bytes instead of 960" in str(await speaker.wait_failed())


async def test_an_unplugged_speaker_is_reported_and_can_be_opened_again(lab: AudioLab) -> None:
    token = trio.lowlevel.current_trio_token()
    for _ in range(2):
        source, started = Counting(), trio.Event()

        def pull(sample_count: int, source: Counting = source, started: trio.Event = started) -> bytes:
            if source.position > 0:  # a server that dies earlier may find PortAudio 19.6 spinning for ever
                token.run_sync_soon(started.set)
            return source.pull(sample_count)

        async with PortAudioSpeaker(lab.loose_speaker).open(PCM16_24K, pull) as speaker:
            await started.wait()
            with lab.unplugged():
                failed = await speaker.wait_failed()
                assert isinstance(failed, DeviceError)
                assert "stopped by itself" in str(failed)
                assert 0 <= speaker.unheard_samples() <= source.position + LEAD_SAMPLES


async def test_closing_does_not_wait_for_a_frozen_sound_server(lab: AudioLab) -> None:
    source = Counting()
    async with lab.listen() as heard:
        with contextlib.ExitStack() as thaw:
            async with PortAudioSpeaker(lab.speaker).open(PCM16_24K, source.pull):
                await heard.until(sounding)
                thaw.enter_context(lab.frozen())
            # Here, with the server still frozen, the speaker is closed.
        await heard.until_longer_by(100)


async def test_opening_on_a_frozen_sound_server_can_be_cancelled(lab: AudioLab) -> None:
    list_devices()  # PortAudio itself starts while the server answers
    with lab.frozen(), trio.move_on_after(0.3) as scope:
        async with PortAudioSpeaker(lab.speaker).open(PCM16_24K, Counting().pull):
            pass
    assert scope.cancelled_caught
    async with lab.listen() as heard, PortAudioSpeaker(lab.speaker).open(PCM16_24K, Counting().pull):
        await heard.until(sounding)


def _open_things() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


async def test_ten_openings_leave_no_thread_and_no_file(lab: AudioLab) -> None:
    async def open_and_pull() -> None:
        pulled = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def pull(sample_count: int) -> bytes:
            token.run_sync_soon(pulled.set)
            return bytes(2 * sample_count)

        async with PortAudioSpeaker(lab.speaker).open(PCM16_24K, pull):
            await pulled.wait()

    await open_and_pull()  # Trio keeps one worker thread for the next use
    before = _open_things()
    for _ in range(10):
        await open_and_pull()
    files, threads = _open_things()
    assert files <= before[0]
    assert threads <= before[1]


async def test_devices_are_listed_with_their_rates(lab: AudioLab) -> None:
    found = {device.name: device for device in await trio.to_thread.run_sync(lambda: list_devices(probe_rates=True))}
    assert found["default"].is_default_output
    assert found[lab.speaker].output_channels > 0
    assert 24_000 in found[lab.speaker].rates_hz
    assert 24_000 in found[lab.microphone].rates_hz


async def test_a_speaker_that_stops_asking_without_a_word_has_failed(
    lab: AudioLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "STALL_LIMIT_S", 0.5)
    async with PortAudioSpeaker(lab.speaker).open(PCM16_24K, Counting().pull) as speaker:
        with lab.frozen():
            assert "has asked for no sound for 0.5 s" in str(await speaker.wait_failed())
