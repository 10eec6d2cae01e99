"""The parts of the conversation, put together: what is one thing each, and what concerns several of them.

Each part decides one thing, in synchronous steps; `conversation.py` gives them what comes, `connections.py` the
connections that come and go.
"""

from __future__ import annotations

import attrs

from trio_voice import events
from trio_voice.agent_change import AgentChange, Change
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.answers import Answers
from trio_voice.asking import Asking
from trio_voice.barge_in import BargeIn
from trio_voice.commands import Commands
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.forgetting import Forgetting
from trio_voice.guarding import Guarding
from trio_voice.handoffs import Handoffs
from trio_voice.history_edits import HistoryEdits
from trio_voice.initiative import Initiative
from trio_voice.interruption import InterruptionJudge
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.pauses import FillerWatch, IdleWatch
from trio_voice.protocol import (
    ResponseCreate,
)
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.resumption import Resumption
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_calls import ToolCalls
from trio_voice.tool_offer import ToolOffer
from trio_voice.transcripts import Transcripts
from trio_voice.user_turn import UserTurn
from trio_voice.utterances import Utterances


@attrs.define(eq=False)
class Parts:
    """Of one conversation."""

    outbox: Outbox
    view: ConversationView
    in_charge: AgentInCharge
    barge_in: BargeIn
    microphone: MicrophoneGate
    tools: ToolCalls
    utterances: Utterances
    detection: ServerDetection
    history_turns: int | None = None

    arbiter: ResponseArbiter = attrs.Factory(ResponseArbiter)
    asking: Asking = attrs.field(init=False)
    answers: Answers = attrs.field(init=False)
    user: UserTurn = attrs.field(init=False)
    change: AgentChange = attrs.field(init=False)
    handoffs: Handoffs = attrs.field(init=False)
    commands: Commands = attrs.field(init=False)
    offer: ToolOffer = attrs.field(init=False)
    resumption: Resumption = attrs.field(init=False)
    initiative: Initiative = attrs.field(init=False)
    transcripts: Transcripts = attrs.field(init=False)
    guarding: Guarding = attrs.field(init=False)
    forgetting: Forgetting | None = None

    def __attrs_post_init__(self) -> None:
        outbox, view, barge_in, microphone = self.outbox, self.view, self.barge_in, self.microphone
        agent = self.in_charge.agent
        self.asking = Asking(outbox, view, self.arbiter, self.detection, answers=not agent.transcribes_only)
        self.answers = Answers(outbox, view, barge_in, microphone, self.asking, self.arbiter)
        self.user = self.answers.user = UserTurn(
            outbox,
            view,
            agent,
            barge_in,
            microphone,
            self.detection,
            speaking=lambda: self.answers.speaking,
            interrupt=self.answers.interrupt,
            respond=self.asking.respond,
            judge=InterruptionJudge.for_detection(agent.interruption, agent.turn_detection),
        )
        self.change = AgentChange(outbox, self.in_charge, self.detection, self.agent_changed)
        self.offer = ToolOffer(outbox, self.in_charge, self.detection)
        self.initiative = Initiative(
            outbox,
            view,
            barge_in,
            microphone,
            self.tools.ledger,
            self.asking,
            self.answers,
            self.user,
            IdleWatch(agent.idle_prompts),
            FillerWatch(agent.filler),
        )
        self.handoffs = self.tools.handoffs = Handoffs(
            outbox, view.history, self.answers, self.in_charge, self.change, self.tools.finish
        )
        self.resumption = Resumption(
            outbox, view, barge_in, microphone, self.tools.ledger, self.utterances, self.asking, self.initiative
        )
        self.commands = Commands(
            outbox,
            view,
            barge_in,
            microphone,
            self.asking,
            self.answers,
            self.user,
            HistoryEdits(outbox, view, barge_in, self.tools.ledger, self.asking, self.answers, self.resumption),
            self.change,
            self.initiative,
        )
        self.commands.hosted = self.tools.hosted
        self.guarding = self.commands.guarding = Guarding(
            outbox,
            view,
            self.answers,
            self.asking,
            self.user,
            in_charge=lambda: self.in_charge.agent,
            instructions=lambda: self.in_charge.standing_instructions,
            carry_out=self.commands.carry_out,
        )
        self.transcripts = Transcripts(outbox, view.history, self.user)
        if self.history_turns is not None:
            self.forgetting = Forgetting(
                outbox,
                view.history,
                view.tracker,
                barge_in,
                self.answers,
                self.tools,
                self.utterances,
                self.history_turns,
            )

    def show(self) -> None:
        self.view.turn_in_progress = self.turn_in_progress
        self.view.awaiting_server = self.arbiter.asked or self.arbiter.active
        self.view.dropped_control = self.outbox.dropped_control
        self.view.lost_utterances = self.utterances.lost

    def tell_changes(self) -> None:
        now = self.outbox.now
        for change, entry in self.view.history.take_changes():
            entry.at = now if entry.at is None else entry.at
            after = self.view.history.before(entry.item_id)
            self.outbox.emit(events.HistoryChanged(at=now, change=change, item=entry.shown(), after=after))

    @property
    def turn_in_progress(self) -> bool:
        sounding = self.barge_in.is_sounding(self.answers.speaking) or self.barge_in.under_way
        speaking = sounding or self.arbiter.active
        processing = self.view.phase is SessionState.PROCESSING
        holding = self.utterances.push_to_talk and self.microphone.listening
        listening = self.user.is_speaking or holding
        owed = self.guarding.owed is not None or self.change.under_way
        return listening or processing or speaking or owed or self.tools.ledger.running or self.arbiter.asked

    def agent_changed(self, change: Change) -> None:
        """Another agent is in charge: what listens, judges and runs goes by its settings."""
        agent = self.user.agent = self.microphone.agent = self.in_charge.agent
        self.view.log_context.agent = agent.name
        self.initiative.follow(agent)
        self.user.judge.follow(agent.interruption, agent.turn_detection)
        self.offer.agent_changed(self.answers.newest_turn)
        self.handoffs.changed(change.call_id)

    def speak_of_tools(self) -> None:
        """Ask for the response that tells the user what the tools found: once, when all have answered. Until then for
        what one of them says of its progress."""
        ledger = self.tools.ledger
        if not self.view.connected or self.user.is_speaking or self.arbiter.active or self.arbiter.asked:
            return
        if ledger.owed and not ledger.running:
            ledger.response_asked()
            self.asking.respond(ResponseCreate())
        elif self.view.phase is not SessionState.RESPONDING and (progress := self.tools.due_progress()) is not None:
            self.asking.fill(progress)
