"""The methods of a session that are about its record: what it is so far, changing it, and taking it along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trio_voice import history_export
from trio_voice.channels import Command, CommandName
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import ConfigError
from trio_voice.protocol.edits import DeleteItem, EditItem, Inject, ResetHistory, Role
from trio_voice.protocol.history import HistoryItem
from trio_voice.tracker import check_json

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent
    from trio_voice.config import SessionState
    from trio_voice.tracker import ConversationTracker, ConversationTurn, SessionMetrics, TranscriptLine

FEWEST_TURNS = 2


def check_turns(turns: int | None) -> int | None:
    """Raises: `ConfigError` for what is no number of turns to keep."""
    if turns is not None and (isinstance(turns, bool) or not isinstance(turns, int) or turns < FEWEST_TURNS):
        raise ConfigError(
            f"history_turns={turns!r}: at least {FEWEST_TURNS} are kept, the turn under way and the one before it; "
            "None keeps all"
        )
    return turns


class HistoryMethods(ABC):
    """A part of `RealtimeSession`."""

    _view: ConversationView

    @property
    @abstractmethod
    def agent(self) -> RealtimeAgent: ...

    @abstractmethod
    async def _command(self, do: CommandName, **details: Any) -> Command: ...

    @property
    @abstractmethod
    def state(self) -> SessionState: ...

    @property
    @abstractmethod
    def metrics(self) -> SessionMetrics: ...

    @property
    def tracker(self) -> ConversationTracker:
        """The conversation so far, turn by turn. For reading."""
        return self._view.tracker

    def transcript(self) -> list[TranscriptLine]:
        """Who said what. Of an interrupted answer: what was heard of it."""
        return self._view.tracker.transcript()

    def turns(self) -> list[ConversationTurn]:
        return self._view.tracker.turns()

    def summary(self) -> dict[str, Any]:
        """The session in plain values, ready for JSON."""
        metrics = self.metrics
        return {
            "session_id": self._view.session_id,
            "agent": self.agent.name,
            "state": self.state.value,
            "duration_seconds": round(metrics.duration_s, 3),
            "turn_count": metrics.turn_count,
            "interruption_count": metrics.interruption_count,
            "truncations": metrics.truncation_count,
            "tool_calls": [
                {"tool": use.tool, "arguments": use.arguments, "output": use.output, "failed": use.failed}
                for turn in self.turns()
                for use in turn.tool_calls
            ],
            "average_latency_ms": metrics.average_latency_ms and round(metrics.average_latency_ms, 1),
            "audio_duration_ms": round(metrics.audio_duration_ms),
            "transcript": [
                {"role": line.role, "text": line.text, "interrupted": line.interrupted} for line in self.transcript()
            ],
            "metadata": self.tracker.metadata,
        }

    @property
    def history(self) -> tuple[HistoryItem, ...]:
        """The items of the conversation so far, in order, as the model knows them. A copy, for reading."""
        return tuple(entry.shown() for entry in self._view.history)

    async def inject(self, role: Role, text: str, *, images: Iterable[str] = (), respond: bool = False) -> str:
        """Put a message at the end of the conversation, and interrupt nothing. Returns its item's id.

        `role` is `user`, `assistant` (as if the agent had said it, and the user had heard it) or `system`. `images` are
        PNG or JPEG as data URLs, for the user's messages. With `respond` an answer is asked for, when the one under way
        is made; then, in an outage, this waits for the next connection.
        Raises: `ConfigError` for a message that no server would take.
        """
        edit = Inject(role, text, images, respond)
        return (await self._command("history", edit=edit)).item_id

    async def edit_item(self, item_id: str, text: str) -> str:
        """Give a message other words. The item is replaced by one in its place: returns the id of that.

        Raises: `HistoryError` for an item that is not there, is no message, or is still being said.
        """
        return (await self._command("history", edit=EditItem(item_id, text))).item_id

    async def delete_item(self, item_id: str) -> None:
        """Take an item out of the conversation, here and at the server; a tool's call and its result go together.

        A tool that is running runs on, but the model is not told what it finds.
        Raises: `HistoryError` for an item that is not there, or is still being said.
        """
        await self._command("history", edit=DeleteItem(item_id))

    async def reset_history(self) -> None:
        """Take all items out of the conversation, here and at the server. The agent falls silent, as at `interrupt()`.

        Tools that are running run on, but the model is not told what they find. Turns keep their figures.
        """
        await self._command("history", edit=ResetHistory())

    def annotate(self, turn: int | None = None, /, **values: Any) -> None:
        """Note something about a turn, by its id; without one, about the turn under way.

        It is in `turns()`, and exported. What is to be noted about the session goes into `tracker.metadata`.
        Raises: `ConfigError` for a turn that there is not, and for what JSON cannot hold.
        """
        self._view.tracker.annotate(values, turn)

    def export(self) -> dict[str, Any]:
        """The conversation in plain values that JSON can hold; `RealtimeSession(history=…)` begins from it.

        Raises: `ConfigError` when `tracker.metadata` holds what JSON cannot.
        """
        tracker, metrics = self._view.tracker, self.metrics
        check_json("tracker.metadata", tracker.metadata)
        ended_at = metrics.started_at + metrics.duration_s
        return {
            "version": history_export.VERSION,
            "session_id": self._view.session_id,
            "agent": self.agent.name,
            "duration_s": round(ended_at - tracker.began_at, 3),
            "forgotten_turns": tracker.forgotten_turns,
            "metadata": dict(tracker.metadata),
            "items": history_export.export_items(self._view.history, tracker.began_at),
            "turns": history_export.export_turns(self.turns(), tracker.began_at),
            "usage": metrics.usage.as_dict(),
            "cost": metrics.cost,
        }
