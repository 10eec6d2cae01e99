"""The conversation actor, the conductor: server events, heard positions, tool results and commands come in here;
what is sent, played, run and reported is decided here, each decision in one synchronous step.

The invariant: a response that was interrupted has no effect after that step: no sound of it is played or delivered,
no tool of it begins, and the model is told exactly what was heard.
"""

from __future__ import annotations

import math

import attrs
import trio

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.agent_change import AgentChange, Change
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.answers import Answers
from trio_voice.asking import Asking
from trio_voice.barge_in import BargeIn
from trio_voice.channels import (
    Checked,
    CheckText,
    Command,
    EventFanOut,
    FromServer,
    InboxItem,
    Interrupted,
    LinkDown,
    LinkUp,
    PlaybackItem,
    Send,
    TurnPlayed,
    TurnStarted,
    VoiceHeard,
    at_hand,
)
from trio_voice.commands import Commands
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import ConfigError
from trio_voice.guarding import Guarding
from trio_voice.handoffs import Handoffs
from trio_voice.history_edits import HistoryEdits
from trio_voice.initiative import Initiative
from trio_voice.interruption import InterruptionJudge, as_told
from trio_voice.logs import log
from trio_voice.mcp_tools import McpTools
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.pauses import FillerWatch, IdleWatch
from trio_voice.protocol import (
    ResponseCreate,
    ServerEvent,
    SessionUpdate,
    server_events as on,
)
from trio_voice.protocol.codec import RemoteProtocolError, UnknownEvent
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.resumption import Resumption
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_calls import ToolCalls
from trio_voice.tool_items import ToolItem
from trio_voice.tool_offer import ToolOffer
from trio_voice.transcripts import Transcripts
from trio_voice.usage import of_transcription
from trio_voice.user_turn import UserTurn
from trio_voice.utterances import Utterances

VOICE = (on.ResponseOutputAudioDelta, on.ResponseOutputAudioTranscriptDelta, on.ResponseOutputAudioDone)
"""Sound may take the short way past the conversation; its words do not."""
HARMLESS_ERRORS = {"response_cancel_not_active", "conversation_already_has_active_response"}


async def run(
    inbox: trio.MemoryReceiveChannel[InboxItem],
    *,
    playback: trio.MemorySendChannel[PlaybackItem] | None,
    tool_calls: trio.MemorySendChannel[ToolItem],
    checks: trio.MemorySendChannel[CheckText],
    fan_out: EventFanOut,
    view: ConversationView,
    in_charge: AgentInCharge,
    native_resume: bool = False,
) -> None:
    """Conduct until `inbox` is closed. `native_resume`: the server keeps the conversation through a loss.

    Raises: `ConfigError` when the server refuses the configuration, or there can be none.
    Closes: its sending ends, and every event stream.
    """
    agent = in_charge.agent
    outbox = Outbox(playback, tool_calls, fan_out, checks, unconfirmed={} if native_resume else None)
    detection = ServerDetection(as_told(agent.interruption, agent.turn_detection))
    barge_in = BargeIn(outbox, view.history, view.tracker, detection)
    microphone, tools = MicrophoneGate(outbox, view, agent), ToolCalls(outbox, view.tracker, barge_in, view.history)
    utterances = Utterances(agent.turn_detection is None, view.history.new_id)
    conductor = _Conductor(outbox, view, in_charge, barge_in, microphone, tools, utterances, detection)
    try:
        with inbox:
            while True:
                item = await _receive(inbox, conductor.deadline)
                conductor.take(item) if item is not None else conductor.look()
                for waiting in at_hand(inbox):
                    conductor.take(waiting)
    except trio.EndOfChannel:
        pass
    finally:
        outbox.close()


async def _receive(inbox: trio.MemoryReceiveChannel[InboxItem], deadline: float) -> InboxItem | None:
    """The next item; None when `deadline` comes first."""
    if deadline == math.inf:
        return await inbox.receive()
    with trio.move_on_at(deadline):
        return await inbox.receive()
    return None


