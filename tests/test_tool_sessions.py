"""Tools in a whole session, against the scripted server: what is heard, what the model is told, and when it answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Call, Peer, call, call_peer
from trio_voice import RealtimeAgent, ToolContext, events, tool
from trio_voice.function_tools import FunctionTool
from trio_voice.protocol.server_events import ResponseOutputItemDone
from trio_voice.protocol.verbatim import verbatim
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import VERBATIM_TURN, Call as Calls, Say, ScriptedBrain, Step, marked_samples

LONG_S = 8


def outputs_of(request: ResponseRequest) -> Counter[str]:
    """How many results the server's conversation holds, by call id."""
    return Counter(item.call_id or "" for item in request.items if item.type == "function_call_output")


def notes_of(request: ResponseRequest) -> list[str]:
    return [item.text for item in request.items if item.role == "system" and "background" in item.text]


# --- what waits for them --------------------------------------------------------------------------


def tasks() -> set[str]:
    """The names of all tasks there are."""
    root = trio.lowlevel.current_root_task()
    found, pending = set(), [root] if root is not None else []
    while pending:
        task = pending.pop()
        found.add(task.name)
        pending += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def test_nothing_waits_for_calls_before_the_first(autojump_clock: MockClock) -> None:
    """Memory of many sessions: a task takes kilobytes."""
    waits = "trio_voice.tools.run"

    @tool
    async def who_waits() -> bool:
        await trio.lowlevel.checkpoint()
        return waits in tasks()

    async with call(ScriptedBrain([Calls("who_waits"), Say("So.", 500)]), RealtimeAgent(tools=[who_waits])) as on:
        assert "trio_voice.conversation.run" in tasks()
        assert not tasks() & {waits, "trio_voice.guardrails.run", "trio_voice.capture._fill_with_silence"}
        await on.session.respond()
        assert (await on.next(events.ToolFinished)).output == "true"


# --- two tools at once ----------------------------------------------------------------------------


class TwoTools:
    """One that takes five seconds, and a quick one; when they began."""

    def __init__(self) -> None:
        self.began_at: dict[str, list[float]] = {"slow": [], "quick": []}

        @tool
        async def slow() -> str:
            self.began_at["slow"].append(trio.current_time())
            await trio.sleep(5)
            return "slow result"

        @tool
        async def quick() -> str:
            self.began_at["quick"].append(trio.current_time())
            await trio.lowlevel.checkpoint()
            return "quick result"

        self.tools = [slow, quick]


def answer_at_length(request: ResponseRequest) -> list[Step]:
    """At first a long sentence and both calls; then whatever there is to say."""
    if not outputs_of(request):
        return [Calls("slow"), Calls("quick"), Say("word " * 40, LONG_S * 1000)]
    return [Say("So it is.", 500)]


async def calls_arrived_at(on: Call) -> dict[str, float]:
    arrived: dict[str, float] = {}
    while len(arrived) < 2:
        event = await on.next(events.ServerEventReceived)
        if isinstance(event.event, ResponseOutputItemDone) and event.event.item.type == "function_call":
            arrived[event.event.item.name or ""] = event.at
    return arrived


def whole(on: Call, turn: int, milliseconds: float) -> bool:
    """Whether what was heard of `turn` is its first so many milliseconds, without a gap in between."""
    heard = on.heard
    places = np.flatnonzero(heard >> 8 == turn + 1)
    piece = heard[places[0] : places[-1] + 1]
    wanted = marked_samples(turn, int(milliseconds * RATE_HZ / 1000))
    return len(piece) >= len(wanted) and np.array_equal(piece[: len(wanted)], wanted)


async def test_two_tools_at_once_hold_up_neither_the_voice_nor_each_other(autojump_clock: MockClock) -> None:
    two, brain = TwoTools(), ScriptedBrain(answer_at_length)
    async with call(brain, RealtimeAgent(tools=two.tools), protocol=True) as on:
        await on.session.send_text("Do both.")
        arrived = await calls_arrived_at(on)
        finished = [await on.next(events.ToolFinished) for _ in range(2)]
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
    assert {name: [at] for name, at in arrived.items()} == two.began_at, "each began in the instant of its call"
    assert [(result.tool, result.duration_ms) for result in finished] == [("quick", 0), ("slow", 5000)]
    assert whole(on, 0, LONG_S * 1000)
    assert len(brain.requests) == 2
    assert sorted(outputs_of(brain.requests[-1]).values()) == [1, 1]


