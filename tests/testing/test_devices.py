from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_voice.audio import AudioFormat, Frame, samples_of
from trio_voice.server.scripted import marked_samples
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

EIGHT_KHZ = AudioFormat("pcm16", 8_000)
FRAME_MS = 20


def sound(turn: int, count: int) -> bytes:
    return marked_samples(turn, count).astype("<i2").tobytes()


@attrs.define(eq=False)
class Listening:
    microphone: ScriptedMicrophone
    frames: list[Frame] = attrs.Factory(list)

    @property
    def pcm(self) -> bytes:
        return b"".join(frame.pcm for frame in self.frames)

    def heard(self, turn: int) -> list[int]:
        return [sample for sample in samples_of(self.pcm).tolist() if sample >> 8 == turn + 1]


@asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    """A microphone that is always listened to."""
    microphone = ScriptedMicrophone()
    heard = Listening(microphone)

    async def listen() -> None:
        async with microphone.open(EIGHT_KHZ, FRAME_MS) as opened:
            while True:
                heard.frames.append(await opened.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        yield heard
        nursery.cancel_scope.cancel()


async def test_it_is_silent_in_real_time_until_told_to_speak(autojump_clock: MockClock) -> None:
    async with listening() as heard:
        await trio.sleep(1.01)
        assert len(heard.frames) == 50
        assert not any(heard.pcm)
        utterance = await heard.microphone.say(sound(1, 400))
        assert heard.heard(1) == samples_of(sound(1, 400)).tolist()
        assert utterance.started_at == pytest.approx(1.0)
        assert trio.current_time() == pytest.approx(1.06), "it returns when the last frame has been captured"
        await trio.sleep(0.5)
    spoken_at = next(frame.captured_at for frame in heard.frames if any(frame.pcm))
    assert spoken_at == utterance.started_at
    assert heard.microphone.said == [utterance]


async def test_two_utterances_follow_each_other_and_each_gets_its_own(autojump_clock: MockClock) -> None:
    async with listening() as heard:
        got = {}

        async def say(turn: int) -> None:
            got[turn] = await heard.microphone.say(sound(turn, 300))

        async with trio.open_nursery() as nursery:
            for turn in (1, 2):
                nursery.start_soon(say, turn)
        for turn in (1, 2):
            assert got[turn].pcm == sound(turn, 300)
            assert heard.heard(turn) == samples_of(sound(turn, 300)).tolist()
        assert abs(got[1].started_at - got[2].started_at) == pytest.approx(0.04)


async def test_a_backlog_gives_each_speaker_its_own_utterance(autojump_clock: MockClock) -> None:
    """A reader that was late takes many frames at one moment."""
    microphone = ScriptedMicrophone()
    got = {}

    async def say(turn: int) -> None:
        got[turn] = await microphone.say(sound(turn, 160))

    async with microphone.open(EIGHT_KHZ, FRAME_MS) as opened, trio.open_nursery() as nursery:
        for turn in range(1, 9):
            nursery.start_soon(say, turn)
        await trio.sleep(10)
        for _ in range(8):
            await opened.receive()
    assert [got[turn].pcm for turn in range(1, 9)] == [sound(turn, 160) for turn in range(1, 9)]


async def test_what_is_cancelled_is_not_said_further(autojump_clock: MockClock) -> None:
    async with listening() as heard:
        with trio.move_on_after(0.05):
            await heard.microphone.say(sound(1, 8_000))
        await heard.microphone.say(sound(2, 160))
        await trio.sleep(1)
        assert 0 < len(heard.heard(1)) <= 480
        assert heard.heard(2) == samples_of(sound(2, 160)).tolist()


async def test_what_is_cancelled_before_it_began_was_never_said(autojump_clock: MockClock) -> None:
    async with listening() as heard:
        with trio.move_on_after(0):
            await heard.microphone.say(sound(1, 8_000))
        await trio.sleep(1)
        assert not any(heard.pcm)
        assert heard.microphone.said == []


async def test_nothing_to_say_is_said_at_the_next_frame(autojump_clock: MockClock) -> None:
    async with listening() as heard:
        with trio.fail_after(1):
            await heard.microphone.say(b"")
        assert not any(heard.pcm)


async def test_the_speaker_remembers_every_block_where_it_was_played(autojump_clock: MockClock) -> None:
    speaker = RecordingSpeaker(block_ms=10, latency_ms=40)
    blocks = 0

    def pull(count: int) -> bytes:
        nonlocal blocks
        blocks += 1
        return sound(blocks, count)

    await trio.sleep(5)
    async with speaker.open(EIGHT_KHZ, pull) as opened:
        await trio.sleep(0.495)
        assert opened.unheard_samples() == 320
    assert speaker.started_at == 5
    assert bytes(speaker.pcm) == b"".join(sound(block, 80) for block in range(1, 51))
