"""Guardrails in the conversation: which words are looked at, and what follows when something was found in them.

A part of the conversation's step, synchronous. The invariant: of a turn that tripped nothing unheard is ever heard, the
application is told once, and what is said in its place is asked for once, whatever becomes of the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio
from msgspec import Struct, field

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.answers import Answers
from trio_voice.asking import Asking, saying
from trio_voice.channels import Checked, CheckText, Command
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.outbox import Outbox
from trio_voice.protocol import (
    ConversationItemDelete,
    Item,
    ResponseConfig,
    ResponseCreate,
    server_events as on,
)
from trio_voice.user_turn import UserTurn

if TYPE_CHECKING:  # most sessions look at no words
    from trio_voice.guardrail_functions import Guardrail, Trip

REFUSAL = "I'm sorry, I can't go into that."
"""Said where the answer in place of one that tripped has tripped itself: there is no third try."""
REMEMBERED = 64


class _Written(Struct, eq=False):
    """A text that the application says for the user, while it is looked at."""

    command: Command
    item_id: str
    waiting: set[str]
    """The names of the guardrails that have not answered."""
    tripped: tuple[Guardrail, Trip] | None = None


class Guarding(Struct, eq=False):
    outbox: Outbox
    view: ConversationView
    answers: Answers
    asking: Asking
    user: UserTurn
    in_charge: Callable[[], RealtimeAgent]
    """Gives the one that answers."""
    instructions: Callable[[], str]
    """What it was told."""
    carry_out: Callable[[Command], None]
    """Go on with a command whose text may stand."""
    owed: Trip | None = None
    """Something is to be said in place of what was stopped, and was not yet asked for."""
    _requested: ResponseCreate | None = None
    """The same, from then on until it was made. A lost connection does not take it along: see `Resumption`."""
    _in_place: int = 0
    """The newest turn that was said in place of another."""
    _unchecked: bool = False
    """That turn's words are the application's own, or the last that there are."""
    _turn: int = 0
    """The turn whose words are being looked at, and its agent."""
    _agent: RealtimeAgent | None = None
    _sounding: set[int] = field(default_factory=set)
    """Turns of which something may still be heard: an answer may begin while the words before a tool are played."""
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)
    """By item and guardrail: how many characters of it were looked at."""
    _tripped: dict[str, None] = field(default_factory=dict)
    """Turns, and items of the user, in which something was found; the newest last."""
    _texts: list[_Written] = field(default_factory=list)
    """In the order in which they were said: one waits for those before it."""
    _count: int = 0

    # --- what is looked at ------------------------------------------------------------------------

    def begun(self, turn: int) -> None:
        """A response has begun: its words are those of the agent that is in charge now."""
        self._turn, self._agent = turn, self.in_charge()
        floor = self.answers.barge_in.floor
        self._sounding = {turn, *(earlier for earlier in self._sounding if earlier > floor)}
        self._seen.clear()
        if self._requested is not None and self.answers.arbiter.sent is self._requested:
            self._in_place = turn

    def take(self, turn: int | None, event: object) -> None:
        """Words, of either side, as they come; the history has them already."""
        match event:
            case on.ResponseOutputAudioTranscriptDelta() | on.ResponseOutputTextDelta():
                self._said(turn, event.item_id, final=False)
            case on.ResponseOutputAudioTranscriptDone() | on.ResponseOutputTextDone():
                self._said(turn, event.item_id, final=True)
            case on.ConversationItemInputAudioTranscriptionCompleted(item_id=item_id, transcript=text):
                agent = self.in_charge()
                if agent.input_guardrails and text.strip() and not self.user.is_dismissed(item_id):
                    self._check(CheckText("input", item_id, None, text, True, agent, agent.input_guardrails))

    def _said(self, turn: int | None, item_id: str, *, final: bool) -> None:
        agent = self._agent
        if agent is None or not agent.output_guardrails or turn != self._turn or turn == self._own_words:
            return
        entry = self.view.history.get(item_id)
        text = entry.text if entry is not None else ""
        due = []
        for guardrail in agent.output_guardrails:
            new = len(text) - self._seen.get((item_id, guardrail.name), 0)
            if new >= (1 if final else guardrail.every_chars):
                self._seen[item_id, guardrail.name] = len(text)
                due.append(guardrail)
        if due:
            self._check(CheckText("output", item_id, turn, text, final, agent, tuple(due)))

    @property
    def _own_words(self) -> int | None:
        return self._in_place if self._unchecked else None

    def _check(self, check: CheckText) -> None:
        try:
            self.outbox.check(check)
        except trio.WouldBlock:
            for guardrail in check.guardrails:
                self.checked(Checked(check, guardrail, failure="too many words wait to be looked at already"))

    def admits(self, command: Command) -> bool:
        """Whether a text may be said for the user now. If not, it is being looked at, and is said or refused later."""
        agent = self.in_charge()
        if command.passed or not agent.input_guardrails:
            return True
        self._count += 1
        item_id, names = f"checked_{self._count}", {guardrail.name for guardrail in agent.input_guardrails}
        self._texts.append(_Written(command, item_id, names))
        self._check(CheckText("text", item_id, None, command.text, True, agent, agent.input_guardrails))
        return False

    # --- what was found ---------------------------------------------------------------------------

    def checked(self, news: Checked) -> None:
        check, guardrail, trip = news.check, news.guardrail, news.trip
        if news.failure is not None:
            message = f"guardrail {guardrail.name!r} failed, and stops nothing: {news.failure}"
            self.outbox.report(message, code=None, source="guardrail")
        if check.kind == "text":
            self._text_checked(check.item_id, guardrail, trip)
        elif trip is not None and self._is_first(check):
            if check.kind == "output":
                self._output_tripped(check, guardrail, trip)
            else:
                self._input_tripped(check.item_id, guardrail, trip)

    def _is_first(self, check: CheckText) -> bool:
        """The first that was found in this turn, or these words of the user."""
        key = f"turn {check.turn}" if check.kind == "output" else check.item_id
        if key in self._tripped:
            return False
        self._tripped[key] = None
        if len(self._tripped) > REMEMBERED:
            del self._tripped[next(iter(self._tripped))]
        return True

    def _output_tripped(self, check: CheckText, guardrail: Guardrail, trip: Trip) -> None:
        turn = check.turn or 0
        in_time = turn > self.answers.barge_in.floor and (turn == self._turn or turn in self._sounding)
        self._tell(guardrail, trip, "output", check.item_id, turn, replaced=in_time)
        if not in_time:
            return
        if turn == self._in_place:
            trip = attrs.evolve(trip, say=REFUSAL, instructions=None, info=None)
        if turn in self._sounding:
            self.answers.interrupt("guardrail", whole=True)
        self._owe(
            trip, f"Your last answer was stopped: {trip.reason or guardrail.name}. Give another one without that."
        )

    def _input_tripped(self, item_id: str, guardrail: Guardrail, trip: Trip) -> None:
        said = [entry for entry in self.view.history if entry.role == "user" and not entry.hidden]
        is_last = bool(said) and said[-1].item_id == item_id
        self._tell(guardrail, trip, "input", item_id, None, replaced=is_last)
        from trio_voice.guardrail_functions import InputGuardrail

        deletes = isinstance(guardrail, InputGuardrail) and guardrail.on_trip == "delete"
        if deletes and self.view.history.hide(item_id):
            self.outbox.send(ConversationItemDelete(item_id=item_id))
        if is_last:
            if self.user.uninterruptible or not self.answers.interrupt("guardrail", whole=True):
                self.answers.arbiter.drop_waiting(but_marked=True)
                if self.answers.arbiter.asked or self.view.phase is SessionState.PROCESSING:
                    self.answers.cancel_when_created = "guardrail"
            self._owe(trip, _not_to_be_answered(guardrail, trip))

    def _text_checked(self, item_id: str, guardrail: Guardrail, trip: Trip | None) -> None:
        for text in self._texts:
            if text.item_id == item_id:
                text.waiting.discard(guardrail.name)
                if trip is not None and text.tripped is None:
                    text.tripped = (guardrail, trip)
                    text.waiting.clear()
        while self._texts and not self._texts[0].waiting:
            text = self._texts.pop(0)
            if text.tripped is None:
                text.command.passed = True
                self.carry_out(text.command)
            else:
                self._refuse(text, *text.tripped)

    def _refuse(self, text: _Written, guardrail: Guardrail, trip: Trip) -> None:
        """It is never sent. The application's record keeps it."""
        now = self.outbox.now
        self.view.tracker.user_began(now)
        self.view.history.add(Item.user_text(text.command.text, id=text.item_id))
        self.view.history.hide(text.item_id)
        self.view.tracker.item_seen(text.item_id, now)
        self.view.tracker.user_ended(now, 0.0)
        self._tell(guardrail, trip, "input", text.item_id, None, replaced=True)
        self._owe(trip, _not_to_be_answered(guardrail, trip))
        text.command.done.set()

    def _tell(
        self, guardrail: Guardrail, trip: Trip, kind: str, item_id: str, turn: int | None, *, replaced: bool
    ) -> None:
        self.outbox.emit(
            events.GuardrailTripped(
                at=self.outbox.now,
                guardrail=guardrail.name,
                kind="output" if kind == "output" else "input",
                reason=trip.reason,
                info=trip.info,
                item_id=item_id,
                turn=turn,
                replaced=replaced,
            )
        )

    # --- what is said instead ---------------------------------------------------------------------

    def _owe(self, trip: Trip, told: str) -> None:
        self.owed = (
            trip if trip.say is not None or trip.instructions is not None else attrs.evolve(trip, instructions=told)
        )
        self._requested = None

    def ask(self) -> None:
        """Have it said, as soon as it can be."""
        free = self.view.connected and not self.answers.barge_in.under_way and not self.user.is_speaking
        if self.owed is not None and free and self.answers.cancel_when_created is None:
            trip, self.owed = self.owed, None
            self._unchecked = trip.say is not None
            if trip.say is not None:
                config = saying(trip.say)
            else:
                config = ResponseConfig(instructions=f"{self.instructions()}\n\n{trip.instructions}".strip())
            self._requested = self.asking.worded(config)
            self.asking.respond(self._requested)

    def forget(self) -> None:
        """The user has gone on: what was to be said instead is no longer wanted."""
        if self._requested is not None:
            self.answers.arbiter.forget(self._requested)
        self.owed = self._requested = None

    def made(self, turn: int) -> None:
        """The server has made all of a turn."""
        if turn == self._in_place:
            self._requested = None
        if not self.outbox.speaks:
            self.heard(turn)

    def heard(self, turn: int) -> None:
        """All of a turn was heard."""
        self._sounding.discard(turn)

    def collided(self) -> None:
        """What began was the server's own, not what we had asked for: that is asked for again."""
        if self._requested is not None and self._in_place == self._turn:
            self._in_place = 0


def _not_to_be_answered(guardrail: Guardrail, trip: Trip) -> str:
    return (
        f"What the user said last must not be answered: {trip.reason or guardrail.name}. Say so in one short and "
        "friendly sentence."
    )
