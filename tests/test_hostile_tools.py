"""Tools that misbehave: whatever they do, the call is answered once, and the executor goes on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import attrs
import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit import call as call_server
from trio_voice import RealtimeAgent, ToolContext, events, tools
from trio_voice.channels import InboxItem
from trio_voice.function_tools import FunctionTool, tool
from trio_voice.server.scripted import Call, Say, ScriptedBrain
from trio_voice.tool_items import CancelTurn, RunTool, ToolItem, ToolResult


@attrs.define(eq=False)
class Executor:
    """One that runs, and what it answers."""

    send: trio.MemorySendChannel[ToolItem]
    results: trio.MemoryReceiveChannel[InboxItem]
    called: int = 0

    def call(self, function: FunctionTool, arguments: str = "{}", turn: int = 1) -> None:
        self.called += 1
        self.send.send_nowait(RunTool(turn, f"call_{self.called}", function.name, arguments))

    async def next_result(self) -> ToolResult:
        with trio.fail_after(300):
            while True:
                item = await self.results.receive()
                if isinstance(item, ToolResult):
                    return item


@asynccontextmanager
async def executor(*offered: FunctionTool) -> AsyncIterator[Executor]:
    send, inbox = trio.open_memory_channel[ToolItem](200)
    results_send, results = trio.open_memory_channel[InboxItem](2000)
    async with trio.open_nursery() as nursery:

        async def execute() -> None:
            await tools.run(inbox, results_send, tools=offered)

        nursery.start_soon(execute)
        yield Executor(send, results)
        nursery.cancel_scope.cancel()


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def sys_exit() -> NoReturn:
    raise SystemExit(2)


def generator_exit() -> NoReturn:
    raise GeneratorExit


def cancelled_elsewhere() -> NoReturn:
    raise asyncio.CancelledError


def recursion() -> int:
    return 1 + recursion()


def several() -> NoReturn:
    raise ExceptionGroup("two", [ValueError("a"), TypeError("b")])


def several_of_the_worst() -> NoReturn:
    raise BaseExceptionGroup("two", [ValueError("a"), SystemExit(1)])


def speechless() -> NoReturn:
    raise Speechless


def long_winded() -> NoReturn:
    raise RuntimeError("x" * 10_000_000)


def stop_iteration() -> NoReturn:
    raise StopIteration


RAISING: list[tuple[Callable[[], Any], str]] = [
    (sys_exit, "SystemExit"),
    (generator_exit, "GeneratorExit"),
    (cancelled_elsewhere, "CancelledError"),
    (recursion, "RecursionError"),
    (several, "ExceptionGroup"),
    (several_of_the_worst, "BaseExceptionGroup"),
    (speechless, "no words"),
    (long_winded, "RuntimeError"),
    (stop_iteration, "StopIteration"),
]


@tool
async def fine() -> str:
    return "fine"


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize(("raising", "told"), RAISING, ids=[raising.__name__ for raising, _ in RAISING])
async def test_whatever_a_tool_raises_is_an_answer(
    raising: Callable[[], Any], told: str, in_thread: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    @tool(name="raises")
    async def from_a_task() -> None:
        raising()

    @tool(name="raises")
    def from_a_thread() -> None:
        raising()

    offered = from_a_thread if in_thread else from_a_task
    async with executor(offered, fine) as on:
        on.call(offered)
        result = await on.next_result()
        assert result.failed
        assert told in result.output[:200]
        assert len(result.output) < tools.MAX_OUTPUT_CHARS + 100
        on.call(fine)
        assert (await on.next_result()).output == "fine"


@pytest.mark.parametrize(("raising", "is_whole"), [(long_winded, False), (sys_exit, True)])
async def test_megabytes_of_words_are_not_logged(raising: Callable[[], Any], is_whole: bool) -> None:
    """Who renders tracebacks in colour would hold up the event loop for minutes."""

    @tool
    async def raises() -> None:
        raising()

    structlog.reset_defaults()  # another test may have set what is logged
    try:
        with structlog.testing.capture_logs() as lines:
            async with executor(raises) as on:
                on.call(raises)
                await on.next_result()
    finally:
        structlog.reset_defaults()
    (line,) = [line for line in lines if line["event"] == "tool.failed"]
    assert ("exc_info" in line) is is_whole
    assert len(line.get("error", "")) <= tools.MOST_LOGGED_CHARS


async def test_a_cancelled_that_leaked_from_its_scope_ends_nothing(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is of no scope that is left, so it would pass through all of them, and end the program without a word."""

    @tool
    async def leaks() -> None:
        kept: list[trio.Cancelled] = []
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                kept.append(cancelled)
        raise kept[0]

    async with executor(leaks, fine) as on:
        on.call(leaks)
        assert "Cancelled" in (await on.next_result()).output
        on.call(fine)
        assert (await on.next_result()).output == "fine"


