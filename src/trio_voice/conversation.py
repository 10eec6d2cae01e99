"""The conversation actor, the conductor: server events, heard positions, tool results and commands come in here;
what is sent, played, run and reported is decided here, each decision in one synchronous step.

The invariant: a response that was interrupted has no effect after that step: no sound of it is played or delivered,
no tool of it begins, and the model is told exactly what was heard.
"""

from __future__ import annotations

import math
from typing import assert_never

import attrs
import trio

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.asking import Asking, failure_of
from trio_voice.barge_in import BargeIn, Cause, Speaking
from trio_voice.channels import (
    Command,
    EndTurn,
    EventFanOut,
    FromServer,
    InboxItem,
    Interrupted,
    LinkDown,
    LinkUp,
    PlaybackItem,
    Send,
    ToolItem,
    ToolResult,
    ToolStarted,
    TurnPlayed,
    TurnStarted,
    VoiceHeard,
    at_hand,
)
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import ConfigError
from trio_voice.interruption import InterruptionJudge, as_told
from trio_voice.logs import log
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
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
from trio_voice.transcripts import Transcripts
from trio_voice.user_turn import UserTurn
from trio_voice.utterances import Utterances

HARMLESS_ERRORS = {"response_cancel_not_active", "conversation_already_has_active_response"}


