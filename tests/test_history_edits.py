"""The application's hand in the record: what it puts in, edits and deletes, the model knows; lost sockets or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import pytest
from trio.testing import MockClock

from kit import Call, call
from trio_voice import (
    ConnectionOptions,
    RealtimeSession,
    events,
)
from trio_voice.protocol.resume import CONTINUES
from trio_voice.server.scripted import Say, ScriptedBrain

OPTIONS = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
PICTURE = "data:image/png;base64,iVBORw0KGgo="

Words: TypeAlias = list[tuple[str, str]]


def model_s_view(brain: ScriptedBrain) -> Words:
    """What the model was last shown, but for the note that tells of a lost connection."""
    told = [(item.role or item.type, item.text or item.output or item.name or "") for item in brain.requests[-1].items]
    return [words for words in told if words[1] != CONTINUES]


def heard(session: RealtimeSession) -> Words:
    """What the session says that the model knows."""
    shown = [(item.role or item.kind, item.heard_text or item.output or item.name) for item in session.history]
    return [words for words in shown if words[1] != CONTINUES]


def called(session: RealtimeSession, text: str) -> str:
    """The id of the item that says `text`."""
    return next(item.id for item in session.history if item.text == text)


async def two_exchanges(on: Call) -> None:
    for question in ("First?", "Second?"):
        await on.session.send_text(question)
        await on.next(events.PlaybackEnd)


SAID = [("user", "First?"), ("assistant", "One."), ("user", "Second?"), ("assistant", "Two.")]


async def inject(session: RealtimeSession) -> Words:
    await session.inject("system", "The user is in a hurry.")
    return [*SAID, ("system", "The user is in a hurry.")]


async def edit_first(session: RealtimeSession) -> Words:
    await session.edit_item(called(session, "First?"), "Before?")
    return [("user", "Before?"), *SAID[1:]]


async def edit_middle(session: RealtimeSession) -> Words:
    await session.edit_item(called(session, "One."), "Three.")
    return [SAID[0], ("assistant", "Three."), *SAID[2:]]


async def delete(session: RealtimeSession) -> Words:
    await session.delete_item(called(session, "One."))
    return [SAID[0], *SAID[2:]]


async def reset(session: RealtimeSession) -> Words:
    await session.reset_history()
    return []


async def several(session: RealtimeSession) -> Words:
    made = await session.inject("user", "A note.", images=[PICTURE])
    await edit_first(session)
    await session.delete_item(called(session, "Second?"))
    await session.edit_item(made, "Another note.")
    return [("user", "Before?"), SAID[1], SAID[3], ("user", "Another note.")]


VERBS: list[Callable[[RealtimeSession], Awaitable[Words]]] = [inject, edit_first, edit_middle, delete, reset, several]


@pytest.mark.parametrize("lost", ["never", "before", "after", "in between"])
@pytest.mark.parametrize("verb", VERBS, ids=[verb.__name__ for verb in VERBS])
async def test_what_is_done_to_the_record_the_model_knows(
    autojump_clock: MockClock,
    verb: Callable[[RealtimeSession], Awaitable[Words]],
    lost: Literal["never", "before", "after", "in between"],
) -> None:
    brain = ScriptedBrain([Say("One.", 200), Say("Two.", 200), Say("Three.", 200)])
    async with call(brain, connection=OPTIONS, listening=False) as on:
        await two_exchanges(on)
        if lost == "before":
            await on.drop()
            await on.next(events.Reconnecting)
            assert on.session.connection_state.value == "reconnecting"
        if lost == "in between":
            await on.drop()  # nobody has noticed yet
        expected = await verb(on.session)
        if lost == "after":
            await on.drop()
        if lost != "never":
            await on.next(events.Connected)
        assert heard(on.session) == expected
        await on.session.send_text("And?")
        await on.next(events.PlaybackEnd)
        assert model_s_view(brain) == [*expected, ("user", "And?")]
        assert heard(on.session) == [*expected, ("user", "And?"), ("assistant", "Three.")]
        assert on.errors() == []
