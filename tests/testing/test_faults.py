"""What each fault does to a byte stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock, memory_stream_pair

from trio_voice.testing.faults import Fault, FaultyStream, quick_pair


def pair(*faults: Fault) -> tuple[FaultyStream, trio.abc.Stream]:
    near, far = memory_stream_pair()
    return FaultyStream(near, faults), far


async def test_nothing_happens_unless_it_is_struck(autojump_clock: MockClock) -> None:
    stream, far = pair()
    await stream.send_all(b"there")
    assert await far.receive_some() == b"there"
    await far.send_all(b"back")
    assert await stream.receive_some() == b"back"
    await stream.aclose()
    assert await far.receive_some() == b""


async def test_a_drop_is_the_end_of_the_stream_also_for_who_is_waiting(autojump_clock: MockClock) -> None:
    stream, far = pair()
    got: list[bytes | bytearray] = []

    async def receive() -> None:
        got.append(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await stream.strike(Fault("drop"))
    assert got == [b""]
    assert await far.receive_some() == b"", "the peer notices too"
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_a_reset_raises_on_both_sides_of_the_call(autojump_clock: MockClock) -> None:
    stream, _far = pair(Fault("reset", at_s=1))
    await trio.sleep(1)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_half_open_swallows_and_gives_nothing_until_it_is_closed(autojump_clock: MockClock) -> None:
    stream, far = pair(Fault("half_open"))
    await far.send_all(b"lost")
    await stream.send_all(b"lost too")
    with trio.move_on_after(1000) as waiting:
        await stream.receive_some()
    assert waiting.cancelled_caught
    with trio.move_on_after(1) as waiting:
        await far.receive_some()
    assert waiting.cancelled_caught, "the peer got neither the bytes nor the end"

    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()


@pytest.mark.parametrize(
    ("fault", "earliest_s", "latest_s"),
    [
        (Fault("stall", duration_s=3), 3, 3),
        (Fault("delay", duration_s=60, delay_s=0.25), 0.25, 0.25),
        (Fault("jitter", duration_s=60, delay_s=0.25), 0.001, 0.25),
    ],
)
async def test_lateness_is_on_trios_clock(
    fault: Fault, earliest_s: float, latest_s: float, autojump_clock: MockClock
) -> None:
    stream, far = pair(fault)
    await far.send_all(b"late")
    began_at = trio.current_time()
    assert await stream.receive_some() == b"late"
    assert earliest_s <= trio.current_time() - began_at <= latest_s


async def test_tiny_chunks_keep_every_byte(autojump_clock: MockClock) -> None:
    stream, far = pair(Fault("tiny_chunks", after_bytes=4))
    await far.send_all(b"head")
    assert await stream.receive_some() == b"h"
    sizes, got = [], bytearray(b"h")
    await far.send_all(bytes(1000))
    while len(got) < 1004:
        piece = await stream.receive_some()
        sizes.append(len(piece))
        got += piece
    assert got == b"head" + bytes(1000)
    assert sizes[:100] == [1] * 100
    await stream.send_all(b"abc")
    assert await far.receive_some() in (b"a", b"abc")


async def test_one_bit_is_wrong_and_the_same_one_each_time(autojump_clock: MockClock) -> None:
    spoilt = []
    for _ in range(2):
        stream, far = pair(Fault("corrupt"))
        await far.send_all(bytes(64))
        spoilt.append(bytes(await stream.receive_some()))
        await far.send_all(b"ok")
        assert await stream.receive_some() == b"ok"
    assert spoilt[0] == spoilt[1]
    assert sorted(spoilt[0]) == [0] * 63 + [0x80]


async def test_what_no_stream_can_do_is_refused(autojump_clock: MockClock) -> None:
    stream, _far = pair()
    with pytest.raises(ValueError, match="strike the server"):
        await stream.strike(Fault("close_1011"))


@pytest.mark.parametrize("make", [quick_pair, memory_stream_pair])
async def test_a_quick_pair_is_as_good_as_trios(
    make: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], autojump_clock: MockClock
) -> None:
    one, other = make()
    await one.send_all(b"abcdef")
    assert await other.receive_some(4) == b"abcd"
    assert await other.receive_some(4) == b"ef"
    with trio.move_on_after(1) as waiting:
        await other.receive_some()
    assert waiting.cancelled_caught
    await other.send_all(b"before the end")
    await other.aclose()
    assert await one.receive_some() == b"before the end"
    assert await one.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await one.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await other.receive_some()
