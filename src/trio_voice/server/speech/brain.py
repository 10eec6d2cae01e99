"""The brain of the local server: hears with `recogniser`, answers by rules or an LLM, speaks with `voice`.

It implements `server/brain.py` and is the only module of the stack that knows Trio. The engines block, so
they run in worker threads behind one limiter for hearing and one for speaking: an engine serves one call at
a time, and two cores have no use for more.

Invariant: when a method returns, raises or is cancelled, no thread of it is running any more. Nothing is
abandoned on cancellation: the engine would stay busy, and the next call would wait for it anyway. A synthesis
is told to stop (it takes milliseconds); a recognition stops after the piece it is at (a second or less, on a
machine that is not loaded).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs
import numpy as np
import trio

from trio_voice.logs import log
from trio_voice.protocol.verbatim import words_of
from trio_voice.server.brain import ResponseRequest, ResponseWriter, SpeechDetector
from trio_voice.server.speech import dialogue as offline_dialogue
from trio_voice.server.speech.clauses import split_clauses
from trio_voice.server.speech.dialogue import Call, Reply, Say
from trio_voice.server.speech.engines import new_detectors, new_recogniser, new_voice
from trio_voice.server.speech.stop import Stop
from trio_voice.server.speech.voice import Voice

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.protocol import Item, Tool
    from trio_voice.server.speech.recogniser import Recogniser

Dialogue: TypeAlias = "Callable[[Sequence[Item], Sequence[Tool], str], Reply]"

SLOWEST, QUICKEST = 0.25, 1.5
"""The protocol's limits of `speed`."""
NO_SOUND = np.empty(0, np.int16)
WARM_UP_CLAUSE = "Hello."
WARM_UP_RATE_HZ = 24_000


class LanguageModel(Protocol):
    """A brain elsewhere, in place of the rules (`llm.LlmDialogue`)."""

    async def reply(
        self,
        items: Sequence[Item],
        tools: Sequence[Tool],
        instructions: str,
        emit: Callable[[Say | Call], Awaitable[None]],
    ) -> None:
        """Answer, emitting each sentence and each call as soon as it is whole."""


@attrs.frozen
class _Clause:
    text: str
    samples: Samples = attrs.field(eq=False)


