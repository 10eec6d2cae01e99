from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import attrs
import pytest
import trio
from rich.cells import cell_len
from rich.console import Console
from trio.testing import MockClock, memory_stream_pair

from picture.told import STARTED_AT, Told, barge_in
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession
from trio_voice.config import ConnectionState, SessionState
from trio_voice.picture.view import Levels, LiveView, show
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker
from trio_voice.tracker import SessionMetrics


@asynccontextmanager
async def greeting() -> AsyncIterator[RealtimeSession]:
    """A session whose agent says one sentence of two seconds."""
    client, server = memory_stream_pair()

    async def open_stream() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return client

    brain = ScriptedBrain([[Say("Hello [bold]there[/bold]. \x1b[31mRed?", duration_ms=2000)]])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, server, brain)
        async with RealtimeSession(
            RealtimeAgent(name="clerk", greets_first=True),
            connection=ConnectionOptions(url="ws://local/v1/realtime"),
            speaker=RecordingSpeaker(),
            open_stream=open_stream,
        ) as session:
            yield session
        nursery.cancel_scope.cancel()


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=24, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show_on(session: RealtimeSession, console: Console) -> Callable[..., Awaitable[None]]:
    return partial(show, session, console=console, title="scripted", levels=lambda: (-20.0, -60.0))


async def test_without_a_terminal_each_finished_utterance_is_a_line(autojump_clock: MockClock) -> None:
    console = Console(file=io.StringIO(), width=30)
    async with greeting() as session, trio.open_nursery() as nursery:
        await nursery.start(show_on(session, console))
        await session.respond()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    (line,) = [line for line in written(console).splitlines() if "agent" in line]
    assert "Hello [bold]there[/bold].  [31mRed?" in line
    assert "\x1b" not in written(console)


async def test_cancelling_gives_the_cursor_back_and_leaves_the_last_state(autojump_clock: MockClock) -> None:
    console = terminal()
    async with greeting() as session, trio.open_nursery() as nursery:
        await nursery.start(show_on(session, console))
        await session.respond()
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    hidden, shown = written(console).rfind("\x1b[?25l"), written(console).rfind("\x1b[?25h")
    assert 0 <= hidden < shown
    assert "Hello" in written(console)
    assert "clerk" in written(console)


async def test_the_end_of_the_session_ends_the_view(autojump_clock: MockClock) -> None:
    for console in (terminal(), Console(file=io.StringIO())):
        async with trio.open_nursery() as nursery, greeting() as session:
            await nursery.start(show_on(session, console))
            await session.disconnect()
        assert "\x1b[?25l" not in written(console) or "\x1b[?25h" in written(console)


AFTER_A_MINUTE = SessionMetrics(STARTED_AT, 65.0, 2, 3000.0, 500.0, 1, 1, 0, None, {"underruns": 0, "frames": 3})


@attrs.frozen
class Still:
    """What a view reads of a session, standing still."""

    agent: RealtimeAgent = attrs.Factory(lambda: RealtimeAgent(name="clerk"))
    state: SessionState = SessionState.LISTENING
    connection_state: ConnectionState = ConnectionState.CONNECTED
    metrics: SessionMetrics = AFTER_A_MINUTE


def view_on(console: Console, *, title: str = "", levels: Levels | None = None) -> LiveView:
    return LiveView(cast(RealtimeSession, Still()), console, title, levels)


def panel(view: LiveView) -> str:
    """The panel as it is now, without colours."""
    paper = Console(file=io.StringIO(), width=view.console.width, height=view.console.height)
    paper.print(view.render())
    return written(paper)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_panel_fits_the_terminal(width: int) -> None:
    told = barge_in()
    told.call(8.6, "c", "lookup_with_a_long_name", '{"order_id":"' + "x" * 300 + '"}')
    told.error(8.7, "漢字 " * 100)
    for index in range(40):
        told.user(9.0, f"u{index}", "many words that go on and on " * 9)
    view = view_on(terminal(width), title="t" * 300, levels=lambda: (float("nan"), 6.0))
    for event in told.events:
        view.scene.apply(event)
        lines = panel(view).splitlines()
        assert {cell_len(line) for line in lines} == {width - 1}
        assert len(lines) < 24


def test_the_panel_says_what_is_going_on() -> None:
    told = barge_in()
    told.call(8.6, "c", "lookup", '{"order_id":"x"}')
    told.returned(8.9, "c", '{"status":"shipped"}')
    view = view_on(terminal(), levels=lambda: (-30.0, float("-inf")))
    for event in told.events:
        view.scene.apply(event)
    picture = panel(view)
    assert "It is on ✂ interrupted, 2000 ms heard, 3000 ms discarded" in picture
    assert "lookup(order_id: x) → status: shipped" in picture
    assert "-30 dBFS" in picture
    assert "quiet" in picture
    assert "500  500 ms" in picture
    assert "underruns 0   frames 3" in picture
    assert "01:05" in picture


def test_a_changed_line_is_drawn_anew() -> None:
    view = view_on(terminal())
    told = Told()
    told.response(0.0, 1)
    told.agent(0.0, "a", "It is", final=False)
    told.agent(0.1, "a", "It is done.")
    pictures = []
    for event in told.events[1:]:
        view.scene.apply(event)
        pictures.append(panel(view))
    assert "It is …" in pictures[0]
    assert "It is done." in pictures[1]


def test_a_terminal_without_unicode_is_written_in_ascii() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=True, width=60, _environ={})
    view = view_on(console, title="ünïcode", levels=lambda: (-20.0, -20.0))
    told = barge_in()
    told.user(9.0, "u", "漢字 and ✂")
    for event in told.events:
        for entry in view.scene.apply(event):
            console.print(view.wording.plain_line(entry, entry.at))
    console.print(view.render())
    console.file.flush()
    assert b"-- interrupted" in raw.getvalue()
    assert b"?? and ?" in raw.getvalue()
