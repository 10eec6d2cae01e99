"""Nothing that hangs on a session grows with its conversation, where that has a bound."""

from __future__ import annotations

import gc
from collections import deque
from types import CoroutineType, FunctionType, ModuleType
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kit import call
from test_history_edits import OPTIONS
from trio_voice import (
    HostedMcpTool,
    InterruptionPolicy,
    RealtimeAgent,
    RealtimeSession,
    events,
    guarding,
    input_guardrail,
    output_guardrail,
    tool,
    tool_ledger,
    user_turn,
)
from trio_voice.channels import EventStream
from trio_voice.protocol import history, turns
from trio_voice.server import scripted
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Say, ScriptedBrain


async def test_nothing_in_a_session_grows_with_the_conversation(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every container that a session or a task of it holds is as large in the end as half way."""
    monkeypatch.setattr(history, "LEFT_THERE_CAPACITY", 6)
    for module, name in ((history, "REMEMBERED_IDS"), (tool_ledger, "REMEMBERED_CALLS"), (user_turn, "RECENT_ITEMS")):
        monkeypatch.setattr(module, name, 6)
    monkeypatch.setattr(turns, "REMEMBERED_TURNS", 6)
    monkeypatch.setattr(guarding, "REMEMBERED", 6)

    @tool
    async def lookup() -> str:
        """Look it up."""
        await trio.sleep(0.1)
        return "found"

    @tool(result="background")
    async def order() -> str:
        """Order it."""
        await trio.sleep(3)
        return "ordered"

    @input_guardrail(say="Please.")
    async def rude(text: str) -> bool:
        return text == "Rude!"

    @output_guardrail(say="Never mind.")
    async def secret(text: str) -> bool:
        return "secret" in text

    def answer(request: ResponseRequest) -> list[scripted.Step]:
        asked = request.items[-1].text if request.items else ""
        if asked in ("lookup", "order"):
            return [Say("One moment.", 200), scripted.Call(asked)]
        if asked == "hosted":
            return [scripted.HostedCall("files", "search")]
        return [Say("a secret" if asked == "secret" else "one two three four", 2000)]

    hosted = HostedMcpTool(server_label="files", server_url="https://mcp.invalid")
    agent = RealtimeAgent(
        tools=[lookup, order, hosted],
        input_guardrails=[rude],
        output_guardrails=[secret],
        interruption=InterruptionPolicy(min_speech_ms=300),
    )
    brain = ScriptedBrain(answer, mcp_tools={"files": ["search"]})
    async with call(brain, agent, history_turns=2, connection=OPTIONS) as on:

        async def talk(lost_in: int) -> dict[str, int]:
            for cycle in range(6):
                for text in ("Hello", "lookup", "order", "hosted", "Rude!", "secret"):
                    await on.session.send_text(text)
                    await trio.sleep(5)
                await on.session.send_text("Talk")
                await on.next(events.PlaybackStart)
                await on.speak(200)
                await trio.sleep(1)
                await on.session.send_text("Talk more")
                await trio.sleep(0.5)
                await on.speak()
                await trio.sleep(5)
                note = await on.session.inject("user", "A note.")
                await on.session.delete_item(await on.session.edit_item(note, "Another."))
                await on.session.update_agent(attrs.evolve(agent, instructions=f"{cycle}"))
                if cycle == lost_in:
                    await on.session.send_text("Talk")
                    await trio.sleep(0.5)
                    await on.drop()
                await trio.sleep(10)
            gc.collect()
            return containers_of(on.session)

        before = await talk(lost_in=4)
        after = await talk(lost_in=1)  # what grows with a connection is seen, too
        assert on.session.metrics.interruption_count >= 12
        assert on.session.metrics.false_alarm_count >= 12
        assert on.session.metrics.tool_call_count == 12 * 3
        assert len(on.session.turns()) == 2
    grown = {where: (before.get(where, 0), size) for where, size in after.items() if size > before.get(where, 0)}
    assert grown.keys() <= {"RoundTrips.latest_ms"}, grown  # 32 of them, after a while


NOT_THE_SESSION_S = (
    "kit",
    "test_",
    "trio_voice.server",
    "trio_voice.testing",
    "trio._core",
    "trio.testing",
    "unittest",
)


def containers_of(session: RealtimeSession) -> dict[str, int]:
    """How many things are in the containers that hang on the session and on its tasks, by who has them."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [("session", session)]
    for task in tasks_of(trio.lowlevel.current_root_task()):
        todo += [(f"{task.name}.{name}", part) for each in locals_of(task) for name, part in each.items()]
    while todo:
        where, value = todo.pop()
        passed = isinstance(value, type | ModuleType | FunctionType | CoroutineType | str | bytes | EventStream)
        if id(value) in seen or passed or type(value).__module__.startswith(NOT_THE_SESSION_S):
            continue
        seen.add(id(value))
        if isinstance(value, dict | list | set | deque) and getattr(value, "maxlen", None) is None:
            sizes[where] = sizes.get(where, 0) + len(value)
        todo += parts_of(where, value)
    return sizes


def parts_of(where: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict | list | set | deque | tuple):
        return [(f"{where}[]", part) for part in gc.get_referents(value)]
    kind = type(value).__name__
    names = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
    fields = {name: getattr(value, name, None) for name in names} | getattr(value, "__dict__", {})
    parts = fields.items() if fields else [("*", part) for part in gc.get_referents(value)]
    return [(f"{kind}.{name}", part) for name, part in parts]


def tasks_of(task: Any) -> list[Any]:
    below = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [task, *(each for child in below for each in tasks_of(child))]


def locals_of(task: Any) -> list[dict[str, Any]]:
    """Of each frame of it that is the package's own, and no server's."""
    found, coroutine = [], task.coro
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        name = frame.f_globals.get("__name__", "") if frame is not None else ""
        if frame is not None and name.startswith("trio_voice.") and not name.startswith(NOT_THE_SESSION_S):
            found.append(frame.f_locals)
        coroutine = getattr(coroutine, "cr_await", None)
    return found
