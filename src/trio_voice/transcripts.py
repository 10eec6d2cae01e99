"""The words of both sides, told to the application as they come.

A part of the conversation's step, synchronous. It comes after the history has taken the event in, and is given nothing
of a response that was interrupted.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from trio_voice import events
from trio_voice.outbox import Outbox
from trio_voice.protocol import server_events as on
from trio_voice.protocol.history import History
from trio_voice.user_turn import UserTurn


class Transcripts(Struct, eq=False):
    outbox: Outbox
    history: History
    user: UserTurn
    _so_far: tuple[str, str] = ("", "")
    """Of the user's words that come as a whole each time: the item, and what was told of it."""

    def take(self, event: object) -> None:
        match event:
            case on.ConversationItemInputAudioTranscriptionDelta():
                self._tell("user", event.item_id, event.delta or "", final=False)
            case on.ConversationItemInputAudioTranscriptionUpdated(item_id=item_id, transcript=words):
                told = self._so_far[1] if self._so_far[0] == item_id else ""
                self._so_far = (item_id, words)
                self._tell("user", item_id, words[len(told) :] if words.startswith(told) else "", final=False)
            case on.ConversationItemInputAudioTranscriptionCompleted():
                self._tell("user", event.item_id, "", final=True)
            case on.ResponseOutputAudioTranscriptDelta() | on.ResponseOutputTextDelta():
                self._tell("agent", event.item_id, event.delta, final=False)
            case on.ResponseOutputAudioTranscriptDone() | on.ResponseOutputTextDone():
                self._tell("agent", event.item_id, "", final=True)

    def _tell(self, role: Literal["user", "agent"], item_id: str, delta: str, *, final: bool) -> None:
        if self.user.is_dismissed(item_id) or self.history.is_gone(item_id):
            return
        entry = self.history.get(item_id)
        text = entry.text if entry is not None else delta
        self.outbox.emit(
            events.Transcript(at=self.outbox.now, role=role, item_id=item_id, delta=delta, text=text, final=final)
        )
