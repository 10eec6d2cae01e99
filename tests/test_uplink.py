from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial, reduce
from operator import or_
from typing import Any, Literal, cast

import attrs
import msgspec
import pytest
import trio
from hypothesis import example, given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_voice import uplink
from trio_voice.audio import PCM16_24K, Frame
from trio_voice.channels import DropOldest, Send, SetMicrophone, UplinkItem
from trio_voice.errors import WireLost
from trio_voice.protocol import (
    ClientEvent,
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    ResponseCancel,
)
from trio_voice.protocol.client_events import CLIENT_EVENTS
from trio_voice.uplink import UplinkStatistics
from trio_voice.utterances import SentAudio
from trio_voice.wire import Wire

EPOCH = 3
ANY_EVENT: Any = reduce(or_, CLIENT_EVENTS)
FRAME_MS = 20
FRAME_BYTES = PCM16_24K.bytes_of_ms(FRAME_MS)


@attrs.define(eq=False)
class FakeWire:
    """Takes text as a socket does, or fails like a lost one."""

    texts: list[str] = attrs.Factory(list)
    lost: bool = False

    has_room: bool = True
    stalled_until: trio.Event | None = None

    def put(self, text: str) -> bool:
        if self.lost:
            raise WireLost("gone", retryable=True)
        self.texts.append(text)
        return self.has_room

    async def flushed(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.stalled_until is not None:
            await self.stalled_until.wait()

    @property
    def events(self) -> list[ClientEvent]:
        return [msgspec.json.decode(text, type=ANY_EVENT) for text in self.texts]

    @property
    def marks(self) -> list[str | int]:
        """What was sent, in short: a frame by the number in it, anything else by its name."""
        return [
            event.audio[0] if isinstance(event, InputAudioBufferAppend) else type(event).__name__
            for event in self.events
        ]


@attrs.define(eq=False)
class Line:
    wire: FakeWire
    control: trio.MemorySendChannel[UplinkItem]
    frames: DropOldest[Frame]
    statistics: UplinkStatistics
    spoken: int = 0

    async def say(self, count: int = 1) -> None:
        """Give frames 1, 2, 3 ..., each after everything before it has been dealt with."""
        for _ in range(count):
            await wait_all_tasks_blocked()
            self.spoken += 1
            self.frames.send_nowait(Frame(bytes([self.spoken]) * FRAME_BYTES, 0.0))
        await wait_all_tasks_blocked()

    async def set(self, gate: Literal["open", "muted", "closed"], tail_ms: int = 0, *, commit: bool = False) -> None:
        self.control.send_nowait(SetMicrophone(gate, tail_ms, commit))
        await wait_all_tasks_blocked()


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    control, control_inbox = trio.open_memory_channel[UplinkItem](100)
    frames = DropOldest[Frame](100)
    fake, statistics = FakeWire(), UplinkStatistics()
    send = partial(uplink.run, sent=SentAudio(PCM16_24K, 30_000), input_format=PCM16_24K, statistics=statistics)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, cast(Wire, fake), control_inbox, frames)
        yield Line(fake, control, frames, statistics)
        nursery.cancel_scope.cancel()


async def test_nothing_is_sent_before_the_gate_opens_then_every_frame() -> None:
    async with line() as up:
        await up.say(2)
        assert up.wire.marks == []
        await up.set("open")
        await up.say(3)
        assert up.wire.marks == [3, 4, 5]
        assert up.statistics.sent_audio_ms == 3 * FRAME_MS


async def test_muted_sends_silence_so_that_the_servers_ear_can_close() -> None:
    async with line() as up:
        await up.set("open")
        await up.say()
        await up.set("muted")
        await up.say(2)
        await up.set("open")
        await up.say()
        assert up.wire.marks == [1, 0, 0, 4]
        silent = up.wire.events[1]
        assert isinstance(silent, InputAudioBufferAppend)
        assert silent.audio == bytes(FRAME_BYTES)


async def test_closing_sends_its_tail_of_silence_then_nothing() -> None:
    async with line() as up:
        await up.set("open")
        await up.say()
        await up.set("closed", tail_ms=50)
        await up.say(5)
        assert up.wire.marks == [1, 0, 0, 0]


async def test_push_to_talk_commits_after_the_frame_under_way() -> None:
    async with line() as up:
        await up.set("open")
        await up.say(2)
        await up.set("closed", commit=True)
        await up.say(3)
        assert up.wire.marks == [1, 2, 3, "InputAudioBufferCommit"]


async def test_a_commit_is_not_lost_when_listening_starts_again_at_once() -> None:
    async with line() as up:
        await up.set("open")
        await up.say()
        await up.set("closed", commit=True)
        await up.set("open")
        await up.say(2)
        assert up.wire.marks == [1, 2, "InputAudioBufferCommit", 3]


