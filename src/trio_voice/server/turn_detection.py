"""Where an utterance begins and ends, decided from speech probabilities alone.

Between `input_audio.py`, whose windows a detector scores, and `connection.py`, which turns what comes out
into protocol events. Pure: there is no clock, time is the number of windows seen. The invariant: utterances
never overlap, never go back in time, and every one that starts stops (or is discarded by `restart`).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import attrs

from trio_voice.server.brain import VAD_RATE_HZ, VAD_WINDOW_SAMPLES

WINDOW_MS = VAD_WINDOW_SAMPLES * 1000 // VAD_RATE_HZ
ONSET_WINDOWS = 2
"""One loud window is a click or a key; two in a row (64 ms) are the shortest speech worth stopping for."""
SPECULATION_MS = 96
"""Silence after which the words are worth recognising already: the utterance is probably over."""
HYSTERESIS = 0.15
"""Speech goes on while the probability is above the threshold less this, as silero's own iterator has it."""
MAX_UTTERANCE_MS = 300_000
"""An utterance this long is ended by force, so the input buffer stays bounded."""


@attrs.frozen
class TurnRules:
    """The part of `turn_detection` that decides when; what happens then is the connection's business."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None


@attrs.frozen
class SpeechStarted:
    """The user began to speak; `start_ms` includes the prefix padding."""

    start_ms: int


@attrs.frozen
class SpeechPaused:
    """The utterance is probably over: its words may be recognised in the meantime."""

    start_ms: int
    end_ms: int


@attrs.frozen
class SpeechResumed:
    """It was not over; whatever was recognised since the pause is worthless."""


@attrs.frozen
class SpeechStopped:
    """The silence held. `end_ms` includes the silence, as the real server's `audio_end_ms` does."""

    start_ms: int
    end_ms: int


@attrs.frozen
class IdleTimedOut:
    """Nobody spoke for `idle_timeout_ms` after the last response was played."""

    start_ms: int
    end_ms: int


TurnEvent: TypeAlias = SpeechStarted | SpeechPaused | SpeechResumed | SpeechStopped | IdleTimedOut


class TurnDetection:
    """The state machine: `window(probability)` for each 32 ms of input, events come out.

    `started_ms` is where on the input's time line the first window begins.
    """

    def __init__(self, rules: TurnRules, started_ms: float = 0) -> None:
        self.rules = rules
        """May be replaced at any time; the next window obeys."""
        self._origin_ms = started_ms
        self._windows = 0
        self._floor_ms = round(started_ms)
        self._onset_windows = 0
        self._quiet_windows = 0
        self._speech_start_ms: int | None = None
        self._paused = False
        self._idle_since_ms: int | None = None

    @property
    def now_ms(self) -> int:
        """The end of the last window."""
        return round(self._origin_ms) + self._windows * WINDOW_MS

    @property
    def speaking(self) -> bool:
        return self._speech_start_ms is not None

    @property
    def needed_from_ms(self) -> int:
        """Input older than this will never be asked for."""
        if self._speech_start_ms is not None:
            return self._speech_start_ms
        onset_ms = (self._onset_windows + 1) * WINDOW_MS
        return max(self._floor_ms, self.now_ms - onset_ms - self.rules.prefix_padding_ms)

    def window(self, probability: float) -> list[TurnEvent]:
        """Account for the next 32 ms, which hold speech with `probability`."""
        self._windows += 1
        if self._speech_start_ms is None:
            return self._while_quiet(probability)
        return self._while_speaking(probability, self._speech_start_ms)

    def restart(self, at_ms: float) -> None:
        """Forget an utterance in progress, as the client committed or cleared its sound; go on at `at_ms`."""
        self._origin_ms = at_ms
        self._windows = 0
        self._rest()

    def response_played_at(self, at_ms: float) -> None:
        """The last response will have been heard at `at_ms`: from then on the user is expected to speak."""
        self._idle_since_ms = round(at_ms)

    def response_began(self) -> None:
        """The agent speaks: nobody is idle."""
        self._idle_since_ms = None

    def _rest(self) -> None:
        self._floor_ms = self.now_ms
        self._onset_windows = self._quiet_windows = 0
        self._speech_start_ms = None
        self._paused = False

    def _while_quiet(self, probability: float) -> list[TurnEvent]:
        if probability < self.rules.threshold:
            self._onset_windows = 0
            return self._idle()
        self._onset_windows += 1
        if self._onset_windows < ONSET_WINDOWS:
            return []
        onset_ms = self.now_ms - self._onset_windows * WINDOW_MS
        start_ms = max(self._floor_ms, onset_ms - self.rules.prefix_padding_ms)
        self._speech_start_ms = start_ms
        self._onset_windows = self._quiet_windows = 0
        self._idle_since_ms = None
        return [SpeechStarted(start_ms)]

    def _while_speaking(self, probability: float, start_ms: int) -> list[TurnEvent]:
        events: list[TurnEvent] = []
        if probability >= self.rules.threshold - HYSTERESIS:
            self._quiet_windows = 0
            if self._paused:
                self._paused = False
                events.append(SpeechResumed())
        else:
            self._quiet_windows += 1
            over_windows = max(1, math.ceil(self.rules.silence_duration_ms / WINDOW_MS))
            if self._quiet_windows >= over_windows:
                return [self._stop(start_ms)]
            if self._quiet_windows * WINDOW_MS >= SPECULATION_MS and not self._paused:
                self._paused = True
                events.append(SpeechPaused(start_ms, self.now_ms))
        if self.now_ms - start_ms >= MAX_UTTERANCE_MS:
            events.append(self._stop(start_ms))
        return events

    def _stop(self, start_ms: int) -> SpeechStopped:
        self._rest()
        return SpeechStopped(start_ms, self.now_ms)

    def _idle(self) -> list[TurnEvent]:
        since_ms, timeout_ms = self._idle_since_ms, self.rules.idle_timeout_ms
        if since_ms is None or timeout_ms is None or self.now_ms < since_ms + timeout_ms:
            return []
        self._idle_since_ms = None
        start_ms = max(self._floor_ms, since_ms)
        self._floor_ms = self.now_ms
        return [IdleTimedOut(start_ms, self.now_ms)]
