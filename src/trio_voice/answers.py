"""The agent's answers: each one from its first event to the last sample heard, or to its interruption.

A part of the conversation's step, synchronous. The invariant: one answer at a time is made or played, and all that
follows from its end (the next one, the session's phase) follows once.
"""

from __future__ import annotations

import attrs

from trio_voice import events
from trio_voice.asking import Asking, failure_of
from trio_voice.barge_in import BargeIn, Cause, Speaking
from trio_voice.channels import EndTurn, TurnPlayed
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.protocol import Maybe, server_events as on
from trio_voice.protocol.turns import REMEMBERED_TURNS, ResponseArbiter
from trio_voice.usage import of_response
from trio_voice.user_turn import UserTurn


@attrs.define(eq=False)
class Answers:
    outbox: Outbox
    view: ConversationView
    barge_in: BargeIn
    microphone: MicrophoneGate
    asking: Asking
    arbiter: ResponseArbiter
    speaking: Speaking | None = None
    """The one that is being made or played, or was last."""
    aside: set[int] = attrs.Factory(set)
    """Responses out of band: they say nothing in this conversation."""
    cancel_when_created: Cause | None = None
    """Interrupted, by command or a guardrail, before the answer began. Cleared when the user says something new."""
    user: UserTurn = attrs.field(init=False)
    """Set by the conductor: the two know each other."""

    @property
    def newest_turn(self) -> int:
        """0 before the first."""
        return self.speaking.turn if self.speaking is not None else 0

    def begun(self, turn: int, event: object, epoch: int) -> bool:
        """An event names `turn`. Returns whether an answer of the conversation begins with it.

        Not every server sends `response.created`: the first event of a turn counts.
        """
        if isinstance(event, on.ResponseCreated) and event.response.conversation_id is None:
            self.aside.add(turn)
        if turn <= self.newest_turn or turn in self.aside:
            return False
        if self.asking.begins_marked:
            self.user.uninterruptible.add(turn)
        is_filling = self.asking.filling is not None and self.arbiter.sent is self.asking.filling
        is_verbatim = self.asking.begins_verbatim
        self.arbiter.on_created()
        response_id = event.response.id or "" if isinstance(event, on.ResponseCreated) else ""
        self.speaking = Speaking(turn, response_id, epoch, is_verbatim=is_verbatim)
        self.aside = {other for other in self.aside if other > turn - REMEMBERED_TURNS}
        self.view.tracker.response_began(self.outbox.now, turn)
        self.view.phase = SessionState.RESPONDING
        self.view.log_context.turn, self.view.log_context.response = turn, response_id
        self.outbox.emit(events.ResponseStart(at=self.outbox.now, turn=turn, response_id=response_id))
        if self.cancel_when_created is not None:
            cause, self.cancel_when_created = self.cancel_when_created, None
            self.interrupt(cause, whole=True)
        elif is_filling and self.user.is_speaking:  # the user was quicker, and the server did not care
            self.interrupt("speech", reported=False)
        return True

    def voice(self, turn: int, event: on.ResponseOutputAudioDelta) -> None:
        """A piece of its voice."""
        self.piece(turn)
        if self.outbox.fan_out.wants_audio:
            now = self.outbox.now
            self.outbox.emit(events.ResponseAudio(at=now, turn=turn, item_id=event.item_id, pcm=event.delta))

    def piece(self, turn: int) -> None:
        """Of its voice or its text. The first one is noted here; what follows of its voice may pass by."""
        if self.speaking is not None and self.speaking.turn == turn and not self.speaking.begun:
            self.speaking.begun = True
            self.view.tracker.agent_began(self.outbox.now)
            self.outbox.fan_out.open_turn = turn

    def item_added(self, turn: int, item_id: str) -> None:
        """It says something: a message of its own."""
        if turn not in self.aside:
            self.barge_in.item_added(turn, item_id, self.speaking)

    def done(self, turn: int, event: on.ResponseDone) -> None:
        """The server will send no more of it. It may play for a long time yet."""
        response = event.response
        self.view.tracker.response_used(turn, of_response(response.usage), self.outbox.now)
        if turn in self.aside:
            return
        status = response.status or "completed"
        following = self.arbiter.on_done()
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.done = True
            if not self.outbox.speaks:
                self.barge_in.complete_items.clear()
                if not self.speaking.sounds_elsewhere:
                    self._over(turn)
        self.outbox.play(EndTurn(turn))
        self.outbox.emit(
            events.ResponseEnd(
                at=self.outbox.now,
                turn=turn,
                response_id=response.id or "",
                status=status,
                input_tokens=_count(response.usage.input_tokens) if response.usage is not None else None,
                output_tokens=_count(response.usage.output_tokens) if response.usage is not None else None,
            )
        )
        if status == "failed":
            self.outbox.report(
                f"the response failed: {failure_of(response.status_details)}", code=None, source="server"
            )
        if following is not None:
            self.outbox.send(following)

    def sounds_elsewhere(self, turn: int, sounds: bool) -> None:
        """The server has begun or ended playing it, in a call."""
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.sounds_elsewhere = sounds
            if self.speaking.done and not sounds:
                self._over(turn)

    def played(self, news: TurnPlayed) -> None:
        """All of it was heard."""
        heard_ms = sum(position.heard_ms for position in news.positions)
        self.view.tracker.agent_played(self.outbox.now, heard_ms, news.underruns)
        if heard_ms:
            self.outbox.emit(events.PlaybackEnd(at=self.outbox.now, turn=news.turn))
        self._over(news.turn)
        self.barge_in.played(news.turn, news.positions, self.speaking)

    def interrupt(self, cause: Cause, *, whole: bool = False, reported: bool = True) -> bool:
        """Silence it. Returns whether there was anything to silence.

        `whole`: and what it was to bridge; `reported`: by speech that the server interrupts by itself.
        """
        reported = reported and cause == "speech" and self.user.is_speaking
        interrupted = self.barge_in.interrupt(self.speaking, cause, whole=whole, reported=reported)
        if interrupted:
            self.arbiter.drop_waiting(but_marked=cause == "speech")
            self.settle()
            self.user.silenced()
        return interrupted

    def connection_gone(self) -> None:
        """What was being made will not be finished."""
        self.arbiter.on_connection_lost()
        self.cancel_when_created = None
        if self.speaking is None:
            return
        if not self.speaking.done:
            self.speaking.done = True
            self.outbox.play(EndTurn(self.speaking.turn))
        if self.speaking.sounds_elsewhere:
            self.sounds_elsewhere(self.speaking.turn, False)  # for all we will be told

    def settle(self) -> None:
        """Nobody speaks, and nothing is awaited."""
        self.view.phase = SessionState.LISTENING if self.microphone.listening else SessionState.CONNECTED

    def _over(self, turn: int) -> None:
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.played = True
            if self.view.phase is SessionState.RESPONDING:
                self.settle()
        self.user.turn_over(turn)


def _count(tokens: Maybe[int]) -> int | None:
    return tokens if isinstance(tokens, int) else None
