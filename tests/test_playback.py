from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from kit import recovery_of
from trio_voice import playback
from trio_voice.audio import AudioFormat, samples_of
from trio_voice.channels import (
    Duck,
    EndTurn,
    Hold,
    InboxItem,
    Interrupt,
    Interrupted,
    Play,
    PlaybackItem,
    TurnPlayed,
    TurnStarted,
)
from trio_voice.config import AudioOutputConfig
from trio_voice.devices import OpenSpeaker, Pull
from trio_voice.devices.wav import SoftwareSpeaker
from trio_voice.server.scripted import marked_samples, turns_in
from trio_voice.testing.devices import RecordingSpeaker

RATE_HZ = 8_000
CONFIG = AudioOutputConfig(sample_rate_hz=RATE_HZ, prebuffer_ms=40)
MS = RATE_HZ // 1000


def sound(turn: int, ms: int, start_ms: int = 0) -> bytes:
    return marked_samples(turn, ms * MS, start_ms * MS).astype("<i2").tobytes()


def play(turn: int, ms: int, start_ms: int = 0) -> Play:
    return Play(turn, f"item {turn}", 0, sound(turn, ms, start_ms))


@attrs.define(eq=False)
class Stage:
    """A playback actor, its speaker, and what it has reported with the time of each report."""

    speaker: RecordingSpeaker
    send: trio.MemorySendChannel[PlaybackItem]
    reports: list[tuple[float, InboxItem]] = attrs.Factory(list)

    def do(self, *items: PlaybackItem) -> None:
        for item in items:
            self.send.send_nowait(item)

    def recorded_ms(self, turn: int) -> float:
        return float(np.count_nonzero(samples_of(self.speaker.pcm) >> 8 == turn + 1)) / MS

    def reported(self, kind: type[Any]) -> list[Any]:
        return [report for _, report in self.reports if isinstance(report, kind)]


@asynccontextmanager
async def stage(
    latency_ms: int = 0, fade_ms: int = 0, block_ms: int = 20, config: AudioOutputConfig | None = None
) -> AsyncIterator[Stage]:
    speaker = RecordingSpeaker(latency_ms=latency_ms, block_ms=block_ms)
    send, inbox = trio.open_memory_channel[PlaybackItem](1000)
    reports_send, reports = trio.open_memory_channel[InboxItem](1000)
    config = config or attrs.evolve(CONFIG, fade_ms=fade_ms)
    standing = Stage(speaker, send)

    async def collect() -> None:
        async for report in reports:
            standing.reports.append((trio.current_time(), report))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        play = partial(playback.run, inbox, reports_send, speaker=speaker, config=config)
        await nursery.start(partial(play, recovery=recovery_of("speaker")))
        yield standing
        send.close()


async def test_a_turn_is_reported_when_it_starts_and_when_all_was_heard(autojump_clock: MockClock) -> None:
    async with stage(latency_ms=100) as on_stage:
        on_stage.do(play(1, 300), EndTurn(1))
        await trio.sleep(1)
    (started_at, started), (played_at, played) = on_stage.reports
    assert started == TurnStarted(1)
    assert isinstance(played, TurnPlayed)
    (position,) = played.positions
    assert (played.turn, position.item_id, position.heard_ms, position.received_ms) == (1, "item 1", 300, 300)
    begun_at = on_stage.speaker.started_at + np.argmax(samples_of(on_stage.speaker.pcm) != 0) / RATE_HZ
    assert started_at >= begun_at + 0.08, "not before the first sample has left the device"
    assert 0.3 <= played_at - begun_at <= 0.45
    assert on_stage.recorded_ms(1) == 300


@pytest.mark.parametrize("latency_ms", [0, 60])
async def test_the_position_of_an_interruption_is_what_was_recorded(latency_ms: int, autojump_clock: MockClock) -> None:
    async with stage(latency_ms) as on_stage:
        on_stage.do(play(1, 400), Play(1, "second", 0, sound(1, 400, 400)), EndTurn(1))
        await trio.sleep(0.31)
        on_stage.do(Interrupt(1))
        await trio.sleep(1)
        on_stage.do(play(1, 200, 800), EndTurn(1))
        await trio.sleep(1)
    (interrupted,) = on_stage.reported(Interrupted)
    first, second = interrupted.positions
    pulled_ms = on_stage.recorded_ms(1)
    assert first.heard_ms == pulled_ms - latency_ms > 0
    assert (second.item_id, second.heard_ms, second.received_ms) == ("second", 0, 400)
    assert interrupted.discarded_ms == 800 - pulled_ms
    assert on_stage.reported(TurnPlayed) == [], "an interrupted turn is never reported as played"


