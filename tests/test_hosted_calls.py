"""MCP servers that the Realtime server calls, in a session: listed, approved, called, interrupted, lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import example, given, strategies as st
from trio.testing import MockClock

from kit import Call, Peer, call, call_peer
from trio_voice import ConfigError, HostedMcpTool, RealtimeAgent, events
from trio_voice.barge_in import BargeIn
from trio_voice.channels import CheckText, Command, EventFanOut
from trio_voice.hosted_calls import HostedCalls
from trio_voice.outbox import Outbox
from trio_voice.protocol import Item, server_events as on
from trio_voice.protocol.history import History
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import HostedCall, Reply, Say, ScriptedBrain
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_items import ToolItem
from trio_voice.tool_ledger import ToolLedger
from trio_voice.tracker import ConversationTracker

DOCS = HostedMcpTool("docs", "https://docs.example/mcp", require_approval="never")
AGENT = RealtimeAgent(tools=[DOCS])
SEARCH = HostedCall("docs", "search", '{"q": "trio"}', output="found", takes_ms=500)
ASKED = HostedCall("docs", "search", '{"q": "trio"}', output="found", needs_approval=True)


def brain_of(*replies: Reply, tools: Sequence[str] = ("search", "fetch")) -> ScriptedBrain:
    return ScriptedBrain(replies, mcp_tools={"docs": tools})


def outputs(request: ResponseRequest) -> dict[str, str]:
    """What a brain was told of calls that another server's session had made: their names, and what came of them."""
    names = {item.call_id: item.name for item in request.items if item.type == "function_call"}
    return {str(names[item.call_id]): str(item.output) for item in request.items if item.type == "function_call_output"}


async def said(talk: Call) -> list[Any]:
    """What is known of the tools, in order, until the next answer was played."""
    told: list[Any] = []
    with trio.fail_after(70):
        while True:
            event = await talk.events.wait_for(events.SessionEvent)
            if isinstance(event, events.ToolCalled | events.ToolFinished | events.ToolApproval):
                told.append(event)
            if isinstance(event, events.PlaybackEnd):
                return told


async def test_its_tools_are_told(autojump_clock: MockClock) -> None:
    async with call(brain_of(), AGENT) as talk:
        begun, done = [await talk.next(events.McpToolsListed) for _ in range(2)]
        assert (begun.server, begun.status, begun.tools) == ("docs", "in_progress", ())
        assert (done.server, done.status, done.tools) == ("docs", "completed", ("search", "fetch"))


async def test_a_server_that_cannot_be_reached_is_told(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), AGENT) as talk:
        told = [(await talk.next(events.McpToolsListed)).status for _ in range(2)]
        assert told == ["in_progress", "failed"]


async def test_a_call_is_recorded_and_spoken_of(autojump_clock: MockClock) -> None:
    brain = brain_of(SEARCH, Say("Here it is.", 300))
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        called, finished = await said(talk)
        assert (called.tool, called.arguments) == ("search", '{"q": "trio"}')
        assert (finished.call_id, finished.output, finished.failed) == (called.call_id, "found", False)
        assert finished.duration_ms == pytest.approx(500, abs=50)
        (use,) = talk.session.turns()[0].tool_calls
        assert (use.tool, use.arguments, use.output, use.failed) == ("search", '{"q": "trio"}', "found", False)
        assert len(brain.requests) == 2
        assert not talk.errors()


async def test_a_call_that_fails_is_spoken_of_too(autojump_clock: MockClock) -> None:
    brain = brain_of(HostedCall("docs", "search", error="no such index"), Say("It failed.", 300))
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        _, finished = await said(talk)
        assert finished.failed
        assert json.loads(finished.output)["error"]["message"] == "no such index"


async def test_a_call_waits_until_it_is_approved(autojump_clock: MockClock) -> None:
    brain = brain_of(ASKED, Say("Here it is.", 300))
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        wanted = await talk.next(events.ToolApproval)
        assert (wanted.tool, wanted.arguments, wanted.agent) == ("search", '{"q": "trio"}', "agent")
        assert await talk.session.approve(wanted.call_id)
        (finished,) = await said(talk)
        assert (finished.call_id, finished.output, finished.failed) == (wanted.call_id, "found", False)
        assert not await talk.session.approve(wanted.call_id), "it has been answered"
        assert [use.output for use in talk.session.turns()[0].tool_calls] == ["found"]
        assert len(brain.requests) == 2


async def test_a_call_that_is_rejected_is_not_made(autojump_clock: MockClock) -> None:
    brain = brain_of(ASKED, Say("Then not.", 300))
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        wanted = await talk.next(events.ToolApproval)
        assert await talk.session.reject(wanted.call_id, "not today")
        (finished,) = await said(talk)
        assert (finished.call_id, finished.failed) == (wanted.call_id, True)
        assert finished.output == '{"error":"not approved: not today"}'
        response = brain.requests[1].items[-1]
        assert (response.type, response.approve, response.reason) == ("mcp_approval_response", False, "not today")


