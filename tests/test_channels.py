from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_voice.channels import EVENTS_CAPACITY, DropOldest, EventFanOut, EventStream, OnDemand, at_hand
from trio_voice.errors import SessionEnded
from trio_voice.events import (
    Connected,
    ListeningStarted,
    ListeningStopped,
    ResponseAudio,
    ServerEventReceived,
    SessionEvent,
    SpeechStart,
)
from trio_voice.protocol import UnknownEvent


def audio(turn: int, mark: int = 0) -> ResponseAudio:
    return ResponseAudio(at=float(mark), turn=turn, item_id="item", pcm=b"")


def word(mark: int) -> SpeechStart:
    return SpeechStart(at=0.0, audio_ms=mark)


async def all_of(stream: EventStream) -> list[SessionEvent]:
    return [event async for event in stream]


# --- drop-oldest ----------------------------------------------------------------------------------


@given(st.integers(1, 5), st.lists(st.sampled_from(["send", "send", "receive", "drain"]), max_size=40))
def test_the_newest_survive_in_order_and_the_rest_is_counted(capacity: int, steps: list[str]) -> None:
    channel: DropOldest[int] = DropOldest(capacity)
    waiting: deque[int] = deque()
    sent = dropped = 0
    for step in steps:
        match step:
            case "send":
                channel.send_nowait(sent)
                waiting.append(sent)
                sent += 1
                if len(waiting) > capacity:
                    waiting.popleft()
                    dropped += 1
            case "receive" if waiting:
                assert channel.receiver.receive_nowait() == waiting.popleft()
            case "drain":
                assert channel.drain() == len(waiting)
                dropped += len(waiting)
                waiting.clear()
        assert channel.dropped == dropped
    assert channel.receiver.statistics().current_buffer_used == len(waiting)


