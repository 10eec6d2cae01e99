"""Whether the user is listened to: what the uplink is told to do with the microphone's frames."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.channels import Hold
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.outbox import Outbox
from trio_voice.protocol import InputAudioBufferAppend, InputAudioBufferCommit

CLOSING_SILENCE_MS = 1500
"""Sent after listening stops: a server's voice detection waits for silence to end the utterance."""


class MicrophoneGate(Struct, eq=False):
    """What the application has asked for; it holds across connections."""

    outbox: Outbox
    view: ConversationView
    agent: RealtimeAgent
    listening: bool = False
    muted: bool = False
    respond_on_commit: bool = False
    """The user let go of the button: ask for the answer once the utterance is committed."""

    @property
    def is_open(self) -> bool:
        """The user is listened to."""
        return self.listening and not self.muted and not self.view.paused

    def listen(self, listening: bool) -> None:
        """Open or close the gate. Without turn detection, closing it ends the user's turn."""
        if listening == self.listening:
            return
        self.listening = listening
        if listening:
            self.outbox.emit(events.ListeningStarted(at=self.outbox.now))
            if self.view.phase is SessionState.CONNECTED:
                self.view.phase = SessionState.LISTENING
            self.set()
            return
        push_to_talk = self.agent.turn_detection is None
        self.respond_on_commit = push_to_talk
        self.set(tail_ms=0 if push_to_talk else CLOSING_SILENCE_MS, commit=push_to_talk)
        self.outbox.emit(events.ListeningStopped(at=self.outbox.now))
        if self.view.phase is SessionState.LISTENING:
            self.view.phase = SessionState.CONNECTED

    def carry_on(self, carried: bytes) -> None:
        """A new connection, and `carried` of an utterance: go on with it, or, where the user has ended it, end it."""
        if not carried:
            self.respond_on_commit = False
            self.set()
            return
        self.outbox.send(InputAudioBufferAppend(audio=carried))
        push_to_talk = self.agent.turn_detection is None
        if push_to_talk and not self.listening:
            self.outbox.send(InputAudioBufferCommit())
        self.set(tail_ms=0 if push_to_talk or self.listening else CLOSING_SILENCE_MS)

    def pause(self, paused: bool) -> None:
        """Hold the conversation, or go on: what is played stands still as well."""
        if paused == self.view.paused:
            return
        self.view.paused = paused
        self.set()
        self.outbox.play(Hold(paused))
        now = self.outbox.now
        self.outbox.emit(events.Paused(at=now) if paused else events.Resumed(at=now))

    def set(self, *, tail_ms: int = 0, commit: bool = False) -> None:
        """Tell the uplink how things stand. Before a server is configured it is told nothing: no sound is sent then."""
        gate: Literal["open", "muted", "closed"] = "muted" if self.muted else "open"
        if not self.listening or self.view.paused:
            gate = "closed"
        if self.view.connected:
            self.outbox.set_microphone(gate, tail_ms, commit)
