"""Whether what the user says interrupts the agent: the judge that applies an `InterruptionPolicy`.

Core ring: pure. The judge is told what the server's voice detection and the microphone's own one report, and when; it
says what follows. The invariant: an utterance gets one verdict that stands when it is committed, and as long as that
is open the agent's voice is lowered, never lost.
"""

from __future__ import annotations

import enum
import math

from msgspec import Struct
from msgspec.structs import replace

from trio_voice.config import InterruptionPolicy
from trio_voice.protocol import TurnDetection

SERVER_SILENCE_MS = 500
SERVER_PADDING_MS = 300
"""What a server waits, and puts before an utterance, unless told otherwise."""
LATE_S = 1.0
"""A server's report that comes this long after the microphone's own is about the same utterance."""


def as_told(policy: InterruptionPolicy, detection: TurnDetection | None) -> TurnDetection | None:
    """`detection` without what the server may no longer do by itself under `policy`.

    With `interrupt_response` it would cancel its answer at a cough, and with `create_response` answer it.
    """
    if detection is None or (policy.by == "server" and not policy.min_speech_ms):
        return detection
    answers = detection.create_response if policy.by == "local" and not policy.min_speech_ms else False
    return replace(detection, interrupt_response=False, create_response=answers)


class Verdict(enum.Enum):
    """What follows from a report."""

    WAIT = "wait"
    """Nothing new."""
    DUCK = "duck"
    """It may be an interruption: lower the agent's voice."""
    COUNTS = "counts"
    """It is the user's turn: interrupt whatever sounds."""
    FALSE_ALARM = "false alarm"
    """It was too short: go on as if nothing had been."""


class _Standing(enum.Enum):
    QUIET = "quiet"
    OPEN = "open"
    COUNTS = "counts"
    DISMISSED = "dismissed"


class InterruptionJudge(Struct, eq=False):
    """Weighs one utterance after the other. `sounding` in every call: something that speech may interrupt is heard.

    A short utterance counts all the same when the agent has nothing left to say by its end: it was an answer.
    """

    policy: InterruptionPolicy
    silence_ms: float = SERVER_SILENCE_MS
    padding_ms: float = SERVER_PADDING_MS
    deadline: float = math.inf
    """Ask `due` then. For servers that tell an end late, where there is no microphone of ours."""
    server_open: bool = False
    """The server has reported a beginning and no end."""
    _standing: _Standing = _Standing.QUIET
    _voice_lasted: bool = False
    _voice_open: bool = False
    _voice_ended_at: float = -math.inf

    @classmethod
    def for_detection(cls, policy: InterruptionPolicy, detection: TurnDetection | None) -> InterruptionJudge:
        judge = cls(policy)
        judge.follow(policy, detection)
        return judge

    def follow(self, policy: InterruptionPolicy, detection: TurnDetection | None) -> None:
        """Judge by these from now on."""
        silence_ms = detection.silence_duration_ms if detection is not None else None
        padding_ms = detection.prefix_padding_ms if detection is not None else None
        self.policy = policy
        self.silence_ms = silence_ms if isinstance(silence_ms, int) else SERVER_SILENCE_MS
        self.padding_ms = padding_ms if isinstance(padding_ms, int) else SERVER_PADDING_MS

    def reset(self) -> None:
        """The connection is gone: what the server would have said of this utterance will not come."""
        self.server_open, self.deadline, self._standing = False, math.inf, _Standing.QUIET

    # --- the server's detection ---------------------------------------------------------------------

    def server_began(self, now: float, *, sounding: bool) -> Verdict:
        known = self._voice_open or now - self._voice_ended_at <= LATE_S
        if self.server_open or not known:
            self._standing = _Standing.QUIET  # an end that was never reported, or long ago
        self.server_open = True
        if self._standing is _Standing.DISMISSED and not self._voice_open:
            return Verdict.WAIT
        if not sounding or not self.policy.min_speech_ms or self._voice_lasted or self._standing is _Standing.COUNTS:
            return self._counts()
        self.deadline = now + (self.policy.min_speech_ms + self.silence_ms) / 1000
        return self._open()

    def server_stopped(self, heard_ms: float, *, sounding: bool) -> Verdict:
        """The utterance is over; its verdict stands. `heard_ms` is its length with padding and silence."""
        spoken_ms = heard_ms - self.padding_ms - self.silence_ms
        standing, lasted = self._standing, self._voice_lasted
        self.reset()
        match standing:
            case _Standing.COUNTS:  # it has interrupted what there was; an answer that began since is none of it
                return Verdict.WAIT
            case _Standing.QUIET:
                return Verdict.COUNTS
            case _Standing.OPEN if lasted or not sounding or spoken_ms >= self.policy.min_speech_ms:
                return Verdict.COUNTS
            case _:
                return Verdict.FALSE_ALARM

    def due(self, now: float, *, sounding: bool) -> Verdict:
        """`deadline` has come: no end was reported, so the user speaks on."""
        if now < self.deadline:
            return Verdict.WAIT
        self.deadline = math.inf
        return self._counts() if self._standing is _Standing.OPEN else Verdict.WAIT

    # --- the microphone's own detection -------------------------------------------------------------

    def voice_began(self, *, sounding: bool) -> Verdict:
        self._voice_open, self._voice_lasted = True, False
        if not self.server_open:
            self._standing = _Standing.QUIET
        if self._standing is _Standing.COUNTS:  # it goes on after a pause
            return Verdict.COUNTS
        if not sounding or not (self.policy.by == "local" or self._standing is _Standing.DISMISSED):
            return Verdict.WAIT
        return self._open() if self.policy.min_speech_ms else self._counts()

    def voice_lasted(self, *, sounding: bool) -> Verdict:
        """It has gone on for `min_speech_ms`."""
        self._voice_lasted = True
        begun = self._standing in (_Standing.OPEN, _Standing.DISMISSED)
        if begun or (self.policy.by == "local" and sounding):
            return self._counts()
        return Verdict.WAIT

    def voice_ended(self, now: float, *, sounding: bool) -> Verdict:
        self._voice_open, self._voice_lasted, self._voice_ended_at = False, False, now
        if self._standing is not _Standing.OPEN:
            return Verdict.WAIT
        if not sounding:
            return self._counts()
        self._standing, self.deadline = _Standing.DISMISSED, math.inf
        return Verdict.FALSE_ALARM

    # --- inside -----------------------------------------------------------------------------------

    def _open(self) -> Verdict:
        if self._standing is _Standing.OPEN:
            return Verdict.WAIT
        self._standing = _Standing.OPEN
        return Verdict.DUCK

    def _counts(self) -> Verdict:
        self._standing, self.deadline = _Standing.COUNTS, math.inf
        return Verdict.COUNTS
