"""The journal: what it leaves of a conversation is the conversation, and what is no journal is told so."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from click.testing import CliRunner
from msgspec.structs import asdict, replace
from trio.testing import MockClock

from kit import RATE_HZ, call
from trio_voice import ConnectionOptions, JournalError, RealtimeAgent, RealtimeSession, events, journal
from trio_voice.audio import samples_of
from trio_voice.cli import main
from trio_voice.devices.wav import read_wav
from trio_voice.events import EVENT_NAMES, PROTOCOL_EVENTS, SessionEvent
from trio_voice.picture import draw_timeline, recording_of
from trio_voice.picture.replay import Replayed, replayed
from trio_voice.picture.sounds import sounds_of
from trio_voice.server.scripted import Call, Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker


async def capital_of(country: str) -> str:
    """The capital of a country."""
    return "Paris"


AGENT = RealtimeAgent(name="Geographer", tools=(capital_of,))
SCRIPT: list[Say | Call] = [
    Call("capital_of", '{"country": "France"}'),
    Say("One two three four five six seven eight.", 4000),
    *[Say("Yes.") for _ in range(5)],
]


@attrs.define(eq=False)
class Live:
    """A conversation as it was when it was held."""

    path: Path
    told: list[SessionEvent] = attrs.Factory(list)
    transcript: list[tuple[str, str, bool]] = attrs.Factory(list)
    played: bytes = b""
    speaker_started_at: float = 0.0
    session_started_at: float = 0.0


async def hold(path: Path, *, sound: bool = True, **options: Any) -> Live:
    """A question, a tool, an answer that is talked over, and the answer to that; with a journal beside it."""
    live, speaker = Live(path), RecordingSpeaker(latency_ms=40)

    async def keep(session: RealtimeSession, *, task_status: trio.TaskStatus[None]) -> None:
        stream = session.events(sound=True)
        task_status.started()
        async for event in stream:
            live.told.append(event)

    async with trio.open_nursery() as beside:
        connection = ConnectionOptions(url="ws://user:sesame@memory/v1/realtime?api-key=sesame", api_key="sesame")
        arrive = partial(_started, beside, partial(journal.write, path=path, sound=sound, **options), keep)
        brain = ScriptedBrain(SCRIPT)
        async with call(brain, AGENT, speaker=speaker, connection=connection, beforehand=arrive) as on:
            live.session_started_at = on.session.tracker.started_at
            await on.speak()
            await on.next(events.PlaybackStart)
            await trio.sleep(1.5)
            await on.speak()
            await on.next(events.Interruption)
            await on.next(events.PlaybackEnd)
            live.transcript = [(line.role, line.text, line.interrupted) for line in on.session.transcript()]
    live.played, live.speaker_started_at = bytes(speaker.pcm), speaker.started_at
    return live


async def _started(nursery: trio.Nursery, write: Callable[..., Any], keep: Any, session: RealtimeSession) -> None:
    await nursery.start(write, session)
    await nursery.start(keep, session)


def as_told(shown: Replayed) -> list[tuple[str, str, bool]]:
    lines = [entry for entry in shown.entries if entry.kind in ("user", "agent") and entry.text.strip()]
    return [(entry.kind, entry.text.strip(), entry.cut) for entry in lines]


async def test_a_replay_has_the_words_the_picture_and_the_sound_of_the_live_run(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    live = await hold(tmp_path / "journal.jsonl")
    shown = replayed(journal.read(live.path))
    assert ("agent", True) in [(role, cut) for role, _, cut in live.transcript], "somebody was interrupted"
    assert as_told(shown) == live.transcript

    started_at, ended_at = live.session_started_at, live.told[-1].at
    sounds = sounds_of(live.told, started_at=started_at, ended_at=ended_at)
    assert sounds is not None
    assert shown.sounds is not None
    recording = recording_of(
        live.told, started_at=started_at, ended_at=ended_at, caller_pcm=sounds.caller, agent_pcm=sounds.agent
    )
    picture = draw_timeline(recording)
    assert "caller interrupts" in picture
    assert "capital_of" in picture
    assert draw_timeline(shown.recording) == picture
    assert np.array_equal(shown.sounds.caller, sounds.caller)
    assert np.array_equal(shown.sounds.agent, sounds.agent)


async def test_the_sound_of_a_replay_is_what_the_loudspeaker_played(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Sample by sample, from the device's own record, 40 ms later as the device says."""
    live = await hold(tmp_path / "journal.jsonl")
    shown = replayed(journal.read(live.path))
    assert shown.sounds is not None
    heard_from = live.speaker_started_at + 0.04 - live.session_started_at
    device = samples_of(live.played)
    start = round(heard_from * RATE_HZ)
    expected = device[-start:] if start < 0 else np.concatenate([np.zeros(start, np.int16), device])
    length = min(len(expected), len(shown.sounds.agent))
    assert np.any(expected[:length])
    assert np.array_equal(shown.sounds.agent[:length], expected[:length])
    assert np.abs(shown.sounds.caller).max() > 1000, "and the caller is heard"


