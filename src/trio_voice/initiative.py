"""What the agent says by itself when time passes: into a silence, and while a tool keeps the user waiting.

A part of the conversation's step, synchronous. `pauses.py` knows when; here it is told how things stand, and carried
out. The invariant: nothing of it is said over the user, over an answer, or after what it was to bridge.
"""

from __future__ import annotations

import math

from msgspec import Struct

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.answers import Answers
from trio_voice.asking import Asking
from trio_voice.barge_in import BargeIn
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.pauses import FillerWatch, IdleWatch
from trio_voice.tool_ledger import ToolLedger
from trio_voice.user_turn import UserTurn


class Initiative(Struct, eq=False):
    outbox: Outbox
    view: ConversationView
    barge_in: BargeIn
    microphone: MicrophoneGate
    ledger: ToolLedger
    asking: Asking
    answers: Answers
    user: UserTurn
    idle: IdleWatch
    filler: FillerWatch

    @property
    def deadline(self) -> float:
        """When to `look`. Never in an outage, where nobody could say anything: it waits for the next connection."""
        return min(self.idle.deadline, self.filler.deadline) if self.view.connected else math.inf

    def look(self) -> None:
        """The deadline may have come."""
        if not self.view.connected:
            return
        now, prompts = self.outbox.now, self.idle.prompts
        phrase, due = self.filler.due(now), self.idle.due(now)
        if phrase is not None:
            self.asking.fill(phrase)
        elif due == "prompt" and prompts is not None and prompts.instructions is not None:
            self.asking.fill(instructions=prompts.instructions)
        elif due == "prompt":
            self.asking.fill(self.idle.phrase)
        elif due == "tell":
            silent_ms = round(self.idle.silent_s(now) * 1000)
            self.outbox.emit(events.UserIdle(at=now, prompts=self.idle.prompted, silent_ms=silent_ms))
        self.watch()

    def watch(self) -> None:
        """How things stand, after each step."""
        if self.idle.prompts is None and self.filler.filler is None:
            return
        now, phase, arbiter = self.outbox.now, self.view.phase, self.asking.arbiter
        awaited = arbiter.asked or arbiter.active or phase in (SessionState.INITIALIZING, SessionState.PROCESSING)
        sounding = self.barge_in.is_sounding(self.answers.speaking) or self.barge_in.under_way
        quiet = not (awaited or sounding or self.user.is_speaking or self.view.paused)
        running = self.ledger.running
        holding = self.user.agent.turn_detection is None and self.microphone.listening
        self.filler.watch(now, running=running, quiet=quiet)
        self.idle.watch(now, silent=quiet and not (running or holding or self.microphone.muted))

    def user_is_there(self) -> None:
        """Any word of the user: what was about to be said into the silence is not wanted any more."""
        self.idle.user_is_there()
        self.asking.withdraw()

    def unsaid(self) -> None:
        """A lost connection took it: it is said later, if it is still due then."""
        self.filler.unsaid()
        self.idle.unsaid()

    def follow(self, agent: RealtimeAgent) -> None:
        """Another agent is in charge."""
        self.idle.prompts, self.filler.filler = agent.idle_prompts, agent.filler