def test_ctrl_c_in_a_tool_is_for_the_program() -> None:
    @tool
    async def interrupted_by_hand() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        async with executor(interrupted_by_hand) as on:
            on.call(interrupted_by_hand)
            await trio.sleep(1)

    with pytest.RaisesGroup(pytest.RaisesGroup(KeyboardInterrupt)):
        trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_one_that_cannot_be_cancelled_is_answered_at_its_timeout(autojump_clock: MockClock) -> None:
    @tool(timeout_s=2)
    async def shielded() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
        return "late"

    async with executor(shielded, fine) as on:
        on.call(shielded)
        result = await on.next_result()
        assert (result.failed, result.duration_ms) == (True, 2000)
        assert "longer than 2 s" in result.output
        on.call(fine)
        assert (await on.next_result()).output == "fine"
        await trio.sleep(200)
        with pytest.raises(trio.WouldBlock):
            on.results.receive_nowait()


@pytest.mark.parametrize("ended_by", ["interruption", "timeout"])
async def test_one_that_breaks_while_it_is_cancelled_ends_nothing(ended_by: str, autojump_clock: MockClock) -> None:
    @tool(timeout_s=2, on_interrupt="cancel")
    async def breaks() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the middle of leaving")

    async with executor(breaks, fine) as on:
        on.call(breaks)
        await trio.sleep(1)
        if ended_by == "interruption":
            on.send.send_nowait(CancelTurn(1))
        result = await on.next_result()
        assert ("interrupted" if ended_by == "interruption" else "longer than 2 s") in result.output
        on.call(fine)
        assert (await on.next_result()).output == "fine"


async def test_functions_that_never_end_leave_room_for_others() -> None:
    """A thread cannot be killed. Ten of them are more than run at once, and yet the next one runs."""
    may_end = threading.Event()

    @tool(timeout_s=0.05)
    def blocks() -> None:
        may_end.wait(60)

    @tool
    def plain() -> str:
        return "ran"

    async with executor(blocks, plain) as on:
        for _ in range(tools.MAX_THREADS + 2):
            on.call(blocks)
        told = [await on.next_result() for _ in range(tools.MAX_THREADS + 2)]
        assert all("longer than 0.05 s" in result.output for result in told)
        on.call(plain)
        assert (await on.next_result()).output == "ran"
        may_end.set()


async def test_so_many_that_no_thread_is_left_are_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tools, "MAX_THREADS", 1)
    monkeypatch.setattr(tools, "MAX_THREADS_LEFT", 1)
    may_end = threading.Event()

    @tool(timeout_s=0.05)
    def blocks() -> None:
        may_end.wait(60)

    async with executor(blocks) as on:
        for _ in range(2):
            on.call(blocks)
            assert "longer" in (await on.next_result()).output
        on.call(blocks)
        assert "never ended" in (await on.next_result()).output
        may_end.set()


async def test_the_wait_for_a_thread_is_not_of_the_tool_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MAX_THREADS", 1)
    gates = [threading.Event(), threading.Event()]
    clock = MockClock()

    @tool(timeout_s=5)
    def waits(gate: int) -> str:
        gates[gate].wait(60)
        return "done"

    async def main() -> None:
        async with executor(waits) as on:
            on.call(waits, '{"gate": 0}')
            on.call(waits, '{"gate": 1}')
            await wait_all_tasks_blocked()
            clock.jump(4)
            gates[0].set()
            assert (await on.next_result()).output == "done"
            await wait_all_tasks_blocked()
            clock.jump(4)
            gates[1].set()
            assert (await on.next_result()).output == "done"

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))