async def test_a_closing_silence_is_not_cut_short_by_a_mute() -> None:
    async with line() as up:
        await up.set("open")
        await up.say()
        await up.set("closed", tail_ms=60)
        await up.say()
        await up.set("closed")
        await up.say(5)
        assert up.wire.marks == [1, 0, 0, 0]


@pytest.mark.parametrize("ends_first", [True, False])
async def test_a_commit_does_not_wait_for_a_microphone_that_has_ended(ends_first: bool) -> None:
    async with line() as up:
        await up.set("open")
        await up.say()
        if ends_first:
            up.frames.close()
            await up.set("closed", commit=True)
        else:
            await up.set("closed", commit=True)
            up.frames.close()
            await wait_all_tasks_blocked()
        assert up.wire.marks == [1, "InputAudioBufferCommit"]


async def test_a_connection_that_was_given_up_is_lost() -> None:
    """The conversation closes the channel when more is to be sent than a connection can take."""
    control, control_inbox = trio.open_memory_channel[UplinkItem](1)
    control.send_nowait(Send(ResponseCancel()))
    control.close()
    fake = FakeWire()
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="more was to be sent")):
        await uplink.run(
            cast(Wire, fake),
            control_inbox,
            None,
            sent=SentAudio(PCM16_24K, 30_000),
            input_format=PCM16_24K,
            statistics=UplinkStatistics(),
        )
    assert fake.marks == ["ResponseCancel"], "what was taken is sent first"


async def test_frames_that_waited_for_a_connection_are_stale() -> None:
    control, control_inbox = trio.open_memory_channel[UplinkItem](10)
    frames = DropOldest[Frame](100)
    fake, statistics = FakeWire(), UplinkStatistics()
    for number in range(1, 6):
        frames.send_nowait(Frame(bytes([number]) * FRAME_BYTES, 0.0))
    async with trio.open_nursery() as nursery:
        send = partial(uplink.run, sent=SentAudio(PCM16_24K, 30_000), input_format=PCM16_24K, statistics=statistics)
        nursery.start_soon(send, cast(Wire, fake), control_inbox, frames)
        await wait_all_tasks_blocked()
        control.send_nowait(SetMicrophone("open"))
        await wait_all_tasks_blocked()
        frames.send_nowait(Frame(bytes([9]) * FRAME_BYTES, 0.0))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert fake.marks == [9]
    assert statistics.stale_frames == 5


async def test_control_that_waits_goes_before_frames_that_wait() -> None:
    control, control_inbox = trio.open_memory_channel[UplinkItem](100)
    frames = DropOldest[Frame](100)
    fake = FakeWire()
    for number in range(1, 4):
        frames.send_nowait(Frame(bytes([number]) * FRAME_BYTES, 0.0))
    control.send_nowait(Send(ResponseCancel()))
    control.send_nowait(SetMicrophone("open"))
    async with trio.open_nursery() as nursery:
        send = partial(
            uplink.run, sent=SentAudio(PCM16_24K, 30_000), input_format=PCM16_24K, statistics=UplinkStatistics()
        )
        nursery.start_soon(send, cast(Wire, fake), control_inbox, frames)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert fake.marks[0] == "ResponseCancel"


async def test_a_lost_wire_ends_it() -> None:
    control, control_inbox = trio.open_memory_channel[UplinkItem](1)
    control.send_nowait(Send(ResponseCancel()))
    with pytest.raises(ExceptionGroup) as caught:
        await uplink.run(
            cast(Wire, FakeWire(lost=True)),
            control_inbox,
            None,
            input_format=PCM16_24K,
            sent=SentAudio(PCM16_24K, 30_000),
            statistics=UplinkStatistics(),
        )
    assert caught.group_contains(WireLost)
    with pytest.raises(trio.BrokenResourceError):
        control.send_nowait(Send(ResponseCancel()))


steps = st.lists(
    st.one_of(
        st.just(("say",)),
        st.just(("say",)),
        st.sampled_from([("open",), ("muted",)]),
        st.tuples(st.just("closed"), st.sampled_from([0, 30, 100]), st.booleans()),
        st.just(("control",)),
    ),
    max_size=25,
)


