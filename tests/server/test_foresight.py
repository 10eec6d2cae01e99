"""The beginning of an answer, made while the silence window runs: in virtual time, over the real WebSocket code."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from server.realtime_client import RealtimeClient, connected, loud, quiet
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Say, ScriptedBrain


class Foresighted(ScriptedBrain):
    """Keeps what it was to foresee, and when; each takes `takes_ms`."""

    def __init__(self, *given: Any, takes_ms: float = 100, **named: Any) -> None:
        super().__init__(*given, **named)
        self.takes_ms = takes_ms
        self.foreseen: list[tuple[ResponseRequest, int]] = []
        """With the number of events that the client had by then."""
        self.over = 0
        self.client: RealtimeClient | None = None

    async def foresee(self, request: ResponseRequest) -> None:
        self.foreseen.append((request, len(self.client.events) if self.client else 0))
        await trio.sleep(self.takes_ms / 1000)
        self.over += 1


def said(request: ResponseRequest) -> list[str]:
    return [item.text for item in request.items]


async def test_the_answer_is_foreseen_within_the_window_for_the_same_request(autojump_clock: MockClock) -> None:
    brain = Foresighted([Say("Hi."), Say("So.")], ["hello", "and you?"])
    async with connected(brain) as client:
        brain.client = client
        await client.update(instructions="Be brief.", audio={"output": {"speed": 1.2}})
        for _ in range(2):
            await client.append(quiet(400) + loud(600) + quiet(700))
            await client.next("response.done")
        for (foreseen, events), request in zip(brain.foreseen, brain.requests, strict=True):
            assert said(foreseen) == said(request)
            assert (foreseen.instructions, foreseen.speed) == (request.instructions, request.speed)
            assert (foreseen.rate_hz, list(foreseen.modalities)) == (request.rate_hz, list(request.modalities))
            before = [event["type"] for event in client.events[:events]]
            assert before.count("input_audio_buffer.speech_started") == before.count("response.done") + 1
            assert before[-1] == "input_audio_buffer.speech_started", "the window was still running"
        assert said(brain.foreseen[1][0]) == ["hello", "Hi.", "and you?"]


async def test_what_is_sent_is_the_same_with_and_without(autojump_clock: MockClock) -> None:
    seen = []
    for kind in (ScriptedBrain, Foresighted):
        async with connected(kind([Say("Hi.", 300)], ["hello"])) as client:
            await client.append(quiet(400) + loud(600) + quiet(700))
            await client.next("rate_limits.updated")
            seen.append(client.types())
    assert seen[0] == seen[1]


async def test_it_is_thrown_away_when_the_user_goes_on(autojump_clock: MockClock) -> None:
    brain = Foresighted([Say("Hi.")], ["one", "one two"], takes_ms=350)
    async with connected(brain) as client:
        await client.append(quiet(400) + loud(300) + quiet(300) + loud(500) + quiet(700))
        await client.next("response.done")
        assert [said(request) for request, _ in brain.foreseen] == [["one"], ["one two"]]
        await client.quiesce()
        assert brain.over == 1
        assert said(brain.requests[0]) == ["one two"]


async def test_words_that_come_after_the_window_are_answered_at_once(autojump_clock: MockClock) -> None:
    brain = Foresighted([Say("Hi.")], ["hello"], hear_ms=600)
    async with connected(brain) as client:
        await client.append(quiet(400) + loud(600) + quiet(1500))
        await client.next("response.done")
        assert brain.foreseen == []


async def test_nothing_is_foreseen_where_no_word_was_said(autojump_clock: MockClock) -> None:
    brain = Foresighted([], [""])
    async with connected(brain) as client:
        await client.append(quiet(400) + loud(600) + quiet(700))
        await client.quiesce()
        assert brain.foreseen == []
        assert client.of("input_audio_buffer.committed")


async def test_a_broken_foresight_does_no_harm(autojump_clock: MockClock) -> None:
    class Broken(Foresighted):
        async def foresee(self, request: ResponseRequest) -> None:
            raise RuntimeError("no foresight")

    async with connected(Broken([Say("Hi.")], ["hello"])) as client:
        await client.append(quiet(400) + loud(600) + quiet(700))
        assert (await client.next("response.done"))["response"]["status"] == "completed"
        assert not client.of("error")
