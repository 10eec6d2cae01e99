"""Whatever happens in a conversation, one that forgets is like one that keeps all, but for what is old and over."""

from __future__ import annotations

import random
import re
from typing import Any, Literal, TypeAlias

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from msgspec.structs import asdict
from trio._core import _run as trio_run
from trio.testing import MockClock

from kit import Call, call
from test_history_edits import Words, heard, model_s_view
from test_history_properties import OPTIONS
from trio_voice import HistoryError, RealtimeAgent, events, tool
from trio_voice.protocol.resume import CONTINUES
from trio_voice.server import scripted
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Say, ScriptedBrain, Step
from trio_voice.server.server_settings import ServerSettings
from trio_voice.tracker import ConversationTurn, SessionMetrics

Action: TypeAlias = tuple[
    Literal["text", "call", "order", "inject", "ask", "edit", "delete", "reset", "interrupt", "drop", "wait", "await"],
    int,
]

often = ["text", "text", "text", "call", "order", "ask", "interrupt", "drop", "wait", "await"]
actions = st.tuples(st.sampled_from([*often, "inject", "edit", "delete", "reset"]), st.integers(0, 20))

OTHERS = {"item_id", "response_id", "call_id", "session_id", "item_ids", "input_tokens", "usage"}
"""Names that the server draws, and what it reads: both are others where a new connection was told less."""


@tool
async def weather() -> str:
    """The weather."""
    await trio.sleep(1.3)
    return "rain"


@tool(result="background")
async def order() -> str:
    """Order it."""
    await trio.sleep(9)
    return "ordered"


def answer(request: ResponseRequest) -> list[Step]:
    asked = request.items[-1].text if request.items else ""
    if asked.startswith(("call", "order")):
        return [scripted.Call("weather" if asked.startswith("call") else "order")]
    return [Say("one two three four five six", 2600)]


@attrs.define(eq=False)
class Outcome:
    turns: list[ConversationTurn]
    metrics: SessionMetrics
    history: list[tuple[int, str, tuple[str, str]]]
    """Of each item the turn in which it appeared, the call that it is about, and its words."""
    told: list[tuple[str, dict[str, Any]]] = attrs.Factory(list)
    """By events."""
    known: Words = attrs.Factory(list)
    """By the model in the end, on the last connection of the conversation; and on a new one."""
    known_anew: Words = attrs.Factory(list)


@attrs.define(eq=False)
class Open:
    """What may not be forgotten, as the application can tell by the events."""

    calls: set[str] = attrs.Factory(set)
    sounding: dict[int, set[str]] = attrs.Factory(dict)
    forgotten: int = 0

    def follow(self, event: events.SessionEvent) -> None:
        match event:
            case events.ToolCalled():
                self.calls.add(event.call_id)
            case events.ToolFinished():
                self.calls.discard(event.call_id)
            case events.ResponseAudio():
                self.sounding.setdefault(event.turn, set()).add(event.item_id)
            case events.PlaybackEnd() | events.Interruption():
                self.sounding = {turn: items for turn, items in self.sounding.items() if turn > event.turn}
            case events.HistoryChanged(change="forgotten", item=item):
                self.forgotten += 1
                assert item.call_id not in self.calls, f"{item} is of a tool that runs"
                assert not any(item.id in items for items in self.sounding.values()), f"{item} is still heard"


async def act(on: Call, action: Action, number: int) -> None:
    do, which = action
    session = on.session
    kept = {item.id for item in session.history}
    newest = [item_id for turn in session.turns()[-1:] for item_id in turn.item_ids if item_id in kept]
    try:
        match do:
            case "text" | "call" | "order":
                await session.send_text(f"{do} {number}")
            case "ask":
                await session.inject("user", f"ask {number}", respond=True)
            case "inject":
                await session.inject(("user", "assistant", "system")[which % 3], f"note {number}")
            case "edit" if newest:
                await session.edit_item(newest[which % len(newest)], f"edited {number}")
            case "delete" if newest:
                await session.delete_item(newest[which % len(newest)])
            case "reset":
                await session.reset_history()
            case "interrupt":
                await session.interrupt()
            case "drop":
                await on.drop()
            case "wait":
                await trio.sleep(which / 20)
            case "await":
                await trio.sleep(5)
    except HistoryError:
        pass  # it is being said, or is no message


