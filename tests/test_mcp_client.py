"""A local MCP server of a session, for real: a process or an address, called, killed, hung and flooded."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from program import HANG_GUARD_S
from trio_voice import mcp_client
from trio_voice.agent_tool import ToolContext
from trio_voice.channels import InboxItem
from trio_voice.errors import McpServerError
from trio_voice.mcp_servers import McpServer, McpServerHttp, McpServerStdio
from trio_voice.mcp_tools import McpToolbox, McpTools

SERVER, RAW_SERVER = (str(Path(__file__).parent / name) for name in ("mcp_server.py", "mcp_raw_server.py"))


def stdio(**options: Any) -> McpServerStdio:
    """The real server, as a process of the session's own."""
    return McpServerStdio(sys.executable, (SERVER, "stdio"), name="real", **options)


def raw(*manners: str, **options: Any) -> McpServerStdio:
    """One with bad manners."""
    return McpServerStdio(sys.executable, (RAW_SERVER, *manners), name="raw", **options)


@asynccontextmanager
async def http_process(port: int = 0, *arguments: str) -> AsyncIterator[tuple[int, trio.Process]]:
    """The real server behind HTTP, in a process of its own; its port."""
    command = [sys.executable, SERVER, "http", str(port), *arguments]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(HANG_GUARD_S):
            written = b""
            while b"\n" not in written:
                written += await process.stdout.receive_some()
        yield int(written), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.stdout.aclose()


def is_there(number: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(number, 0)
        return True
    return False


async def gone(number: int) -> None:
    """Until the process is no more: one that was killed is so a moment later."""
    with trio.fail_after(HANG_GUARD_S):
        while is_there(number):  # noqa: ASYNC110 - nobody tells of the end of another's child
            await trio.sleep(0.01)


@attrs.define(eq=False)
class Bench:
    server: McpServer
    toolbox: McpToolbox
    news: trio.MemoryReceiveChannel[InboxItem]

    @property
    def names(self) -> list[str]:
        return [tool.name for tool in self.toolbox.tools_for([self.server], ())]

    async def call(self, name: str, /, **arguments: Any) -> str:
        tools = {tool.name: tool for tool in self.toolbox.tools_for([self.server], ())}
        with trio.fail_after(HANG_GUARD_S):
            answer: str = await tools[name].call(ToolContext(None), json.dumps(arguments))
            return answer

    async def failure(self, name: str, /, **arguments: Any) -> str:
        try:
            answer = await self.call(name, **arguments)
        except McpServerError as error:
            return str(error)
        raise AssertionError(f"it answered: {answer}")

    async def next(self) -> McpTools:
        with trio.fail_after(HANG_GUARD_S):
            item = await self.news.receive()
        assert isinstance(item, McpTools)
        return item


@asynccontextmanager
async def running(server: McpServer) -> AsyncIterator[Bench]:
    """The server as a session runs it; ended as a session ends it."""
    toolbox = McpToolbox()
    reports, news = trio.open_memory_channel[InboxItem](100)
    async with trio.open_nursery() as nursery:
        await nursery.start(mcp_client.run, server, toolbox.open(server), toolbox, reports, random.Random(0))
        yield Bench(server, toolbox, news)
        nursery.cancel_scope.cancel()


async def test_the_tools_of_a_process_are_called() -> None:
    async with running(stdio(env={"SHOWN": "yes"}, cwd="/")) as bench:
        assert bench.names[:3] == ["add", "order", "picture"]
        assert (await bench.next()).tools == bench.toolbox.listed[bench.server]
        assert await bench.call("add", a=2, b=3) == "5"
        assert json.loads(await bench.call("order", number="A1")) == {"number": "A1", "status": "new", "items": [1, 2]}
        assert await bench.call("picture") == "[image, image/png, 15 bytes: it cannot be shown here]"
        assert await bench.call("environment", name="SHOWN") == "yes"
        assert await bench.call("environment", name="cwd") == "/"


async def test_the_tools_behind_an_address_are_called() -> None:
    async with http_process() as (port, _), running(McpServerHttp(f"http://127.0.0.1:{port}/mcp")) as bench:
        assert await bench.call("add", a=2, b=3) == "5"
        assert await bench.failure("fails") == "Error executing tool fails: the kitchen is on fire"
        assert await bench.call("learn") == "learnt"
        assert "taught" not in [tool.name for tool in (await bench.next()).tools]
        assert "taught" in [tool.name for tool in (await bench.next()).tools]
        assert await bench.call("taught") == "taught"


async def test_what_a_tool_says_of_its_failure_is_the_answer() -> None:
    async with running(stdio()) as bench:
        assert await bench.failure("fails") == "Error executing tool fails: the kitchen is on fire"
        assert "unable to parse" in await bench.failure("add", a="x", b=1)


async def test_our_environment_is_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    async with running(stdio()) as bench:
        assert await bench.call("environment", name="OPENAI_API_KEY") == "unset"


async def test_only_allowed_tools_are_there() -> None:
    async with running(stdio(allowed_tools=["order", "add"])) as bench:
        assert bench.names == ["add", "order"]


async def test_a_list_of_many_pages_is_read_to_its_end() -> None:
    async with running(raw("pages")) as bench:
        assert bench.names == ["one", "two", "more", "child", "wide"]


@pytest.mark.parametrize(("server", "tool", "new"), [(stdio(), "learn", "taught"), (raw(), "more", "extra")])
async def test_a_tool_that_is_new_is_told(server: McpServer, tool: str, new: str) -> None:
    async with running(server) as bench:
        assert new not in bench.names
        await bench.next()
        await bench.call(tool)
        assert new in [listed.name for listed in (await bench.next()).tools]
        assert new in bench.names


async def test_calls_run_beside_each_other() -> None:
    async with running(stdio()) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(partial(bench.call, "slow", seconds=60))
        assert await bench.call("add", a=1, b=1) == "2"
        nursery.cancel_scope.cancel()


async def test_a_call_that_is_given_up_leaves_the_server_well() -> None:
    async with running(stdio()) as bench:
        with trio.move_on_after(0.05):
            await bench.call("slow", seconds=600)
        assert await bench.call("add", a=1, b=1) == "2"


async def test_a_server_that_is_killed_in_mid_call_answers_and_comes_back() -> None:
    async with running(stdio()) as bench, trio.open_nursery() as nursery:
        await bench.next()
        number = int(await bench.call("environment", name="pid"))

        async def expect_loss() -> None:
            failure = await bench.failure("slow", seconds=600)
            assert failure == (
                "the MCP server 'real' was lost before it answered (it ended with SIGKILL); it may have done what it "
                "was asked to do"
            )

        nursery.start_soon(expect_loss)
        await bench.call("add", a=1, b=1)  # so that the server has the slow one
        os.kill(number, signal.SIGKILL)
        assert "SIGKILL" in ((await bench.next()).failure or "")
        assert (await bench.next()).failure is None, "it is there again"
        assert await bench.call("add", a=1, b=2) == "3"
        assert int(await bench.call("environment", name="pid")) != number


async def test_a_server_that_ends_says_why() -> None:
    async with running(stdio()) as bench:
        await bench.next()
        assert "exit status 3" in await bench.failure("stop")
        assert (await bench.next()).failure == (
            "the MCP server 'real' failed: it ended with exit status 3; on stderr it said: it stops here"
        )


async def test_a_call_to_a_server_that_is_away_is_answered_at_once(tmp_path: Path) -> None:
    async with running(raw(f"once={tmp_path / 'run'}")) as bench:
        await bench.next()
        number = int((await bench.call("one")).partition(": ")[2])
        os.kill(number, signal.SIGKILL)
        for reason in ("SIGKILL", "it has run before"):
            assert reason in ((await bench.next()).failure or "")
        assert await bench.failure("one") == "the MCP server 'raw' is not running; it is being started again"


async def test_a_server_behind_an_address_may_die_and_return() -> None:
    async with http_process() as (port, process):
        server = McpServerHttp(f"http://127.0.0.1:{port}/mcp")
        async with running(server) as bench, trio.open_nursery() as nursery:
            await bench.next()

            async def expect_loss() -> None:
                assert "was lost before it answered" in await bench.failure("slow", seconds=600)

            nursery.start_soon(expect_loss)
            await bench.call("add", a=1, b=1)
            process.kill()
            assert (await bench.next()).failure is not None
            async with http_process(port):
                while (news := await bench.next()).failure is not None:
                    pass
                assert news.tools
                assert await bench.call("add", a=1, b=2) == "3"


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (McpServerStdio("no-such-program", name="raw"), "FileNotFoundError"),
        (raw("dies"), "it ended with exit status 1; on stderr it said: the database is missing"),
        (
            raw("deaf", start_timeout_s=0.5),
            "it did not answer within 0.5 s; on stderr it said: waiting for the database",
        ),
        (McpServerHttp("http://127.0.0.1:9/mcp", name="raw"), "Connect"),
    ],
    ids=["missing", "dies", "deaf", "no address"],
)
async def test_a_server_that_does_not_start_says_so(server: McpServer, told: str) -> None:
    error: BaseException | None = None
    try:
        with trio.fail_after(HANG_GUARD_S):
            async with running(server):
                raise AssertionError("it started")
    except* McpServerError as group:
        error = group
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert str(error).startswith("the MCP server 'raw' did not start: ")
    assert told in str(error)


