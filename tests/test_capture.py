from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from kit import recovery_of
from trio_voice import capture
from trio_voice.audio import AudioFormat, Frame
from trio_voice.channels import DropOldest
from trio_voice.config import AudioInputConfig
from trio_voice.devices import OpenMicrophone
from trio_voice.errors import DeviceError
from trio_voice.testing import ScriptedMicrophone

CONFIG = AudioInputConfig(sample_rate_hz=8_000)


@attrs.define(eq=False)
class Source:
    """Gives `count` frames, then fails with `error` or ends."""

    count: int
    error: DeviceError | None = None
    name: str = "source"
    opened_as: tuple[AudioFormat, int] | None = None
    closed: bool = False
    dropped_frames: int = 0

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        self.opened_as = audio_format, frame_ms
        try:
            yield self
        finally:
            self.closed = True

    async def receive(self) -> Frame:
        await trio.lowlevel.checkpoint()
        if self.count == 0:
            raise self.error or trio.EndOfChannel
        self.count -= 1
        return Frame(b"", float(self.count))


async def test_frames_come_through_in_order_and_the_end_too() -> None:
    frames: DropOldest[Frame] = DropOldest(10)
    source = Source(3)
    await capture.run(frames, microphone=source, config=CONFIG, recovery=recovery_of("microphone"))
    assert [frame.captured_at async for frame in frames.receiver] == [2, 1, 0]
    assert source.opened_as == (CONFIG.format, CONFIG.chunk_ms)
    assert source.closed


async def test_with_nobody_to_take_them_the_oldest_are_dropped_and_it_never_waits() -> None:
    frames: DropOldest[Frame] = DropOldest(10)
    with trio.fail_after(1):
        await capture.run(frames, microphone=Source(100), config=CONFIG, recovery=recovery_of("microphone"))
    assert [frame.captured_at async for frame in frames.receiver] == list(range(9, -1, -1))
    assert frames.dropped == 90


async def test_a_microphone_that_cannot_be_opened_is_told_before_it_starts() -> None:
    class Missing(Source):
        @asynccontextmanager
        async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
            raise DeviceError("no microphone; plug one in")
            yield self

    frames: DropOldest[Frame] = DropOldest(10)
    hear = partial(capture.run, frames, microphone=Missing(1), config=CONFIG)
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(hear, recovery=recovery_of("microphone")))
    assert caught.group_contains(DeviceError, match="plug one in")
    assert [frame async for frame in frames.receiver] == []


async def test_cancelled_it_closes_everything(autojump_clock: MockClock) -> None:
    frames: DropOldest[Frame] = DropOldest(1000)
    with trio.move_on_after(1.01):
        await capture.run(frames, microphone=ScriptedMicrophone(), config=CONFIG, recovery=recovery_of("microphone"))
    assert len([frame async for frame in frames.receiver]) == 50
