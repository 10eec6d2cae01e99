"""Every line that a session logs says whose it is, also two sessions at once; and nothing is logged for a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import MockClock

import trio_voice
from kit import call
from trio_voice import RealtimeAgent, events, logs
from trio_voice.server.scripted import Call, Say, ScriptedBrain

ROOT = Path(trio_voice.__file__).parent
PAGE = ROOT.parent.parent / "docs" / "reference" / "logging.md"


@pytest.fixture
def captured() -> Iterator[LogCapture]:
    """An application's own structlog, at the level of everything."""
    capture = LogCapture()
    structlog.reset_defaults()  # the command line's tests configure it too
    structlog.configure(
        processors=[logs.add_session, structlog.contextvars.merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    yield capture
    structlog.reset_defaults()


async def failing_lookup() -> str:
    """Look it up."""
    structlog.get_logger("shop").info("shop.asked")
    raise RuntimeError("the shop is closed")


async def test_every_line_has_the_ids_of_its_session(autojump_clock: MockClock, captured: LogCapture) -> None:
    agent = RealtimeAgent(name="Shop", tools=(failing_lookup,))
    steps: list[Say | Call] = [Call("failing_lookup", "{}"), Say("It is closed. One two three four.", 3000)]
    steps += [Say("Yes.", 200) for _ in range(3)]

    def callback(_: events.PlaybackStart) -> None:
        structlog.get_logger("shop").info("shop.called_back")

    async with call(ScriptedBrain(steps), agent) as on:
        on.session.on("playback_start", callback)
        first_id = on.session.summary()["session_id"]
        await on.speak()
        started = await on.next(events.ResponseStart)
        await on.next(events.PlaybackStart)
        await on.session.interrupt()
        await on.drop()
        await on.next(events.Connected)
        await on.session.send_text("Hello?")
        await on.next(events.PlaybackEnd)

    lines = {entry["event"]: entry for entry in captured.entries if "connection.lost" not in entry["event"]}
    own = {"session.connected", "tool.failed", "turn.interrupted", "wire.lost", "turn.over", "session.disconnected"}
    assert own | {"shop.asked", "shop.called_back"} <= set(lines)
    for name, line in lines.items():
        assert line["agent"] == "Shop", name
        assert line["session"] == first_id, name
        assert line["epoch"] in (1, 2), name
    assert lines["shop.asked"]["response"] == started.response_id
    assert (lines["tool.failed"]["turn"], lines["tool.failed"]["response"]) == (1, started.response_id)
    assert (lines["turn.interrupted"]["turn"], lines["turn.interrupted"]["epoch"]) == (2, 1)
    assert lines["session.disconnected"]["epoch"] == 2
    assert lines["session.connected"]["server_session"] != first_id, "the second connection's"


async def test_two_sessions_at_once_do_not_mix(autojump_clock: MockClock, captured: LogCapture) -> None:
    async def hold(name: str) -> None:
        agent = RealtimeAgent(name=name, tools=(failing_lookup,))
        brain = ScriptedBrain([[Call("failing_lookup", "{}")], Say("It is closed.", 500)])
        async with call(brain, agent) as on:
            ids[name] = on.session.summary()["session_id"]
            await on.speak()
            await on.next(events.PlaybackEnd)

    ids: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, "Left")
        nursery.start_soon(hold, "Right")
    asked = [entry for entry in captured.entries if entry["event"] in ("shop.asked", "tool.failed")]
    assert sorted((entry["event"], entry["agent"]) for entry in asked) == [
        ("shop.asked", "Left"), ("shop.asked", "Right"), ("tool.failed", "Left"), ("tool.failed", "Right"),
    ]  # fmt: skip
    assert all(entry["session"] == ids[entry["agent"]] for entry in asked)


async def test_who_is_outside_has_none(autojump_clock: MockClock, captured: LogCapture) -> None:
    async with call(ScriptedBrain([])):
        structlog.get_logger("shop").info("shop.opened")
    (line,) = [entry for entry in captured.entries if entry["event"] == "shop.opened"]
    assert "session" not in line


async def test_nothing_is_logged_for_frames_and_pieces_of_sound(
    autojump_clock: MockClock, captured: LogCapture
) -> None:
    """Ten times the sound, the same lines."""
    counts = []
    for seconds in (1, 10):
        captured.entries.clear()
        async with call(ScriptedBrain([Say("One two three four.", seconds * 1000)])) as on:
            await on.speak(seconds * 500)
            await on.next(events.PlaybackEnd)
        counts.append(len(captured.entries))
    assert counts[0] == counts[1] <= 10


def test_without_structlog_lines_go_to_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    context = logs.LogContext(agent="Shop", session="s", epoch=1)

    async def main() -> None:
        logs.bind(context)
        logs.log.warning("wire.lost", reason="why")

    trio.run(main)
    assert "agent='Shop'" in caplog.text
    assert "reason='why'" in caplog.text


# --- the list -------------------------------------------------------------------------------------

_CALL = re.compile(r'log\.(debug|info|warning|error|exception)\(\s*"([\w.]+)"')


def logged() -> set[tuple[str, str]]:
    """Every event that the package logs, and its level."""
    found: list[tuple[str, str]] = []
    for path in sorted(ROOT.rglob("*.py")):
        found += [(name, level) for level, name in _CALL.findall(path.read_text(encoding="utf-8"))]
    return {(name, "error" if level == "exception" else level) for name, level in found}


def test_the_list_of_events_is_complete() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| `[a-z_]+\.", line)]
    listed: set[tuple[Any, ...]] = {tuple(cell.strip(" `") for cell in row.split("|")[1:3]) for row in rows}
    assert listed == logged()