async def test_nothing_that_is_muted_is_kept(autojump_clock: MockClock, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    async with trio.open_nursery() as beside:
        arrive = partial(beside.start, partial(journal.write, path=path, sound=True))
        async with call(ScriptedBrain([Say("Yes.")]), beforehand=arrive) as on:
            await on.session.mute()
            await trio.sleep(0.1)
            await on.speak()
    shown = replayed(journal.read(path))
    assert shown.sounds is not None
    assert len(shown.sounds.caller) > RATE_HZ / 2
    assert not np.any(shown.sounds.caller)


async def test_no_key_is_in_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    live = await hold(tmp_path / "journal.jsonl")
    assert "sesame" not in live.path.read_text()
    tool = {"type": "mcp", "server_label": "x", "authorization": "sesame", "headers": {"X-Key": "sesame"}}
    assert "sesame" not in json.dumps(journal._without_sound({"session": {"tools": [tool]}}))


async def test_without_sound_there_is_none(autojump_clock: MockClock, tmp_path: Path) -> None:
    live = await hold(tmp_path / "journal.jsonl", sound=False)
    read = journal.read(live.path)
    assert replayed(read).sounds is None
    assert as_told(replayed(read)) == live.transcript
    assert [event for event in read.events if isinstance(event, events.AudioSent | events.AudioPlayed)] == []


async def test_events_come_back_as_they_were(autojump_clock: MockClock, tmp_path: Path) -> None:
    live = await hold(tmp_path / "journal.jsonl", protocol=False)
    began_at = live.told[0].at - journal.read(live.path).events[0].at

    def plain(event: SessionEvent) -> dict[str, Any]:
        fields = asdict(event)
        if isinstance(event, events.HistoryChanged):
            fields["item"] = attrs.evolve(event.item, at=round(event.item.at, 5))
        return {key: round(value, 5) if isinstance(value, float) else value for key, value in fields.items()}

    def moved(event: SessionEvent) -> SessionEvent:
        if isinstance(event, events.HistoryChanged):
            event = replace(event, item=attrs.evolve(event.item, at=event.item.at - began_at))
        times = {
            name: getattr(event, name) - began_at for name in ("at", "heard_at", "captured_at") if hasattr(event, name)
        }
        return replace(event, **times)

    read = [(type(event), plain(event)) for event in journal.read(live.path).events]
    assert read == [(type(event), plain(moved(event))) for event in live.told]


@pytest.mark.parametrize("kept", [1, 20, 400])
async def test_a_line_that_is_not_whole_costs_that_line(autojump_clock: MockClock, tmp_path: Path, kept: int) -> None:
    """Wherever the writing process died."""
    live = await hold(tmp_path / "journal.jsonl", sound=False)
    whole = live.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b"".join(lines[:-1]) + lines[-1][: min(kept, len(lines[-1]) - 1)])
    read = journal.read(torn)
    assert read.is_torn
    assert len(read.events) == len(journal.read(live.path).events) - 1
    assert as_told(replayed(read)) == live.transcript


async def test_a_journal_is_bounded_and_says_so(autojump_clock: MockClock, tmp_path: Path) -> None:
    live = await hold(tmp_path / "journal.jsonl", limit_bytes=20_000)
    assert live.path.stat().st_size <= 20_000 + 100
    read = journal.read(live.path)
    assert read.is_cut
    assert not read.is_torn
    assert read.events


