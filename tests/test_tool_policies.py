"""What a tool's options mean: who waits, who has to agree, who is told of it."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from test_hostile_tools import Executor, executor
from trio_voice import AgentTool, ConfigError, RealtimeAgent, ToolContext, silent, tool, tools
from trio_voice.channels import Command, InboxItem
from trio_voice.events import ToolApproval
from trio_voice.function_tools import FunctionTool
from trio_voice.tool_items import (
    ApprovalWanted,
    CancelTurn,
    OfferTools,
    RunTool,
    ToolBegun,
    ToolItem,
    ToolProgressed,
    ToolResult,
    ToolStarted,
    Verdict,
)

# --- the context ----------------------------------------------------------------------------------


async def test_a_tool_is_given_the_context_and_the_model_does_not_see_it() -> None:
    seen: list[ToolContext[dict[str, int]]] = []

    @tool
    async def count(context: ToolContext[dict[str, int]], by: int = 1) -> int:
        seen.append(context)
        context.context["count"] += by
        return context.context["count"]

    @tool
    def in_a_thread(by: int, bare: ToolContext) -> str:  # type: ignore[type-arg]  # bare on purpose
        return f"{bare.call_id} {by}"

    assert list(count.parameters["properties"]) == ["by"]
    assert list(in_a_thread.parameters["properties"]) == ["by"]
    send, inbox = trio.open_memory_channel[ToolItem](10)
    results_send, results = trio.open_memory_channel[InboxItem](10)
    agent, mine = RealtimeAgent(name="Anna"), {"count": 1}
    send.send_nowait(RunTool(3, "c1", "count", '{"by": 2}'))
    send.send_nowait(RunTool(3, "c2", "in_a_thread", '{"by": 5}'))
    send.close()
    await tools.run(inbox, results_send, tools=[count, in_a_thread], context=mine, agent=agent)
    outputs = {item.call_id: item.output async for item in results if isinstance(item, ToolResult)}
    assert outputs == {"c1": "3", "c2": "c2 5"}
    (context,) = seen
    assert context.context is mine
    assert (context.call_id, context.tool, context.turn, context.agent) == ("c1", "count", 3, agent)


async def test_other_tools_are_offered_from_one_call_to_the_next(autojump_clock: MockClock) -> None:
    @tool(name="who")
    async def first(context: ToolContext[Any]) -> str:
        return f"first for {context.agent.name if context.agent else None}"

    @tool(name="who")
    async def second(context: ToolContext[Any]) -> str:
        return f"second for {context.agent.name if context.agent else None}"

    async with executor(first) as on:
        on.call(first)
        on.send.send_nowait(OfferTools(1, [second], RealtimeAgent(name="Bert")))
        on.call(second, turn=2)
        told = {(await on.next_result()).output, (await on.next_result()).output}
        assert told == {"first for None", "second for Bert"}


class Echo(AgentTool):
    """A tool that is no function."""

    async def call(self, context: ToolContext[Any], arguments: str) -> Any:
        return await context.in_thread(lambda: arguments.upper())


async def test_a_tool_need_not_be_a_function() -> None:
    echo = Echo(name="echo", description="Say it again.", parameters={"type": "object", "properties": {}})
    assert RealtimeAgent(tools=[echo]).tools == (echo,)
    send, inbox = trio.open_memory_channel[ToolItem](10)
    results_send, results = trio.open_memory_channel[InboxItem](10)
    send.send_nowait(RunTool(1, "c1", "echo", '{"a": 1}'))
    send.close()
    await tools.run(inbox, results_send, tools=[echo])
    assert [item.output async for item in results if isinstance(item, ToolResult)] == ['{"A": 1}']


@pytest.mark.parametrize(
    "options",
    [{"timeout_s": 0}, {"max_concurrency": 0}, {"on_interrupt": "stop"}, {"result": "later"}],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_cannot_be_is_said_at_once(options: dict[str, Any]) -> None:
    (name,) = options

    async def fine() -> None: ...

    with pytest.raises(ConfigError, match=f"tool 'fine': {name}"):
        tool(**options)(fine)


# --- one after the other --------------------------------------------------------------------------


@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_no_more_run_at_once_than_may_and_the_others_wait_in_order(limit: int, durations: list[int]) -> None:
    began: list[int] = []
    running = most = 0

    @tool(max_concurrency=limit, timeout_s=6)
    async def work(number: int, seconds: int) -> int:
        nonlocal running, most
        began.append(number)
        running += 1
        most = max(most, running)
        await trio.sleep(seconds)
        running -= 1
        return number

    async def main() -> None:
        async with executor(work) as on:
            for number, seconds in enumerate(durations):
                on.call(work, json.dumps({"number": number, "seconds": seconds}))
            results = [await on.next_result() for _ in durations]
            assert not any(result.failed for result in results)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert most == min(limit, len(durations))
    # Those that begin in the same instant may be scheduled either way.
    assert began[limit:] == sorted(began[limit:]) or limit > 1
    assert all(abs(place - number) < limit for place, number in enumerate(began))


async def test_one_that_waits_has_all_its_time_when_it_begins(autojump_clock: MockClock) -> None:
    @tool(max_concurrency=1, timeout_s=5)
    async def work() -> str:
        await trio.sleep(4)
        return "done"

    async with executor(work) as on:
        for _ in range(4):
            on.call(work)
        results = [await on.next_result() for _ in range(4)]
        assert [result.output for result in results] == ["done"] * 4
        assert results[-1].duration_ms == 16_000


async def test_one_that_never_ends_does_not_keep_the_others_waiting(autojump_clock: MockClock) -> None:
    @tool(max_concurrency=1, timeout_s=5)
    async def shielded(seconds: float) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        return "done"

    async with executor(shielded) as on:
        on.call(shielded, '{"seconds": 1000}')
        on.call(shielded, '{"seconds": 1}')
        assert "longer" in (await on.next_result()).output
        assert (await on.next_result()).output == "done"
        await trio.sleep(1000)


async def test_one_that_is_interrupted_while_it_waits_gives_up_its_place(autojump_clock: MockClock) -> None:
    @tool(max_concurrency=1, on_interrupt="cancel")
    async def work() -> str:
        await trio.sleep(4)
        return "done"

    async with executor(work) as on:
        on.call(work, turn=2)
        on.call(work, turn=1)
        on.call(work, turn=2)
        await trio.sleep(1)
        on.send.send_nowait(CancelTurn(1))
        told = [(result.call_id, result.failed) for result in [await on.next_result() for _ in range(3)]]
        assert told == [("call_2", True), ("call_1", False), ("call_3", False)]


# --- who has to agree -----------------------------------------------------------------------------


@tool(needs_approval=True, timeout_s=10)
async def order(number: int) -> str:
    return f"ordered {number}"


def verdict(do: Any, call_id: str = "call_1", reason: str = "") -> Command:
    return Command(do, call_id=call_id, text=reason)


async def answer(on: Executor, command: Command) -> bool:
    on.send.send_nowait(Verdict(command))
    await command.done.wait()
    return command.in_time


async def news(on: Executor, kind: type[Any]) -> Any:
    with trio.fail_after(300):
        while True:
            item = await on.results.receive()
            if isinstance(item, kind):
                return item


async def test_it_does_not_run_before_it_is_approved(autojump_clock: MockClock) -> None:
    async with executor(order) as on:
        on.call(order, '{"number": 7}')
        assert await news(on, ApprovalWanted) == ApprovalWanted(1, "call_1", "order", '{"number": 7}', "")
        await trio.sleep(9)
        assert await answer(on, verdict("approve"))
        result = await on.next_result()
        assert (result.failed, result.output, result.duration_ms) == (False, "ordered 7", 9000)


async def test_a_rejection_is_an_answer_with_its_reason(autojump_clock: MockClock) -> None:
    async with executor(order) as on:
        on.call(order, '{"number": 7}')
        assert await answer(on, verdict("reject", reason="too expensive"))
        assert json.loads((await on.next_result()).output) == {"error": "not approved: too expensive"}


async def test_the_first_word_counts_and_no_other(autojump_clock: MockClock) -> None:
    async with executor(order) as on:
        on.call(order, '{"number": 7}')
        assert await answer(on, verdict("approve"))
        assert not await answer(on, verdict("reject"))
        assert (await on.next_result()).output == "ordered 7"
        assert not await answer(on, verdict("approve"))
        assert not await answer(on, verdict("approve", "call_99"))


async def test_when_nobody_answers_it_is_not_approved(autojump_clock: MockClock) -> None:
    async with executor(order) as on:
        on.call(order, '{"number": 7}')
        result = await on.next_result()
        assert json.loads(result.output) == {"error": "not approved: nobody answered within 10 s"}
        assert result.duration_ms == 10_000
        assert not await answer(on, verdict("approve"))


async def test_arguments_that_do_not_fit_are_refused_before_anyone_is_asked(autojump_clock: MockClock) -> None:
    async with executor(order) as on:
        on.call(order, '{"number": "many"}')
        assert isinstance(await on.results.receive(), ToolStarted)
        assert "do not fit" in (await on.next_result()).output


async def test_only_some_calls_may_need_it(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    def needed(context: ToolContext[Any], arguments: dict[str, Any]) -> bool:
        if arguments["number"] > 100:
            raise OverflowError
        return bool(arguments["number"] > 10)

    @tool(needs_approval=needed)
    async def order(number: int) -> str:
        return f"ordered {number}"

    async with executor(order) as on:
        on.call(order, '{"number": 10}')
        assert (await on.next_result()).output == "ordered 10"
        on.call(order, '{"number": 11}')
        assert (await news(on, ApprovalWanted)).call_id == "call_2"
        on.call(order, '{"number": 101}')
        result = await on.next_result()
        assert (result.call_id, result.failed) == ("call_3", True)


@pytest.mark.parametrize("policy", ["finish", "cancel", "finish_silently"])
async def test_an_interruption_cancels_a_waiting_call_only_by_its_policy(
    policy: Any, autojump_clock: MockClock
) -> None:
    @tool(needs_approval=True, on_interrupt=policy)
    async def order() -> str:
        return "ordered"

    async with executor(order) as on:
        on.call(order)
        await trio.sleep(1)
        on.send.send_nowait(CancelTurn(1))
        counted = await answer(on, verdict("approve"))
        result = await on.next_result()
        assert counted == (policy != "cancel")
        assert result.failed == (policy == "cancel")
        assert result.quiet_if_interrupted == (policy == "finish_silently")


def _refuse(wanted: ToolApproval) -> bool:
    return False


async def _agree(wanted: ToolApproval) -> bool:
    await trio.sleep(2)
    return json.loads(wanted.arguments) == {"number": 7} and wanted.tool == "order" and wanted.agent == "Anna"


async def _break(wanted: ToolApproval) -> bool:
    raise RuntimeError("no screen")


async def _never(wanted: ToolApproval) -> bool:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize(
    ("approver", "told"),
    [(_refuse, "not approved"), (_agree, "ordered 7"), (_break, "could not be put"), (_never, "nobody answered")],
)
async def test_an_approver_is_asked(
    approver: Any, told: str, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    send, inbox = trio.open_memory_channel[ToolItem](10)
    results_send, results = trio.open_memory_channel[InboxItem](10)
    send.send_nowait(RunTool(1, "call_1", "order", '{"number": 7}'))
    send.close()
    await tools.run(inbox, results_send, tools=[order], agent=RealtimeAgent(name="Anna"), approver=approver)
    (result,) = [item async for item in results if isinstance(item, ToolResult)]
    assert told in result.output


# --- who is told ----------------------------------------------------------------------------------


async def test_what_is_silent_says_so(autojump_clock: MockClock) -> None:
    @tool(result="silent")
    async def always() -> str:
        return "noted"

    @tool
    async def now_and_then(quiet: bool) -> Any:
        return silent({"noted": True}) if quiet else "loud"

    async with executor(always, now_and_then) as on:
        on.call(always)
        result = await on.next_result()
        assert (result.output, result.quiet) == ("noted", True)
        on.call(now_and_then, '{"quiet": true}')
        result = await on.next_result()
        assert (result.output, result.quiet) == ('{"noted":true}', True)
        on.call(now_and_then, '{"quiet": false}')
        assert not (await on.next_result()).quiet


async def test_what_works_in_the_background_says_at_once_that_it_has_begun(autojump_clock: MockClock) -> None:
    @tool(result="background", needs_approval=True)
    async def search() -> str:
        await trio.sleep(20)
        return "found"

    async with executor(search) as on:
        on.call(search)
        assert isinstance(await on.results.receive(), ToolStarted)
        assert isinstance(await on.results.receive(), ApprovalWanted)
        await answer(on, verdict("approve"))
        began_at = trio.current_time()
        assert json.loads((await news(on, ToolBegun)).output)["status"] == "begun"
        assert trio.current_time() == began_at
        assert (await on.next_result()).output == "found"
        on.call(search)
        await answer(on, verdict("reject", "call_2"))
        assert isinstance(await on.results.receive(), ToolStarted)
        assert isinstance(await on.results.receive(), ApprovalWanted)
        assert isinstance(await on.results.receive(), ToolResult), "what never began is answered like any other"


async def test_progress_is_told_while_it_runs(autojump_clock: MockClock) -> None:

    @tool
    async def talks(context: ToolContext[Any]) -> str:
        context.progress(" ")
        context.progress("One.")
        context.progress("Two.")
        await trio.sleep(1)
        context.progress("Three.")
        await trio.sleep(1)
        return "done"

    async with executor(talks) as on:
        on.call(talks)
        first = await news(on, ToolProgressed)
        assert (first.call_id, first.tool, first.text) == ("call_1", "talks", "Two.")
        first.taken = True
        assert (await news(on, ToolProgressed)).text == "Three."
        await on.next_result()


async def test_progress_is_told_from_a_thread() -> None:
    may_end = threading.Event()

    @tool
    def in_a_thread(context: ToolContext[Any]) -> str:
        context.progress("Halfway.")
        may_end.wait(30)
        return "done"

    async with executor(in_a_thread) as on:  # by the real clock: a virtual one does not wait for threads
        on.call(in_a_thread)
        assert (await news(on, ToolProgressed)).text == "Halfway."
        may_end.set()


FUNCTIONS: list[FunctionTool] = []
for _policy in ("finish", "cancel", "finish_silently"):
    for _result in ("answer", "silent", "background"):

        @tool(
            name=f"{_policy}_{_result}",
            on_interrupt=_policy,
            result=_result,
            timeout_s=3,
            max_concurrency=2,
            needs_approval=lambda context, arguments: bool(arguments["approval"]),
        )
        async def _work(seconds: float, approval: bool, shield: bool) -> str:
            with trio.CancelScope(shield=shield):
                await trio.sleep(seconds)
            return "done"

        FUNCTIONS.append(_work)

steps = st.one_of(
    st.tuples(
        st.just("call"), st.integers(0, len(FUNCTIONS) - 1), st.sampled_from([0.0, 1.0, 2.0, 5.0]), st.booleans(),
        st.booleans(),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 15)),
    st.tuples(st.sampled_from(["approve", "reject"]), st.integers(0, 15)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 2.0, 5.0])),
)  # fmt: skip


@given(st.lists(steps, max_size=16))
def test_every_call_is_answered_once_whatever_its_policy(plan: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        called, commands = [], []
        async with executor(*FUNCTIONS) as on:
            for turn, step in enumerate(plan):
                match step:
                    case ("call", which, seconds, approval, shield):
                        arguments = {"seconds": seconds, "approval": approval, "shield": shield}
                        on.call(FUNCTIONS[which], json.dumps(arguments), turn)
                        called.append(f"call_{on.called}")
                    case ("cancel", until):
                        on.send.send_nowait(CancelTurn(until))
                    case ("wait", seconds):
                        await trio.sleep(seconds)
                    case (do, number):
                        commands.append(verdict(do, f"call_{number}"))
                        on.send.send_nowait(Verdict(commands[-1]))
            await trio.sleep(3 * 2 * 20)
            await wait_all_tasks_blocked()
            told = []
            while on.results.statistics().current_buffer_used:
                told.append(on.results.receive_nowait())
        assert sorted(item.call_id for item in told if isinstance(item, ToolResult)) == sorted(called)
        begun = [item.call_id for item in told if isinstance(item, ToolBegun)]
        asked = [item.call_id for item in told if isinstance(item, ApprovalWanted)]
        assert len(set(begun)) == len(begun)
        assert len(set(asked)) == len(asked)
        assert all(command.done.is_set() for command in commands)
        counted = [command.call_id for command in commands if command.in_time]
        assert len(set(counted)) == len(counted)
        assert set(counted) <= set(asked)

    trio.run(main, clock=MockClock(autojump_threshold=0))
