from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import attrs
import msgspec
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_voice import tools
from trio_voice.channels import InboxItem
from trio_voice.function_tools import FunctionTool, tool
from trio_voice.tool_items import CancelTurn, RunTool, ToolItem, ToolResult, ToolStarted


@tool
async def at_once(word: str = "done") -> str:
    return word


@tool
async def slow(seconds: float = 5.0) -> str:
    await trio.sleep(seconds)
    return "slept"


@tool(on_interrupt="cancel")
async def slow_but_yields(seconds: float = 5.0) -> str:
    await trio.sleep(seconds)
    return "slept"


@tool(timeout_s=2)
async def hangs() -> None:
    await trio.sleep_forever()


@tool
async def raises() -> None:
    raise RuntimeError("the kitchen is on fire")


@tool
async def raises_many() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises.function)
        nursery.start_soon(raises.function)


@tool
async def validates() -> None:
    """Its own trouble with JSON is not that of the arguments."""
    msgspec.json.decode(b'"x"', type=int)


@tool
async def unserialisable() -> object:
    return object()


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")


@tool
async def hostile() -> object:
    return {"value": Hostile()}


@tool
async def endless() -> object:
    nested: list[Any] = []
    nested.append(nested)
    return nested


@tool
async def huge() -> list[int]:
    return list(range(200_000))


@tool
async def broken_text() -> str:
    return "half a pair: \ud83d"


async def calls(offered: list[FunctionTool], *items: ToolItem) -> list[ToolResult]:
    """Hand over all items, let everything end, and give the results."""
    send, inbox = trio.open_memory_channel[ToolItem](len(items) + 1)
    results_send, results = trio.open_memory_channel[InboxItem](1000)
    with send:
        for item in items:
            send.send_nowait(item)
    await tools.run(inbox, results_send, tools=offered)
    reported = [item async for item in results]
    called = [item.call_id for item in items if isinstance(item, RunTool)]
    assert Counter(item.call_id for item in reported if isinstance(item, ToolStarted)) == Counter(called)
    finished = [item for item in reported if isinstance(item, ToolResult)]
    assert Counter(item.call_id for item in finished) == Counter(called), "exactly one result for each call"
    return finished


async def call(function: FunctionTool, arguments: str = "{}") -> ToolResult:
    (result,) = await calls([function], RunTool(1, "call_1", function.name, arguments))
    return result


async def test_an_async_tool_answers_at_once(autojump_clock: MockClock) -> None:
    result = await call(slow)
    assert result == ToolResult(1, "call_1", "slow", "slept", failed=False, duration_ms=5000)