@attrs.define(eq=False)
class _Conductor:
    outbox: Outbox
    view: ConversationView
    in_charge: AgentInCharge
    barge_in: BargeIn
    microphone: MicrophoneGate
    tools: ToolCalls
    utterances: Utterances
    detection: ServerDetection
    epoch: int = 0
    """Of the connection that is listened to."""
    successor: LinkUp | None = None
    """A connection that is to take its place."""
    successor_agent: RealtimeAgent | None = None
    """Whom it was configured for."""
    configured_epoch: int = 0
    """The newest connection whose server has taken the configuration."""

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
        self.change = AgentChange(outbox, self.in_charge, self.detection, self._agent_changed)
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

    @property
    def deadline(self) -> float:
        """When to `look`, unless something comes before."""
        return min(self.user.judge.deadline, self.initiative.deadline)

    def look(self) -> None:
        """The deadline has come."""
        self.user.look()
        self.guarding.ask()
        self.initiative.look()
        self._show()

    # --- dispatch ---------------------------------------------------------------------------------

    def take(self, item: InboxItem) -> None:
        """Synchronous: whatever follows from an item happens before the next one is looked at."""
        match item:
            case FromServer(epoch, turn, event):
                if epoch == self.epoch:
                    self._server_event(turn, event)
                elif self.successor is not None and epoch == self.successor.epoch:
                    self._successor_event(self.successor, event)
            case LinkUp():
                self._link_up(item)
            case LinkDown():
                self._link_down(item)
            case TurnStarted(turn):
                self.view.tracker.agent_heard(self.outbox.now)
                self.outbox.emit(events.PlaybackStart(at=self.outbox.now, turn=turn))
            case TurnPlayed():
                self.answers.played(item)
                self.guarding.heard(item.turn)
                self._speak_of_tools()
            case Interrupted():
                self.barge_in.silenced(item, self.answers.speaking)
                self.commands.carry_out_postponed()
            case Checked():
                self.guarding.checked(item)
            case VoiceHeard(change):
                self.user.voice_heard(change)
            case Command():
                self.commands.carry_out(item)
                self._speak_of_tools()
            case McpTools():
                self.offer.take(item, self.answers.newest_turn)
            case events.DeviceLost() | events.DeviceRestored():
                self.outbox.emit(item)
            case _:  # the news of tools
                self.tools.take(item)
                self._speak_of_tools()
        if self.detection.held and self.view.connected and not self.user.uninterruptible and not self.user.is_speaking:
            self.asking.release()
        self.guarding.ask()
        self.initiative.watch()
        if self.view.history.changes:
            self._tell_changes()
        self._show()

    def _show(self) -> None:
        self.view.turn_in_progress = self._turn_in_progress
        self.view.awaiting_server = self.arbiter.asked or self.arbiter.active
        self.view.dropped_control = self.outbox.dropped_control
        self.view.lost_utterances = self.utterances.lost

    def _tell_changes(self) -> None:
        now = self.outbox.now
        for change, entry in self.view.history.take_changes():
            entry.at = now if entry.at is None else entry.at
            after = self.view.history.before(entry.item_id)
            self.outbox.emit(events.HistoryChanged(at=now, change=change, item=entry.shown(), after=after))

    @property
    def _turn_in_progress(self) -> bool:
        sounding = self.barge_in.is_sounding(self.answers.speaking) or self.barge_in.under_way
        speaking = sounding or self.arbiter.active
        processing = self.view.phase is SessionState.PROCESSING
        holding = self.utterances.push_to_talk and self.microphone.listening
        listening = self.user.is_speaking or holding
        owed = self.guarding.owed is not None or self.change.under_way
        return listening or processing or speaking or owed or self.tools.ledger.running or self.arbiter.asked

    # --- the connection ---------------------------------------------------------------------------

    def _link_up(self, news: LinkUp) -> None:
        configure = SessionUpdate(event_id=f"configure_{news.epoch}", session=self._configuration())
        if news.handover is not None:
            self.successor, self.successor_agent = news, self.in_charge.agent
            news.control.send_nowait(Send(configure))
            return
        if self.view.connected:  # the news of the loss was about a connection that had just been replaced
            self._connection_gone()
        self.successor = None
        self._move_to(news)
        self.outbox.configure(configure)

    def _configuration(self) -> SessionConfig:
        """Of the agent in charge. Where it cannot be made any more, what the last server was told holds."""
        try:
            self.in_charge.told = self.in_charge.configuration()
        except ConfigError as problem:
            if self.in_charge.told is None:
                raise
            self.outbox.report(str(problem), code=None, source="session")
        return self.in_charge.told

    def _successor_event(self, news: LinkUp, event: object) -> None:
        """The new connection is configured: move to it, unless something is going on."""
        if news.handover is None or not isinstance(event, on.SessionUpdated | on.ErrorEvent):
            return
        self.successor = None
        in_progress = self.view.turn_in_progress
        if isinstance(event, on.SessionUpdated) and (news.handover.forced or not in_progress):
            if in_progress:
                self._connection_gone()
            self._move_to(news)
            self._configured(event.session.id or "")
            news.handover.accepted = True
            if self.successor_agent is not self.in_charge.agent:  # who has taken over on the old one meanwhile
                self.change.ask(Change(self.in_charge.agent, lambda problem: None))
        else:
            news.control.close()
        news.handover.answered.set()

    def _move_to(self, news: LinkUp) -> None:
        self.epoch, self.resumption.remembers = news.epoch, news.remembers
        self.barge_in.epoch = 0
        self.outbox.connect(news.control)
        self.utterances.connect(news.sent)

    def _link_down(self, news: LinkDown) -> None:
        if news.epoch != self.epoch:
            return
        log.info("wire.lost", epoch=news.epoch, reason=news.reason, attempt=news.attempt)
        self.outbox.connect(None)
        self.view.connected, self.successor = False, None
        self._connection_gone()
        if news.attempt is not None:
            now, attempt, delay_ms = self.outbox.now, news.attempt, news.delay_ms
            self.outbox.emit(events.Reconnecting(at=now, reason=news.reason, attempt=attempt, delay_ms=delay_ms))

    def _connection_gone(self) -> None:
        """Note what the user still waits for; what was under way will not be finished."""
        self.resumption.take_stock(self.answers.speaking)
        self.tools.hosted.connection_gone()
        self.answers.connection_gone()
        self.user.connection_gone()
        self.change.connection_gone()
        if self.view.phase is SessionState.PROCESSING and not self.resumption.response_owed:
            self.answers.settle()

    def _configured(self, session_id: str) -> None:
        resumed = self.configured_epoch > 0
        self.configured_epoch, self.view.connected, self.outbox.is_open = self.epoch, True, True
        self.barge_in.epoch = self.epoch
        self.detection.connected()
        self.view.session_id = session_id
        log.info("session.connected", session=session_id, resumed=resumed)
        self.outbox.emit(events.Connected(at=self.outbox.now, session_id=session_id, resumed=resumed))
        if resumed:
            self._resume_conversation()
        else:
            self.view.tracker.started_at = self.outbox.now
            self.view.phase = SessionState.CONNECTED
            self.view.ready.set()
            self.resumption.tell_earlier_session()
            self._greet(self.in_charge.agent)
            self.microphone.set()

    def _greet(self, agent: RealtimeAgent) -> None:
        if agent.greeting is not None:
            self.asking.say(agent.greeting, interruptible=agent.interruption.greeting)
        elif agent.greets_first:
            self.asking.speak(None, interruptible=agent.interruption.greeting)

    def _agent_changed(self) -> None:
        """Another agent is in charge: what listens, judges and runs goes by its settings."""
        agent = self.user.agent = self.microphone.agent = self.in_charge.agent
        self.initiative.follow(agent)
        self.user.judge.follow(agent.interruption, agent.turn_detection)
        self.offer.agent_changed(self.answers.newest_turn)
        self.handoffs.changed()

    def _resume_conversation(self) -> None:
        self.change.connected()
        self.resumption.tell(self.answers.speaking)
        asked = any(command.do in ("text", "respond") for command in self.commands.postponed)
        self.commands.carry_out_postponed()
        answered_anyway = asked or self.guarding.owed is not None or self.handoffs.pending is not None
        if self.resumption.response_owed and not answered_anyway:
            self.asking.respond(ResponseCreate())
        self.resumption.response_owed = False
        self.guarding.ask()
        self._speak_of_tools()

    # --- what the server says ---------------------------------------------------------------------

    def _server_event(self, turn: int | None, event: ServerEvent | UnknownEvent | RemoteProtocolError) -> None:
        if self.outbox.fan_out.wants_protocol:
            self.outbox.emit(events.ServerEventReceived(at=self.outbox.now, event=event))
        if turn is not None and self.answers.begun(turn, event, self.epoch):
            is_verbatim = self.answers.speaking is not None and self.answers.speaking.is_verbatim
            if not is_verbatim:
                self.resumption.response_owed = False
                self.tools.ledger.response_began()
            self.guarding.begun(turn)
        self.in_charge.has_spoken |= isinstance(event, VOICE)
        if isinstance(event, on.ResponseOutputAudioDelta):  # first: by far the most frequent
            if turn is not None and turn > self.barge_in.floor and self.outbox.fan_out.wants_audio:
                self.outbox.emit(
                    events.ResponseAudio(at=self.outbox.now, turn=turn, item_id=event.item_id, pcm=event.delta)
                )
            return
        self.outbox.confirm(event)
        entry = self.view.history.apply(event)
        if entry is not None and entry.kind == "message":
            self.view.tracker.item_seen(entry.item_id, self.outbox.now)
        if turn is None or turn > self.barge_in.floor:
            self.transcripts.take(event)
            self.guarding.take(turn, event)
        if self.tools.hosted.take(turn, event):
            self._speak_of_tools()
        match event:
            case on.SessionUpdated():
                if self.configured_epoch != self.epoch:
                    self._configured(event.session.id or "")
                elif self.detection.acknowledged():
                    self.change.taken()
                    self._speak_of_tools()
            case on.ErrorEvent():
                self._server_error(event)
            case RemoteProtocolError():
                self.outbox.report(f"the server sent what is no event: {event.reason}", code=None, source="protocol")
            case on.InputAudioBufferSpeechStarted():
                self.initiative.user_is_there()
                self.answers.cancel_when_created = None
                self.utterances.began(event.audio_start_ms)
                self.user.speech_started(event)
            case on.InputAudioBufferSpeechStopped():
                self.utterances.ended(event.item_id, event.audio_end_ms)
                self.user.speech_stopped(event)
            case on.InputAudioBufferCommitted() | on.InputAudioBufferTimeoutTriggered():
                if isinstance(event, on.InputAudioBufferCommitted):
                    self.utterances.committed(event.item_id)
                self.user.committed(event)
                if not self.user.is_dismissed(event.item_id):
                    self.guarding.forget()
            case on.ConversationItemInputAudioTranscriptionCompleted():
                self.utterances.words_known(event.item_id)
                self.view.tracker.transcription_used(
                    event.item_id, of_transcription(event.usage or None), self.outbox.now
                )
                if not (event.transcript and self.asking.answers) and self.view.phase is SessionState.PROCESSING:
                    self.answers.settle()  # a noise, or words that are only written down: no answer will come
                self._speak_of_tools()
            case on.ConversationItemInputAudioTranscriptionFailed():
                if not self.asking.answers and self.view.phase is SessionState.PROCESSING:
                    self.answers.settle()
            case on.ResponseOutputItemAdded():
                if turn is not None and event.item.type == "message" and event.item.id:
                    self.answers.item_added(turn, event.item.id)
            case on.ConversationItemAdded() | on.ConversationItemCreated():
                self.tools.ledger.arrived(event.item.call_id or event.item.id or "")
            case on.ResponseOutputAudioDone():
                self.barge_in.complete_items.add(event.item_id)
            case on.ResponseOutputItemDone():
                if event.item.type == "message" and event.item.id:
                    self.barge_in.complete_items.add(event.item.id)
                elif event.item.type == "function_call":
                    self.tools.called(turn or 0, event.item)
                    self._speak_of_tools()
            case on.ResponseDone():
                if turn is not None:
                    self.answers.done(turn, event)
                    self.guarding.made(turn)
                self._speak_of_tools()

    def _server_error(self, event: on.ErrorEvent) -> None:
        error = event.error
        if error.event_id == f"configure_{self.epoch}" and self.configured_epoch != self.epoch:
            raise ConfigError(f"the server refused the configuration: {error.message}")
        if self.change.refused(event):
            self._speak_of_tools()
            return
        if error.code == "conversation_already_has_active_response":
            if self.answers.speaking is not None:  # what began was not what we asked for
                self.answers.speaking.is_verbatim = False
            if self.arbiter.sent_id and self.answers.speaking is not None:
                self.user.uninterruptible.discard(self.answers.speaking.turn)
            self.arbiter.on_collision()
            self.asking.withdraw()
            self.guarding.collided()
        if error.code == "input_audio_buffer_commit_empty":
            self.utterances.refused()
            self.microphone.respond_on_commit = False
        if error.code not in HARMLESS_ERRORS:
            self.outbox.report(error.message or "unknown error", code=error.code or None, source="server")

    # --- tools ------------------------------------------------------------------------------------

    def _speak_of_tools(self) -> None:
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