async def run(
    inbox: trio.MemoryReceiveChannel[InboxItem],
    *,
    playback: trio.MemorySendChannel[PlaybackItem] | None,
    tool_calls: trio.MemorySendChannel[ToolItem],
    fan_out: EventFanOut,
    view: ConversationView,
    agent: RealtimeAgent,
    config: SessionConfig,
    native_resume: bool = False,
) -> None:
    """Conduct until `inbox` is closed. `native_resume`: the server keeps the conversation through a loss.

    Raises: `ConfigError` when the server refuses the configuration.
    Closes: its sending ends, and every event stream.
    """
    outbox = Outbox(playback, tool_calls, fan_out, unconfirmed={} if native_resume else None)
    detection = ServerDetection(as_told(agent.interruption, agent.turn_detection))
    barge_in = BargeIn(outbox, view.history, view.tracker, detection)
    microphone, tools = MicrophoneGate(outbox, view, agent), ToolCalls(outbox, view.tracker, barge_in)
    utterances = Utterances(push_to_talk=agent.turn_detection is None)
    conductor = _Conductor(outbox, view, agent, config, barge_in, microphone, tools, utterances, detection)
    try:
        with inbox:
            while True:
                item = await _receive(inbox, conductor.user.judge.deadline)
                conductor.take(item) if item is not None else conductor.user.look()
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
    agent: RealtimeAgent
    config: SessionConfig
    barge_in: BargeIn
    microphone: MicrophoneGate
    tools: ToolCalls
    utterances: Utterances
    detection: ServerDetection
    epoch: int = 0
    """Of the connection that is listened to."""
    successor: LinkUp | None = None
    """A connection that is to take its place."""
    arbiter: ResponseArbiter = attrs.Factory(ResponseArbiter)
    speaking: Speaking | None = None
    aside: set[int] = attrs.Factory(set)
    """Responses out of band: they say nothing in this conversation."""
    cancel_when_created: bool = False
    """Interrupted by command before the answer began. Cleared when the user says something new."""
    configured_epoch: int = 0
    """The newest connection whose server has taken the configuration."""
    postponed: list[Command] = attrs.Factory(list)
    """What the application asked for when it could not be; each caller waits, so they are as many as the callers."""

    asking: Asking = attrs.field(init=False)
    user: UserTurn = attrs.field(init=False)
    resumption: Resumption = attrs.field(init=False)
    transcripts: Transcripts = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.asking = Asking(self.outbox, self.view, self.arbiter, self.detection)
        self.user = UserTurn(
            self.outbox,
            self.view,
            self.agent,
            self.barge_in,
            self.microphone,
            self.detection,
            speaking=lambda: self.speaking,
            interrupt=self._interrupt,
            respond=self.asking.respond,
            judge=InterruptionJudge.for_detection(self.agent.interruption, self.agent.turn_detection),
        )
        self.transcripts = Transcripts(self.outbox, self.view.history, self.user)
        self.resumption = Resumption(
            self.outbox, self.view, self.barge_in, self.microphone, self.tools.ledger, self.utterances, self.arbiter
        )

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
                self._turn_played(item)
            case Interrupted():
                self.barge_in.silenced(item, self.speaking)
                self._carry_out_postponed()
            case ToolStarted():
                self.tools.started(item)
            case ToolResult():
                self.tools.finished(item)
                self._answer_if_owed()
            case VoiceHeard(change):
                self.user.voice_heard(change)
            case Command():
                self._command(item)
            case events.DeviceLost() | events.DeviceRestored():
                self.outbox.emit(item)
            case _:
                assert_never(item)
        if self.detection.held and self.view.connected and not self.user.uninterruptible and not self.user.is_speaking:
            self.asking.release()
        self.view.turn_in_progress = self._turn_in_progress
        self.view.awaiting_server = self.arbiter.asked or self.arbiter.active
        self.view.dropped_control = self.outbox.dropped_control
        self.view.lost_utterances = self.utterances.lost

    @property
    def _turn_in_progress(self) -> bool:
        speaking = self.speaking is not None and not (self.speaking.done and self.speaking.played)
        processing = self.view.phase is SessionState.PROCESSING
        holding = self.utterances.push_to_talk and self.microphone.listening
        listening = self.user.is_speaking or holding
        return listening or processing or speaking or self.tools.ledger.running or self.arbiter.asked

    # --- the connection ---------------------------------------------------------------------------

    def _link_up(self, news: LinkUp) -> None:
        configure = SessionUpdate(event_id=f"configure_{news.epoch}", session=self.config)
        if news.handover is not None:
            self.successor = news
            news.control.send_nowait(Send(configure))
            return
        if self.view.connected:  # the news of the loss was about a connection that had just been replaced
            self._connection_gone()
        self.successor = None
        self._move_to(news)
        self.outbox.configure(configure)

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
        self.resumption.take_stock(self.speaking)
        self.arbiter.on_connection_lost()
        self.cancel_when_created = False
        self.user.connection_gone()
        if self.view.phase is SessionState.PROCESSING and not self.resumption.response_owed:
            self._settle()
        if self.speaking is not None and not self.speaking.done:
            self.speaking.done = True
            self.outbox.play(EndTurn(self.speaking.turn))

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
            if self.agent.greets_first:
                self.asking.speak(None, interruptible=self.agent.interruption.greeting)
            self.microphone.set()

    def _resume_conversation(self) -> None:
        self.resumption.tell(self.speaking)
        asked = bool(self.postponed)
        self._carry_out_postponed()
        if self.resumption.response_owed and not asked:
            self.asking.respond(ResponseCreate())
        self.resumption.response_owed = False
        self._answer_if_owed()

    # --- what the server says ---------------------------------------------------------------------

    def _server_event(self, turn: int | None, event: ServerEvent | UnknownEvent | RemoteProtocolError) -> None:
        if self.outbox.fan_out.wants_protocol:
            self.outbox.emit(events.ServerEventReceived(at=self.outbox.now, event=event))
        if turn is not None:
            self._notice(turn, event)
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
        match event:
            case on.SessionUpdated():
                if self.configured_epoch != self.epoch:
                    self._configured(event.session.id or "")
                else:
                    self.detection.acknowledged()
            case on.ErrorEvent():
                self._server_error(event)
            case RemoteProtocolError():
                self.outbox.report(f"the server sent what is no event: {event.reason}", code=None, source="protocol")
            case on.InputAudioBufferSpeechStarted():
                self.cancel_when_created = False
                self.utterances.began(event.audio_start_ms)
                self.user.speech_started(event)
            case on.InputAudioBufferSpeechStopped():
                self.utterances.ended(event.item_id, event.audio_end_ms)
                self.user.speech_stopped(event)
            case on.InputAudioBufferCommitted() | on.InputAudioBufferTimeoutTriggered():
                if isinstance(event, on.InputAudioBufferCommitted):
                    self.utterances.committed(event.item_id)
                self.user.committed(event)
            case on.ConversationItemInputAudioTranscriptionCompleted():
                self.utterances.words_known(event.item_id)
                if not event.transcript and self.view.phase is SessionState.PROCESSING:
                    self._settle()  # a noise: no answer will come
                self._answer_if_owed()
            case on.ResponseOutputItemAdded():
                if turn is not None and turn not in self.aside and event.item.type == "message" and event.item.id:
                    self.barge_in.item_added(turn, event.item.id, self.speaking)
            case on.ResponseOutputAudioDone():
                self.barge_in.complete_items.add(event.item_id)
            case on.ResponseOutputItemDone():
                if event.item.type == "message" and event.item.id:
                    self.barge_in.complete_items.add(event.item.id)
                elif event.item.type == "function_call":
                    self.tools.called(turn or 0, event.item)
                    self._answer_if_owed()
            case on.ResponseDone():
                self._response_done(turn, event)

    def _server_error(self, event: on.ErrorEvent) -> None:
        error = event.error
        if error.event_id == f"configure_{self.epoch}" and self.configured_epoch != self.epoch:
            raise ConfigError(f"the server refused the configuration: {error.message}")
        if error.code == "conversation_already_has_active_response":
            if self.arbiter.sent_id and self.speaking is not None:  # the response that began was not that one
                self.user.uninterruptible.discard(self.speaking.turn)
            self.arbiter.on_collision()
        if error.code == "input_audio_buffer_commit_empty":
            self.utterances.refused()
            self.microphone.respond_on_commit = False
        if error.code not in HARMLESS_ERRORS:
            self.outbox.report(error.message or "unknown error", code=error.code or None, source="server")

    # --- responses --------------------------------------------------------------------------------

    def _notice(self, turn: int, event: object) -> None:
        """A turn begins with the first event that names it: not every server sends `response.created`."""
        if isinstance(event, on.ResponseCreated) and event.response.conversation_id is None:
            self.aside.add(turn)
        newest = self.speaking.turn if self.speaking is not None else 0
        if turn <= newest or turn in self.aside:
            return
        if self.asking.begins_marked:
            self.user.uninterruptible.add(turn)
        self.arbiter.on_created()
        self.tools.ledger.answer_owed = self.resumption.response_owed = False
        response_id = event.response.id or "" if isinstance(event, on.ResponseCreated) else ""
        self.speaking = Speaking(turn, response_id, self.epoch)
        self.view.tracker.response_began(self.outbox.now)
        self.view.phase = SessionState.RESPONDING
        self.outbox.fan_out.open_turn = turn
        self.outbox.emit(events.ResponseStart(at=self.outbox.now, turn=turn, response_id=response_id))
        if self.cancel_when_created:
            self.cancel_when_created = False
            self._interrupt("manual")

    def _response_done(self, turn: int | None, event: on.ResponseDone) -> None:
        response = event.response
        if turn is None or turn in self.aside:
            return
        status = response.status or "completed"
        following = self.arbiter.on_done()
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.done = True
            if not self.outbox.speaks:
                self.barge_in.complete_items.clear()
                self._finished(turn)
        self.outbox.play(EndTurn(turn))
        self.outbox.emit(
            events.ResponseEnd(at=self.outbox.now, turn=turn, response_id=response.id or "", status=status)
        )
        if status == "failed":
            self.outbox.report(
                f"the response failed: {failure_of(response.status_details)}", code=None, source="server"
            )
        if following is not None:
            self.outbox.send(following)
        self._answer_if_owed()

    def _turn_played(self, item: TurnPlayed) -> None:
        heard_ms = sum(position.heard_ms for position in item.positions)
        self.view.tracker.agent_played(self.outbox.now, heard_ms)
        if heard_ms:
            self.outbox.emit(events.PlaybackEnd(at=self.outbox.now, turn=item.turn))
        self._finished(item.turn)
        self.barge_in.played(item.positions, self.speaking)

    def _finished(self, turn: int) -> None:
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.played = True
            if self.view.phase is SessionState.RESPONDING:
                self._settle()
        self.user.turn_over(turn)

    def _interrupt(self, cause: Cause) -> bool:
        reported = cause == "speech" and self.user.is_speaking
        interrupted = self.barge_in.interrupt(self.speaking, cause, reported=reported)
        if interrupted:
            self.arbiter.drop_waiting(but_marked=cause == "speech")
            self._settle()
            self.user.silenced()
        return interrupted

    # --- tools ------------------------------------------------------------------------------------

    def _answer_if_owed(self) -> None:
        """Ask for the response that tells the user what the tools found: once, when all have answered."""
        ledger = self.tools.ledger
        free = self.view.connected and not self.user.is_speaking and not self.arbiter.active
        if free and ledger.answer_owed and not ledger.running:
            ledger.answer_owed = False
            self.asking.respond(ResponseCreate())

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        if command.do == "text" and self.view.connected and not self.user.uninterruptible:
            self._interrupt("manual")
        if command.do in ("text", "respond") and not self._may_ask:
            self.postponed.append(command)
            return
        match command.do:
            case "interrupt":
                if not self._interrupt("manual"):
                    self.cancel_when_created = self.arbiter.asked or self.view.phase is SessionState.PROCESSING
                if self.barge_in.under_way:
                    self.barge_in.waiting.append(command)
                    return
            case "listen":
                self.user.pressed()
                self.microphone.listen(True)
            case "stop_listening":
                self.microphone.listen(False)
            case "mute" | "unmute":
                self.microphone.muted = command.do == "mute"
                self.microphone.set()
            case "pause" | "resume":
                self.microphone.pause(command.do == "pause")
            case "text":
                self.cancel_when_created = False
                self.view.tracker.user_began(self.outbox.now)
                self.asking.write(command.text)
                self.view.tracker.user_ended(self.outbox.now, 0.0)
                self.asking.respond(ResponseCreate())
            case "respond":
                self.asking.speak(command.instructions, interruptible=command.interruptible)
            case _:
                assert_never(command.do)
        command.done.set()

    @property
    def _may_ask(self) -> bool:
        """There is a server, and it has been told what was heard of the answer before."""
        return self.view.connected and not self.barge_in.under_way

    def _carry_out_postponed(self) -> None:
        postponed, self.postponed = self.postponed, []
        for command in postponed:
            self._command(command)

    def _settle(self) -> None:
        """Nobody speaks, and nothing is awaited."""
        self.view.phase = SessionState.LISTENING if self.microphone.listening else SessionState.CONNECTED
