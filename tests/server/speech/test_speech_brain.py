"""The brain over its contract: with fake engines for order and cancellation, then with the real ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from trio_voice.protocol import Item, Tool
from trio_voice.server.brain import ForesightedBrain, ResponseRequest
from trio_voice.server.speech.brain import SpeechBrain
from trio_voice.server.speech.dialogue import Call, Reply, Say
from trio_voice.server.speech.recogniser import Recognised
from trio_voice.server.speech.stop import Stop

from .caller_recordings import caller_lines, telling

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.server.speech.recogniser import MoonshineRecogniser
    from trio_voice.server.speech.voice import PiperVoice

LOOK_UP = Tool(
    name="lookup_order",
    description="Look up the status of an order.",
    parameters={
        "type": "object",
        "properties": {"order_id": {"type": "string", "description": "Such as ORD-12345"}},
        "required": ["order_id"],
    },
)


def request(
    *items: Item, modalities: Sequence[str] = ("audio",), tools: Sequence[Tool] = (), speed: float = 1.0
) -> ResponseRequest:
    return ResponseRequest(items, "", tools, modalities, 24_000, "any", speed)


class Written:
    """A response writer that keeps what it was given."""

    def __init__(self) -> None:
        self.order: list[str] = []
        """The texts and the tools' names, as they came."""
        self.clauses: list[tuple[str, Samples]] = []
        self.calls: list[tuple[str, str]] = []
        self.on_speak: Callable[[str], Awaitable[None]] | None = None

    async def speak(self, text: str, audio: Samples) -> None:
        if self.on_speak is not None:
            await self.on_speak(text)
        self.order.append(text)
        self.clauses.append((text, audio))

    async def call(self, name: str, arguments: str) -> None:
        self.order.append(name)
        self.calls.append((name, arguments))


class SlowVoice:
    """Says each clause with as many samples as it has letters; may be made to wait until it is stopped."""

    def __init__(self) -> None:
        self.said: list[tuple[str, float]] = []
        self.endless_from = ""
        self.made: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.stuck = threading.Event()
        self.running = 0
        self.fails = False

    def loads(self) -> Sequence[Callable[[], None]]:
        return ()

    def synthesise(self, clause: str, rate_hz: int, speed: float, stop: Stop) -> Samples:
        self.running += 1
        try:
            if self.fails:
                raise RuntimeError("the voice broke")
            while clause == self.endless_from and not stop.is_set:
                self.stuck.set()
                threading.Event().wait(0.001)
            self.said.append((clause, speed))
            self.made.put(clause)
            return np.full(len(clause), 7, np.int16)
        finally:
            self.running -= 1


class Deaf:
    def load(self) -> None: ...

    def recognise(self, samples: Samples, rate_hz: int, stop: Stop) -> Recognised:
        return Recognised(f"{len(samples)} at {rate_hz}", 0, 0)


def brain_saying(*parts: Say | Call, voice: SlowVoice | None = None) -> SpeechBrain:
    return SpeechBrain(lambda *_: Reply(parts), recogniser=Deaf(), voice=voice or SlowVoice())


async def test_clauses_and_calls_come_in_order() -> None:
    written = Written()
    brain = brain_saying(Say("Sure. Let me look."), Call("lookup_order", "{}"), Say("Done."))
    await brain.respond(request(), written)
    assert written.order == ["Sure. ", "Let me look.", "lookup_order", "Done."]
    assert [len(audio) for _, audio in written.clauses] == [6, 12, 5]


async def test_a_text_response_is_not_synthesised() -> None:
    voice, written = SlowVoice(), Written()
    await brain_saying(Say("Sure. Done."), voice=voice).respond(request(modalities=["text"]), written)
    assert [(text, len(audio)) for text, audio in written.clauses] == [("Sure. ", 0), ("Done.", 0)]
    assert voice.said == []