async def test_a_waiting_receiver_gets_the_item_at_once() -> None:
    channel: DropOldest[str] = DropOldest(1)
    got = []

    async def receive() -> None:
        got.append(await channel.receiver.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        for item in ("a", "b", "c"):
            channel.send_nowait(item)
    assert got == ["a"]
    assert channel.dropped == 1
    assert channel.receiver.receive_nowait() == "c"


async def test_an_actor_on_demand_begins_once_and_takes_all() -> None:
    begun, got = 0, []

    async def take(items: trio.MemoryReceiveChannel[int]) -> None:
        nonlocal begun
        begun += 1
        with items:
            got.extend([item async for item in items])

    async with trio.open_nursery() as nursery:
        channel = OnDemand[int](3, lambda items: nursery.start_soon(take, items))
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks, "nobody waits before there is something"
        for item in range(3):
            channel.send_nowait(item)
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait(3)
        await wait_all_tasks_blocked()
        channel.send_nowait(4)
        channel.close()
    assert (begun, got) == (1, [0, 1, 2, 4])


async def test_an_actor_that_was_never_needed_never_begins() -> None:
    channel = OnDemand[int](3, lambda items: pytest.fail("nothing was sent"))
    channel.close()


async def test_closing_lets_the_receiver_finish_what_waits() -> None:
    channel: DropOldest[str] = DropOldest(2)
    channel.send_nowait("a")
    channel.close()
    assert [item async for item in channel.receiver] == ["a"]
    with pytest.raises(trio.ClosedResourceError):
        channel.send_nowait("b")


async def test_without_a_listener_it_goes_on_dropping_until_the_next_one_comes() -> None:
    """Between two connections nobody takes frames; the newest are there for the next one."""
    channel: DropOldest[int] = DropOldest(2)
    with channel.receiver.clone():
        pass
    for number in range(5):
        channel.send_nowait(number)
    with channel.receiver.clone() as next_listener:
        assert next_listener.receive_nowait() == 3
    assert channel.dropped == 3
    assert channel.drain() == 1


# --- event streams --------------------------------------------------------------------------------

queued_events = st.lists(
    st.one_of(st.integers(0, 99).map(word), st.builds(audio, st.integers(1, 4), st.integers(0, 99))), max_size=30
)


@given(queued_events, st.integers(1, 6))
def test_a_listener_that_does_not_listen_loses_audio_first_then_the_oldest(
    events: list[SessionEvent], capacity: int
) -> None:
    stream = EventStream(audio=True, capacity=capacity)
    expected: list[SessionEvent] = []
    for event in events:
        if len(expected) == capacity:
            pieces = [index for index, queued in enumerate(expected) if isinstance(queued, ResponseAudio)]
            del expected[pieces[0] if pieces else 0]
        expected.append(event)
        stream.put(event)
    stream.close()
    assert trio.run(all_of, stream) == expected
    assert stream.dropped_events == len(events) - len(expected)


@given(queued_events, st.integers(0, 4))
def test_an_interruption_takes_out_the_audio_of_its_turn_and_nothing_else(
    events: list[SessionEvent], turn: int
) -> None:
    stream = EventStream(audio=True)
    for event in events:
        stream.put(event)
    stream.discard_audio(turn)
    stream.close()
    kept = [event for event in events if not (isinstance(event, ResponseAudio) and event.turn <= turn)]
    assert trio.run(all_of, stream) == kept


async def test_closing_gives_what_waits_then_ends_for_everyone() -> None:
    stream = EventStream()
    collected: list[list[SessionEvent]] = []

    async def listen() -> None:
        collected.append(await all_of(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        stream.put(word(1))
        stream.put(word(2))
        stream.close()
    assert sorted(event.audio_ms for got in collected for event in got if isinstance(event, SpeechStart)) == [1, 2]
    assert await all_of(stream) == []


async def test_wait_for_passes_over_other_events() -> None:
    stream = EventStream()
    for event in (word(1), ListeningStarted(at=0.0), ListeningStopped(at=1.0), word(2)):
        stream.put(event)
    assert await stream.wait_for(ListeningStopped) == ListeningStopped(at=1.0)
    assert await anext(stream) == word(2)


async def test_wait_for_says_that_the_session_ended() -> None:
    stream = EventStream()
    stream.put(word(1))
    stream.close()
    with pytest.raises(SessionEnded, match="before any Connected event"):
        await stream.wait_for(Connected)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_a_listener_that_is_cancelled_loses_nothing(cancels: list[bool]) -> None:
    """Cancelled while waiting, in the very tick in which an event comes, or before it began to wait."""

    async def main() -> None:
        stream = EventStream()
        got: list[SessionEvent] = []

        async def take(scope: trio.CancelScope) -> None:
            with scope:
                got.append(await anext(stream))

        for number, cancel_first in enumerate(cancels):
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(take, scope)
                if number % 2:
                    await wait_all_tasks_blocked()
                if cancel_first:
                    scope.cancel()
                stream.put(word(number))
                scope.cancel()
        stream.close()
        assert got + await all_of(stream) == [word(number) for number in range(len(cancels))]

    trio.run(main, clock=MockClock(autojump_threshold=0))


# --- the fan-out ----------------------------------------------------------------------------------


async def test_every_listener_gets_every_event_and_only_those_it_asked_for() -> None:
    fan_out = EventFanOut()
    assert not fan_out.wants_audio
    assert not fan_out.wants_protocol
    plain, other = fan_out.subscribe(), fan_out.subscribe()
    hears = fan_out.subscribe(audio=True)
    assert fan_out.wants_audio
    looks = fan_out.subscribe(protocol=True)
    assert fan_out.wants_protocol
    raw = ServerEventReceived(at=0.0, event=UnknownEvent("new.event", "{}"))
    for event in (word(1), audio(1), raw, word(2)):
        fan_out.emit(event)
    fan_out.close()
    assert await all_of(plain) == await all_of(other) == [word(1), word(2)]
    assert await all_of(hears) == [word(1), audio(1), word(2)]
    assert await all_of(looks) == [word(1), raw, word(2)]


async def test_a_listener_to_some_names_gets_those_as_soon_as_it_asks() -> None:
    fan_out = EventFanOut()
    picky, names = fan_out.subscribe(), set[str]()
    picky.only = names
    fan_out.emit(word(1))
    names.add("speech_start")
    for event in (word(2), ListeningStarted(at=0.0), word(3)):
        fan_out.emit(event)
    fan_out.close()
    assert await all_of(picky) == [word(2), word(3)]
    assert picky.dropped_events == 0


@given(st.lists(st.integers(), max_size=20), st.booleans())
def test_what_is_at_hand_comes_in_order_and_is_not_waited_for(items: list[int], closed: bool) -> None:
    send, receive = trio.open_memory_channel[int](20)
    for item in items:
        send.send_nowait(item)
    if closed:
        send.close()
    assert list(at_hand(receive)) == items
    assert list(at_hand(receive)) == []


async def test_drops_of_all_listeners_are_counted_and_one_slow_listener_costs_the_other_nothing() -> None:
    fan_out = EventFanOut()
    slow, quick = fan_out.subscribe(), fan_out.subscribe()
    for number in range(EVENTS_CAPACITY + 10):
        fan_out.emit(word(number))
        assert await anext(quick) == word(number)
    assert fan_out.dropped == 10
    assert await anext(slow) == word(10)


async def test_whoever_subscribes_too_late_gets_an_end_not_a_hang() -> None:
    fan_out = EventFanOut()
    fan_out.close()
    assert await all_of(fan_out.subscribe()) == []


async def test_a_listener_that_computes_lets_what_has_arrived_come_first(mock_clock: MockClock) -> None:
    """Each piece takes two passes of the scheduler to come; the listener gives it those, and does not take turns."""
    stream = EventStream(audio=True)

    async def deliver() -> None:
        for number in range(1, 20):
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            stream.put(audio(1, number))
        stream.discard_audio(1)
        stream.put(word(1))

    stream.put(audio(1, 0))
    await anext(stream)
    mock_clock.jump(0.02)  # for so long it computes
    stream.put(audio(1, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        assert await anext(stream) == word(1), "and not twenty pieces of an interrupted turn"


async def test_a_listener_that_waits_while_audio_is_discarded_gets_what_comes_next() -> None:
    """Discarding makes a new queue; whoever is parked must not be left with the old one."""
    stream = EventStream(audio=True)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                assert await anext(stream) == word(1)

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            stream.discard_audio(1)
            stream.put(word(1))


async def test_discarding_audio_reaches_every_listener() -> None:
    fan_out = EventFanOut()
    first, second = fan_out.subscribe(audio=True), fan_out.subscribe(audio=True)
    for turn in (1, 2):
        fan_out.emit(audio(turn))
    fan_out.discard_audio(1)
    fan_out.close()
    assert await all_of(first) == await all_of(second) == [audio(2)]
