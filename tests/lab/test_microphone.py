"""The microphone on real PortAudio."""

from __future__ import annotations

import os

import numpy as np
import pytest
import trio

from trio_voice.audio import PCM16_24K, AudioFormat
from trio_voice.devices import OpenMicrophone, portaudio
from trio_voice.devices.portaudio import PortAudioMicrophone
from trio_voice.errors import DeviceError

from .pulse import AudioLab

pytestmark = pytest.mark.device

FRAME_MS = 20
PATTERN = np.arange(1, 12_001, dtype="<i2").tobytes()
"""Half a second in which every sample is another."""
LEAD = bytes(4_800)
"""A null sink swallows up to 10 ms when a stream begins, so that is silence."""


async def receive_for_ever(mic: OpenMicrophone) -> None:
    while True:
        await mic.receive()


async def hear_pattern(mic: OpenMicrophone, lab: AudioLab) -> bytes:
    """Play the pattern into the microphone's feed and receive until it is there, or 5 s of sound went by."""
    captured = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.play, LEAD + PATTERN + LEAD)
        while PATTERN not in captured and len(captured) < PCM16_24K.bytes_of_ms(5_000):
            frame = await mic.receive()
            assert len(frame.pcm) == PCM16_24K.bytes_of_ms(FRAME_MS)
            captured += frame.pcm
    return bytes(captured)


@pytest.mark.parametrize("block_samples", [None, 0, 333], ids=["a frame", "host's choice", "an odd size"])
async def test_sound_is_captured_bit_for_bit_in_whole_frames(lab: AudioLab, block_samples: int | None) -> None:
    microphone = PortAudioMicrophone(lab.microphone, block_samples=block_samples)
    async with microphone.open(PCM16_24K, FRAME_MS) as mic:
        assert PATTERN in await hear_pattern(mic, lab)
        assert mic.dropped_frames == 0


async def test_frames_are_captured_one_frame_apart_and_before_now(lab: AudioLab) -> None:
    async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, FRAME_MS) as mic:
        entered_at = trio.current_time()
        frames = [await mic.receive() for _ in range(20)]
        received_at = trio.current_time()
    captured_at = [frame.captured_at for frame in frames]
    assert entered_at - 1 < captured_at[0] < captured_at[-1] < received_at
    assert np.diff(captured_at) == pytest.approx(0.020, abs=0.010)
    assert (captured_at[-1] - captured_at[0]) / 19 == pytest.approx(0.020, abs=0.001)


async def test_what_piles_up_during_a_stall_is_dropped_and_counted(lab: AudioLab) -> None:
    async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, FRAME_MS) as mic:
        for _ in range(10):
            before = await mic.receive()
        with lab.frozen(), trio.move_on_after(1.0):
            await receive_for_ever(mic)
        # Only what the server had already recorded, or records late, may be missing; nothing old may come.
        while (after := await mic.receive()).captured_at < before.captured_at + 0.3:
            assert trio.current_time() - after.captured_at < 1.0
        assert trio.current_time() - after.captured_at < 0.5
        assert mic.dropped_frames >= 20


async def test_a_reader_that_was_away_gets_the_newest_sound(lab: AudioLab) -> None:
    async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, FRAME_MS) as mic:
        before = await mic.receive()
        async with lab.listen("micfeed") as clock:
            await clock.until_longer_by(600)
        after = await mic.receive()
        assert after.captured_at - before.captured_at > 0.25
        assert mic.dropped_frames >= 10


async def test_an_unplugged_microphone_raises_to_its_reader(lab: AudioLab) -> None:
    async with PortAudioMicrophone(lab.loose_microphone).open(PCM16_24K, FRAME_MS) as mic:
        await mic.receive()
        with (
            lab.unplugged(),
            pytest.raises(DeviceError, match=r"lab_loose_microphone.*stopped by itself"),
        ):
            await receive_for_ever(mic)


async def test_a_cancelled_receive_loses_nothing(lab: AudioLab) -> None:
    async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, FRAME_MS) as mic:
        captured_at: list[float] = []
        while len(captured_at) < 10:
            with trio.move_on_after(0.003):
                captured_at.append((await mic.receive()).captured_at)
        assert np.diff(captured_at) == pytest.approx(0.020, abs=0.010)
        assert mic.dropped_frames == 0


async def test_a_device_that_is_not_there_is_named_beside_those_that_are(lab: AudioLab) -> None:
    with pytest.raises(DeviceError, match=r"no input device 'kazoo'.*lab_microphone.*--mic question.wav"):
        async with PortAudioMicrophone("kazoo").open(PCM16_24K, FRAME_MS):
            pass


async def test_a_device_unplugged_since_the_start_says_so(lab: AudioLab) -> None:
    with (
        lab.unplugged(),
        pytest.raises(DeviceError, match=r"'lab_loose_microphone' cannot be opened.*Plug"),
    ):
        async with PortAudioMicrophone(lab.loose_microphone).open(PCM16_24K, FRAME_MS):
            pass


async def test_g711_is_refused() -> None:
    with pytest.raises(DeviceError, match="takes pcm16, not pcmu"):
        PortAudioMicrophone().open(AudioFormat("pcmu", 8_000), FRAME_MS)


def _open_things() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


async def test_ten_openings_leave_no_thread_and_no_file(lab: AudioLab) -> None:
    async def open_and_hear() -> None:
        async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, FRAME_MS) as mic:
            await mic.receive()

    await open_and_hear()  # Trio keeps one worker thread for the next use
    before = _open_things()
    for _ in range(10):
        await open_and_hear()
    files, threads = _open_things()
    assert files <= before[0]
    assert threads <= before[1]


async def test_a_microphone_that_falls_silent_without_a_word_has_failed(
    lab: AudioLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "STALL_LIMIT_S", 0.5)
    async with PortAudioMicrophone(lab.microphone).open(PCM16_24K, FRAME_MS) as mic:
        await mic.receive()
        with lab.frozen(), pytest.raises(DeviceError, match=r"'lab_microphone' has given no sound for 0.5 s"):
            await receive_for_ever(mic)
