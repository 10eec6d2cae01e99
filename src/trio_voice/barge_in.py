"""Barge-in: the agent falls silent, the model is told what was heard, and the record is cut at the same place.

Two synchronous steps of the conversation. `interrupt` retires the turn: from then on no sound of it is played or
delivered and no tool of it begins. `silenced` follows when playback has answered with the heard positions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, TypeAlias, TypeGuard

from msgspec import Struct, field
from msgspec.structs import replace

from trio_voice import events
from trio_voice.channels import Command, Interrupt, Interrupted
from trio_voice.logs import log
from trio_voice.outbox import Outbox
from trio_voice.playback_buffer import ItemPosition
from trio_voice.protocol import ConversationItemCreate, ConversationItemDelete, Item, OutputAudioBufferClear
from trio_voice.protocol.history import History
from trio_voice.protocol.truncation import plan_truncation
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_items import CancelTurn
from trio_voice.tracker import ConversationTracker

Cause: TypeAlias = Literal["speech", "manual", "guardrail"]


class Speaking(Struct, eq=False):
    """The response that is being made or played."""

    turn: int
    response_id: str
    epoch: int = 1
    """The connection that it is made on: another's server knows nothing of it."""
    item_ids: list[str] = field(default_factory=list)
    """Its messages."""
    begun: bool = False
    """A piece of its voice or text has come."""
    done: bool = False
    """The server will send no more of it."""
    played: bool = False
    """All of it was heard."""
    is_verbatim: bool = False
    """It says words that were given to it, and answers nothing."""
    cancelled_there: bool = False
    """The server has cancelled it by itself."""
    sounds_elsewhere: bool = False
    """The server is playing it: the sound of a call is not ours."""


