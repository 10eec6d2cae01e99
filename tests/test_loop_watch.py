"""What held the event loop up, and whose it was. Seconds are the test's own: no test waits for real ones."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from kit import call
from trio_voice import ConfigError, RealtimeAgent, RealtimeSession, events
from trio_voice.loop_watch import MOST_TASKS, OTHERS, LoopWatch
from trio_voice.server.scripted import Call, Say, ScriptedBrain


@attrs.define(eq=False)
class Stopwatch:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@attrs.define(eq=False)
class Bench:
    """A watch whose clock goes on when a task says that it has computed."""

    clock: Stopwatch = attrs.Factory(Stopwatch)
    watch: LoopWatch = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.watch = LoopWatch(20, clock=self.clock)

    async def compute(self, *pieces_s: float) -> None:
        for piece_s in pieces_s:
            self.clock.now += piece_s
            await trio.lowlevel.checkpoint()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_steps_that_are_too_long_are_counted_by_the_name_of_their_task(bench: Bench) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.compute, 0.1, 0.019, 0.3, name="greedy")
            nursery.start_soon(bench.compute, 0.021, name="nearly")
            nursery.start_soon(bench.compute, *[0.019] * 50, name="modest")

    trio.run(main, instruments=[bench.watch])
    stalls = bench.watch.stalls
    assert (stalls.count, stalls.task) == (3, "greedy")
    assert [stalls.total_ms, stalls.longest_ms] == pytest.approx([421, 300])
    assert list(bench.watch.by_task()) == ["greedy", "nearly"]
    assert bench.watch.by_task()["greedy"].count == 2


def test_names_without_end_take_no_memory_without_end(bench: Bench) -> None:
    async def main() -> None:
        for index in range(MOST_TASKS + 10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.compute, 0.1, name=f"task {index}")

    trio.run(main, instruments=[bench.watch])
    assert len(bench.watch.by_task()) == MOST_TASKS + 1
    assert bench.watch.by_task()[OTHERS].count == 10
    assert bench.watch.stalls.count == MOST_TASKS + 10


async def test_a_session_finds_the_tool_that_holds_it_up(autojump_clock: MockClock, bench: Bench) -> None:
    async def greedy_lookup() -> str:
        """Look it up."""
        bench.clock.now += 0.4
        return "found"

    agent = RealtimeAgent(tools=(greedy_lookup,))
    brain = ScriptedBrain([[Call("greedy_lookup", "{}")], Say("Yes.", 100)])
    async with call(brain, agent, loop_watch=bench.watch) as on:
        assert on.session.metrics.stalls is not None
        assert on.session.metrics.stalls.count == 0
        await on.speak()
        await on.next(events.PlaybackEnd)
        stalls = on.session.metrics.stalls
        assert stalls is not None
        assert [stalls.count, stalls.longest_ms] == pytest.approx([1, 400])
        assert "trio_voice.tools" in (stalls.task or ""), "the tool executor's task"
        await on.session.disconnect()
        account = await on.next(events.TurnMetrics)
        assert [account.stalls, account.stall_ms] == pytest.approx([1, 400])
    await bench.compute(0.5)
    assert bench.watch.stalls.count == 1, "it is gone with the session"


async def test_sessions_share_one(autojump_clock: MockClock, bench: Bench) -> None:
    with bench.watch.watching():
        with bench.watch.watching():
            await bench.compute(0.1)
        await bench.compute(0.1)
    await bench.compute(0.1)
    assert bench.watch.stalls.count == 2


def test_one_that_watches_the_run_watches_on_after_a_session(bench: Bench) -> None:
    async def main() -> None:
        with bench.watch.watching():
            pass
        await bench.compute(0.1)

    trio.run(main, instruments=[bench.watch])
    assert bench.watch.stalls.count == 1


async def test_a_session_without_one_installs_none(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([])) as on:
        assert on.session.metrics.stalls is None
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # there is no public view of a run's instruments
        assert not any(isinstance(one, LoopWatch) for one in runner.instruments.get("_all", {}))


@pytest.mark.parametrize("threshold_ms", [0, -1, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold_ms: float) -> None:
    with pytest.raises(ConfigError, match="threshold_ms"):
        LoopWatch(threshold_ms)


def test_the_session_takes_it() -> None:
    RealtimeSession(RealtimeAgent(), loop_watch=LoopWatch())