async def test_an_interruption_before_the_first_sample(autojump_clock: MockClock) -> None:
    async with stage() as on_stage:
        on_stage.do(Interrupt(1), play(1, 300), EndTurn(1))
        await trio.sleep(1)
        assert not any(on_stage.speaker.pcm)
        on_stage.do(play(2, 100), EndTurn(2))
        await trio.sleep(1)
    assert on_stage.reported(Interrupted) == [Interrupted(1, (), 0.0)]
    assert on_stage.reported(TurnPlayed)[0].turn == 2
    assert on_stage.recorded_ms(2) == 100


async def test_interrupting_twice_is_answered_twice_and_spoils_nothing(autojump_clock: MockClock) -> None:
    async with stage(fade_ms=5) as on_stage:
        on_stage.do(play(1, 300))
        await trio.sleep(0.1)
        on_stage.do(Interrupt(1), Interrupt(1), play(2, 300), EndTurn(2))
        await trio.sleep(1)
    first, second = on_stage.reported(Interrupted)
    assert first.positions[0].heard_ms > 0
    assert (second.positions, second.discarded_ms) == ((), 0.0)
    assert sound(2, 295, 5) in bytes(on_stage.speaker.pcm), "the next turn is whole, and fades in"
    (played,) = on_stage.reported(TurnPlayed)
    assert played.positions[0].heard_ms == 300


async def test_turns_are_reported_once_each_in_order(autojump_clock: MockClock) -> None:
    async with stage(latency_ms=30) as on_stage:
        for turn in (1, 2, 3):
            on_stage.do(play(turn, 100), EndTurn(turn))
        await trio.sleep(1)
        on_stage.do(EndTurn(3))  # the connection was lost after the turn had been played
        await trio.sleep(1)
    told = [(type(report).__name__, report.turn) for _, report in on_stage.reports]  # type: ignore[union-attr]
    assert told == [(kind, turn) for turn in (1, 2, 3) for kind in ("TurnStarted", "TurnPlayed")]


async def test_a_turn_without_sound_is_over_at_once(autojump_clock: MockClock) -> None:
    async with stage() as on_stage:
        on_stage.do(EndTurn(1))
        await trio.sleep(0.1)
        assert [report for _, report in on_stage.reports] == [TurnPlayed(1, ())]


async def test_a_hold_keeps_the_rest(autojump_clock: MockClock) -> None:
    async with stage() as on_stage:
        on_stage.do(play(1, 300), EndTurn(1))
        await trio.sleep(0.1)
        on_stage.do(Hold(True))
        await trio.sleep(0.02)
        held_ms = on_stage.recorded_ms(1)
        await trio.sleep(5)
        assert on_stage.recorded_ms(1) == held_ms
        assert on_stage.reported(TurnPlayed) == []
        on_stage.do(Hold(False))
        await trio.sleep(1)
        assert on_stage.recorded_ms(1) == 300
        assert len(on_stage.reported(TurnPlayed)) == 1


async def test_an_interruption_does_not_wait_for_a_device_that_hangs(autojump_clock: MockClock) -> None:
    """A blocking clear would wait for a pull that never comes."""

    class Hanging(RecordingSpeaker):
        @asynccontextmanager
        async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
            yield SoftwareSpeaker()

    send, inbox = trio.open_memory_channel[PlaybackItem](10)
    reports_send, reports = trio.open_memory_channel[InboxItem](10)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                playback.run, inbox, reports_send, speaker=Hanging(), config=CONFIG, recovery=recovery_of("speaker")
            )
        )
        for item in (play(1, 300), Interrupt(1)):
            send.send_nowait(item)
        with trio.fail_after(0.001):
            silenced = await reports.receive()
        assert isinstance(silenced, Interrupted)
        assert silenced.discarded_ms == 300
        nursery.cancel_scope.cancel()


