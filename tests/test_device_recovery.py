"""Devices that fail in a conversation: it goes on, nothing heard is lost or said twice, and the account is right."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, memory_stream_pair

from fragile import Away, FragileMicrophone, FragileSpeaker, Timetable
from kit import URL
from trio_voice import RealtimeAgent, RealtimeSession, capture, events, playback
from trio_voice.audio import Frame, samples_of
from trio_voice.channels import (
    DropOldest,
    EndTurn,
    InboxItem,
    Interrupt,
    Interrupted,
    Play,
    PlaybackItem,
    TurnPlayed,
)
from trio_voice.config import AudioInputConfig, AudioOutputConfig, SessionState
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.devices import OpenMicrophone, OpenSpeaker
from trio_voice.errors import DeviceError
from trio_voice.events import DeviceLost, DeviceRestored
from trio_voice.restart_policy import Reopening
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain

RATE_HZ = 8_000
INPUT = AudioInputConfig(sample_rate_hz=RATE_HZ)
OUTPUT = AudioOutputConfig(sample_rate_hz=RATE_HZ, prebuffer_ms=40, fade_ms=0)
NUMBERS = np.arange(1, 2 * RATE_HZ + 1, dtype="<i2")
"""Two seconds in which every sample is another."""


@given(st.integers(1, 10_000), st.floats(0.01, 1), st.floats(1, 5), st.floats(1, 10))
def test_the_wait_grows_to_its_bound_and_never_ends(attempt: int, first: float, multiplier: float, most: float) -> None:
    policy = Reopening(first, multiplier, most)
    assert policy.delay_s(1) == first
    assert policy.delay_s(attempt) <= policy.delay_s(attempt + 1) <= most


def test_a_device_that_is_back_waits_less_than_a_second() -> None:
    assert Reopening().delay_s(1) <= 0.1
    assert Reopening().delay_s(10**9) < 1


@attrs.define(eq=False)
class Stage:
    """A capture or playback actor, its device, and what it told."""

    recovery: DeviceRecovery
    reports: list[InboxItem] = attrs.Factory(list)

    def told(self, kind: type[Any]) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    async def until(self, kind: type[Any], count: int = 1) -> None:
        while len(self.told(kind)) < count:  # noqa: ASYNC110 - the time is virtual
            await trio.sleep(0.001)


@asynccontextmanager
async def playing(speaker: Any, *, wait: bool = False) -> AsyncIterator[tuple[Stage, trio.MemorySendChannel[Any]]]:
    send, inbox = trio.open_memory_channel[PlaybackItem](1000)
    to_reports, reports = trio.open_memory_channel[InboxItem](1000)
    stage = Stage(DeviceRecovery("speaker", speaker.name, to_reports.clone(), wait))

    async def collect() -> None:
        async for report in reports:
            stage.reports.append(report)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        play = partial(playback.run, inbox, to_reports, speaker=speaker, config=OUTPUT)
        await nursery.start(partial(play, recovery=stage.recovery))
        yield stage, send
        send.close()


def heard(speaker: FragileSpeaker) -> list[int]:
    samples = samples_of(bytes(speaker.pcm))
    return [int(sample) for sample in samples[samples != 0]]


def test_a_sentence_goes_on_where_the_loudspeaker_died() -> None:
    """Whatever the timetable: each sample is heard once, in order, and `TurnPlayed` counts them all.

    It works for 1.1 s each time, as it is opened up to 0.5 s after it is back and needs 0.25 s to prove that it works.
    """

    @settings(max_examples=40)
    @given(
        st.lists(st.tuples(st.floats(1.1, 2), st.floats(0.01, 3)), max_size=3),
        st.integers(0, 120),
    )
    def check(gaps: list[tuple[float, float]], latency_ms: int) -> None:
        away, at = [], 0.0
        for works_s, away_s in gaps:
            away.append((at + works_s, at + works_s + away_s))
            at += works_s + away_s

        async def main() -> None:
            speaker = FragileSpeaker(Timetable(tuple(away)), latency_ms)
            async with playing(speaker) as (stage, send):
                send.send_nowait(Play(1, "a", 0, NUMBERS.tobytes()))
                send.send_nowait(EndTurn(1))
                with trio.fail_after(60):
                    await stage.until(TurnPlayed)
                [position] = stage.told(TurnPlayed)[0].positions
                assert position.heard_ms == 2000
                await trio.sleep(1)
            assert heard(speaker) == [int(sample) for sample in NUMBERS]

        trio.run(main, clock=MockClock(autojump_threshold=0))

    check()


async def test_an_interruption_while_the_loudspeaker_is_away_counts_what_was_heard(autojump_clock: MockClock) -> None:
    speaker = FragileSpeaker(Timetable(((0.5, 3.0),)), latency_ms=60)
    async with playing(speaker) as (stage, send):
        send.send_nowait(Play(1, "a", 0, NUMBERS.tobytes()))
        await stage.until(DeviceLost)
        await trio.sleep(1)
        send.send_nowait(Interrupt(1))
        await stage.until(Interrupted)
        [position] = stage.told(Interrupted)[0].positions
        assert position.heard_ms == heard(speaker)[-1] / RATE_HZ * 1000
        send.send_nowait(Play(2, "b", 0, NUMBERS[-800:].tobytes()))
        send.send_nowait(EndTurn(2))
        await stage.until(TurnPlayed)
        await trio.sleep(0.2)
    after = heard(speaker)[round(position.heard_ms * RATE_HZ / 1000) :]
    assert after == [int(sample) for sample in NUMBERS[-800:]], "not a sample of what was interrupted"


async def test_what_a_suspended_loudspeaker_swallows_is_not_heard_and_comes_again(autojump_clock: MockClock) -> None:
    speaker = FragileSpeaker(Timetable(((0.5, 0.51),)), suspended=((0.51, 9.0),))
    async with playing(speaker) as (stage, send):
        send.send_nowait(Play(1, "a", 0, NUMBERS[:RATE_HZ].tobytes()))
        send.send_nowait(EndTurn(1))
        await stage.until(DeviceLost)
        lost_at = trio.current_time()
        await stage.until(TurnPlayed)
        assert len(speaker.pulls) > 4
        [restored] = stage.told(DeviceRestored)
        assert 8.5 <= restored.outage_ms / 1000 <= 8.5 + 2 + 0.5
        assert restored.at - lost_at >= restored.outage_ms / 1000 + 0.2, "told when it was sure"
        assert stage.recovery.metrics(trio.current_time()).failures == 1, "one outage, however many attempts"
        await trio.sleep(1)
    assert heard(speaker) == list(range(1, RATE_HZ + 1))


async def test_a_stream_that_was_given_up_gets_no_sound(autojump_clock: MockClock) -> None:
    speaker = FragileSpeaker(Timetable(((0.5, 0.6),)))
    async with playing(speaker) as (stage, send):
        send.send_nowait(Play(1, "a", 0, NUMBERS.tobytes()))
        await stage.until(DeviceLost)
        assert not any(speaker.pulls[0](160))
        await stage.until(DeviceRestored)
        assert not any(speaker.pulls[0](160))
        assert any(speaker.pulls[1](160))


@pytest.mark.parametrize("wait", [False, True])
async def test_none_at_the_start_is_an_error_or_is_waited_for(autojump_clock: MockClock, wait: bool) -> None:
    speaker = FragileSpeaker(Timetable(((0.0, 5.0),)))
    if not wait:
        with pytest.raises(ExceptionGroup) as caught:
            async with playing(speaker):
                pytest.fail("started without a loudspeaker")
        assert caught.group_contains(DeviceError, match="it is not there")
        return
    async with playing(speaker, wait=True) as (stage, send):
        assert trio.current_time() == speaker.timetable.started_at
        send.send_nowait(Play(1, "a", 0, NUMBERS[:800].tobytes()))
        send.send_nowait(EndTurn(1))
        await stage.until(TurnPlayed)
        assert [lost.reason for lost in stage.told(DeviceLost)] == ["it is not there"]
        assert 5000 <= stage.told(DeviceRestored)[0].outage_ms <= 5500
        await trio.sleep(1)
    assert heard(speaker) == list(range(1, 801))
    attempts = speaker.timetable.attempts
    assert [round(later - earlier, 3) for earlier, later in itertools.pairwise(attempts)][:5] == [
        0.1,
        0.2,
        0.4,
        0.5,
        0.5,
    ]


async def test_what_trying_again_cannot_help_is_raised(autojump_clock: MockClock) -> None:
    class Hopeless(FragileSpeaker):
        @asynccontextmanager
        async def open(self, *_: Any) -> AsyncIterator[OpenSpeaker]:
            raise DeviceError("it takes no pcm16", retryable=False)
            yield

    with pytest.raises(ExceptionGroup) as caught:
        async with playing(Hopeless(Timetable(())), wait=True):
            pytest.fail("waited for what cannot come")
    assert caught.group_contains(DeviceError, match="no pcm16")


@asynccontextmanager
async def listening(microphone: Any, frames: DropOldest[Frame], *, wait: bool = False) -> AsyncIterator[Stage]:
    to_reports, reports = trio.open_memory_channel[InboxItem](1000)
    stage = Stage(DeviceRecovery("microphone", microphone.name, to_reports, wait))

    async def collect() -> None:
        async for report in reports:
            stage.reports.append(report)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        hear = partial(capture.run, frames, microphone=microphone, config=INPUT)
        await nursery.start(partial(hear, recovery=stage.recovery))
        yield stage
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("away", [((1.0, 1.05),), ((1.0, 4.0),), ((1.0, 1.5), (2.0, 2.2))])
async def test_the_server_goes_on_hearing_silence_in_real_time(autojump_clock: MockClock, away: Away) -> None:
    microphone = FragileMicrophone(Timetable(away))
    frames: DropOldest[Frame] = DropOldest(10_000)
    speech = np.full(RATE_HZ * 20, 1000, "<i2").tobytes()
    async with listening(microphone, frames) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(microphone.inner.say, speech)
        await trio.sleep(6.0)
        nursery.cancel_scope.cancel()
    frames.close()
    received = [frame async for frame in frames.receiver]
    starts_s = [frame.captured_at - microphone.timetable.started_at for frame in received]
    assert np.diff(starts_s) == pytest.approx(0.02, abs=0.021), "no gap longer than a frame, nothing twice"
    assert all(len(frame.pcm) == INPUT.format.bytes_of_ms(INPUT.chunk_ms) for frame in received)
    silent_s = [at for at, frame in zip(starts_s, received, strict=True) if not any(frame.pcm)]
    assert all(any(start - 0.01 <= at < end + 0.5 for start, end in away) for at in silent_s)
    outages_ms = sum(restored.outage_ms for restored in stage.told(DeviceRestored))
    assert len(silent_s) * INPUT.chunk_ms == pytest.approx(outages_ms, abs=len(away) * 45)
    assert len(stage.told(DeviceLost)) == len(stage.told(DeviceRestored)) == len(away)
    metrics = stage.recovery.metrics(trio.current_time())
    assert metrics.failures == len(away)
    assert metrics.outage_ms == pytest.approx(outages_ms)


async def test_without_a_microphone_at_the_start_silence_is_heard_until_there_is_one(autojump_clock: MockClock) -> None:
    microphone = FragileMicrophone(Timetable(((0.0, 3.0),)))
    frames: DropOldest[Frame] = DropOldest(10_000)
    async with listening(microphone, frames, wait=True) as stage:
        await stage.until(DeviceLost)
        assert stage.recovery.metrics(trio.current_time() + 1).outage_ms == pytest.approx(1000, abs=1)
        await stage.until(DeviceRestored)
        assert 3.0 <= microphone.timetable.elapsed_s <= 3.0 + 0.5 + 0.021
    assert len([None async for _ in frames.receiver]) >= 149


async def test_a_file_that_ends_has_not_failed(autojump_clock: MockClock) -> None:
    class Ends(FragileMicrophone):
        @asynccontextmanager
        async def open(self, *_: Any) -> AsyncIterator[OpenMicrophone]:
            class Opened:
                dropped_frames = 0

                async def receive(self) -> Frame:
                    await trio.sleep(1)
                    raise trio.EndOfChannel

            yield Opened()

    frames: DropOldest[Frame] = DropOldest(10)
    async with listening(Ends(Timetable(())), frames) as stage:
        assert [frame async for frame in frames.receiver] == []
        assert stage.reports == []


async def test_a_device_that_keeps_failing_is_tried_ever_more_slowly(autojump_clock: MockClock) -> None:
    away = tuple((start + 0.3, start + 0.31) for start in range(60))
    microphone = FragileMicrophone(Timetable(away))
    frames: DropOldest[Frame] = DropOldest(10)
    async with listening(microphone, frames) as stage:
        await trio.sleep(10.5)
        waits_s = [restored.outage_ms / 1000 for restored in stage.told(DeviceRestored)]
    assert waits_s[:4] == pytest.approx([0.1, 0.2, 0.4, 0.5], abs=0.001), "working for a second does not clear it"


@asynccontextmanager
async def session_with(microphone: Any, speaker: Any, **options: Any) -> AsyncIterator[RealtimeSession]:
    async with trio.open_nursery() as nursery:

        async def open_stream() -> trio.abc.Stream:
            client_end, server_end = memory_stream_pair()
            brain = ScriptedBrain([Say("One two three four five.", 2000)], ["Hello."])
            nursery.start_soon(serve_stream, server_end, brain)
            await trio.lowlevel.checkpoint()
            return client_end

        session = RealtimeSession(
            RealtimeAgent(), connection=URL, microphone=microphone, speaker=speaker, open_stream=open_stream, **options
        )
        async with session:
            yield session
        nursery.cancel_scope.cancel()


async def test_a_session_outlives_its_devices_and_says_so(autojump_clock: MockClock) -> None:
    microphone = FragileMicrophone(Timetable(((3.0, 4.0),)))
    speaker = FragileSpeaker(Timetable(((1.0, 2.0), (3.0, 5.0))))
    async with session_with(microphone, speaker) as session:
        stream = session.events()
        await session.start_listening()
        await session.respond()
        with trio.fail_after(30):
            lost = await stream.wait_for(DeviceLost)
            restored = await stream.wait_for(DeviceRestored)
            await stream.wait_for(events.PlaybackEnd)
            await trio.sleep(5)
        assert (lost.kind, lost.device, lost.reason) == ("speaker", "fragile speaker", "it was unplugged")
        assert restored.kind == "speaker"
        assert 1000 <= restored.outage_ms <= 1500
        metrics = session.metrics
        assert metrics.speaker is not None
        assert metrics.microphone is not None
        assert (metrics.speaker.failures, metrics.microphone.failures) == (2, 1)
        assert 3000 <= metrics.speaker.outage_ms <= 4000
        assert metrics.heard_ms == metrics.audio_duration_ms == 2000
        assert session.state is SessionState.LISTENING


async def test_a_session_begins_without_devices_where_it_may_wait_for_them(autojump_clock: MockClock) -> None:
    microphone, speaker = FragileMicrophone(Timetable(((0.0, 3.0),))), FragileSpeaker(Timetable(((0.0, 3.0),)))
    with pytest.RaisesGroup(pytest.RaisesExc(DeviceError, match="it is not there")):
        async with session_with(microphone, speaker):
            pytest.fail("entered without devices")
    microphone, speaker = FragileMicrophone(Timetable(((0.0, 3.0),))), FragileSpeaker(Timetable(((0.0, 3.0),)))
    waiting = {
        "audio_input": AudioInputConfig(wait_for_device=True),
        "audio_output": AudioOutputConfig(wait_for_device=True),
    }
    async with session_with(microphone, speaker, **waiting) as session:
        stream = session.events()
        await session.respond()
        with trio.fail_after(30):
            await stream.wait_for(events.PlaybackEnd)
        assert session.metrics.heard_ms == 2000
        assert speaker.timetable.elapsed_s > 5
