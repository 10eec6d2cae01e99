"""States and requests at awkward moments: a pause before the answer, silence for an answer, text in an outage."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit import Peer, call, call_peer
from trio_voice import ConfigError, ConnectionOptions, SessionEnded, SessionState, WireLost, events
from trio_voice.server.scripted import Say, ScriptedBrain

RECONNECTING = ConnectionOptions(url="ws://memory/v1/realtime", model=None)


async def test_a_pause_before_the_answer_ends_with_resume(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("An answer.", 1000)], think_ms=1000)) as on:
        await on.speak()
        await on.next(events.SpeechEnd)
        await on.session.pause()
        await trio.sleep(3)
        await on.session.resume()
        await trio.sleep(3)
        assert on.turns_heard() == [0]


async def test_an_interruption_ends_the_state_of_responding(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("A long answer.", 5000)]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.interrupt()
        await trio.sleep(1)
        assert on.session.state is SessionState.CONNECTED


async def test_an_utterance_that_is_not_answered_is_not_processed_for_ever(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([], lambda samples, rate_hz: "")) as on:
        await on.speak()
        await trio.sleep(30)
        assert on.session.state is SessionState.LISTENING


async def test_a_text_in_an_outage_is_answered_after_it(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("One.", 300), Say("Two.", 300)])
    async with call(brain, connection=RECONNECTING, listening=False) as on:
        await on.session.send_text("First.")
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Reconnecting)
        await on.session.send_text("Second.")
        await trio.sleep(10)
        assert on.turns_heard() == [0, 1]


async def test_an_answer_cut_after_a_reconnection_is_remembered_as_heard(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("One two three four five six.", 6000), Say("Yes.", 300)], ["Go.", "Stop."])
    async with call(brain, connection=RECONNECTING) as on:
        await on.speak()
        await on.next(events.ResponseEnd)
        await on.drop()
        await on.next(events.Connected)
        await trio.sleep(2)
        await on.speak()
        await on.next(events.Interruption)
        await on.next(events.PlaybackEnd)
    told = [item.text for item in brain.requests[-1].items if item.role == "assistant"]
    assert len(told) == 1
    assert "One two three four five six.".startswith(told[0])
    assert 1 <= len(told[0].split()) < 5


async def test_two_interruptions_at_once_both_wait_for_silence(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("A long answer.", 5000)]), listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.session.interrupt)
            nursery.start_soon(on.session.interrupt)
        cut_at = len(on.heard)
        await trio.sleep(2)
        assert not on.heard[cut_at:].any()
        assert on.session.metrics.interruption_count == 1


async def test_leaving_while_the_server_speaks_is_no_error(autojump_clock: MockClock) -> None:
    for moment in range(40):
        brain = ScriptedBrain([Say("Word after word after word.", 20_000)], chunk_delay_ms=1)
        async with call(brain, listening=False, audio=True) as on:
            await on.session.respond()
            await on.next(events.ResponseStart)
            for _ in range(moment):
                await trio.lowlevel.checkpoint()


async def test_what_waited_when_the_session_broke_hides_no_reason(autojump_clock: MockClock) -> None:
    """One clear error: why the connection was lost, not that a text could not be sent for it."""

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await nobody_is_there.wait()
        await peer.socket.aclose(1011)

    nobody_is_there = trio.Event()
    options = ConnectionOptions(url="ws://memory/", model=None, max_reconnect_attempts=2, reconnect_delay_ms=60_000)
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="gave up after 2 attempts")):
        async with call_peer(serve, connection=options) as on:
            on.session._link.open_stream = refuse
            nobody_is_there.set()
            await on.next(events.Reconnecting)
            await on.session.send_text("Are you there?")


async def test_a_text_that_still_waits_when_the_session_ends_is_told_so(autojump_clock: MockClock) -> None:
    async def write() -> None:
        with pytest.raises(SessionEnded, match="before 'text' was carried out"):
            await on.session.send_text("Are you there?")

    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with call(ScriptedBrain(), connection=RECONNECTING, listening=False) as on:
        on.session._link.open_stream = never
        await on.drop()
        await on.next(events.Reconnecting)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await wait_all_tasks_blocked()
                await on.session.disconnect()


async def refuse() -> trio.abc.Stream:
    raise WireLost("nobody there", retryable=True)


@pytest.mark.parametrize("url", ["ws://host:99999/", "ws:///v1/realtime", "ws://host:0/"])
def test_an_impossible_address_is_said_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="no possible port"):
        ConnectionOptions(url=url)