@pytest.mark.parametrize(("asked", "spoken"), [(1.2, 1.2), (9.0, 1.5), (0.0, 0.25)])
async def test_speed_stays_within_the_protocols_limits(asked: float, spoken: float) -> None:
    voice = SlowVoice()
    await brain_saying(Say("Hm."), voice=voice).respond(request(speed=asked), Written())
    assert voice.said == [("Hm.", spoken)]


async def test_one_clause_is_made_while_another_is_written() -> None:
    voice, written = SlowVoice(), Written()
    made_meanwhile: list[int] = []

    async def wait_for_the_next(text: str) -> None:
        if text == "One. ":
            with trio.fail_after(5):
                for _ in range(2):
                    await trio.to_thread.run_sync(voice.made.get, abandon_on_cancel=True)
            await trio.testing.wait_all_tasks_blocked()
        made_meanwhile.append(len(voice.said))

    written.on_speak = wait_for_the_next
    await brain_saying(Say("One. Two. Three. Four."), voice=voice).respond(request(), written)
    assert made_meanwhile[0] == 2, "the next clause, and none beyond it"
    assert len(written.order) == 4


async def test_a_cancelled_response_leaves_no_thread_and_keeps_what_was_written() -> None:
    voice, written = SlowVoice(), Written()
    brain = brain_saying(Say("One. Two."), voice=voice)

    voice.endless_from = "Two."
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(brain.respond, request(), written)
            await trio.to_thread.run_sync(voice.stuck.wait, abandon_on_cancel=True)
            scope.cancel()
    assert scope.cancelled_caught
    assert voice.running == 0
    assert written.order == ["One. "]
    voice.endless_from = ""
    await brain.respond(request(), Written())  # the limiter was given back


async def test_a_broken_engine_fails_the_response_with_its_own_error() -> None:
    voice = SlowVoice()
    voice.fails = True
    with pytest.raises(RuntimeError, match="the voice broke"):
        await brain_saying(Say("One."), voice=voice).respond(request(), Written())


async def test_a_writer_that_fails_ends_the_response_with_its_own_error() -> None:
    written = Written()

    async def gone(text: str) -> None:
        raise ConnectionError("the client is gone")

    written.on_speak = gone
    with pytest.raises(ConnectionError, match="the client is gone"):
        await brain_saying(Say("One. Two. Three.")).respond(request(), written)