@pytest.mark.parametrize("approves", [True, False])
async def test_the_sessions_approver_is_asked(approves: bool, autojump_clock: MockClock) -> None:
    asked: list[events.ToolApproval] = []

    async def approver(wanted: events.ToolApproval) -> bool:
        asked.append(wanted)
        return approves

    async with call(brain_of(ASKED, Say("So be it.", 300)), AGENT, approver=approver) as talk:
        await talk.session.send_text("Search for trio.")
        finished = (await said(talk))[-1]
        assert finished.failed is not approves
        assert [wanted.tool for wanted in asked] == ["search"]


async def test_an_approval_is_not_waited_for_for_ever(autojump_clock: MockClock) -> None:
    async with call(brain_of(ASKED, Say("Nobody is there.", 300)), AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        finished = (await said(talk))[-1]
        assert finished.output == '{"error":"not approved: nobody answered within 60 s"}'


async def test_an_approval_is_void_when_the_connection_is_lost(autojump_clock: MockClock) -> None:
    brain = brain_of(ASKED, Say("Shall I ask again?", 300))
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        wanted = await talk.next(events.ToolApproval)
        await talk.drop()
        (finished,) = await said(talk)
        assert (finished.call_id, finished.failed) == (wanted.call_id, True)
        assert not await talk.session.approve(wanted.call_id)
        assert len(brain.requests) == 2, "the model is asked what now, once"
        assert "before it was approved" in outputs(brain.requests[1])["search"]


async def test_a_call_that_was_under_way_when_the_connection_was_lost_is_told_as_lost(
    autojump_clock: MockClock,
) -> None:
    brain = brain_of(HostedCall("docs", "search", output="never seen", takes_ms=60_000), Say("I do not know.", 300))
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        await talk.next(events.ToolCalled)
        await talk.drop()
        (finished,) = await said(talk)
        assert finished.failed
        assert len(brain.requests) == 2
        assert "it may have done what it was asked" in outputs(brain.requests[1])["search"]


@pytest.mark.parametrize("step", [SEARCH, ASKED], ids=["free", "approved"])
async def test_what_a_call_gave_is_known_on_the_next_connection(step: HostedCall, autojump_clock: MockClock) -> None:
    brain = brain_of(step, Say("Here it is.", 300), Say("As I said.", 300))
    async with call(brain, AGENT, approver=lambda wanted: True) as talk:
        await talk.session.send_text("Search for trio.")
        await said(talk)
        await talk.drop()
        await talk.next(events.Connected)
        await talk.session.send_text("What was it?")
        await said(talk)
        assert outputs(brain.requests[2]) == {"search": "found"}
        kinds = [item.type for item in brain.requests[2].items if item.type.startswith("function_call")]
        assert kinds == ["function_call", "function_call_output"]


@pytest.mark.parametrize("step", [SEARCH, ASKED], ids=["free", "approved"])
async def test_what_a_call_gave_is_told_once_on_each_connection(step: HostedCall, autojump_clock: MockClock) -> None:
    brain = brain_of(step, *[Say("Here it is.", 300)] * 5)
    async with call(brain, AGENT, approver=lambda wanted: True) as talk:
        await talk.session.send_text("Search for trio.")
        await said(talk)
        for _ in range(3):
            await talk.drop()
            await talk.next(events.Connected)
            await talk.session.send_text("What was it?")
            await said(talk)
    for request in brain.requests[2:]:
        kinds = [item.type for item in request.items if item.type.startswith("function_call")]
        assert kinds == ["function_call", "function_call_output"]
        assert outputs(request) == {"search": "found"}


async def test_a_server_that_goes_on_by_itself_is_not_asked_to(autojump_clock: MockClock) -> None:
    item = {"type": "mcp_call", "id": "mcp_1", "name": "search", "arguments": "{}", "server_label": "docs"}

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.receive("response.create")
        place = {"response_id": "resp_1", "output_index": 0}
        await peer.send(
            {"type": "response.created", "response": {"id": "resp_1", "conversation_id": "c"}},
            {"type": "response.output_item.added", **place, "item": item},
            {"type": "response.mcp_call.in_progress", "item_id": "mcp_1", "output_index": 0},
            {"type": "response.mcp_call.completed", "item_id": "mcp_1", "output_index": 0},
            {"type": "response.output_item.done", **place, "item": {**item, "output": "found"}},
            {"type": "response.created", "response": {"id": "resp_2", "conversation_id": "c"}},
            {"type": "response.done", "response": {"id": "resp_2", "status": "completed"}},
        )
        await peer.drain()
        asked.extend(peer.types())

    asked: list[str] = []
    async with call_peer(serve, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        finished = await talk.next(events.ToolFinished)
        assert finished.output == "found"
        await talk.next(events.ResponseEnd)
        await trio.sleep(1)
        await talk.session.disconnect()
    assert asked.count("response.create") == 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "either server_url or connector_id"),
        ({"server_url": "https://a", "connector_id": "connector_gmail"}, "either server_url or connector_id"),
        ({"server_url": "wss://a"}, "no address of an MCP server"),
        ({"connector_id": "gmail", "authorization": "t"}, "connector_googlecalendar"),
        ({"connector_id": "connector_gmail"}, "access token"),
        ({"server_url": "https://a", "allowed_tools": []}, "allowed_tools is empty"),
        ({"server_url": "https://a", "allowed_tools": "search"}, "write \\['search'\\]"),
        ({"server_url": "https://a", "require_approval": "sometimes"}, "'always', 'never'"),
        ({"server_url": "https://a", "require_approval": {"maybe": ["a"]}}, "'always' and 'never'"),
    ],
)
def test_what_no_server_would_take_is_said_at_once(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        HostedMcpTool("docs", **settings)


def test_two_servers_of_one_label_cannot_be() -> None:
    with pytest.raises(ConfigError, match="docs"):
        RealtimeAgent(tools=[DOCS, DOCS])


def test_a_key_is_not_in_the_representation() -> None:
    assert "secret" not in repr(HostedMcpTool("docs", "https://a", authorization="secret", headers={"k": "secret"}))


async def test_who_interrupts_is_not_told_of_the_call_behind(autojump_clock: MockClock) -> None:
    brain = brain_of([Say("Let me look, this will take me a moment.", 3000), SEARCH])
    async with call(brain, AGENT) as talk:
        await talk.session.send_text("Search for trio.")
        await talk.next(events.ToolCalled)
        await talk.session.interrupt()
        finished = await talk.next(events.ToolFinished)
        assert finished.output == "found"
        await trio.sleep(5)
        assert len(brain.requests) == 1, "silence was wanted"


ITEM: dict[str, Any] = {"type": "mcp_call", "name": "search", "arguments": "{}", "server_label": "docs"}


def told_of(call_id: str, request_id: str | None) -> list[on.ServerEvent]:
    """All that a server may say of one call."""
    item = Item(id=call_id, approval_request_id=request_id or msgspec.UNSET, **ITEM)
    done = msgspec.structs.replace(item, output="found")
    said: list[on.ServerEvent] = [
        on.ResponseOutputItemAdded(response_id="r", output_index=0, item=item),
        on.ConversationItemAdded(item=item),
        on.ResponseMcpCallArgumentsDone(response_id="r", output_index=0, item_id=call_id, arguments="{}"),
        on.ResponseMcpCallInProgress(item_id=call_id),
        on.ResponseMcpCallCompleted(item_id=call_id),
        on.ResponseMcpCallFailed(item_id=call_id),
        on.ResponseOutputItemDone(response_id="r", output_index=0, item=done),
        on.ConversationItemDone(item=done),
    ]
    if request_id:
        asked = msgspec.structs.replace(item, type="mcp_approval_request", id=request_id)
        said.append(on.ResponseOutputItemDone(response_id="r", output_index=0, item=asked))
    return said


_BEFORE_IT_ASKED = told_of("c2", "q2")


@example([_BEFORE_IT_ASKED[3], _BEFORE_IT_ASKED[8], "approve", _BEFORE_IT_ASKED[6]])
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*told_of("c1", None), *told_of("c2", "q2")]),
            st.sampled_from(["approve", "reject", "lost"]),
        ),
        max_size=25,
    )
)
def test_whatever_the_server_says_and_in_which_order(said: list[Any]) -> None:
    told: list[Any] = []

    async def main() -> None:
        fan_out, history = EventFanOut(), History()
        stream = fan_out.subscribe()
        to_tools, _calls = trio.open_memory_channel[ToolItem](1000)
        outbox = Outbox(None, to_tools, fan_out, trio.open_memory_channel[CheckText](1)[0])
        tracker = ConversationTracker(history, started_at=0.0)
        ledger = ToolLedger()
        barge_in = BargeIn(outbox, history, tracker, ServerDetection(None))
        hosted = HostedCalls(outbox, tracker, barge_in, ledger, lambda: "agent")
        for each in said:
            if each == "lost":
                hosted.connection_gone()
            elif isinstance(each, str):
                hosted.judge(Command(each, call_id="q2"))  # type: ignore[arg-type]  # drawn words
            else:
                hosted.take(1, each)
        hosted.connection_gone()
        fan_out.close()
        told.extend([event async for event in stream])
        assert not ledger.running, "nothing waits for ever"
        assert ledger.owed <= set(ledger.results)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    called = [event.call_id for event in told if isinstance(event, events.ToolCalled)]
    finished = [event.call_id for event in told if isinstance(event, events.ToolFinished)]
    assert len(called) == len(set(called))
    assert sorted(called) == sorted(finished), "each call that begins ends, once"
