"""The browser as microphone and loudspeaker: a real Chromium, a real session, the real page."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import memory_stream_pair

from browser.served import chromium, needs_chromium, rewind, served
from trio_voice import AudioOutputConfig, ConnectionOptions, RealtimeAgent, RealtimeSession, events
from trio_voice.devices.browser import BrowserCall
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain, tone, turns_in

pytestmark = [needs_chromium, pytest.mark.device]

SPEECH_HZ = 48_000
QUESTION = tone(440, 900, SPEECH_HZ)
PAUSE = np.zeros(int(2.5 * SPEECH_HZ), np.int16)
STORY_MS = 6_000


class Told:
    """What happened in a conversation that ran in the server's thread."""

    def __init__(self) -> None:
        self.events: list[events.SessionEvent] = []
        self.over = threading.Event()
        self.interrupted = threading.Event()
        self.answered = threading.Event()


async def converse(brain: ScriptedBrain, told: Told, call: BrowserCall) -> None:
    async with trio.open_nursery() as nursery:

        async def open_stream() -> Any:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(serve_stream, theirs, brain)
            await trio.lowlevel.checkpoint()
            return ours

        session = RealtimeSession(
            RealtimeAgent(),
            connection=ConnectionOptions(url="ws://memory/v1/realtime", model=None),
            microphone=call.microphone,
            speaker=call.speaker,
            open_stream=open_stream,
            audio_output=AudioOutputConfig(fade_ms=0),
        )
        stream = session.events()
        try:
            async with session:
                await session.start_listening()
                async for event in stream:
                    told.events.append(event)
                    if isinstance(event, events.Interruption):
                        told.interrupted.set()
                    if isinstance(event, events.PlaybackEnd):
                        told.answered.set()
        finally:
            told.over.set()
            nursery.cancel_scope.cancel()


def of_kind(told: Told, kind: type[Any]) -> list[Any]:
    return [event for event in told.events if isinstance(event, kind)]


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    page.click("#talk")
    page.wait_for_function("window.line && line.playback && line.capture")
    page.evaluate("line.playback.port.postMessage({ record: true })")


def test_a_question_is_heard_and_its_answer_played_to_the_sample(tmp_path: Path) -> None:
    told = Told()
    brain = ScriptedBrain([Say("It is Tuesday.", 1500)])
    with served(partial(converse, brain, told)) as address, chromium(QUESTION, tmp_path) as page:
        open_page(page, address)
        assert told.answered.wait(20)
        rendered = np.concatenate([part for part in rewind(page) if not isinstance(part, int)])
        sound = rendered[np.flatnonzero(rendered)]
        assert turns_in(rendered) == [0]
        assert len(sound) == 1500 * 24
        assert set(np.diff(sound.astype(np.int32)).tolist()) == {1, -255}, "whole, and in order"
        page.close()
        assert told.over.wait(5), "the session ends with the page"
    assert not of_kind(told, events.ErrorReported)


def test_after_a_barge_in_no_sample_of_the_answer_sounds_and_the_heard_position_is_the_page_s(tmp_path: Path) -> None:
    told = Told()
    brain = ScriptedBrain([Say("Once upon a time.", STORY_MS), Say("Yes?", 500)])
    spoken = np.concatenate([QUESTION, PAUSE, QUESTION])
    with served(partial(converse, brain, told)) as address, chromium(spoken, tmp_path) as page:
        open_page(page, address)
        assert told.interrupted.wait(20)
        assert told.answered.wait(20)
        tape = rewind(page)
        with suppress(Exception):
            page.close()
        assert told.over.wait(5)
    (flushed_at,) = [place for place, part in enumerate(tape) if isinstance(part, int)]
    before = np.concatenate([part for part in tape[:flushed_at] if not isinstance(part, int)])
    after = np.concatenate([part for part in tape[flushed_at + 1 :] if not isinstance(part, int)])
    ramp = 128
    assert turns_in(before) == [0]
    assert turns_in(after[ramp:]) == [1], "of the story nothing is left, and the answer to the interruption is whole"
    assert np.count_nonzero(after[ramp:]) == 500 * 24
    (interruption,) = of_kind(told, events.Interruption)
    rendered_ms = np.count_nonzero(before) / 24
    assert rendered_ms < STORY_MS
    assert abs(interruption.heard_ms - rendered_ms) <= 100, "heard: what was played, less latency"