async def test_a_plain_function_runs_in_a_thread_of_its_own() -> None:
    threads = []

    @tool
    def plain(number: int) -> dict[str, int]:
        threads.append(threading.current_thread())
        return {"twice": 2 * number}

    result = await call(plain, '{"number": "4"}')
    assert json.loads(result.output) == {"twice": 8}
    assert threads != [threading.main_thread()]


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (raises, "the tool failed: RuntimeError: the kitchen is on fire"),
        (raises_many, "the tool failed: ExceptionGroup"),
        (validates, "the tool failed: ValidationError"),
        (hangs, "longer than 2 s"),
    ],
)
async def test_whatever_goes_wrong_the_model_is_told(
    function: FunctionTool, told: str, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    result = await call(function)
    assert result.failed
    assert told in json.loads(result.output)["error"]


@pytest.mark.parametrize("function", [unserialisable, endless, hostile])
async def test_a_result_that_json_cannot_hold_is_told_as_such(function: FunctionTool) -> None:
    result = await call(function)
    assert "cannot be put into JSON" in json.loads(result.output)["error"]


async def test_a_huge_result_is_cut() -> None:
    result = await call(huge)
    assert len(result.output) < tools.MAX_OUTPUT_CHARS + 100
    assert "too long" in result.output


async def test_a_result_can_always_be_put_on_the_wire() -> None:
    result = await call(broken_text)
    assert result.output.encode() == b"half a pair: ?"


@pytest.mark.parametrize("arguments", ["", "nonsense", '{"word": []}', '{"nothing": 1}', "[]"])
async def test_bad_arguments_never_reach_the_function(arguments: str) -> None:
    result = await call(at_once, arguments)
    if arguments == "":
        assert result.output == "done"
    else:
        assert result.failed
        assert "the arguments do not fit" in json.loads(result.output)["error"]


async def test_an_unknown_tool_is_answered_with_those_there_are() -> None:
    (result,) = await calls([slow, at_once], RunTool(1, "call_1", "fly", "{}"))
    assert result.failed
    assert json.loads(result.output)["error"] == "there is no tool 'fly'; there are: at_once, slow"


async def test_two_calls_run_at_once_and_the_shorter_answers_first(autojump_clock: MockClock) -> None:
    started_at = trio.current_time()
    long, short = RunTool(1, "long", "slow", '{"seconds": 5}'), RunTool(1, "short", "slow", '{"seconds": 2}')
    results = await calls([slow], long, short)
    assert [result.call_id for result in results] == ["short", "long"]
    assert trio.current_time() - started_at == 5


@attrs.frozen
class Interrupted:
    """A call of turn 1, interrupted after `after_s`."""

    function: FunctionTool
    after_s: float

    async def result(self) -> tuple[ToolResult, float]:
        send, inbox = trio.open_memory_channel[ToolItem](10)
        results_send, results = trio.open_memory_channel[InboxItem](10)
        started_at = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def execute() -> None:
                await tools.run(inbox, results_send, tools=[self.function])

            nursery.start_soon(execute)
            send.send_nowait(RunTool(1, "call_1", self.function.name, "{}"))
            if self.after_s:
                await trio.sleep(self.after_s)
            send.send_nowait(CancelTurn(1))
            send.close()
        finished = [item async for item in results if isinstance(item, ToolResult)]
        assert len(finished) == 1
        return finished[0], trio.current_time() - started_at


async def test_an_interruption_cancels_the_tools_that_yield(autojump_clock: MockClock) -> None:
    result, seconds = await Interrupted(slow_but_yields, 1.0).result()
    assert (result.failed, json.loads(result.output)["error"]) == (True, "cancelled: the user interrupted")
    assert seconds == 1.0


async def test_an_interruption_lets_the_others_finish(autojump_clock: MockClock) -> None:
    result, seconds = await Interrupted(slow, 1.0).result()
    assert (result.failed, result.output, seconds) == (False, "slept", 5.0)


@pytest.mark.parametrize("seed", range(8))
def test_a_call_and_its_cancellation_in_one_tick_do_not_start_the_tool(seed: int) -> None:
    """Which of the two tasks runs first is the scheduler's choice: several runs cover both."""
    begun = []

    @tool(on_interrupt="cancel")
    async def charge_card() -> str:
        begun.append(True)
        await trio.sleep(5)
        return "charged"

    async def main() -> ToolResult:
        result, seconds = await Interrupted(charge_card, 0).result()
        assert seconds == 0
        return result

    assert trio.run(main, clock=MockClock(autojump_threshold=0)).failed
    assert len(begun) <= 1


async def test_a_cancelled_turn_leaves_a_later_ones_tools_alone(autojump_clock: MockClock) -> None:
    (result,) = await calls([slow_but_yields], RunTool(2, "call_1", "slow_but_yields", "{}"), CancelTurn(1))
    assert result.output == "slept"


async def test_a_plain_function_always_finishes_and_its_result_is_told() -> None:
    """It cannot be stopped, so to tell the model that it was cancelled would be a lie."""
    may_finish = threading.Event()

    @tool(on_interrupt="cancel")
    def plain() -> str:
        may_finish.wait(30)
        return "charged"

    send, inbox = trio.open_memory_channel[ToolItem](10)
    results_send, results = trio.open_memory_channel[InboxItem](10)
    async with trio.open_nursery() as nursery:

        async def execute() -> None:
            await tools.run(inbox, results_send, tools=[plain])

        nursery.start_soon(execute)
        send.send_nowait(RunTool(1, "call_1", "plain", "{}"))
        assert isinstance(await results.receive(), ToolStarted)
        await wait_all_tasks_blocked()
        send.send_nowait(CancelTurn(1))
        await wait_all_tasks_blocked()
        may_finish.set()
        result = await results.receive()
        assert isinstance(result, ToolResult)
        assert (result.failed, result.output) == (False, "charged")
        send.close()


EVERY_TOOL = [at_once, slow, slow_but_yields, hangs, unserialisable]
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("call"),
            st.sampled_from([function.name for function in EVERY_TOOL] + ["unknown"]),
            st.sampled_from(["{}", "bad"]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 12), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 2.0, 5.0]), st.none()),
    ),
    max_size=12,
)


@given(steps)
def test_every_call_gets_exactly_one_result_whatever_happens(plan: list[tuple[str, Any, Any]]) -> None:
    async def main() -> None:
        began_at = trio.current_time()
        send, inbox = trio.open_memory_channel[ToolItem](100)
        results_send, results = trio.open_memory_channel[InboxItem](100)
        called = []
        async with trio.open_nursery() as nursery:

            async def execute() -> None:
                await tools.run(inbox, results_send, tools=EVERY_TOOL)

            nursery.start_soon(execute)
            for number, step in enumerate(plan):
                match step:
                    case ("call", name, arguments):
                        called.append(f"call_{number}")
                        send.send_nowait(RunTool(number, called[-1], name, arguments))
                    case ("cancel", turn, _):
                        send.send_nowait(CancelTurn(turn))
                    case (_, seconds, _):
                        await trio.sleep(seconds)
            send.close()
        finished = [item async for item in results if isinstance(item, ToolResult)]
        assert sorted(item.call_id for item in finished) == sorted(called)
        assert trio.current_time() - began_at <= 5.0 * (len(plan) + 1)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_cancelled_executor_leaves_nothing_running(autojump_clock: MockClock) -> None:
    ended = []

    @tool
    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    send, inbox = trio.open_memory_channel[ToolItem](10)
    results_send, results = trio.open_memory_channel[InboxItem](10)
    send.send_nowait(RunTool(1, "call_1", "stubborn", "{}"))
    with trio.move_on_after(1):
        await tools.run(inbox, results_send, tools=[stubborn])
    assert ended == [True]
    assert [type(item) async for item in results] == [ToolStarted], "and its end of the channel is closed"