async def test_the_same_with_an_interruption_in_between(autojump_clock: MockClock) -> None:
    two, brain = TwoTools(), ScriptedBrain(answer_at_length, lambda samples, rate_hz: "Wait.")
    async with call(brain, RealtimeAgent(tools=two.tools), protocol=True) as on:
        await on.session.send_text("Do both.")
        await on.next(events.PlaybackStart)
        await trio.sleep(2)
        await on.speak()
        interruption = await on.next(events.Interruption)
        heard_until = len(on.heard)
        await trio.sleep(12)
        assert on.errors() == []
    assert whole(on, 0, interruption.heard_ms), "all that was heard of it is whole"
    assert interruption.heard_ms > 1500
    assert not (on.heard[heard_until:] >> 8 == 1).any(), "and nothing of it after"
    assert {name: len(runs) for name, runs in two.began_at.items()} == {"slow": 1, "quick": 1}
    assert len(brain.requests) == 3, "the user is answered, and told what the slow one found"
    assert sorted(outputs_of(brain.requests[-1]).values()) == [1, 1]


@pytest.mark.parametrize("after_s", [0.0, 2.0, 4.99, 5.0, 6.0])
async def test_the_same_with_a_dropped_socket_in_between(after_s: float, autojump_clock: MockClock) -> None:
    two, brain = TwoTools(), ScriptedBrain(answer_at_length)
    async with call(brain, RealtimeAgent(tools=two.tools), protocol=True) as on:
        await on.session.send_text("Do both.")
        await calls_arrived_at(on)
        await trio.sleep(after_s)
        await on.drop()
        await on.next(events.Connected)
        await trio.sleep(15)
        await on.session.send_text("And?")
        await on.next(events.PlaybackEnd)
        await trio.sleep(5)
    if after_s:  # or else the server had not sent all of it
        assert whole(on, 0, LONG_S * 1000)
    assert {name: len(runs) for name, runs in two.began_at.items()} == {"slow": 1, "quick": 1}
    assert sorted(outputs_of(brain.requests[-1]).values()) == [1, 1], "on the connection that is there at the end"


# --- progress -------------------------------------------------------------------------------------


async def test_progress_is_said_aloud_and_the_result_afterwards(autojump_clock: MockClock) -> None:
    @tool
    async def search(context: ToolContext[str]) -> str:
        await trio.sleep(1)
        context.progress(f"Still looking for {context.context}.")
        await trio.sleep(5)
        return "found"

    brain = ScriptedBrain([Calls("search"), Say("Found.", 500)])
    async with call(brain, RealtimeAgent(tools=[search]), context="shoes") as on:
        assert on.session.context == "shoes"
        await on.session.send_text("Shoes?")
        progress = await on.next(events.ToolProgress)
        assert (progress.tool, progress.text) == ("search", "Still looking for shoes.")
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
        assert on.turns_heard() == [1, VERBATIM_TURN]
    said = brain.requests[1]
    assert (said.instructions, said.tool_choice) == (verbatim("Still looking for shoes."), "none")
    assert sum(outputs_of(brain.requests[2]).values()) == 1


