"""What the benchmarks stand on is right: the server that is measured against, and when a figure is met."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from benchmarks.figures import Figure
from benchmarks.load import FRAME_CHARS
from benchmarks.load_client import stamped_frame
from benchmarks.stamps import PCM_BYTES

from benchmarks import processes
from trio_voice import wire
from trio_voice.protocol import (
    InputAudioBufferAppend,
    ResponseOutputAudioDelta,
    SessionUpdate,
    decode_server_event,
    encode,
)
from trio_voice.protocol.session_config import SessionConfig


@pytest.mark.parametrize(
    ("value", "aim", "at_least", "met"),
    [(1.0, 1.0, False, True), (1.1, 1.0, False, False), (1.0, 1.0, True, True), (0.9, 1.0, True, False)],
)
def test_a_figure_is_met_at_its_aim_and_on_its_good_side(value: float, aim: float, at_least: bool, met: bool) -> None:
    assert Figure("a figure", value, aim=aim, at_least=at_least).is_met is met


def test_a_figure_without_an_aim_is_neither_met_nor_missed() -> None:
    assert Figure("a figure", 1.0).is_met is None


async def test_the_server_speaks_as_asked_and_takes_frames_apart() -> None:
    with processes.load_server() as server:
        address = wire.Address(f"{server.base}?down_ms=20&pieces=2&frames=1&model=a&?model=b")
        async with trio.open_nursery() as nursery:
            opened: wire.Wire = await nursery.start(partial(wire.run, address, connect_timeout_s=5))
            await opened.send(encode(SessionUpdate(session=SessionConfig())))
            heard: list[int] = []
            while len(heard) < 2:
                event = decode_server_event(await opened.receive())
                if isinstance(event, ResponseOutputAudioDelta):
                    heard.append(len(event.delta))
            for _ in range(3):
                await opened.send(encode(InputAudioBufferAppend(audio=stamped_frame())))
            await opened.send(encode(InputAudioBufferAppend(audio=stamped_frame() + stamped_frame())))
            await opened.send(encode(InputAudioBufferAppend(audio=bytes(40))))
            await opened.ping()
            nursery.cancel_scope.cancel()
        said = await trio.to_thread.run_sync(server.said)
    assert heard == [2 * PCM_BYTES] * 2
    assert said["sizes"] == {str(FRAME_CHARS): 3, str(2 * FRAME_CHARS): 1, "56": 1}
    assert len(said["latencies_us"]) == 5, "frames that were sent as one are told apart"
    assert all(0 < each < 5e6 for each in said["latencies_us"])
