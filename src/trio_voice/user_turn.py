"""The user's voice in the conversation: what it interrupts, and what becomes of the utterance.

A part of the conversation's step, synchronous. `interruption.py` judges; here its verdicts are carried out: the agent
ducked, interrupted or let go on, an utterance answered or taken back. The invariant: an utterance that was no more
than a false alarm leaves no trace in the record, and every other one is answered once.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.barge_in import BargeIn, Cause, Speaking
from trio_voice.channels import Duck
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.interruption import InterruptionJudge, Verdict
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemDelete, ResponseCreate, server_events as on
from trio_voice.server_detection import ServerDetection
from trio_voice.voice_activity import VoiceChange

RECENT_ITEMS = 64


class UserTurn(Struct, eq=False):
    """`interrupt` and `respond` are the conversation's; `speaking` gives the response that is made or played."""

    outbox: Outbox
    view: ConversationView
    agent: RealtimeAgent
    barge_in: BargeIn
    microphone: MicrophoneGate
    detection: ServerDetection
    speaking: Callable[[], Speaking | None]
    interrupt: Callable[[Cause], bool]
    respond: Callable[[ResponseCreate], None]
    judge: InterruptionJudge
    is_speaking: bool = False
    began_ms: int = 0
    uninterruptible: set[int] = field(default_factory=set)
    """Turns that are to be heard to their end whatever the user says, and were not yet."""
    ducked: bool = False
    _dismissed: dict[str, None] = field(default_factory=dict)
    """Items of false alarms, the newest last."""
    _ends_dismissed: bool = False
    """The utterance that is about to be committed was one."""
    _silent_item: str = ""

    @property
    def sounding(self) -> bool:
        """Whether there is something that speech may interrupt."""
        declined = self.agent.turn_detection is not None and self.agent.turn_detection.interrupt_response is False
        allowed = self.agent.interruption.by != "manual" and not declined and not self.uninterruptible
        return allowed and self.barge_in.is_sounding(self.speaking())

    # --- what is reported -------------------------------------------------------------------------

    def speech_started(self, event: on.InputAudioBufferSpeechStarted) -> None:
        self.is_speaking, self.began_ms = True, event.audio_start_ms
        self.outbox.emit(events.SpeechStart(at=self.outbox.now, audio_ms=event.audio_start_ms))
        self._carry_out(self.judge.server_began(self.outbox.now, sounding=self.sounding))

    def speech_stopped(self, event: on.InputAudioBufferSpeechStopped) -> None:
        now, heard_ms = self.outbox.now, event.audio_end_ms - self.began_ms
        verdict = self.judge.server_stopped(heard_ms, sounding=self.sounding)
        self._carry_out(verdict)
        self.is_speaking = False
        self.outbox.emit(events.SpeechEnd(at=now, audio_ms=event.audio_end_ms))
        self._ends_dismissed = verdict is Verdict.FALSE_ALARM
        if not self._ends_dismissed:
            self.view.tracker.user_ended(now, heard_ms)
            self.view.phase = SessionState.PROCESSING

    def voice_heard(self, change: VoiceChange) -> None:
        """The microphone's own detection; it counts while the microphone is sent."""
        if not self.microphone.is_open and change != "ended":
            return
        sounding = self.sounding
        match change:
            case "began":
                self._carry_out(self.judge.voice_began(sounding=sounding))
            case "lasted":
                self._carry_out(self.judge.voice_lasted(sounding=sounding))
            case "ended":
                self._carry_out(self.judge.voice_ended(self.outbox.now, sounding=sounding))

    def look(self) -> None:
        """The judge's deadline may have come."""
        self._carry_out(self.judge.due(self.outbox.now, sounding=self.sounding))

    def committed(self, event: on.InputAudioBufferCommitted | on.InputAudioBufferTimeoutTriggered) -> None:
        """The utterance is an item of the conversation now: answered, or taken back.

        Silence that the server has had enough of becomes an item too; that one it answers by itself in any case.
        """
        if isinstance(event, on.InputAudioBufferTimeoutTriggered):
            self._silent_item = event.item_id
            return
        dismissed, self._ends_dismissed = self._ends_dismissed, False
        if dismissed:
            self._dismissed[event.item_id] = None
            if len(self._dismissed) > RECENT_ITEMS:
                del self._dismissed[next(iter(self._dismissed))]
            self.view.history.delete(event.item_id)
            self.outbox.send(ConversationItemDelete(item_id=event.item_id))
        elif self.microphone.respond_on_commit or (self._asks_itself and event.item_id != self._silent_item):
            self.microphone.respond_on_commit = False
            self.respond(ResponseCreate())

    def is_dismissed(self, item_id: str) -> bool:
        return item_id in self._dismissed

    def pressed(self) -> None:
        """Push-to-talk: the button says that the user speaks."""
        if self.agent.turn_detection is None and self.sounding:
            self.interrupt("speech")

    # --- the agent, and the connection ----------------------------------------------------------------

    def turn_over(self, turn: int) -> None:
        """Heard to its end."""
        self.uninterruptible.discard(turn)
        if not self.sounding:
            self._unduck()

    def silenced(self) -> None:
        """All that was made or played was interrupted."""
        self.uninterruptible.clear()
        self._unduck()

    def connection_gone(self) -> None:
        self.is_speaking = self._ends_dismissed = False
        self.judge.reset()
        self._unduck()

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _asks_itself(self) -> bool:
        """The server would answer, had we not told it to leave that to us."""
        wanted = self.agent.turn_detection
        return wanted is not None and wanted.create_response is not False and not self.detection.answers

    def _carry_out(self, verdict: Verdict) -> None:
        match verdict:
            case Verdict.DUCK:
                self.ducked = True
                self.outbox.play(Duck(self.agent.interruption.duck_gain))
            case Verdict.COUNTS:
                if self.sounding:
                    self.interrupt("speech")
                self._unduck()
                if self.judge.server_open or self.is_speaking:
                    self._began()
            case Verdict.FALSE_ALARM:
                self.is_speaking = False
                speaking = self.speaking()
                if self._unduck() and speaking is not None:
                    self.view.tracker.false_alarm(self.outbox.now)
                    self.outbox.emit(events.FalseAlarm(at=self.outbox.now, turn=speaking.turn))
            case _:
                pass

    def _began(self) -> None:
        self.is_speaking = True
        self.view.tracker.user_began(self.outbox.now)
        self.view.phase = SessionState.LISTENING

    def _unduck(self) -> bool:
        ducked, self.ducked = self.ducked, False
        if ducked:
            self.outbox.play(Duck(1.0))
        return ducked