class BargeIn(Struct, eq=False):
    """What was interrupted, and why."""

    outbox: Outbox
    history: History
    tracker: ConversationTracker
    detection: ServerDetection
    floor: int = 0
    """Turns at or below it were interrupted."""
    hushed: int = 0
    """Turns at or below it were interrupted by command, or a guardrail: what their tools find is told the model, but
    not spoken of."""
    complete_items: dict[str, int] = field(default_factory=dict)
    """Items of which the server has sent all, and which are not yet played: the turn of each."""
    waiting: list[Command] = field(default_factory=list)
    """They want to know when all is silent."""
    epoch: int = 0
    """The connection whose server has been told the conversation so far; 0 while there is none."""
    unrestored: set[str] = field(default_factory=set)
    """Items that were still being heard when a new connection was told the conversation: it does not know them yet."""
    _silencing: dict[int, tuple[Speaking, Cause]] = field(default_factory=dict)
    """By turn, until playback has answered. The next response may have begun by then."""

    def is_sounding(self, speaking: Speaking | None) -> TypeGuard[Speaking]:
        """Whether it is being made or played, and was not interrupted."""
        return speaking is not None and speaking.turn > self.floor and not (speaking.done and speaking.played)

    def interrupt(
        self, speaking: Speaking | None, cause: Cause, *, whole: bool = False, reported: bool = False
    ) -> bool:
        """Retire the turn that is being made or played. Returns whether there was one.

        `whole`: with all before it, tools too, even if it only said words that were given to it.
        `reported`: the server told of the speech that is the cause; it may have cancelled its response by itself.
        """
        if not self.is_sounding(speaking):
            return False
        speaking.cancelled_there = reported and self.detection.interrupts
        self.floor = speaking.turn
        self._silencing[speaking.turn] = (speaking, cause)
        self.outbox.fan_out.discard_audio(speaking.turn)
        if whole or not speaking.is_verbatim:  # who talks over a filler does not mean the tool behind it
            self.outbox.run_tool(CancelTurn(speaking.turn))
            self.hushed = speaking.turn if cause != "speech" else self.hushed
        if self.outbox.speaks:
            self.outbox.play(Interrupt(speaking.turn))
        else:
            self.silenced(Interrupted(speaking.turn, (), 0.0), speaking)
            if self.outbox.dialect.sound_is_elsewhere and not speaking.cancelled_there:
                self.outbox.send(OutputAudioBufferClear())
        return True

    def item_added(self, turn: int, item_id: str, speaking: Speaking | None) -> None:
        """The server has begun a message of `turn`. One of a turn that is silent already will not be heard."""
        if turn in self._silencing:
            self._silencing[turn][0].item_ids.append(item_id)
        elif turn > self.floor:
            if speaking is not None and speaking.turn == turn:
                speaking.item_ids.append(item_id)
        elif self.outbox.speaks and self.history.get(item_id) is not None:  # a server may say it twice
            self.outbox.send(ConversationItemDelete(item_id=item_id))
            self.history.delete(item_id)

    def item_complete(self, turn: int | None, item_id: str) -> None:
        """The server has sent all of a message. Of one that was interrupted it is known already what was heard."""
        if turn is None or turn > self.floor or turn in self._silencing:
            self.complete_items[item_id] = turn or 0

    def silenced(self, news: Interrupted, speaking: Speaking | None) -> None:
        """Playback is silent: tell the server, the record and the application what was heard."""
        interrupted: Speaking | None
        cause: Cause
        interrupted, cause = self._silencing.pop(news.turn, (None, "manual"))
        active = speaking is not None and speaking.turn == news.turn and not speaking.done
        unheard_items = interrupted.item_ids if interrupted is not None and self.outbox.speaks else []
        if interrupted is not None and (interrupted.epoch == self.epoch or self.outbox.unconfirmed is not None):
            self._cut_server_s_record(
                news.positions, unheard_items=unheard_items, cancel=active and not interrupted.cancelled_there
            )
        heard_ms = sum(position.heard_ms for position in news.positions)
        self.tracker.agent_played(self.outbox.now, heard_ms, news.underruns)
        self._cut_record(news.positions, unheard_items)
        self._no_more_of(news.turn)
        if active or news.discarded_ms > 0 or (interrupted is not None and interrupted.sounds_elsewhere):
            self._report(news, cause)
        self._restore(set(self.unrestored))
        if not self.under_way:
            for command in self.waiting:
                command.done.set()
            self.waiting.clear()

    @property
    def under_way(self) -> bool:
        """Playback has yet to say that it is silent."""
        return bool(self._silencing)

    def is_open(self, item_id: str, speaking: Speaking | None) -> bool:
        """Whether it is still to be seen how much of this message is heard.

        That may be one of an answer before: the next one may begin while its words are played.
        """
        answers = [interrupted for interrupted, _ in self._silencing.values()]
        if self.is_sounding(speaking):
            answers.append(speaking)
            if item_id in self.complete_items and self.outbox.speaks:
                return True
        return any(item_id in answer.item_ids for answer in answers)

    def played(self, turn: int, positions: Collection[ItemPosition], speaking: Speaking | None) -> None:
        """All of these was heard, and of all turns up to this one; with that, if `speaking` is over, all there is.

        Sound that the playback buffer had no room for was not: the record ends where it broke off.
        """
        if any(position.heard_ms < position.received_ms for position in positions):
            if speaking is not None and speaking.epoch == self.epoch:
                self._cut_server_s_record(positions)
            self._cut_record(positions, [])
        heard = {position.item_id for position in positions}
        for interrupted, _ in self._silencing.values():  # too late: it had been heard to the end
            interrupted.item_ids = [item_id for item_id in interrupted.item_ids if item_id not in heard]
        self._no_more_of(turn)
        self._restore(heard if speaking is not None and not speaking.played else self.unrestored | heard)

    def hold_back(self, speaking: Speaking | None) -> set[str]:
        """Which items a new connection is not told yet, because how much of them will be heard is still open."""
        self.unrestored = set(self.complete_items) if self.outbox.speaks else set()
        if speaking is not None and self.outbox.speaks and not speaking.played:
            is_open = speaking.turn > self.floor or speaking.turn in self._silencing
            self.unrestored |= set(speaking.item_ids) if is_open else set()
        return self.unrestored

    def _no_more_of(self, turn: int) -> None:
        """All that was heard of the turns up to this one is known."""
        self.complete_items = {item_id: of for item_id, of in self.complete_items.items() if of > turn}

    def _restore(self, item_ids: Iterable[str]) -> None:
        """Tell the new connection what was heard, in the end, of items that were held back from it."""
        for item_id in sorted(self.unrestored.intersection(item_ids)):
            self.unrestored.discard(item_id)
            entry = self.history.get(item_id)
            if entry is not None and entry.heard_text.strip():
                item = Item.assistant_text(entry.heard_text.strip(), id=item_id)
                if self.epoch:  # or else it will be told with all the rest
                    before = self.history.told_before(item_id)
                    self.history.untold.discard(item_id)
                    self.outbox.send(ConversationItemCreate(item=item, previous_item_id=before))

    def _cut_server_s_record(
        self, positions: Iterable[ItemPosition], *, unheard_items: Iterable[str] = (), cancel: bool = False
    ) -> None:
        known = [position for position in positions if position.item_id not in self.unrestored]
        for event in plan_truncation(
            known, complete_items=self.complete_items, unheard_items=unheard_items, cancel=cancel
        ):
            self.outbox.send(event)

    def _cut_record(self, positions: Iterable[ItemPosition], unheard_items: list[str]) -> None:
        now = self.outbox.now
        heard = _by_item(positions)
        for item_id, position in heard.items():
            if position.heard_ms < 1:  # less than the protocol can say
                self.history.delete(item_id)
            elif position.heard_ms < position.received_ms:
                self.tracker.truncation_count += 1
                entry = self.history.cut(item_id, position.heard_ms, position.received_ms)
                text = entry.heard_text if entry is not None else ""
                self.outbox.emit(
                    events.Transcript(
                        at=now, role="agent", item_id=item_id, delta="", text=text, final=True, truncated=True
                    )
                )
        for item_id in unheard_items:
            if item_id not in heard:
                self.history.delete(item_id)

    def _report(self, news: Interrupted, cause: Cause) -> None:
        being_heard = next((position for position in reversed(news.positions) if position.heard_ms > 0), None)
        heard_ms = int(being_heard.heard_ms) if being_heard is not None else 0
        log.info("turn.interrupted", turn=news.turn, cause=cause, heard_ms=heard_ms)
        self.tracker.agent_interrupted(self.outbox.now)
        self.outbox.emit(
            events.Interruption(
                at=self.outbox.now,
                turn=news.turn,
                cause=cause,
                item_id=being_heard.item_id if being_heard is not None else None,
                heard_ms=heard_ms,
                discarded_ms=int(news.discarded_ms),
            )
        )


def _by_item(positions: Iterable[ItemPosition]) -> dict[str, ItemPosition]:
    """One position for each item: its spoken parts, where there are several, taken together."""
    items: dict[str, ItemPosition] = {}
    for position in positions:
        before = items.get(position.item_id)
        items[position.item_id] = (
            position
            if before is None
            else replace(
                position,
                heard_ms=before.heard_ms + position.heard_ms,
                received_ms=before.received_ms + position.received_ms,
            )
        )
    return items