class KeepingVoice(SlowVoice):
    """Makes each clause once, as Piper's does."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Samples] = {}

    def synthesise(self, clause: str, rate_hz: int, speed: float, stop: Stop) -> Samples:
        if clause not in self.kept:
            self.kept[clause] = super().synthesise(clause, rate_hz, speed, stop)
        return self.kept[clause]


async def test_of_a_foreseen_answer_the_first_clause_is_not_made_again() -> None:
    voice, written = KeepingVoice(), Written()
    brain = brain_saying(Say("One. Two."), voice=voice)
    assert isinstance(brain, ForesightedBrain)
    await brain.foresee(request(speed=1.2))
    assert voice.said == [("One. ", 1.2)], "that one, and no more than that"
    await brain.respond(request(speed=1.2), written)
    assert voice.said == [("One. ", 1.2), ("Two.", 1.2)]
    assert written.order == ["One. ", "Two."]


async def test_an_answer_that_is_due_while_it_is_foreseen_waits_for_it() -> None:
    voice, written = KeepingVoice(), Written()
    brain = brain_saying(Say("One. Two."), voice=voice)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(brain.foresee, request())
        nursery.start_soon(brain.respond, request(), written)
    assert [clause for clause, _ in voice.said] == ["One. ", "Two."]
    assert [len(audio) for _, audio in written.clauses] == [5, 4]


async def test_a_foresight_that_is_cancelled_leaves_no_thread() -> None:
    voice = SlowVoice()
    voice.endless_from = "One. "
    brain = brain_saying(Say("One. Two."), voice=voice)
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(brain.foresee, request())
            await trio.to_thread.run_sync(voice.stuck.wait, abandon_on_cancel=True)
            scope.cancel()
    assert voice.running == 0


async def test_calls_written_answers_and_a_language_model_are_not_foreseen() -> None:
    voice = SlowVoice()
    await brain_saying(Call("lookup_order", "{}"), Say("Done."), voice=voice).foresee(request())
    await brain_saying(Say("Done."), voice=voice).foresee(request(modalities=["text"]))
    await brain_saying(voice=voice).foresee(request())
    model = SpeechBrain(llm=Model([Say("From afar.")]), recogniser=Deaf(), voice=voice)
    await model.foresee(request())
    assert voice.said == []


@attrs.frozen
class Model:
    parts: Sequence[Say | Call]

    async def reply(
        self,
        items: Sequence[Item],
        tools: Sequence[Tool],
        instructions: str,
        emit: Callable[[Say | Call], Awaitable[None]],
    ) -> None:
        for part in self.parts:
            await emit(part)


async def test_a_language_model_takes_the_place_of_the_rules() -> None:
    written = Written()
    model = Model([Say("From afar."), Call("lookup_order", "{}")])
    brain = SpeechBrain(llm=model, recogniser=Deaf(), voice=SlowVoice())
    await brain.respond(request(), written)
    assert written.order == ["From afar.", "lookup_order"]
    assert "language model" in brain.description


async def test_the_utterance_reaches_the_recogniser_with_its_rate() -> None:
    assert await brain_saying().transcribe(np.zeros(480, np.int16), 24_000) == "480 at 24000"


# --- the real engines ----------------------------------------------------------------------------------


@pytest.mark.speech
async def test_a_spoken_question_becomes_a_call_and_its_result_a_spoken_answer(
    recogniser: MoonshineRecogniser, voice: PiperVoice
) -> None:
    brain = SpeechBrain(recogniser=recogniser, voice=voice)
    question = await brain.transcribe(caller_lines()["01-order"].samples, 24_000)
    asked = Written()
    items = [Item.user_text(question)]
    await brain.respond(request(*items, tools=[LOOK_UP]), asked)
    assert asked.calls == [("lookup_order", '{"order_id": "ORD-12345"}')]

    items += [
        Item(type="function_call", call_id="1", name="lookup_order", arguments='{"order_id": "ORD-12345"}'),
        Item(type="function_call_output", call_id="1", output='{"status": "shipped", "arrives": "Tuesday"}'),
    ]
    answered = Written()
    await brain.respond(request(*items, tools=[LOOK_UP]), answered)
    sound = np.concatenate([audio for _, audio in answered.clauses])
    heard = await brain.transcribe(sound, 24_000)
    assert telling("shipped") in telling(heard)
    assert telling("Tuesday") in telling(heard)


@pytest.mark.speech
async def test_a_real_synthesis_is_stopped_in_the_middle(recogniser: MoonshineRecogniser, voice: PiperVoice) -> None:
    """Whatever moment the cancellation hits, nothing is left running and the next clause is whole."""
    long = "This sentence goes on and on without a single pause to let it be cut into shorter pieces of sound."
    brain = SpeechBrain(lambda *_: Reply((Say(long),)), recogniser=recogniser, voice=voice)
    for moment_s in (0.001, 0.01, 0.03, 0.06):
        written = Written()
        with trio.move_on_after(moment_s) as scope:
            await brain.respond(request(), written)
        assert scope.cancelled_caught == (not written.order)
        assert brain._speaking.borrowed_tokens == 0
    written = Written()
    await brain.respond(request(), written)
    assert len(written.clauses[0][1]) > 3 * 24_000


@pytest.mark.speech
async def test_warming_up_loads_what_is_installed_and_lends_detectors() -> None:
    brain = SpeechBrain()
    await brain.warm_up()
    assert brain.description.startswith("silero detects speech, moonshine-tiny hears, piper-joe speaks")
    assert brain.new_detector().probability(np.zeros(512, np.int16)) < 0.5