class SpeechBrain:
    """Holds a spoken conversation with no key and no network.

    Raises: EngineMissing, when a part of the stack is not installed; the message says how to get it.
    """

    def __init__(
        self,
        dialogue: Dialogue = offline_dialogue.reply,
        llm: LanguageModel | None = None,
        *,
        recogniser: Recogniser | None = None,
        voice: Voice | None = None,
        phrases: Sequence[str] = (),
    ) -> None:
        """`phrases` are spoken into the voice's cache while warming up: what the agent will surely say."""
        self._dialogue = dialogue
        self._llm = llm
        self._detectors, engine = new_detectors()
        described = [f"{engine.name} detects speech"]
        if recogniser is None:
            recogniser, engine = new_recogniser()
            described.append(f"{engine.name} hears")
        if voice is None:
            voice, engine = new_voice()
            described.append(f"{engine.name} speaks")
        self._recogniser, self._voice = recogniser, voice
        self._described = described
        self._phrases = phrases
        self._hearing = trio.CapacityLimiter(1)
        self._speaking = trio.CapacityLimiter(1)

    @property
    def description(self) -> str:
        answers = "rules answer" if self._llm is None else "a language model answers"
        return ", ".join([*self._described, answers])

    async def warm_up(self) -> None:
        """Load the engines, side by side in threads.

        Cancellation: waits for the loads that have begun, some seconds at most.
        """
        async with trio.open_nursery() as nursery:
            for load in (self._recogniser.load, *self._voice.loads(), self._detectors.fill):
                nursery.start_soon(trio.to_thread.run_sync, load)
        # The first use of a model is slower than the others; it also proves that the two halves work.
        sound = await self._sound(WARM_UP_CLAUSE, WARM_UP_RATE_HZ, 1.0, Stop())
        await self.transcribe(sound, WARM_UP_RATE_HZ)
        for phrase in self._phrases:
            for clause in split_clauses(phrase):
                await self._sound(clause, WARM_UP_RATE_HZ, 1.0, Stop())

    def new_detector(self) -> SpeechDetector:
        return self._detectors.lend()

    async def transcribe(self, audio: Samples, rate_hz: int) -> str:
        """The words of one utterance, or an empty string when there were none.

        Cancellation: waits for the piece (of at most 10 s) that is being recognised, so run it in a task of
        its own where the caller must go on at once.
        """
        async with _stoppable() as (_, stop):
            found = await trio.to_thread.run_sync(
                self._recogniser.recognise, audio, rate_hz, stop, limiter=self._hearing
            )
        log.debug("utterance.recognised", audio_ms=round(found.audio_ms), took_ms=round(found.took_ms))
        return found.text

    async def foresee(self, request: ResponseRequest) -> None:
        """Synthesise the first clause of the answer, where rules answer with words: the voice keeps it.

        A `respond` that comes meanwhile waits for it behind the limiter and finds it made.
        Cancellation: ends the synthesis under way within milliseconds.
        """
        if self._llm is not None or "audio" not in request.modalities:
            return
        words = words_of(request.instructions)
        parts = self._dialogue(request.items, request.tools, request.instructions).parts
        first: Say | Call | None = Say(words) if words is not None else next(iter(parts), None)
        if not isinstance(first, Say):
            return
        async with _stoppable() as (_, stop):
            for clause in split_clauses(first.text)[:1]:
                await self._sound(clause, request.rate_hz, _speed_of(request), stop)

    async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
        """Answer clause by clause: the next is synthesised while one is being written.

        Cancellation: ends the synthesis under way within milliseconds; what was written stands.
        """
        # Capacity 0: exactly one clause is ready ahead of the one being written.
        to_write, ready = trio.open_memory_channel[_Clause | Call](0)
        async with _stoppable() as (nursery, stop), ready:
            nursery.start_soon(self._produce, request, to_write, stop)
            async for part in ready:
                match part:
                    case _Clause(text, samples):
                        await writer.speak(text, samples)
                    case Call(name, arguments):
                        await writer.call(name, arguments)

    async def _produce(
        self, request: ResponseRequest, to_write: trio.MemorySendChannel[_Clause | Call], stop: Stop
    ) -> None:
        """Turn the answer into clauses with their sound, and calls, in order."""
        speed = _speed_of(request)
        silent = "audio" not in request.modalities
        nothing_said = True

        async def prepare(part: Say | Call) -> None:
            nonlocal nothing_said
            if isinstance(part, Call):
                return await to_write.send(part)
            for clause in split_clauses(part.text, first=nothing_said):
                nothing_said = False
                samples = NO_SOUND if silent else await self._sound(clause, request.rate_hz, speed, stop)
                await to_write.send(_Clause(clause, samples))
            return None

        async with to_write:
            words = words_of(request.instructions)
            if words is not None:
                await prepare(Say(words))
                return
            if self._llm is not None:
                await self._llm.reply(request.items, request.tools, request.instructions, prepare)
                return
            for part in self._dialogue(request.items, request.tools, request.instructions).parts:
                await prepare(part)

    async def _sound(self, clause: str, rate_hz: int, speed: float, stop: Stop) -> Samples:
        return await trio.to_thread.run_sync(
            self._voice.synthesise, clause, rate_hz, speed, stop, limiter=self._speaking
        )


def _speed_of(request: ResponseRequest) -> float:
    return min(QUICKEST, max(SLOWEST, request.speed))


@asynccontextmanager
async def _stoppable() -> AsyncIterator[tuple[trio.Nursery, Stop]]:
    """A nursery, and a `Stop` that is set when it is cancelled or fails."""
    stop = Stop()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_when_cancelled, stop)
            yield nursery, stop
            nursery.cancel_scope.cancel()  # nothing but the watcher is left
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:  # the caller reports it: say what happened, not where
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise


async def _stop_when_cancelled(stop: Stop) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()