async def test_a_server_may_say_what_it_should_not() -> None:
    async with running(raw("chatty")) as bench:
        assert (await bench.call("one")).startswith("one: ")


async def test_a_flood_on_stderr_stops_nothing() -> None:
    async with running(stdio()) as bench:
        assert await bench.call("flood") == "said"
        assert await bench.call("add", a=1, b=1) == "2"


async def test_a_message_without_end_is_not_waited_for() -> None:
    async with running(raw()) as bench:
        await bench.next()
        assert "sent more than a message may have" in await bench.failure("wide")


async def test_a_server_that_will_not_end_is_ended_with_what_it_started() -> None:
    with trio.fail_after(HANG_GUARD_S):
        async with running(raw("stubborn")) as bench:
            number = int((await bench.call("one")).partition(": ")[2])
            child = int(await bench.call("child") and await bench.call("child"))
    assert not is_there(number)
    await gone(child)


async def test_nothing_is_left_of_it() -> None:
    async with running(stdio()) as bench:
        await bench.call("add", a=1, b=1)
    files = set(os.listdir("/proc/self/fd"))
    async with running(stdio()) as bench:
        number = int(await bench.call("environment", name="pid"))
    assert not is_there(number)
    assert set(os.listdir("/proc/self/fd")) == files


async def test_leaving_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    where = tmp_path / "run"
    with trio.fail_after(HANG_GUARD_S):
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                async with running(raw("deaf", f"once={where}")):
                    raise AssertionError("it started")

            nursery.start_soon(start)
            while not (where.exists() and where.read_text()):  # noqa: ASYNC110 - a process says so in a file
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert not is_there(int(where.read_text()))