async def test_a_result_is_told_though_progress_was_being_said_when_it_came(autojump_clock: MockClock) -> None:
    """What is said word for word tells nothing of what other tools have found."""

    @tool(result="silent")
    async def search(context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        context.progress("Still looking, it takes a while.")
        await trio.sleep(0.5)
        return "found"

    @tool
    async def quick() -> str:
        return "quick"

    brain = ScriptedBrain([[Calls("search"), Calls("quick")], Say("Found.", 500)])
    async with call(brain, RealtimeAgent(tools=[search, quick])) as on:
        await on.session.send_text("Shoes?")
        await trio.sleep(10)
        assert on.turns_heard() == [1, VERBATIM_TURN]
    assert len(brain.requests) == 3


@pytest.mark.parametrize("delay_ms", [0, 2000], ids=["heard", "made"])
async def test_progress_that_cannot_be_said_in_time_is_not_said(delay_ms: int, autojump_clock: MockClock) -> None:
    """The agent is still being heard, or what it says is still being made."""

    @tool
    async def search(context: ToolContext[Any]) -> str:
        await trio.sleep(0.5)
        context.progress("One moment.")
        await trio.sleep(1)
        return "found"

    brain = ScriptedBrain([[Calls("search"), Say("I am looking.", 3000)], Say("Found.", 500)], chunk_delay_ms=delay_ms)
    async with call(brain, RealtimeAgent(tools=[search])) as on:
        await on.session.send_text("Shoes?")
        await on.next(events.ToolProgress)
        await trio.sleep(10)
    assert len(brain.requests) == 2


# --- silent, background ---------------------------------------------------------------------------


async def ask(on: Call, text: str = "Do it.") -> None:
    await on.session.send_text(text)
    await on.next(events.ToolFinished)


async def test_a_silent_result_is_told_and_not_spoken_of(autojump_clock: MockClock) -> None:
    @tool(result="silent")
    async def note() -> str:
        return "noted"

    brain = ScriptedBrain([[Calls("note"), Say("I note it.", 500)], Say("Yes.", 500)])
    async with call(brain, RealtimeAgent(tools=[note])) as on:
        await ask(on)
        await trio.sleep(10)
        assert len(brain.requests) == 1
        await on.session.send_text("Did you?")
        await trio.sleep(5)
        assert on.turns_heard() == [0, 1]
    assert sum(outputs_of(brain.requests[-1]).values()) == 1


@tool(result="background")
async def search() -> str:
    await trio.sleep(20)
    return "found in the cellar"


@pytest.mark.parametrize("drop", ["never", "while it works", "when it has told", "as it tells"])
async def test_a_background_tool_lets_the_conversation_go_on_and_tells_later(
    drop: str, autojump_clock: MockClock
) -> None:
    brain = ScriptedBrain([Calls("search"), *[Say("Yes.", 500)] * 6])
    async with call(brain, RealtimeAgent(tools=[search])) as on:
        await on.session.send_text("Search.")
        await on.next(events.PlaybackEnd)
        assert "begun" in "".join(item.output or "" for item in brain.requests[1].items)
        await on.session.send_text("What time is it?")
        await on.next(events.PlaybackEnd)
        assert len(brain.requests) == 3
        if drop == "while it works":
            await on.drop()
        if drop == "as it tells":
            finished = await on.next(events.ToolFinished)
            await on.drop()
        else:
            finished = await on.next(events.ToolFinished)
        assert (finished.output, finished.duration_ms) == ("found in the cellar", 20_000)
        await trio.sleep(5)
        assert any("found in the cellar" in note for note in notes_of(brain.requests[-1])), "and it speaks of it"
        if drop == "when it has told":
            await on.drop()
            await on.next(events.Connected)
        await on.session.send_text("Where?")
        await on.next(events.PlaybackEnd)
        await trio.sleep(5)
        assert on.errors() == []
        (use,) = on.session.turns()[0].tool_calls
        assert (use.output, use.failed) == ("found in the cellar", False)
    assert list(outputs_of(brain.requests[-1]).values()) == [1]
    assert len(notes_of(brain.requests[-1])) == 1


async def test_a_background_result_is_spoken_of_though_the_user_interrupted_something_else(
    autojump_clock: MockClock,
) -> None:
    brain = ScriptedBrain([Calls("search"), Say("Yes.", 500), Say("A long story.", 9000), Say("Found.", 500)])
    async with call(brain, RealtimeAgent(tools=[search])) as on:
        await on.session.send_text("Search.")
        await on.next(events.PlaybackEnd)
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await on.session.interrupt()
        await trio.sleep(30)
        assert on.turns_heard()[-1] == 3
    assert len(brain.requests) == 4


@pytest.mark.parametrize(("policy", "answers"), [("finish", 3), ("finish_silently", 2)])
async def test_what_is_found_after_an_interruption_is_spoken_of_by_policy(
    policy: Any, answers: int, autojump_clock: MockClock
) -> None:
    @tool(on_interrupt=policy)
    async def look_up() -> str:
        await trio.sleep(8)
        return "found"

    brain = ScriptedBrain(
        [[Calls("look_up"), Say("I am looking it up.", 5000)], Say("Yes?", 500), Say("Found.", 500), Say("Yes.", 500)],
        lambda samples, rate_hz: "Wait.",
    )
    async with call(brain, RealtimeAgent(tools=[look_up])) as on:
        await on.session.send_text("Look.")
        await on.next(events.PlaybackStart)
        await on.speak()
        await on.next(events.Interruption)
        await on.next(events.ToolFinished)
        await trio.sleep(10)
        assert len(brain.requests) == answers
        await on.session.send_text("And?")
        await on.next(events.PlaybackEnd)
    assert list(outputs_of(brain.requests[-1]).values()) == [1], "the model knows it all the same"


# --- approval -------------------------------------------------------------------------------------


def order_tool(ran: list[str], **options: Any) -> FunctionTool:
    @tool(needs_approval=True, **options)
    async def order(what: str) -> str:
        ran.append(what)
        return f"ordered {what}"

    return order


ORDER = Calls("order", '{"what": "shoes"}')


@pytest.mark.parametrize("connection", ["whole", "lost before", "lost meanwhile"])
@pytest.mark.parametrize("approved", [True, False], ids=["approved", "rejected"])
async def test_a_call_waits_for_approval_also_through_an_outage(
    approved: bool, connection: str, autojump_clock: MockClock
) -> None:
    ran: list[str] = []
    brain = ScriptedBrain([ORDER, *[Say("Yes.", 500)] * 3])
    async with call(brain, RealtimeAgent(name="Anna", tools=[order_tool(ran)])) as on:
        await on.session.send_text("Shoes.")
        wanted = await on.next(events.ToolApproval)
        assert (wanted.tool, wanted.arguments, wanted.agent) == ("order", '{"what": "shoes"}', "Anna")
        await trio.sleep(5)
        assert ran == []
        if connection != "whole":
            await on.drop()
        if connection == "lost before":
            await on.next(events.Connected)
        if approved:
            assert await on.session.approve(wanted.call_id)
        else:
            assert await on.session.reject(wanted.call_id, "no money")
        assert not await on.session.approve(wanted.call_id)
        finished = await on.next(events.ToolFinished)
        assert finished.output == ("ordered shoes" if approved else '{"error":"not approved: no money"}')
        await on.next(events.PlaybackEnd)
        await trio.sleep(10)
        assert not any(isinstance(event, events.ToolApproval) for event in on.events._queue), "asked once"
    assert ran == (["shoes"] if approved else [])
    assert list(outputs_of(brain.requests[-1]).values()) == [1]


async def test_an_approver_stands_for_the_application(autojump_clock: MockClock) -> None:
    ran: list[str] = []
    asked: list[events.ToolApproval] = []

    def approver(wanted: events.ToolApproval) -> bool:
        asked.append(wanted)
        return True

    brain = ScriptedBrain([ORDER, Say("Yes.", 500)])
    async with call(brain, RealtimeAgent(tools=[order_tool(ran)]), approver=approver) as on:
        await ask(on)
        await on.next(events.PlaybackEnd)
    assert ran == ["shoes"]
    assert [wanted.call_id for wanted in asked] == list(outputs_of(brain.requests[-1]))


async def test_an_approval_of_nothing_is_no_error(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain()) as on:
        assert not await on.session.approve("call_1")
        assert not await on.session.reject("call_1")
        async with trio.open_nursery() as nursery:
            for number in range(1000):  # more than the channel to the tools holds
                nursery.start_soon(on.session.approve, f"call_{number}")


# --- when an answer is owed -----------------------------------------------------------------------


@tool
async def look_up() -> str:
    return "found"


def begins(response_id: str) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": response_id, "conversation_id": "conv_1"}}


def ends(response_id: str) -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": response_id, "status": "completed"}}


CALLED = {
    "type": "response.output_item.done",
    "response_id": "r1",
    "item": {"type": "function_call", "id": "i1", "call_id": "c1", "name": "look_up", "arguments": "{}"},
}
ECHO = {
    "type": "conversation.item.added",
    "item": {"type": "function_call_output", "id": "o1", "call_id": "c1", "output": "found"},
}


@pytest.mark.parametrize("echo_first", [True, False], ids=["knows it", "does not know it yet"])
async def test_a_response_of_the_server_s_own_tells_only_what_the_server_knew(
    echo_first: bool, autojump_clock: MockClock
) -> None:
    """It may have begun before the result arrived there: then the user is still waiting."""

    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.receive("response.create")
        await peer.send(
            begins("r1"), {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "u1"}
        )
        await peer.send(CALLED)
        await peer.receive("conversation.item.create")
        await peer.send(ends("r1"), {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 900, "item_id": "u1"})
        await peer.send({"type": "input_audio_buffer.committed", "item_id": "u1"})
        await peer.send(*((ECHO, begins("r2")) if echo_first else (begins("r2"), ECHO)), ends("r2"))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(tools=[look_up])) as on:
        await on.session.respond()
        await trio.sleep(10)
    assert seen[0].types().count("response.create") == (1 if echo_first else 2)