HEADER = {
    "journal": 1, "version": "0", "began": "2026-01-01T00:00:00.000+00:00", "agent": "a", "url": "ws://x",
    "model": None, "input_rate_hz": 24000, "speaker_rate_hz": 24000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "it is empty"),
        (["hello"], "line 1: this is no journal"),
        (['{"a": 1}'], "line 1: this is no journal"),
        (["[1]"], "line 1: this is no journal"),
        (["\x89PNG"], "line 1: this is no journal"),
        ([{**HEADER, "journal": 2, "version": "9.9"}], "line 1: format 2.*trio-voice 9.9"),
        ([{**HEADER, "input_rate_hz": "fast"}], "line 1: the header does not fit"),
        ([HEADER, "what?"], "line 2: not JSON"),
        ([HEADER, "[]"], "line 2: not an event"),
        ([HEADER, {"t": 0.0, "event": "interruption", "turn": 1}], "line 2: no 'interruption' event: .*cause"),
        ([HEADER, {"t": "soon", "event": "paused"}], "line 2: no 'paused' event"),
        ([HEADER, {"t": 0, "event": "paused"}, {"t": 1, "event": "audio_sent", "pcm": "?"}], "line 3: no 'audio_sent'"),
        ([HEADER, {"t": 0, "event": "audio_sent", "captured_t": 0, "silent_bytes": "all"}], "line 2: no 'audio_sent'"),
    ],
)  # fmt: skip
def test_what_is_no_journal_is_told_by_its_line(tmp_path: Path, lines: list[Any], message: str) -> None:
    path = tmp_path / "foreign.jsonl"
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{line}\n" for line in written), encoding="latin-1")
    with pytest.raises(JournalError, match=message) as raised:
        journal.read(path)
    assert str(path) in str(raised.value)


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "later.jsonl"
    rows = [HEADER, {"t": 0.0, "event": "sneezed"}, {"t": 0.1, "event": "paused", "by": "hand"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = journal.read(path)
    assert (read.unknown, read.events) == (1, (events.Paused(at=0.1),))


def test_every_event_can_be_read_back() -> None:
    """Whatever event is added has to be of types that a journal can hold."""
    import msgspec

    for kind in EVENT_NAMES.values():
        if kind not in PROTOCOL_EVENTS:
            msgspec.json.decode(b"{}", type=dict[str, kind])  # type: ignore[valid-type]  # made at run time


# --- the command ----------------------------------------------------------------------------------


def test_the_command_shows_it_and_writes_picture_and_sound(tmp_path: Path) -> None:
    live = trio.run(hold, tmp_path / "journal.jsonl", clock=MockClock(autojump_threshold=0))
    done = CliRunner().invoke(main, ["replay", str(live.path), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "capital_of(country: France)" in done.output
    assert "interrupted" in done.output
    shown = replayed(journal.read(live.path))
    assert (tmp_path / "out" / "timeline.svg").read_text() == draw_timeline(shown.recording, title="journal.jsonl")
    assert shown.sounds is not None
    assert np.array_equal(read_wav(tmp_path / "out" / "conversation.wav", RATE_HZ), shown.sounds.caller)


def test_the_command_plays_both_sides(tmp_path: Path) -> None:
    path, heard = tmp_path / "short.jsonl", tmp_path / "heard.wav"
    caller, agent = np.full(2400, 1000, np.int16), np.full(2400, 500, np.int16)
    with path.open("w") as file:
        for row in (
            HEADER,
            {"t": 0.0, "event": "connected", "session_id": "s"},
            {"t": 0.2, "event": "audio_sent", "captured_t": 0.0, "pcm": _base64(caller.tobytes())},
            {"t": 0.2, "event": "audio_played", "heard_t": 0.05, "pcm": _base64(agent.tobytes())},
        ):
            file.write(json.dumps(row) + "\n")
    done = CliRunner().invoke(main, ["replay", str(path), "--play", "--speaker", str(heard)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    played = read_wav(heard, RATE_HZ)
    assert list(np.unique(played[:4800])) == [0, 500, 1000, 1500]
    assert int((played == 1500).sum()) == 1200


def _base64(pcm: bytes) -> str:
    import base64

    return base64.b64encode(pcm).decode()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["replay", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["replay", __file__], 1, "line 1: this is no journal"),
        (["replay", "x.jsonl", "--speaker", "3"], 2, "add --play"),
        (["talk", "--journal-sound"], 2, "--journal FILE"),
    ],
    ids=["missing", "foreign", "speaker-without-play", "sound-without-journal"],
)
def test_what_cannot_be_shown_is_one_line(arguments: list[str], status: int, message: str) -> None:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == status
    assert message in done.output
