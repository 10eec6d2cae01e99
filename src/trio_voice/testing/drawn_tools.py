"""The tools of simulated conversations: quick and slow, failing and hanging, of every policy; and who approves them.

Each call has a number, so that a second run of it shows. What becomes of a call, how long it takes and whether it is
approved follows from its number.
"""

from __future__ import annotations

import json
from contextlib import suppress

import trio

from trio_voice.agent_tool import ToolContext
from trio_voice.errors import SessionEnded
from trio_voice.events import ToolApproval
from trio_voice.function_tools import FunctionTool, tool
from trio_voice.mcp_servers import HostedMcpTool
from trio_voice.session import RealtimeSession
from trio_voice.testing.checks import Watch

PATIENCE_S = 4
"""How long a call waits to be approved."""
MOODS = (("approve", 0.0), ("approve", 2.5), ("reject", 0.0), ("reject", 1.0), ("never", 0.0), ("approve", PATIENCE_S))
"""What becomes of a call that has to be approved, and after how many seconds; the last is a close run thing."""


async def run(watch: Watch, number: int, seconds: float) -> str:
    """A call runs, and takes so long."""
    watch.tool_runs[number] += 1
    watch.tools_running += 1
    try:
        await trio.sleep(seconds)
    finally:
        watch.tools_running -= 1
    return f"done {number}"


def tools_of(watch: Watch) -> list[FunctionTool]:
    """Told in `watch`: what runs."""

    @tool
    async def look_up(number: int) -> str:
        """Look something up."""
        return await run(watch, number, 0.05)

    @tool(on_interrupt="cancel")
    async def search_slowly(number: int) -> str:
        """Search for a long time."""
        return await run(watch, number, 1 + number % 5)

    @tool
    async def place_order(number: int) -> str:
        """Order something."""
        return await run(watch, number, 0.8)

    @tool
    async def break_down(number: int) -> str:
        """Fail."""
        await run(watch, number, 0.3)
        raise RuntimeError("broken, as planned")

    @tool(timeout_s=3)
    async def hang(number: int) -> str:
        """Never answer."""
        return await run(watch, number, 1e6)

    @tool(timeout_s=2)
    async def hang_on(number: int) -> str:
        """Take no notice of being cancelled."""
        with trio.CancelScope(shield=True):
            await run(watch, number, 5)
        return f"late {number}"

    @tool(result="silent")
    async def note_down(number: int) -> str:
        """Remember something."""
        return await run(watch, number, number % 3)

    @tool(result="background", timeout_s=12)
    async def search_widely(number: int) -> str:
        """Search for so long that other things are talked about."""
        await run(watch, number, 2 + number % 7 * 2)
        if number % 5 == 0:
            raise RuntimeError("nothing found, as planned")
        return f"found {number}"

    @tool(max_concurrency=1, timeout_s=3)
    async def one_at_a_time(number: int) -> str:
        """Wait for others of its kind."""
        return await run(watch, number, number % 4)

    @tool(on_interrupt="finish_silently")
    async def report(context: ToolContext[None], number: int) -> str:
        """Say how it goes."""
        context.progress(f"Beginning with {number}.")
        done = await run(watch, number, 1.5)
        context.progress("Almost there.")
        await trio.sleep(0.5)
        return done

    @tool(needs_approval=True, timeout_s=PATIENCE_S)
    async def pay(number: int) -> str:
        """Spend money."""
        watch.paid(number)
        return await run(watch, number, 0.5)

    @tool(needs_approval=True, on_interrupt="cancel", timeout_s=PATIENCE_S, result="background")
    async def book(number: int) -> str:
        """Spend more money, and take one's time."""
        watch.paid(number)
        return await run(watch, number, 3)

    return [
        look_up, search_slowly, place_order, break_down, hang, hang_on, note_down, search_widely, one_at_a_time, report,
        pay, book,
    ]  # fmt: skip


HOSTED_MOODS = (
    ("approve", 0.0), ("approve", 2.5), ("reject", 0.0), ("reject", 1.0), ("approve", 0.3), ("approve", 12.0),
)  # fmt: skip
"""The same of calls that the server makes; it waits for ever."""
SHOP = HostedMcpTool("shop", "https://shop.invalid/mcp", require_approval={"always": ["buy"], "never": ["browse"]})
"""On an MCP server that the server calls: what is played of it is in the answers (`people.py`)."""
SHOP_TOOLS = {"shop": ("buy", "browse")}


async def decide(wanted: ToolApproval, session: RealtimeSession, watch: Watch) -> None:
    """What the person makes of it."""
    number = json.loads(wanted.arguments)["number"]
    moods = HOSTED_MOODS if wanted.tool in SHOP_TOOLS["shop"] else MOODS
    do, after_s = moods[number % len(moods)]
    watch.deciding += 1
    await trio.sleep(after_s)
    watch.deciding -= 1
    with suppress(SessionEnded):
        if do == "approve":
            watch.approved.add(number)
            in_time = await session.approve(wanted.call_id)
            if in_time and wanted.tool == "pay":
                watch.counted.add(number)
        elif do == "reject":
            in_time = await session.reject(wanted.call_id, "the person does not want to")
        if do != "never" and in_time and moods is HOSTED_MOODS:
            watch.hosted.decided[wanted.call_id] = do == "approve"
