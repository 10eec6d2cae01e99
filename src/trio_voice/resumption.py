"""What a lost connection leaves undone, and what the next one has to be told.

A part of the conversation's step, synchronous. The invariant: what the user waits for when a connection goes is asked
for on the next one, once; and nothing that was said or found is missing there.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, field

from trio_voice.asking import Asking
from trio_voice.barge_in import BargeIn, Speaking
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.initiative import Initiative
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.protocol import ConversationItemCreate, Item, ResponseCreate
from trio_voice.protocol.resume import CONTINUES, NEVER_RUN, replay
from trio_voice.tool_ledger import ToolLedger
from trio_voice.utterances import Utterances


class Resumption(Struct, eq=False):
    outbox: Outbox
    view: ConversationView
    barge_in: BargeIn
    microphone: MicrophoneGate
    ledger: ToolLedger
    utterances: Utterances
    asking: Asking
    initiative: Initiative
    remembers: bool = False
    """The server of this connection has taken up the conversation that it had: it need not be told."""
    response_owed: bool = False
    """The connection was lost while the user waited for an answer."""
    requests: list[ResponseCreate] = field(default_factory=list)
    """Responses asked for in their own words, that it took with it."""

    def take_stock(self, speaking: Speaking | None) -> None:
        """The connection is gone. Before anything forgets what was under way on it."""
        self.utterances.connection_lost(self.outbox.now)
        for item_id in self.utterances.wordless:
            self.view.history.add(Item.user_audio(b"", id=item_id))
            self.view.tracker.item_seen(item_id, self.outbox.now)
        last = next((entry for entry in reversed(list(self.view.history)) if entry.kind == "message"), None)
        asked = last is not None and (last.item_id in self.utterances.wordless or (last.role == "user" and last.text))
        ended = self.view.phase is SessionState.PROCESSING or self.microphone.respond_on_commit
        arbiter = self.asking.arbiter
        unheard = arbiter.active and speaking is not None and not self._has_words(speaking)
        unanswered = arbiter.unanswered(unheard=unheard)
        waiting = any(request.response is UNSET for request in unanswered) or bool(asked and ended)
        self.response_owed = self.response_owed or waiting or (unheard and arbiter.sent is None)
        owed = [request for request in unanswered if request is not self.asking.filling]
        if len(owed) < len(unanswered):
            self.initiative.unsaid()
        self.requests += [request for request in owed if request.response is not UNSET]

    def tell(self, speaking: Speaking | None) -> None:
        """The next connection is open: give it what it does not know, ask again, and go on listening."""
        if self.remembers and self.outbox.unconfirmed is not None:
            self.outbox.send_all(list(self.outbox.unconfirmed.values()))
        else:
            self._tell_everything(self.barge_in.hold_back(speaking))
        carried = self.utterances.carry_on(self.outbox.now)
        self.microphone.carry_on(carried)
        self.response_owed = self.response_owed and not carried  # who speaks on is answered after that
        requests, self.requests = self.requests, []
        for request in requests:
            self.asking.again(request)

    def tell_earlier_session(self) -> None:
        """The first connection is open, and the session goes on with the conversation of an earlier one."""
        history = self.view.history
        history.close_calls(NEVER_RUN, running=())
        self._create(replay(history))

    def _tell_everything(self, unfinished: set[str]) -> None:
        history = self.view.history
        for entry in list(history):
            if entry.text == CONTINUES:
                history.delete(entry.item_id)
        running = [call_id for call_id, result in self.ledger.results.items() if result is None]
        history.close_calls(NEVER_RUN, running=running)
        events = replay(history, results=self.ledger.results, unfinished=unfinished, wordless=self.utterances.wordless)
        if events:
            note = Item.system_text(CONTINUES, id=history.new_id("resumed"))
            history.add(note)
            events.append(ConversationItemCreate(item=note))
        self._create(events)

    def _create(self, events: list[ConversationItemCreate]) -> None:
        self.view.history.told({event.item.id or "" for event in events})
        self.outbox.send_all(events)

    def _has_words(self, speaking: Speaking) -> bool:
        entries = (self.view.history.get(item_id) for item_id in speaking.item_ids)
        return any(entry is not None and entry.text for entry in entries)