class Endless:
    def __iter__(self) -> Any:
        return iter(int, 1)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000, ["x" * 1000] * 10_000, b"\xff" * 10_000_000, float("nan"), {1, "a"}, {(1, 2): 3}, object(),
        Endless(), lambda: None, 2**80, threading.Lock(), "\ud800", ["\ud800"],
    ],
    ids=[
        "text", "list", "bytes", "nan", "set", "keys", "object", "endless", "function", "number", "lock", "half",
        "halves",
    ],
)  # fmt: skip
async def test_whatever_a_tool_returns_can_be_put_on_the_wire(value: Any) -> None:
    @tool
    async def returns() -> Any:
        return value

    async with executor(returns) as on:
        on.call(returns)
        result = await on.next_result()
        assert len(result.output) < tools.MAX_OUTPUT_CHARS + 100
        assert result.output.encode()


async def test_progress_without_end_fills_nothing(autojump_clock: MockClock) -> None:
    """The inbox has room for 4096 items, and a full one would end the session."""

    @tool
    async def talks(context: ToolContext[Any]) -> str:
        for number in range(10_000):
            context.progress(f"{number} of 10000")
        return "done"

    @tool
    def talks_in_a_thread(context: ToolContext[Any]) -> str:
        for number in range(10_000):
            context.progress(f"{number} of 10000")
        return "done"

    async with executor(talks, talks_in_a_thread) as on:
        on.call(talks)
        assert (await on.next_result()).output == "done"
        assert on.results.statistics().current_buffer_used == 0
    async with executor(talks_in_a_thread) as on:
        on.call(talks_in_a_thread)
        await on.next_result()


async def test_progress_after_the_answer_is_nobody_s() -> None:
    may_go_on, said = threading.Event(), threading.Event()

    @tool(timeout_s=0.05)
    def late(context: ToolContext[Any]) -> None:
        may_go_on.wait(60)
        context.progress("still here")
        said.set()

    async with executor(late) as on:
        on.call(late)
        assert "longer" in (await on.next_result()).output
        may_go_on.set()
        await trio.to_thread.run_sync(said.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            on.results.receive_nowait()


async def test_a_session_goes_on_whatever_its_tools_do(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    @tool(timeout_s=3)
    async def exits() -> None:
        raise SystemExit

    @tool(timeout_s=3)
    async def hangs() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(30)

    @tool
    async def floods() -> list[str]:
        return ["x" * 1000] * 10_000

    @tool
    async def unspeakable() -> object:
        return object()

    offered = [exits, hangs, floods, unspeakable]
    brain = ScriptedBrain([[Call(function.name) for function in offered], Say("I see.", 300), Say("Yes.", 300)])
    async with call_server(brain, RealtimeAgent(tools=offered)) as on:
        await on.session.send_text("Do all of it.")
        finished = [await on.next(events.ToolFinished) for _ in offered]
        assert {result.tool for result in finished} == {function.name for function in offered}
        await on.next(events.PlaybackEnd)
        await on.session.send_text("Are you there?")
        await on.next(events.PlaybackEnd)
        assert on.turns_heard() == [1, 2]
        outputs = [item.output for item in brain.requests[-1].items if item.type == "function_call_output"]
        assert len(outputs) == 4
        await trio.sleep(30)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"number": 1}', "sorry: KeyError"),
        ('{"number": "x"}', "sorry: ToolArgumentsError"),
        ('{"number": 2}', "sorry: late"),
        ('{"number": 3}', "the tool failed: SystemExit"),
    ],
)
async def test_on_error_finds_the_words(
    arguments: str, told: str, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    def sorry(context: ToolContext[Any], error: Exception) -> str:
        return f"sorry: {'late' if isinstance(error, TimeoutError) else type(error).__name__}"

    @tool(on_error=sorry, timeout_s=1)
    async def fails(number: int) -> None:
        if number == 1:
            raise KeyError(number)
        if number == 3:
            raise SystemExit
        await trio.sleep(10)

    async with executor(fails) as on:
        on.call(fails, arguments)
        result = await on.next_result()
        assert result.failed
        assert told in result.output


async def test_an_on_error_that_fails_itself_leaves_the_usual_words(capsys: pytest.CaptureFixture[str]) -> None:
    def worse(context: ToolContext[Any], error: Exception) -> str:
        raise RuntimeError("worse")

    @tool(on_error=worse)
    async def fails() -> None:
        raise KeyError("order")

    async with executor(fails) as on:
        on.call(fails)
        assert json.loads((await on.next_result()).output) == {"error": "the tool failed: KeyError: 'order'"}
