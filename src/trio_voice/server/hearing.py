"""Recognising what the user said, in the background.

Between the connection and `Brain.transcribe`. The invariant: at most one guess at an utterance that is not
over is under way, and a guess is used only for an utterance that ended with the silence it was made in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from trio_voice.logs import log
from trio_voice.server.brain import Brain

if TYPE_CHECKING:
    from trio_voice.audio import Samples

AT_ONCE = 2
"""Recognitions of one connection that run at the same time; the rest wait their turn."""


class Recognition:
    """The words of one utterance, to come."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.text = ""
        """Empty until `over`, when there were no words, and when it failed."""
        self.failure: Exception | None = None
        self.scope = trio.CancelScope()
        self.foresight = trio.CancelScope()
        """Of what a guess is used for before the utterance is over."""

    def cancel(self) -> None:
        self.scope.cancel()
        self.foresight.cancel()


class Hearing:
    """The recognitions of one connection; they run in, and end with, its nursery."""

    def __init__(self, brain: Brain, nursery: trio.Nursery) -> None:
        self._brain = brain
        self._nursery = nursery
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._guess: Recognition | None = None

    def guess(self, audio: Samples, rate_hz: int, foresee: Callable[[str], Awaitable[None]]) -> None:
        """The utterance is probably over: begin already, and let `foresee` make use of the words.

        It is not called where the silence ends before the words are known, and is cancelled with the guess.
        """
        self.forget_guess()
        self._guess = Recognition()
        self._nursery.start_soon(self._run_guess, self._guess, audio, rate_hz, foresee)

    def forget_guess(self) -> None:
        """It was not over."""
        if self._guess is not None:
            self._guess.cancel()
            self._guess = None

    def recognise(self, audio: Samples, rate_hz: int, *, guessed: bool = False) -> Recognition:
        """The words of a whole utterance: those of the guess where there is one and `guessed` allows it."""
        guess, self._guess = self._guess, None
        if guess is not None and guessed:
            return guess
        if guess is not None:
            guess.cancel()
        return self._start(audio, rate_hz)

    def _start(self, audio: Samples, rate_hz: int) -> Recognition:
        recognition = Recognition()
        self._nursery.start_soon(self._run, recognition, audio, rate_hz)
        return recognition

    async def _run_guess(
        self, guess: Recognition, audio: Samples, rate_hz: int, foresee: Callable[[str], Awaitable[None]]
    ) -> None:
        await self._run(guess, audio, rate_hz)
        if guess.text and guess is self._guess:
            with guess.foresight:
                try:
                    await foresee(guess.text)
                except Exception:  # a brain is anyone's code, and the answer itself will tell
                    log.exception("foresight.failed")

    async def _run(self, recognition: Recognition, audio: Samples, rate_hz: int) -> None:
        with recognition.scope:
            try:
                async with self._limiter:
                    recognition.text = (await self._brain.transcribe(audio, rate_hz)).strip()
            except Exception as failure:  # a brain is anyone's code: its failures must not end the session
                log.exception("transcription.failed")
                recognition.failure = failure
            recognition.over.set()
