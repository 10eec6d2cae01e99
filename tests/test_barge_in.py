"""Barge-in where the application is slow, and the record of sound that there was no room for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from test_session_peer import SPEECH_STARTED, created, delta, done
from trio_voice import AudioOutputConfig, events
from trio_voice.server.scripted import Say, ScriptedBrain, marked_samples, turns_in

BURST = 60
"""Pieces of sound that the application has not taken when the user begins to speak."""
WORK_S = 0.020


async def sleeping() -> None:
    await trio.sleep(WORK_S)


async def computing() -> None:
    """Nobody else gets a turn meanwhile."""
    until = time.perf_counter() + WORK_S
    while time.perf_counter() < until:
        pass
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("work", [sleeping, computing])
async def test_a_slow_application_learns_of_it_before_any_sound_that_waited(
    work: Callable[[], Awaitable[None]], autojump_clock: MockClock
) -> None:
    burst, at_work = trio.Event(), trio.Event()

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), *[delta("r1", 1, 100) for _ in range(BURST)])
        await trio.testing.wait_all_tasks_blocked()
        burst.set()
        await at_work.wait()
        await peer.send(SPEECH_STARTED, *[delta("r1", 1, 100) for _ in range(5)], done("r1", "cancelled"))
        await trio.sleep(0.2)
        await peer.send(created("r2"), *[delta("r2", 2, 100) for _ in range(10)], done("r2"))
        await peer.drain()

    taken: list[events.SessionEvent] = []
    async with call_peer(serve) as on:
        stream = on.session.events(audio=True)
        await burst.wait()
        with trio.fail_after(60):
            async for event in stream:
                taken.append(event)
                if isinstance(event, events.ResponseAudio):
                    await work()
                    at_work.set()
                if isinstance(event, events.PlaybackEnd):
                    break
        names = [event.name for event in taken]
        before, after = taken[: names.index("speech_start")], taken[names.index("speech_start") :]
        waiting = BURST - sum(isinstance(event, events.ResponseAudio) for event in before)
        assert waiting > 0, "sound of the interrupted turn was queued"
        assert [event.turn for event in after if isinstance(event, events.Interruption)] == [1]
        answer = [event for event in after if isinstance(event, events.ResponseAudio)]
        assert {event.turn for event in answer} == {2}, "nothing stale reached the application"
        assert b"".join(event.pcm for event in answer) == marked_samples(2, RATE_HZ // 10).tobytes() * 10
        assert names.index("interruption") < names.index("audio", len(before)), "before any further sound"
        assert int((on.heard >> 8 == 3).sum()) == RATE_HZ, "the loudspeaker had all of the next answer"
        assert turns_in(on.heard[-RATE_HZ:]) == [2]


async def test_what_there_was_no_room_for_is_not_remembered_as_said(autojump_clock: MockClock) -> None:
    """The buffer holds a second; the answer has four, and comes at once. Nobody interrupts."""
    words = "One two three four five six seven eight."
    brain = ScriptedBrain([Say(words, 4000), Say("Right.", 300)], ["Go.", "What did you say?"])
    output = AudioOutputConfig(fade_ms=0, capacity_ms=1000)
    async with call(brain, audio_output=output) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        said_until = len(on.heard)
        assert 0 < int((on.heard >> 8 == 1).sum()) <= 2 * RATE_HZ
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard[said_until:]) == [1]
        assert on.session.metrics.dropped["overflow_samples"] > 0
        assert on.session.metrics.truncation_count == 1
        assert on.session.metrics.interruption_count == 0
        spoken = on.session.transcript()[1].text
        assert spoken, "the beginning of it was said"
        assert words.startswith(spoken)
        assert len(spoken) < len(words)
        assert on.errors() == []
    (remembered,) = [item for item in brain.requests[1].items if item.role == "assistant"]
    assert words.startswith(remembered.text or "-")
    assert len(remembered.text) < len(words)
