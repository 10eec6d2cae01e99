"""Any interleaving of sound, interruptions, late sound, the device and reconnections, in the real actors, through
channels that hold nothing, one item, or sixty-four. The buffer alone: `test_playback_buffer.py`."""

from __future__ import annotations

from typing import TypeAlias

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from playback_stage import Stage, interruption, stage

Act: TypeAlias = tuple[str, int]

acts = st.lists(
    st.one_of(
        st.tuples(st.just("respond"), st.just(0)),
        st.tuples(st.just("speak"), st.integers(1, 2000)),
        st.tuples(st.just("speak"), st.integers(1, 2000)),
        st.tuples(st.just("speak late"), st.integers(0, 3)),
        st.tuples(st.just("next item"), st.just(0)),
        st.tuples(st.just("finish"), st.just(0)),
        st.tuples(st.just("user speaks"), st.just(0)),
        st.tuples(st.just("interrupt"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 300)),
        st.tuples(st.just("wait"), st.integers(0, 300)),
        st.tuples(st.just("come to rest"), st.just(0)),
        st.tuples(st.just("one step"), st.just(0)),
        st.tuples(st.just("reconnect"), st.just(0)),
    ),
    min_size=4,
    max_size=30,
)


async def act_out(on_stage: Stage, plan: list[Act]) -> None:
    for act, number in plan:
        match act:
            case "respond":
                on_stage.respond()
            case "speak":
                on_stage.respond()
                on_stage.speak(on_stage.answer, number)
            case "speak late":
                cancelled = [answer for answer in on_stage.answers if answer.cancelled]
                on_stage.speak(cancelled[-number - 1] if number < len(cancelled) else None, 160)
            case "next item":
                on_stage.next_item()
            case "finish":
                on_stage.finish()
            case "user speaks":
                on_stage.user_speaks()
            case "interrupt":
                on_stage.to_conversation.send_nowait(interruption())
            case "wait":
                await trio.sleep(number / 1000)
            case "come to rest":
                await wait_all_tasks_blocked()
            case "one step":
                await trio.lowlevel.checkpoint()
            case "reconnect":
                on_stage.reconnect()
    on_stage.finish()
    await trio.sleep(1 + sum(number for act, number in plan if act == "speak") / 8000)


@pytest.mark.parametrize("capacity", [0, 1, 64])
@given(
    plan=acts,
    block_ms=st.sampled_from([10, 20]),
    latency_ms=st.sampled_from([0, 50]),
    prebuffer=st.sampled_from([0, 100]),
)
def test_nothing_stale_nothing_lost_and_every_truncation_acceptable(
    capacity: int, plan: list[Act], block_ms: int, latency_ms: int, prebuffer: int
) -> None:
    async def main() -> None:
        options = {"block_ms": block_ms, "latency_ms": latency_ms, "prebuffer_ms": prebuffer}
        async with stage(capacity, **options) as on_stage:
            await act_out(on_stage, plan)
            on_stage.check()

    trio.run(main, clock=MockClock(autojump_threshold=0))