@given(steps)
def test_each_control_is_sent_once_each_commit_follows_and_no_frame_while_closed(
    plan: list[tuple[object, ...]],
) -> None:
    async def main() -> None:
        async with line() as up:
            await up.set("closed")
            gate, controls, commits, pending = "closed", 0, 0, False
            for step in plan:
                match step:
                    case ("say",):
                        before = len(up.wire.marks)
                        await up.say()
                        sent_now = up.wire.marks[before:]
                        if gate == "open":
                            assert up.spoken in sent_now
                        elif not pending:
                            assert up.spoken not in sent_now
                        pending = pending and "InputAudioBufferCommit" not in sent_now
                    case ("control",):
                        controls += 1
                        up.control.send_nowait(Send(ResponseCancel()))
                    case ("closed", int(tail_ms), bool(commit)):
                        gate = "closed"
                        commits += commit and not pending
                        pending = pending or commit
                        await up.set("closed", tail_ms, commit=commit)
                    case (str(setting),):
                        gate = setting
                        await up.set("open" if setting == "open" else "muted")
            await up.say(6)
            events = up.wire.events
            assert sum(isinstance(event, ResponseCancel) for event in events) == controls
            assert sum(isinstance(event, InputAudioBufferCommit) for event in events) == commits
            sent = [mark for mark in up.wire.marks if isinstance(mark, int) and mark]
            assert sent == sorted(set(sent))

    trio.run(main, clock=MockClock(autojump_threshold=0))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("frames"), st.integers(1, 4)),
            st.sampled_from([("full", 0), ("room", 0), ("passes", 1), ("passes", 3), ("muted", 0), ("open", 0)]),
        ),
        max_size=30,
    )
)
@example([("frames", 1), ("passes", 3), ("muted", 0), ("frames", 1), ("open", 0), ("frames", 1)])
@example([("full", 0), ("frames", 3), ("room", 0), ("frames", 2), ("passes", 1), ("frames", 2)])
def test_every_frame_is_sent_once_and_in_order_whichever_task_sends_it(plan: list[tuple[str, int]]) -> None:
    async def main() -> None:
        async with line() as up:
            await up.set("open")
            given: list[int] = []
            for step, count in plan:
                if step == "frames":
                    for _ in range(count):
                        given.append(len(given) + 1)
                        up.frames.send_nowait(Frame(bytes([len(given)]) * FRAME_BYTES, 0.0))
                elif step == "passes":
                    for _ in range(count):
                        await trio.lowlevel.checkpoint()
                elif step in ("full", "room"):
                    up.wire.has_room = step == "room"
                else:  # the gate itself, as the control loop sets it, in the middle of everything
                    up.control.send_nowait(SetMicrophone("open" if step == "open" else "muted"))
            await wait_all_tasks_blocked()
            # A frame may be on its way when the microphone is muted or opened: then it is silence, or sound.
            assert len(up.wire.events) == len(given)
            heard = [mark for mark in up.wire.marks if mark]
            assert heard == sorted(heard), "none overtakes another"
            assert len(set(heard)) == len(heard)
            if "muted" not in {step for step, _ in plan}:
                assert heard == given

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_frame_goes_out_in_the_step_that_gives_it() -> None:
    async with line() as up:
        await up.set("open")
        await wait_all_tasks_blocked()
        up.frames.send_nowait(Frame(bytes([1]) * FRAME_BYTES, 0.0))
        assert up.wire.marks == [1]
        up.control.send_nowait(SetMicrophone("closed"))
        await wait_all_tasks_blocked()
        up.frames.send_nowait(Frame(bytes([2]) * FRAME_BYTES, 0.0))
        await wait_all_tasks_blocked()
        assert up.wire.marks == [1]


async def test_while_the_wire_has_no_room_the_newest_frames_wait(autojump_clock: MockClock) -> None:
    async with line() as up:
        await up.set("open")
        up.wire.has_room, up.wire.stalled_until = False, trio.Event()
        for number in range(1, 151):
            up.frames.send_nowait(Frame(bytes([number]) * FRAME_BYTES, 0.0))
            await trio.sleep(0.02)
        assert up.wire.marks == [1], "the wire keeps one, and the channel those that come"
        up.wire.has_room = True
        up.wire.stalled_until.set()
        await trio.sleep(1)
        assert up.wire.marks == [1, *range(51, 151)]
        assert up.frames.dropped == 49


async def test_who_gives_a_frame_does_not_learn_that_the_wire_is_lost() -> None:
    frames: list[DropOldest[Frame]] = []

    async def speak() -> None:
        async with line() as up:
            frames.append(up.frames)
            await up.set("open")
            up.wire.lost = True
            up.frames.send_nowait(Frame(bytes(FRAME_BYTES), 0.0))
            up.wire.has_room = False  # as a wire that is known to be broken has none
            up.frames.send_nowait(Frame(bytes(FRAME_BYTES), 0.0))
            await trio.sleep_forever()

    with pytest.RaisesGroup(WireLost, flatten_subgroups=True):
        await speak()
    assert frames[0].taker is None, "the next connection has an uplink of its own"
