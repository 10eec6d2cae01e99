"""A session whose agent has local MCP servers: real processes, real time; the Realtime server is in memory."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import trio

from kit import URL, Call as Talk, call
from program import HANG_GUARD_S
from test_mcp_client import is_there, raw, stdio
from trio_voice import (
    ConfigError,
    McpServerError,
    McpServerHttp,
    McpServerStdio,
    RealtimeAgent,
    RealtimeSession,
    events,
    tool,
)
from trio_voice.config import ALL_CAPABILITIES, AgentCapability
from trio_voice.mcp_servers import offered_name
from trio_voice.protocol import TurnDetection
from trio_voice.server.scripted import Call, Say, ScriptedBrain, Step
from trio_voice.server_detection import ServerDetection


@tool
async def add(a: int, b: int) -> str:
    """Another one of this name."""
    return "ours"


async def asked(talk: Talk, text: str) -> events.ToolFinished:
    """Say something that makes the agent call a tool; what the tool gave, once the agent has spoken of it."""
    with trio.fail_after(HANG_GUARD_S):
        await talk.session.send_text(text)
        finished: events.ToolFinished = await talk.next(events.ToolFinished)
        await talk.next(events.PlaybackEnd)
    return finished


def offered(brain: ScriptedBrain) -> list[Any]:
    """The names of the tools that the last answer could have called."""
    return [tool.name for tool in brain.requests[-1].tools]


async def test_its_tools_are_offered_called_and_recorded() -> None:
    brain = ScriptedBrain([Call("add", '{"a": 2, "b": 3}'), Say("It is five.", 40)])
    async with call(brain, RealtimeAgent(mcp_servers=[stdio()])) as talk:
        listed = await talk.next(events.McpToolsListed)
        assert (listed.server, listed.status, listed.tools[:2]) == ("real", "completed", ("add", "order"))
        finished = await asked(talk, "How much is two and three?")
        assert (finished.tool, finished.output, finished.failed) == ("add", "5", False)
        assert offered(brain)[:2] == ["add", "order"]
        (described, *_) = brain.requests[0].tools
        assert described.description == "Add two numbers."
        assert (described.parameters or {})["required"] == ["a", "b"]
        assert [use.output for use in talk.session.turns()[0].tool_calls] == ["5"]


async def test_a_name_that_is_taken_is_prefixed() -> None:
    brain = ScriptedBrain([[Call("add", '{"a": 2, "b": 3}'), Call("real_add", '{"a": 2, "b": 3}')], Say("So.", 40)])
    async with call(brain, RealtimeAgent(tools=[add], mcp_servers=[stdio()])) as talk:
        await talk.session.send_text("Add.")
        given = {}
        for _ in range(2):
            finished = await talk.next(events.ToolFinished)
            given[finished.tool] = finished.output
        assert given == {"add": "ours", "real_add": "5"}


async def test_a_tool_that_is_new_is_offered_here_and_on_the_next_connection() -> None:
    brain = ScriptedBrain(
        [Call("learn"), Say("I have learnt.", 40), Call("taught"), Say("Yes.", 40), Call("taught"), Say("Again.", 40)]
    )
    async with call(brain, RealtimeAgent(mcp_servers=[stdio()]), protocol=True) as talk:
        await talk.next(events.McpToolsListed)
        await talk.session.send_text("Learn.")
        assert "taught" in (await talk.next(events.McpToolsListed)).tools
        await talk.next(events.PlaybackEnd)
        assert (await asked(talk, "Do it.")).output == "taught"
        assert "taught" in offered(brain)
        await talk.drop()
        await talk.next(events.Connected)
        assert (await asked(talk, "Do it again.")).output == "taught"
        assert "taught" in offered(brain)


async def test_a_server_that_is_killed_in_mid_call_costs_an_answer_and_no_session() -> None:
    first: list[Step] = [Call("environment", '{"name": "pid"}'), Say("There.", 40)]
    second: list[Step] = [Call("slow", '{"seconds": 600}'), Say("It was lost.", 40)]
    third: list[Step] = [Call("add", '{"a": 1, "b": 1}'), Say("Two.", 40)]
    async with call(ScriptedBrain([*first, *second, *third]), RealtimeAgent(mcp_servers=[stdio()])) as talk:
        number = int((await asked(talk, "Who are you?")).output)
        await talk.session.send_text("Be slow.")
        await talk.next(events.ToolCalled)
        os.kill(number, signal.SIGKILL)
        finished = await talk.next(events.ToolFinished)
        assert finished.failed
        assert "the MCP server 'real' was lost before it answered" in finished.output
        while (await talk.next(events.McpToolsListed)).status == "failed":
            pass
        assert (await asked(talk, "Add.")).output == "2"


async def test_leaving_the_session_ends_the_process() -> None:
    brain = ScriptedBrain([Call("one"), Say("One.", 40)])
    async with call(brain, RealtimeAgent(mcp_servers=[raw("stubborn")])) as talk:
        number = int((await asked(talk, "Call it.")).output.partition(": ")[2])
        with trio.fail_after(HANG_GUARD_S):
            await talk.session.disconnect()
        assert not is_there(number)


async def test_a_server_that_does_not_start_is_the_sessions_failure() -> None:
    async def never() -> trio.abc.Stream:
        raise AssertionError("it began")

    agent = RealtimeAgent(mcp_servers=[raw("dies"), stdio()])
    with pytest.raises(McpServerError) as caught:
        async with RealtimeSession(agent, connection=URL, open_stream=never):
            raise AssertionError("it began")
    assert str(caught.value) == (
        "the MCP server 'raw' did not start: it ended with exit status 1; on stderr it said: the database is missing"
    )


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: McpServerStdio(""), "needs a command"),
        (lambda: McpServerStdio("a", ["b\0"]), "without NUL"),
        (lambda: McpServerStdio("a", timeout_s=0), "timeout_s=0 is outside"),
        (lambda: McpServerStdio("a", start_timeout_s=1e9), "start_timeout_s=1000000000.0 is outside"),
        (lambda: McpServerStdio("a", name="b c"), "name='b c' cannot be"),
        (lambda: McpServerStdio("a", "--b"), "write \\['--b'\\]"),
        (lambda: McpServerHttp("localhost:80"), "looks like https://HOST/mcp"),
        (lambda: McpServerHttp("http://[::1"), "looks like https://HOST/mcp"),
        (lambda: McpServerHttp("http://a/mcp", allowed_tools=()), "allowed_tools is empty"),
        (lambda: RealtimeAgent(mcp_servers=["npx server"]), "McpServerStdio"),  # type: ignore[list-item]
        (lambda: RealtimeAgent(mcp_servers=[McpServerStdio("a"), McpServerStdio("a", ["b"])]), "give each a name="),
    ],
    ids=range(11),
)
def test_settings_that_cannot_work_are_said_at_once(make: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()


def test_servers_have_names_of_their_own() -> None:
    assert McpServerStdio("/usr/bin/mcp-files.exe").name == "mcp-files"
    assert McpServerHttp("https://tools.example/mcp").name == "tools_example"
    assert McpServerStdio("./42").name == "mcp"


def test_keys_are_not_in_the_representation() -> None:
    server = McpServerStdio("a", env={"KEY": "secret"})
    assert "secret" not in repr(server)
    assert "secret" not in repr(McpServerHttp("https://a/mcp", {"Authorization": "secret"}))


@pytest.mark.parametrize(
    ("tool_name", "taken", "name"),
    [
        ("read", [], "read"),
        ("read", ["read"], "files_read"),
        ("read", ["read", "files_read"], None),
        ("files/read it", [], "files_read_it"),
        ("x" * 100, [], "x" * 64),
    ],
    ids=range(5),
)
def test_what_the_model_calls_a_tool(tool_name: str, taken: list[str], name: str | None) -> None:
    assert offered_name(tool_name, "files", taken) == name


async def test_another_agent_brings_its_own_servers() -> None:
    brain = ScriptedBrain([Call("one"), Say("One.", 40), Call("add", '{"a": 1, "b": 1}'), Say("Two.", 40)])
    first, second = RealtimeAgent(mcp_servers=[raw()]), RealtimeAgent(mcp_servers=[stdio()])
    async with call(brain, first) as talk:
        assert (await asked(talk, "Call it.")).output.startswith("one: ")
        await talk.session.update_agent(second)
        assert (await asked(talk, "Add.")).output == "2"
        assert "add" in offered(brain)
        assert "one" not in offered(brain)
        with pytest.raises(McpServerError, match="the database is missing"):
            await talk.session.update_agent(RealtimeAgent(mcp_servers=[raw("dies")]))
        assert talk.session.agent is second


async def test_who_calls_no_tools_needs_no_servers() -> None:
    quiet = RealtimeAgent(mcp_servers=[raw("dies")], capabilities=ALL_CAPABILITIES - {AgentCapability.FUNCTION_CALLING})
    async with call(ScriptedBrain(), quiet) as talk:
        assert not talk.errors()


def test_an_update_of_tools_is_not_taken_for_a_change_of_agents() -> None:
    detection = ServerDetection(TurnDetection())
    for refused in (False, True):
        detection.said_more()
        detection.change(TurnDetection())
        if refused:
            detection.not_taken()
        else:
            assert not detection.acknowledged()
        assert detection.acknowledged()
