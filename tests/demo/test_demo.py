"""The demonstration from beginning to end: real speech, real sockets, real time; then what it left is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from trio_voice.audio import Samples

pytestmark = [pytest.mark.speech, pytest.mark.timeout(400)]

SILENCE_AMPLITUDE = 150


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run wrote."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "trio_voice", "demo", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=320, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def summary(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def journal(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return rows[1:]  # behind the header


def channels(out: Path) -> tuple[Samples, Samples, int]:
    with wave.open(str(out / "conversation.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        return both[:, 0].copy(), both[:, 1].copy(), file.getframerate()


def test_the_summary_tells_what_happened(summary: dict[str, Any]) -> None:
    calls = {call["tool"]: json.loads(call["arguments"]) for call in summary["tool_calls"]}
    assert calls["lookup_order"] == {"order_id": "ORD-12345"}
    assert calls["schedule_callback"]["phone_number"] == "555-1234"
    assert calls["transfer_to_department"] == {"department": "billing"}
    assert summary["interruption_count"] == summary["truncations"] == 1
    assert summary["turn_count"] >= 6
    assert summary["state"] == "disconnected"
    assert 40 < summary["duration_seconds"] < 150, "ninety seconds where nobody has to repeat a line"
    assert summary["average_latency_ms"] > 0
    answers = [line["text"] for line in summary["transcript"] if line["role"] == "agent"]
    assert any("sorry" in text.lower() for text in answers), "the question out of scope is declined honestly"


def test_the_agent_s_words_are_heard_again(out: Path) -> None:
    """What a person hears in the file, by a recogniser's ears."""
    from trio_voice.server.speech.engines import new_recogniser
    from trio_voice.server.speech.stop import Stop

    _, agent, rate_hz = channels(out)
    recogniser, _ = new_recogniser()
    recogniser.load()
    voiced = np.flatnonzero(np.abs(agent.astype(np.int32)) > SILENCE_AMPLITUDE)
    breaks = np.flatnonzero(np.diff(voiced) > rate_hz)  # a second of silence parts one answer from the next
    answers = [agent[part[0] : part[-1] + 1] for part in np.split(voiced, breaks + 1)]
    words = " ".join(recogniser.recognise(answer, rate_hz, Stop()).text.lower() for answer in answers)
    assert "shipped" in words
    assert "billing" in words


def test_after_the_barge_in_the_sentence_does_not_go_on(out: Path, journal: list[dict[str, Any]]) -> None:
    caller, agent, rate_hz = channels(out)
    connected_at = next(row["t"] for row in journal if row["event"] == "connected")
    cut_at = next(row["t"] for row in journal if row["event"] == "interruption") - connected_at
    next_at = next(row["t"] for row in journal if row["event"] == "playback_start" and row["t"] > cut_at + connected_at)
    tail = agent[int((cut_at + 0.06) * rate_hz) : int((next_at - connected_at - 0.06) * rate_hz)]
    assert len(tail) > rate_hz, "the caller speaks for longer than a second"
    assert np.abs(tail.astype(np.int32)).max() <= SILENCE_AMPLITUDE, "silence on the agent's side"
    before = agent[int((cut_at - 1) * rate_hz) : int(cut_at * rate_hz)]
    assert np.abs(before.astype(np.int32)).max() > SILENCE_AMPLITUDE, "it was speaking until then"
    during = caller[int((cut_at - 0.1) * rate_hz) : int((cut_at + 1) * rate_hz)]
    assert np.abs(during.astype(np.int32)).max() > SILENCE_AMPLITUDE, "because the caller spoke"


def test_the_interruption_is_in_the_picture(out: Path) -> None:
    picture = (out / "timeline.svg").read_text()
    ElementTree.fromstring(picture)
    assert "caller interrupts" in picture
    assert "lookup_order" in picture


def test_the_journal_has_every_event_with_its_time(journal: list[dict[str, Any]]) -> None:
    times = [row["t"] for row in journal]
    assert times == sorted(times)
    names = {row["event"] for row in journal}
    assert {"connected", "speech_start", "tool_call", "interruption", "client_event", "server_event"} <= names
    sent = [row["client"]["type"] for row in journal if row["event"] == "client_event"]
    assert sent[0] == "session.update"
    assert sent.count("conversation.item.truncate") == 1
