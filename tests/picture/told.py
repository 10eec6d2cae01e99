"""A conversation as a session tells it: a list of events, each at a time of the test's choosing."""

from __future__ import annotations

import attrs

from trio_voice import events
from trio_voice.events import SessionEvent

STARTED_AT = 1000.0


@attrs.define
class Told:
    """Events on a clock that does not begin at 0, as Trio's does not."""

    events: list[SessionEvent] = attrs.Factory(list)

    def listening(self, at_s: float) -> None:
        self._tell(events.ListeningStarted, at_s)

    def speech(self, at_s: float, audio_ms: int, until_s: float, until_audio_ms: int) -> None:
        self._tell(events.SpeechStart, at_s, audio_ms=audio_ms)
        self._tell(events.SpeechEnd, until_s, audio_ms=until_audio_ms)

    def alarm(self, at_s: float) -> None:
        self._tell(events.FalseAlarm, at_s, turn=1)

    def user(self, at_s: float, item_id: str, text: str) -> None:
        self._tell(events.Transcript, at_s, role="user", item_id=item_id, delta=text, text=text, final=True)

    def response(self, at_s: float, turn: int) -> None:
        self._tell(events.ResponseStart, at_s, turn=turn, response_id=f"resp_{turn}")

    def agent(self, at_s: float, item_id: str, text: str, *, final: bool = True, truncated: bool = False) -> None:
        words = {"role": "agent", "item_id": item_id, "delta": "", "text": text, "final": final}
        self._tell(events.Transcript, at_s, **words, truncated=truncated)

    def playback(self, at_s: float, turn: int, until_s: float | None = None) -> None:
        self._tell(events.PlaybackStart, at_s, turn=turn)
        if until_s is not None:
            self._tell(events.PlaybackEnd, until_s, turn=turn)

    def cut(self, at_s: float, turn: int, item_id: str | None, *, heard_ms: int = 0, discarded_ms: int = 0) -> None:
        amounts = {"heard_ms": heard_ms, "discarded_ms": discarded_ms}
        self._tell(events.Interruption, at_s, turn=turn, cause="speech", item_id=item_id, **amounts)

    def call(self, at_s: float, call_id: str, tool: str, arguments: str) -> None:
        self._tell(events.ToolCalled, at_s, turn=1, call_id=call_id, tool=tool, arguments=arguments)

    def returned(self, at_s: float, call_id: str, output: str, *, failed: bool = False) -> None:
        result = {"call_id": call_id, "tool": "?", "output": output, "failed": failed, "duration_ms": 1.0}
        self._tell(events.ToolFinished, at_s, turn=1, **result)

    def error(self, at_s: float, message: str) -> None:
        self._tell(events.ErrorReported, at_s, message=message, source="server")

    def ended(self, at_s: float) -> None:
        self._tell(events.Disconnected, at_s, reason="the session ended")

    def _tell(self, kind: type[SessionEvent], at_s: float, **fields: object) -> None:
        self.events.append(kind(at=STARTED_AT + at_s, **fields))


def barge_in() -> Told:
    """A question, an answer of 5 s that is cut after 2 s, a second question and its answer."""
    told = Told()
    told.listening(0.0)
    told.speech(1.4, 1000, 3.0, 2500)
    told.user(3.0, "user_1", "where is it")
    told.response(3.1, 1)
    told.agent(3.1, "agent_1", "It is on its way to you now.")
    told.playback(3.5, 1)
    told.speech(5.4, 5000, 7.0, 6500)
    told.agent(5.5, "agent_1", "It is on", truncated=True)
    told.cut(5.5, 1, "agent_1", heard_ms=2000, discarded_ms=3000)
    told.user(7.0, "user_2", "stop")
    told.response(7.2, 2)
    told.agent(7.2, "agent_2", "Very well.")
    told.playback(7.5, 2, 8.5)
    return told
