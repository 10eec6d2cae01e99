"""What can be seen of a conversation at this moment: who speaks, the last words, tools, latencies.

Pure: session events are folded in one by one, no clock, no terminal. The invariant kept here: every utterance, tool
call and trouble is handed out by `apply` exactly once, when it is finished; an interrupted utterance with only the
words that were heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

from trio_voice import events
from trio_voice.events import SessionEvent

MOST_ENTRIES = 200
"""Older ones are forgotten: nobody scrolls a live view."""
MOST_LATENCIES = 5


@attrs.define(eq=False)
class Entry:
    """A line of what is going on. Text is as the other side wrote it: whoever shows it makes it safe."""

    at: float
    kind: Literal["user", "agent", "tool", "error"]
    key: str
    text: str
    """Words said, a tool's name, or what went wrong."""
    turn: int = 0
    arguments: str = ""
    output: str | None = None
    """What a tool returned."""
    failed: bool = False
    duration_ms: float | None = None
    finished: bool = False
    """No more words will come, or the tool has returned."""
    cut: bool = False
    """The agent was interrupted here."""
    heard_ms: int = 0
    discarded_ms: int = 0
    reported: bool = False
    """`apply` has handed it out."""


@attrs.define(eq=False)
class Scene:
    """A conversation as far as it has come."""

    entries: list[Entry] = attrs.Factory(list)
    caller_speaks: bool = False
    agent_speaks: bool = False
    listening: bool = False
    caller_turns: int = 0
    interruptions: int = 0
    latencies_ms: list[float] = attrs.Factory(list)
    """The last few, newest last: from the server's word that speech had ended to the first sample in the air."""
    ended: str | None = None
    """Why the session ended, once it has."""
    _turn: int = 0
    _waiting_since: float | None = None

    def apply(self, event: SessionEvent) -> list[Entry]:
        """Take in what happened. Returns the entries that it finished, oldest first."""
        match event:
            case events.ListeningStarted():
                self.listening = True
            case events.ListeningStopped():
                self.listening = False
            case events.SpeechStart():
                self.caller_speaks = True
                self.caller_turns += 1
                self._waiting_since = None
            case events.SpeechEnd():
                self.caller_speaks = False
                self._waiting_since = event.at
            case events.ResponseStart():
                self._turn = event.turn
            case events.Transcript():
                return self._words(event)
            case events.PlaybackStart():
                self._agent_began(event)
            case events.PlaybackEnd():
                self.agent_speaks = False
                return self._report(entry for entry in self._agent_entries(event.turn) if entry.finished)
            case events.Interruption():
                return self._interrupted(event)
            case events.ToolCalled():
                self._append(Entry(event.at, "tool", event.call_id, event.tool, event.turn, event.arguments))
            case events.ToolFinished():
                return self._tool_finished(event)
            case events.ErrorReported():
                trouble = Entry(event.at, "error", event.source, event.message, finished=True)
                return self._report([self._append(trouble)])
            case events.DeviceLost(kind=kind, reason=reason):
                lost = f"{kind} lost, and tried again: {reason}"
                return self._report([self._append(Entry(event.at, "error", kind, lost, finished=True))])
            case events.DeviceRestored(kind=kind, outage_ms=outage_ms):
                back = f"{kind} back after {outage_ms / 1000:.1f} s"
                return self._report([self._append(Entry(event.at, "error", kind, back, finished=True))])
            case events.Disconnected():
                self.caller_speaks = self.agent_speaks = self.listening = False
                self.ended = event.reason
                return self._report(self.entries)
        return []

    def rest(self) -> list[Entry]:
        """What has not been handed out yet: the events ended in the middle of the conversation."""
        return self._report(self.entries)

    def _append(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        del self.entries[:-MOST_ENTRIES]
        return entry

    def _find(self, key: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.key == key), None)

    def _report(self, finished: Iterable[Entry]) -> list[Entry]:
        fresh = [entry for entry in finished if not entry.reported and (entry.text.strip() or entry.cut)]
        for entry in fresh:
            entry.reported = True
        return fresh

    def _words(self, event: events.Transcript) -> list[Entry]:
        """The caller's words are finished when they are final. The agent's are so only when they have been heard, or
        when the caller speaks again: an agent without a loudspeaker is never heard at all."""
        entry = self._find(event.item_id)
        if entry is None:
            turn = self._turn if event.role == "agent" else 0
            entry = self._append(Entry(event.at, event.role, event.item_id, "", turn))
        entry.text, entry.finished = event.text, event.final
        entry.cut = entry.cut or event.truncated
        if event.role == "agent" or not event.final:
            return []
        older = self.entries[: self.entries.index(entry)]
        return self._report([*(said for said in older if said.kind == "agent" and said.finished), entry])

    def _agent_entries(self, turn: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == "agent" and entry.turn == turn]

    def _agent_began(self, event: events.PlaybackStart) -> None:
        self.agent_speaks = True
        if self._waiting_since is not None:
            self.latencies_ms.append((event.at - self._waiting_since) * 1000)
            del self.latencies_ms[:-MOST_LATENCIES]
            self._waiting_since = None

    def _interrupted(self, event: events.Interruption) -> list[Entry]:
        self.agent_speaks = False
        self.interruptions += 1
        said = self._agent_entries(event.turn)
        cut = next((entry for entry in said if entry.key == event.item_id), said[-1] if said else None)
        if cut is None:
            cut = self._append(Entry(event.at, "agent", f"turn {event.turn}", "", event.turn))
            said = [cut]
        cut.cut, cut.heard_ms, cut.discarded_ms = True, event.heard_ms, event.discarded_ms
        unheard = said[said.index(cut) + 1 :]
        self.entries = [entry for entry in self.entries if entry not in unheard]
        for entry in said:
            entry.finished = True
        return self._report(said[: said.index(cut) + 1])

    def _tool_finished(self, event: events.ToolFinished) -> list[Entry]:
        entry = self._find(event.call_id)
        if entry is None:
            entry = self._append(Entry(event.at, "tool", event.call_id, event.tool, event.turn))
        entry.output, entry.failed, entry.duration_ms = event.output, event.failed, event.duration_ms
        entry.finished = True
        return self._report([entry])