async def test_ducking_takes_effect_where_it_stands_in_the_channel(autojump_clock: MockClock) -> None:
    async with stage() as on_stage:
        on_stage.do(play(1, 300), EndTurn(1))
        await trio.sleep(0.1)
        on_stage.do(Duck(0.5, 0))
        await trio.sleep(0.1)
        on_stage.do(Duck(1.0, 0))
        await trio.sleep(1)
    played = np.trim_zeros(samples_of(on_stage.speaker.pcm))
    wanted = samples_of(sound(1, 300))
    assert len(played) == len(wanted)
    quiet = played != wanted
    assert quiet.sum() == 100 * MS
    assert (abs(played[quiet] * 2 - wanted[quiet]) <= 1).all()


async def test_another_rate_at_the_device_changes_no_position(autojump_clock: MockClock) -> None:
    config = attrs.evolve(CONFIG, device_rate_hz=48_000, fade_ms=0)
    async with stage(latency_ms=60, config=config) as on_stage:
        on_stage.do(play(1, 400), EndTurn(1))
        await trio.sleep(0.31)
        on_stage.do(Interrupt(1))
        await trio.sleep(1)
        on_stage.do(play(2, 200), EndTurn(2))
        await trio.sleep(1)
    (interrupted,) = on_stage.reported(Interrupted)
    pcm = samples_of(on_stage.speaker.pcm)
    first = pcm[: int(0.7 * 48_000)]
    (position,) = interrupted.positions
    assert abs(position.heard_ms + 60 - len(np.trim_zeros(first)) / 48) < 0.2
    (played,) = on_stage.reported(TurnPlayed)[0].positions
    assert (played.heard_ms, played.received_ms) == (200, 200)
    assert abs(len(np.trim_zeros(pcm[len(first) :])) / 48 - 200) < 0.2


async def test_it_closes_its_reports_when_the_inbox_is_closed(autojump_clock: MockClock) -> None:
    send, inbox = trio.open_memory_channel[PlaybackItem](10)
    reports_send, reports = trio.open_memory_channel[InboxItem](10)
    send.close()
    await playback.run(inbox, reports_send, speaker=RecordingSpeaker(), config=CONFIG, recovery=recovery_of("speaker"))
    with pytest.raises(trio.EndOfChannel):
        await reports.receive()


actions = st.lists(
    st.one_of(
        st.tuples(st.just("play"), st.integers(0, 2), st.integers(1, 200)),
        st.tuples(st.just("play"), st.integers(0, 2), st.integers(1, 200)),
        st.tuples(st.just("end"), st.just(0), st.just(0)),
        st.tuples(st.just("interrupt"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 300), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(actions, st.sampled_from([0, 40]), st.sampled_from([10, 20]))
def test_no_interleaving_plays_a_stale_sample_or_reports_twice(
    plan: list[tuple[str, int, int]], latency_ms: int, block_ms: int
) -> None:
    """`play` late: sound of up to two turns back, as a server sends after a cancellation."""

    async def main() -> None:
        async with stage(latency_ms, block_ms=block_ms) as on_stage:
            turn = 1
            silenced_at: list[tuple[int, int]] = []
            for action, number, ms in plan:
                match action:
                    case "play":
                        on_stage.do(play(max(1, turn - number), ms))
                    case "end":
                        on_stage.do(EndTurn(turn))
                        turn += 1
                    case "interrupt":
                        floor = max(0, turn - number)
                        on_stage.do(Interrupt(floor))
                        turn = max(turn, floor + 1)
                        await trio.testing.wait_all_tasks_blocked()
                        silenced_at.append((floor, len(on_stage.speaker.pcm)))
                    case _:
                        await trio.sleep(number / 1000)
            on_stage.do(EndTurn(turn))
            await trio.sleep(0.3 + sum(ms for action, _, ms in plan if action == "play") / 1000)
            check(on_stage, silenced_at)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def check(on_stage: Stage, silenced_at: list[tuple[int, int]]) -> None:
    for floor, byte_count in silenced_at:
        assert all(turn > floor for turn in turns_in(samples_of(on_stage.speaker.pcm[byte_count:])))
    assert len(on_stage.reported(Interrupted)) == len(silenced_at)
    turn_of: Callable[[Any], int] = lambda report: report.turn  # noqa: E731
    for kind in (TurnStarted, TurnPlayed):
        turns = [turn_of(report) for report in on_stage.reported(kind)]
        assert len(set(turns)) == len(turns), f"{kind.__name__} twice"
    for _, report in on_stage.reports:
        for position in getattr(report, "positions", ()):
            assert 0 <= position.heard_ms <= position.received_ms
            assert position.heard_ms <= on_stage.recorded_ms(position.turn)
