"""The downlink alone: whatever piles up behind it, it waits for nothing but the wire."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from kit import Peer, call_peer
from test_session_peer import SPEECH_STARTED, created, delta
from trio_voice import downlink, events
from trio_voice.channels import EventFanOut, EventStream, InboxItem, PlaybackItem
from trio_voice.errors import WireLost
from trio_voice.protocol import ResponseOutputAudioDelta
from trio_voice.protocol.turns import TurnNumbers
from trio_voice.text_frames import text_frame
from trio_voice.wire import Wire

DELTA = json.dumps(
    {
        "type": "response.output_audio.delta",
        "response_id": "r1",
        "item_id": "i1",
        "delta": base64.b64encode(bytes(960)).decode(),
    }
)
STARTED = json.dumps({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1, "item_id": "u"})


@attrs.define(eq=False)
class FakeWire:
    """Has messages ready, as many as are asked for, and then is lost."""

    messages: list[str]
    taken: int = 0

    async def receive(self) -> str:
        await trio.lowlevel.checkpoint()
        if self.taken == len(self.messages):
            raise WireLost("over", retryable=True)
        self.taken += 1
        return self.messages[self.taken - 1]


async def receive(fake: FakeWire, inbox_capacity: float, playback_capacity: float) -> WireLost:
    """Run the downlink with nobody behind it, and see what it raises."""
    to_inbox, inbox = trio.open_memory_channel[InboxItem](inbox_capacity)
    to_playback, playback = trio.open_memory_channel[PlaybackItem](playback_capacity)
    with inbox, playback, pytest.raises(WireLost) as lost, trio.fail_after(5):
        await downlink.run(
            cast(Wire, fake), 1, to_inbox, to_playback,
            turns=TurnNumbers(), fan_out=EventFanOut(), configuration=downlink.Configuration(),
        )  # fmt: skip
    return lost.value


@pytest.mark.parametrize(
    ("message", "inbox_capacity", "playback_capacity"), [(DELTA, math.inf, 3), (DELTA, 3, math.inf), (STARTED, 3, 0)]
)
async def test_it_gives_up_the_connection_rather_than_wait(
    message: str, inbox_capacity: float, playback_capacity: float, autojump_clock: MockClock
) -> None:
    """Ten messages, room for three, and nobody who takes them."""
    fake, began_at = FakeWire([message] * 10), trio.current_time()
    lost = await receive(fake, inbox_capacity, playback_capacity)
    assert fake.taken == 4
    assert trio.current_time() == began_at, "it took no time"
    assert lost.retryable
    assert "faster than they could be taken" in lost.reason


async def test_its_ends_are_closed_when_the_wire_is_lost(autojump_clock: MockClock) -> None:
    fake = FakeWire([])
    to_inbox, inbox = trio.open_memory_channel[InboxItem](1)
    to_playback, playback = trio.open_memory_channel[PlaybackItem](1)
    with pytest.raises(WireLost, match="over"):
        await downlink.run(
            cast(Wire, fake), 1, to_inbox, to_playback,
            turns=TurnNumbers(), fan_out=EventFanOut(), configuration=downlink.Configuration(),
        )  # fmt: skip
    for channel in (inbox, playback):
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()


async def test_an_interruption_is_told_before_the_burst_behind_it_is_looked_at(autojump_clock: MockClock) -> None:
    """A server sends sound faster than it is heard, and some of the answer after the user has begun to speak."""
    burst: list[Any] = [SPEECH_STARTED, *[delta("r1", 7, 100)] * 9]
    decoded_when_told: list[int] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), *[delta("r1", 7, 100)] * 9)
        await ready.wait()
        await peer.socket._stream.send_all(b"".join(text_frame(json.dumps(each)) for each in burst))  # in one piece
        await peer.drain()

    ready = trio.Event()
    async with call_peer(serve) as on:
        seen = on.session.events(protocol=True)
        on.session.on("interruption", lambda event: decoded_when_told.append(len(deltas_in(seen))))
        await on.next(events.PlaybackStart)
        await trio.sleep(0.3)
        deltas_in(seen)
        ready.set()
        await trio.sleep(0.3)
        assert decoded_when_told == [0]
        assert len(deltas_in(seen)) == 9, "and then it is"


def deltas_in(seen: EventStream) -> list[Any]:
    """What it has had since it was last looked at."""
    found = [each for each in seen._queue if isinstance(each, events.ServerEventReceived)]
    seen._queue.clear()
    return [each.event for each in found if isinstance(each.event, ResponseOutputAudioDelta)]
