"""Drawn conversations keep the rules, drawn schedules can be struck."""

from __future__ import annotations

from contextlib import suppress

import trio
from hypothesis import HealthCheck, given, settings
from trio.testing import MockClock, memory_stream_pair

from trio_voice.testing.conversing import converse
from trio_voice.testing.faults import Fault, FaultyStream
from trio_voice.testing.people import Plan
from trio_voice.testing.strategies import plans, schedules


@given(plans(max_actions=3, max_faults=2))
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_conversation_keeps_the_rules(plan: Plan) -> None:
    assert converse(plan).violations == ()


@given(schedules())
@settings(max_examples=40, deadline=None)
def test_any_schedule_delivers_a_prefix_in_bounded_time(schedule: list[tuple[Fault, ...]]) -> None:
    trio.run(_send_through, schedule, clock=MockClock(autojump_threshold=0))


async def _send_through(schedule: list[tuple[Fault, ...]]) -> None:
    for faults in schedule:
        near, far = memory_stream_pair()
        stream = FaultyStream(near, faults)
        sent, received = bytes(range(128)) * 40, bytearray()
        with trio.move_on_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, far, sent)
                try:
                    while len(received) < len(sent) and (piece := await stream.receive_some(500)):
                        received += piece
                except trio.BrokenResourceError:
                    pass
                nursery.cancel_scope.cancel()
        if not any(fault.kind == "corrupt" for fault in stream.struck):
            assert sent.startswith(received)
        if not any(fault.kind in ("drop", "reset", "half_open", "corrupt") for fault in stream.struck):
            assert len(received) == len(sent), "what only makes late or small loses nothing"
        await trio.aclose_forcefully(stream)


async def _send(stream: trio.abc.Stream, sent: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(sent)
