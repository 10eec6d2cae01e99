from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from trio_voice.audio import AudioFormat, Frame, Samples, samples_of
from trio_voice.devices.wav import WavMicrophone, WavSpeaker, pulling, read_wav, write_wav
from trio_voice.errors import DeviceError
from trio_voice.server.scripted import marked_samples, tone

EIGHT_KHZ = AudioFormat("pcm16", 8_000)
FRAME_MS, FRAME_SAMPLES = 20, 160


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sound.wav"


def sound(count: int) -> Samples:
    return marked_samples(3, count)


# --- files ----------------------------------------------------------------------------------------


def test_what_is_written_is_read(path: Path) -> None:
    write_wav(path, 8_000, sound(1000))
    assert read_wav(path, 8_000).tolist() == sound(1000).tolist()


def test_several_channels_are_padded_and_the_first_is_read(path: Path) -> None:
    write_wav(path, 8_000, sound(100), sound(250))
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getnframes(), file.getframerate()) == (2, 250, 8_000)
    assert read_wav(path, 8_000).tolist() == [*sound(100).tolist(), *[0] * 150]


def test_another_rate_is_converted(path: Path) -> None:
    write_wav(path, 48_000, tone(1000, 500, 48_000), tone(300, 500, 48_000))
    samples = read_wav(path, 24_000)
    assert abs(len(samples) - 12_000) <= 1
    assert np.argmax(np.abs(np.fft.rfft(samples))) * 24_000 / len(samples) == pytest.approx(1000, abs=3)


def test_a_file_without_sound(path: Path) -> None:
    write_wav(path, 8_000, sound(0))
    assert len(read_wav(path, 8_000)) == len(read_wav(path, 24_000)) == 0


def test_a_recording_cut_short_is_read_as_far_as_it_goes(path: Path) -> None:
    write_wav(path, 8_000, sound(100))
    path.write_bytes(path.read_bytes()[:-51])
    assert read_wav(path, 8_000).tolist() == sound(74).tolist()


def _eight_bits(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8_000)
        file.writeframes(bytes(100))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "16-bit PCM is expected"),
        (lambda path: path.write_bytes(b"ID3\x04 an mp3, say" * 10), "16-bit PCM is expected"),
        (_eight_bits, "8-bit samples; convert it to 16-bit PCM"),
    ],
)
def test_a_bad_file_is_a_device_error_that_says_what_to_do(make: object, told: str, path: Path) -> None:
    assert callable(make)
    make(path)
    with pytest.raises(DeviceError, match=told) as caught:
        read_wav(path, 8_000)
    assert str(path) in str(caught.value)


# --- the microphone -------------------------------------------------------------------------------


async def test_a_file_is_spoken_in_real_time_then_comes_silence(path: Path, autojump_clock: MockClock) -> None:
    write_wav(path, 8_000, sound(250))
    started_at = trio.current_time()
    async with WavMicrophone(path).open(EIGHT_KHZ, FRAME_MS) as microphone:
        frames: list[Frame] = []
        for number in range(1, 5):
            frames.append(await microphone.receive())
            assert trio.current_time() - started_at == pytest.approx(number * 0.02)
    assert [frame.captured_at - started_at for frame in frames] == pytest.approx([0, 0.02, 0.04, 0.06])
    assert all(len(frame.pcm) == 2 * FRAME_SAMPLES for frame in frames)
    assert samples_of(b"".join(frame.pcm for frame in frames)).tolist() == [*sound(250).tolist(), *[0] * 390]


async def test_a_slow_reader_gets_every_frame_with_the_time_it_was_spoken(
    path: Path, autojump_clock: MockClock
) -> None:
    write_wav(path, 8_000, sound(3 * FRAME_SAMPLES))
    started_at = trio.current_time()
    async with WavMicrophone(path).open(EIGHT_KHZ, FRAME_MS) as microphone:
        await trio.sleep(10)
        frames = [await microphone.receive() for _ in range(3)]
        assert trio.current_time() - started_at == 10
    assert [frame.captured_at - started_at for frame in frames] == pytest.approx([0, 0.02, 0.04])


@pytest.mark.parametrize("realtime", [True, False])
async def test_a_source_that_ends_gives_its_last_samples_and_no_silence(
    realtime: bool, path: Path, autojump_clock: MockClock
) -> None:
    write_wav(path, 8_000, sound(200))
    started_at = trio.current_time()
    async with WavMicrophone(path, realtime=realtime, ends=True).open(EIGHT_KHZ, FRAME_MS) as microphone:
        pcm = (await microphone.receive()).pcm + (await microphone.receive()).pcm
        with pytest.raises(trio.EndOfChannel):
            await microphone.receive()
    assert samples_of(pcm).tolist() == sound(200).tolist()
    if not realtime:
        assert trio.current_time() == started_at


async def test_a_cancelled_wait_loses_no_frame(path: Path, autojump_clock: MockClock) -> None:
    write_wav(path, 8_000, sound(2 * FRAME_SAMPLES))
    async with WavMicrophone(path).open(EIGHT_KHZ, FRAME_MS) as microphone:
        with trio.move_on_after(0.01) as scope:
            await microphone.receive()
        assert scope.cancelled_caught
        pcm = (await microphone.receive()).pcm + (await microphone.receive()).pcm
    assert samples_of(pcm).tolist() == sound(2 * FRAME_SAMPLES).tolist()


async def test_a_missing_file_fails_when_it_is_opened(path: Path) -> None:
    with pytest.raises(DeviceError, match="no such file"):
        async with WavMicrophone(path).open(EIGHT_KHZ, FRAME_MS):
            pytest.fail("it opened")


# --- the speaker ----------------------------------------------------------------------------------


async def test_what_is_played_is_in_the_file_at_the_pace_of_the_clock(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "new folder" / "played.wav"
    asked: list[int] = []

    def pull(count: int) -> bytes:
        asked.append(count)
        return marked_samples(len(asked), count).astype("<i2").tobytes()

    async with WavSpeaker(path, block_ms=10).open(EIGHT_KHZ, pull) as speaker:
        await trio.sleep(0.995)
        assert speaker.unheard_samples() == 0
    assert asked == [80] * 100
    assert read_wav(path, 8_000).tolist() == [
        sample for block in range(1, 101) for sample in marked_samples(block, 80).tolist()
    ]


async def test_a_path_that_cannot_be_written_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be written"):
        async with WavSpeaker(tmp_path).open(EIGHT_KHZ, bytes):
            pytest.fail("it opened")


async def test_a_software_speaker_that_falls_behind_catches_up(autojump_clock: MockClock) -> None:
    """Ticks are counted, not drifted: after an hour there is an hour of sound."""
    played = bytearray()
    async with pulling(EIGHT_KHZ, lambda count: bytes(2 * count), 20, played.extend, latency_ms=100) as speaker:
        await trio.sleep(59.99)
        assert speaker.unheard_samples() == 800
    assert len(played) == 2 * 8_000 * 60