async def converse(drawn: list[Action], history_turns: int | None, outcomes: list[Outcome]) -> None:
    brain, still_open = ScriptedBrain(answer), Open()
    options: dict[str, Any] = {"connection": OPTIONS, "listening": False, "audio": True, "rng": random.Random(0)}
    options |= {"history_turns": history_turns, "settings": ServerSettings(rng=random.Random(0))}
    async with call(brain, RealtimeAgent(tools=[weather, order]), **options) as on:
        for number, action in enumerate(drawn):
            await act(on, action, number)
            await trio.sleep(0.013)  # so that nothing hangs on how many passes of the scheduler a step takes
        await trio.sleep(30)
        await on.session.send_text("And?")
        await trio.sleep(5)
        known = list(map(unnamed, model_s_view(brain)))
        assert on.errors() == []
        entries = [entry for entry in on.session._view.history if entry.text != CONTINUES]
        shown = [(entry.exchange, entry.call_id) for entry in entries]
        history = [(*each, unnamed(words)) for each, words in zip(shown, heard(on.session), strict=True)]
        outcome = Outcome(on.session.turns(), on.session.metrics, history, known=known)
        stream, told, read = on.events, [], 0
        while stream._queue:
            event = stream._queue.popleft()
            still_open.follow(event)
            read += event.input_tokens or 0 if isinstance(event, events.ResponseEnd) else 0
            if not isinstance(event, events.HistoryChanged | events.ResponseAudio):
                told.append((event.name, {name: value for name, value in asdict(event).items() if name not in OTHERS}))
        assert outcome.metrics.usage.tokens_in == read
        await on.drop()
        await trio.sleep(5)
        await on.session.send_text("And then?")
        await trio.sleep(5)
        outcome.known_anew = list(map(unnamed, model_s_view(brain)))
        outcomes.append(outcome)
        outcome.told = told
        assert history_turns is not None or not still_open.forgotten


def unnamed(words: tuple[str, str]) -> tuple[str, str]:
    """Without the id of a call."""
    return words[0], re.sub(r"call_\w+", "call", words[1])


def without_names(turn: ConversationTurn) -> dict[str, Any]:
    plain = {name: value for name, value in attrs.asdict(turn).items() if name not in OTHERS}
    return plain | {"tool_calls": [{**use, "call_id": ""} for use in plain["tool_calls"]]}


@given(st.lists(actions, min_size=6, max_size=24), st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_what_is_not_old_is_as_in_a_session_that_keeps_all(drawn: list[Action], history_turns: int) -> None:
    outcomes: list[Outcome] = []
    for turns in (None, history_turns):
        trio_run._r.seed(0)
        trio.run(converse, drawn, turns, outcomes, clock=MockClock(autojump_threshold=0))
    whole, kept = outcomes
    assert kept.told == whole.told
    assert list(map(without_names, kept.turns)) == list(map(without_names, whole.turns[-history_turns:]))
    for name, total in attrs.asdict(whole.metrics).items():
        assert getattr(kept.metrics, name) == pytest.approx(total) if isinstance(total, float) else True, name
    assert kept.metrics.usage.tokens_out == whole.metrics.usage.tokens_out
    assert (kept.metrics.turn_count, kept.metrics.tool_call_count) == (
        whole.metrics.turn_count,
        whole.metrics.tool_call_count,
    )
    assert kept.metrics.interruption_count == whole.metrics.interruption_count
    assert kept.metrics.truncation_count == whole.metrics.truncation_count
    oldest = whole.metrics.turn_count - history_turns + 1
    newer_calls = {call_id for exchange, call_id, _ in whole.history if call_id and exchange >= oldest}
    newer = [words for exchange, call_id, words in whole.history if exchange >= oldest or call_id in newer_calls]
    assert [words for _, _, words in kept.history] == newer
    if not any(do == "drop" for do, _ in drawn):
        assert kept.known == whole.known
    assert kept.known_anew == [*(words for words in newer if words[1]), ("user", "And then?")]
