"""The queue of outgoing events: bounded, in order, never blocking the emitter."""

from __future__ import annotations

import json
import random

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_voice.protocol.server_events import InputAudioBufferCleared, ResponseOutputAudioTranscriptDelta
from trio_voice.server.outbox import MAX_FRAMES, ROOM_FRAMES, Ids, Outbox


def outbox() -> Outbox:
    return Outbox(Ids(random.Random(1)))


async def test_frames_leave_in_order_with_ids_of_their_own() -> None:
    box = outbox()
    for word in "abc":
        box.emit(ResponseOutputAudioTranscriptDelta(item_id="i", delta=word))
    box.close()
    frames = []
    while (frame := await box.take()) is not None:
        frames.append(json.loads(frame))
    assert [frame["delta"] for frame in frames] == ["a", "b", "c"]
    assert len({frame["event_id"] for frame in frames}) == 3


async def test_a_stream_waits_for_room_and_goes_on_when_there_is(autojump_clock: MockClock) -> None:
    box = outbox()
    streamed = 0

    async def stream() -> None:
        nonlocal streamed
        while True:
            await box.room()
            box.emit(InputAudioBufferCleared())
            streamed += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        await wait_all_tasks_blocked()
        assert streamed == ROOM_FRAMES
        for _ in range(10):
            await box.take()
        await wait_all_tasks_blocked()
        assert streamed == ROOM_FRAMES + 10
        nursery.cancel_scope.cancel()


def test_what_cannot_wait_overflows_once_and_holds_no_more() -> None:
    box = outbox()
    for _ in range(MAX_FRAMES):
        box.emit(InputAudioBufferCleared())
    assert not box.overflowed.is_set()
    box.emit(InputAudioBufferCleared())
    assert box.overflowed.is_set()


async def test_closing_frees_who_waits() -> None:
    box = outbox()
    async with trio.open_nursery() as nursery:
        for _ in range(ROOM_FRAMES):
            box.emit(InputAudioBufferCleared())
        nursery.start_soon(box.room)
        await wait_all_tasks_blocked()
        box.close()
    box.emit(InputAudioBufferCleared())
    for _ in range(ROOM_FRAMES):
        assert await box.take() is not None
    assert await box.take() is None
