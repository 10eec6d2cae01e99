"""The hosted side of MCP, played by the scripted server: every event as the typed openai package has it."""

from __future__ import annotations

from trio.testing import MockClock

from server.realtime_client import Event, RealtimeClient, connected
from trio_voice.server.scripted import HostedCall, Say, ScriptedBrain

DOCS = {"type": "mcp", "server_label": "docs", "server_url": "https://docs.example/mcp"}


def of_mcp(client: RealtimeClient) -> list[str]:
    """The order of what has to do with MCP, with the kind of item."""
    told = []
    for event in client.events:
        kind = event.get("item", {}).get("type", "")
        if "mcp" in event["type"] or "mcp" in kind:
            told.append(f"{event['type']} {kind}".strip())
    return told


def the(client: RealtimeClient, type_: str, kind: str) -> Event:
    """The last item of `kind` in an event of `type_`."""
    found: list[Event] = [e["item"] for e in client.events if e["type"] == type_ and e["item"]["type"] == kind]
    return found[-1]


async def test_tools_are_listed_when_the_session_has_them(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain(mcp_tools={"docs": ["search", "fetch"]})
    async with connected(brain) as client:
        await client.update(tools=[{**DOCS, "allowed_tools": ["search"]}])
        await client.quiesce()
        assert of_mcp(client) == [
            "conversation.item.added mcp_list_tools",
            "mcp_list_tools.in_progress",
            "mcp_list_tools.completed",
            "conversation.item.done mcp_list_tools",
        ]
        listed = the(client, "conversation.item.done", "mcp_list_tools")
        assert (listed["server_label"], [tool["name"] for tool in listed["tools"]]) == ("docs", ["search"])
        await client.update(instructions="again")
        await client.quiesce()
        assert len(of_mcp(client)) == 4, "a server is listed once"


async def test_a_server_that_cannot_be_reached_fails_to_be_listed(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        await client.update(tools=[DOCS])
        await client.next("mcp_list_tools.failed")


async def test_a_call_is_made_and_its_output_comes(autojump_clock: MockClock) -> None:
    call = HostedCall("docs", "search", '{"q": "trio"}', output="found", takes_ms=1000)
    async with connected(ScriptedBrain([call])) as client:
        done = await client.ask()
        assert [item["type"] for item in done["response"]["output"]] == ["mcp_call"]
        await client.next("response.mcp_call.completed")
        await client.quiesce()
        assert of_mcp(client) == [
            "response.output_item.added mcp_call",
            "conversation.item.added mcp_call",
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "conversation.item.done mcp_call",
            "response.output_item.done mcp_call",
            "response.mcp_call.in_progress",
            "response.mcp_call.completed",
            "conversation.item.done mcp_call",
        ]
        assert the(client, "conversation.item.done", "mcp_call")["output"] == "found"


async def test_a_call_fails(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([HostedCall("docs", "search", error="no such index")])) as client:
        await client.ask()
        await client.next("response.mcp_call.failed")
        await client.quiesce()
        assert the(client, "conversation.item.done", "mcp_call")["error"]["message"] == "no such index"


async def test_a_call_waits_for_approval(autojump_clock: MockClock) -> None:
    call = HostedCall("docs", "search", output="found", needs_approval=True)
    async with connected(ScriptedBrain([call, Say("Done.")])) as client:
        await client.ask()
        await client.quiesce()
        request = the(client, "response.output_item.done", "mcp_approval_request")
        assert "response.mcp_call.in_progress" not in client.types()
        answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
        await client.send("conversation.item.create", item={**answer, "id": "approval_1"})
        await client.next("response.mcp_call.completed")
        await client.quiesce()
        made = the(client, "conversation.item.done", "mcp_call")
        assert (made["output"], made["approval_request_id"]) == ("found", request["id"])
        await client.send("conversation.item.create", item={**answer, "id": "approval_2"})
        error = (await client.next("error"))["error"]
        assert error["param"] == "item.approval_request_id"


async def test_a_rejected_call_is_not_made(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([HostedCall("docs", "search", needs_approval=True)])) as client:
        await client.ask()
        request = the(client, "response.output_item.done", "mcp_approval_request")
        answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": False}
        await client.send("conversation.item.create", item={**answer, "id": "approval_1", "reason": "not today"})
        await client.quiesce()
        assert not [type_ for type_ in client.types() if type_.startswith("response.mcp_call")]
