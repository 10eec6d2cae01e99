"""The conversation actor, the conductor: server events, heard positions, tool results and commands come in here;
what is sent, played, run and reported is decided here, each decision in one synchronous step.

The invariant: a response that was interrupted has no effect after that step: no sound of it is played or delivered,
no tool of it begins, and the model is told exactly what was heard.
"""

from __future__ import annotations

from typing import Literal, assert_never

import attrs
import trio
from msgspec import UNSET

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.barge_in import BargeIn, Cause, Speaking
from trio_voice.channels import (
    Command,
    EndTurn,
    EventFanOut,
    FromServer,
    Hold,
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
)
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import ConfigError
from trio_voice.logs import log
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.protocol import (
    ConversationItemCreate,
    Item,
    ResponseConfig,
    ResponseCreate,
    ServerEvent,
    SessionUpdate,
    server_events as on,
)
from trio_voice.protocol.codec import RemoteProtocolError, UnknownEvent
from trio_voice.protocol.resume import replay
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.tool_calls import ToolCalls

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
) -> None:
    """Conduct until `inbox` is closed.

    Raises: `ConfigError` when the server refuses the configuration.
    Closes: its sending ends, and every event stream.
    """
    outbox = Outbox(playback, tool_calls, fan_out)
    barge_in = BargeIn(outbox, view.history, view.tracker, agent)
    microphone, tools = MicrophoneGate(outbox, view, agent), ToolCalls(outbox, view.tracker, barge_in)
    conductor = _Conductor(outbox, view, agent, config, barge_in, microphone, tools)
    try:
        with inbox:
            async for item in inbox:
                conductor.take(item)
    finally:
        outbox.close()


@attrs.define(eq=False)
class _Conductor:
    outbox: Outbox
    view: ConversationView
    agent: RealtimeAgent
    config: SessionConfig
    barge_in: BargeIn

    microphone: MicrophoneGate
    tools: ToolCalls
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
    user_speaking: bool = False
    speech_started_ms: int = 0
    configured_epoch: int = 0
    """The newest connection whose server has taken the configuration."""
    response_owed: bool = False
    """The connection was lost while the user waited for an answer."""
    texts: int = 0
    """How many the application has sent; they carry ids of our own."""
    postponed: list[Command] = attrs.Factory(list)
    """What the application asked for in an outage; each caller waits, so they are as many as the callers."""

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
            case ToolStarted():
                self.tools.started(item)
            case ToolResult():
                self.tools.finished(item)
                self._answer_if_owed()
            case Command():
                self._command(item)
            case events.DeviceLost() | events.DeviceRestored():
                self.outbox.emit(item)
            case _:
                assert_never(item)
        self.view.turn_in_progress = self._turn_in_progress
        self.view.awaiting_server = self.arbiter.asked or self.arbiter.active
        self.view.dropped_control = self.outbox.dropped_control

    @property
    def _turn_in_progress(self) -> bool:
        speaking = self.speaking is not None and not (self.speaking.done and self.speaking.played)
        processing = self.view.phase is SessionState.PROCESSING
        return self.user_speaking or processing or speaking or self.tools.ledger.running or self.arbiter.asked

    # --- the connection ---------------------------------------------------------------------------

    def _link_up(self, news: LinkUp) -> None:
        configure = SessionUpdate(event_id=f"configure_{news.epoch}", session=self.config)
        if news.handover is not None:
            self.successor = news
            news.control.send_nowait(Send(configure))
            return
        if self.view.connected:  # the news of the loss was about a connection that had just been replaced
            self._connection_gone()
        self.epoch, self.successor = news.epoch, None
        self.outbox.connect(news.control)
        self.outbox.send(configure)

    def _successor_event(self, news: LinkUp, event: object) -> None:
        """The new connection is configured: move to it, unless something is going on."""
        if news.handover is None or not isinstance(event, on.SessionUpdated | on.ErrorEvent):
            return
        self.successor = None
        in_progress = self.view.turn_in_progress
        if isinstance(event, on.SessionUpdated) and (news.handover.forced or not in_progress):
            if in_progress:
                self._connection_gone()
            self.epoch = news.epoch
            self.outbox.connect(news.control)
            self._configured(event.session.id or "")
            news.handover.accepted = True
        else:
            news.control.close()
        news.handover.answered.set()

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
        # An utterance whose words never came is lost with the connection: there is nothing to answer.
        last = next((entry for entry in reversed(list(self.view.history)) if entry.kind == "message"), None)
        asked = last is not None and last.role == "user" and bool(last.text)
        waiting = self.arbiter.asked or (self.view.phase is SessionState.PROCESSING and asked)
        unheard = self.arbiter.active and self.speaking is not None and not self._words_of(self.speaking)
        self.response_owed = self.response_owed or waiting or unheard
        self.arbiter.on_connection_lost()
        self.user_speaking = self.microphone.respond_on_commit = self.cancel_when_created = False
        if self.view.phase is SessionState.PROCESSING and not self.response_owed:
            self._settle()
        if self.speaking is not None and not self.speaking.done:
            self.speaking.done = True
            self.outbox.play(EndTurn(self.speaking.turn))

    def _words_of(self, speaking: Speaking) -> bool:
        entries = (self.view.history.get(item_id) for item_id in speaking.item_ids)
        return any(entry is not None and entry.text for entry in entries)

    def _configured(self, session_id: str) -> None:
        resumed = self.configured_epoch > 0
        self.configured_epoch, self.view.connected = self.epoch, True
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
                self._respond(ResponseCreate())
        self.microphone.set()

    def _resume_conversation(self) -> None:
        for event in replay(
            self.view.history, self.tools.ledger.results, unfinished=self.barge_in.hold_back(self.speaking)
        ):
            self.outbox.send(event)
        postponed, self.postponed = self.postponed, []
        for command in postponed:
            self._command(command)
        if self.response_owed and not postponed:
            self._respond(ResponseCreate())
        self.response_owed = False
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
        entry = self.view.history.apply(event)
        if entry is not None and entry.kind == "message":
            self.view.tracker.item_seen(entry.item_id, self.outbox.now)
        match event:
            case on.SessionUpdated():
                if self.configured_epoch != self.epoch:
                    self._configured(event.session.id or "")
            case on.ErrorEvent():
                self._server_error(event)
            case RemoteProtocolError():
                self.outbox.report(f"the server sent what is no event: {event.reason}", code=None, source="protocol")
            case on.InputAudioBufferSpeechStarted():
                self._speech_started(event.audio_start_ms)
            case on.InputAudioBufferSpeechStopped():
                self._speech_stopped(event.audio_end_ms)
            case on.InputAudioBufferCommitted():
                if self.microphone.respond_on_commit:
                    self.microphone.respond_on_commit = False
                    self._respond(ResponseCreate())
            case on.ConversationItemInputAudioTranscriptionDelta():
                self._transcript("user", event.item_id, event.delta or "", final=False)
            case on.ConversationItemInputAudioTranscriptionCompleted():
                self._transcript("user", event.item_id, "", final=True)
                if not event.transcript and self.view.phase is SessionState.PROCESSING:
                    self._settle()  # a noise: no answer will come
                self._answer_if_owed()
            case on.ResponseOutputAudioTranscriptDelta() | on.ResponseOutputTextDelta():
                if turn is None or turn > self.barge_in.floor:
                    self._transcript("agent", event.item_id, event.delta, final=False)
            case on.ResponseOutputAudioTranscriptDone() | on.ResponseOutputTextDone():
                if turn is None or turn > self.barge_in.floor:
                    self._transcript("agent", event.item_id, "", final=True)
            case on.ResponseOutputItemAdded():
                if self.speaking is not None and turn == self.speaking.turn and event.item.type == "message":
                    self.speaking.item_ids.append(event.item.id or "")
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
            self.arbiter.on_collision()
        if error.code == "input_audio_buffer_commit_empty":
            self.microphone.respond_on_commit = False
        if error.code not in HARMLESS_ERRORS:
            self.outbox.report(error.message or "unknown error", code=error.code or None, source="server")

    def _transcript(self, role: Literal["user", "agent"], item_id: str, delta: str, *, final: bool) -> None:
        entry = self.view.history.get(item_id)
        text = entry.text if entry is not None else delta
        self.outbox.emit(
            events.Transcript(at=self.outbox.now, role=role, item_id=item_id, delta=delta, text=text, final=final)
        )

    # --- the user's voice -------------------------------------------------------------------------

    def _speech_started(self, audio_ms: int) -> None:
        self.user_speaking, self.speech_started_ms = True, audio_ms
        self.cancel_when_created = False
        self.outbox.emit(events.SpeechStart(at=self.outbox.now, audio_ms=audio_ms))
        detection = self.agent.turn_detection
        if detection is None or detection.interrupt_response is not False:
            self._interrupt("speech")
        self.view.tracker.user_began(self.outbox.now)
        self.view.phase = SessionState.LISTENING

    def _speech_stopped(self, audio_ms: int) -> None:
        self.user_speaking = False
        self.outbox.emit(events.SpeechEnd(at=self.outbox.now, audio_ms=audio_ms))
        self.view.tracker.user_ended(self.outbox.now, audio_ms - self.speech_started_ms)
        self.view.phase = SessionState.PROCESSING

    # --- responses --------------------------------------------------------------------------------

    def _respond(self, request: ResponseCreate) -> None:
        allowed = self.arbiter.request(request)
        if allowed is not None:
            self.outbox.send(allowed)

    def _notice(self, turn: int, event: object) -> None:
        """A turn begins with the first event that names it: not every server sends `response.created`."""
        if isinstance(event, on.ResponseCreated) and event.response.conversation_id is None:
            self.aside.add(turn)
        newest = self.speaking.turn if self.speaking is not None else 0
        if turn <= newest or turn in self.aside:
            return
        self.arbiter.on_created()
        self.tools.ledger.answer_owed = self.response_owed = False
        response_id = event.response.id or "" if isinstance(event, on.ResponseCreated) else ""
        self.speaking = Speaking(turn, response_id)
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
            self.outbox.report(f"the response failed: {_failure(response.status_details)}", code=None, source="server")
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

    def _interrupt(self, cause: Cause) -> bool:
        interrupted = self.barge_in.interrupt(self.speaking, cause)
        if interrupted:
            self.arbiter.drop_waiting()
            self._settle()
        return interrupted

    # --- tools ------------------------------------------------------------------------------------

    def _answer_if_owed(self) -> None:
        """Ask for the response that tells the user what the tools found: once, when all have answered."""
        ledger = self.tools.ledger
        free = self.view.connected and not self.user_speaking and not self.arbiter.active
        if free and ledger.answer_owed and not ledger.running:
            ledger.answer_owed = False
            self._respond(ResponseCreate())

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        if command.do in ("text", "respond") and not self.view.connected:
            self.postponed.append(command)  # until there is somebody to say it to
            return
        match command.do:
            case "interrupt":
                if not self._interrupt("manual"):
                    self.cancel_when_created = self.arbiter.asked or self.view.phase is SessionState.PROCESSING
                if self.barge_in.under_way:
                    self.barge_in.waiting.append(command)
                    return
            case "listen":
                self.microphone.listen(True)
            case "stop_listening":
                self.microphone.listen(False)
            case "mute" | "unmute":
                self.microphone.muted = command.do == "mute"
                self.microphone.set()
            case "pause" | "resume":
                self._pause(command.do == "pause")
            case "text":
                self._interrupt("manual")
                self.cancel_when_created = False
                self.view.tracker.user_began(self.outbox.now)
                self._say_in_writing(command.text)
                self.view.tracker.user_ended(self.outbox.now, 0.0)
                self._respond(ResponseCreate())
            case "respond":
                instructions = command.instructions
                config = ResponseConfig(instructions=instructions) if instructions is not None else UNSET
                self._respond(ResponseCreate(response=config))
            case _:
                assert_never(command.do)
        command.done.set()

    def _say_in_writing(self, text: str) -> None:
        """With an id of our own, and recorded at once: it survives a loss that comes before the server's echo."""
        self.texts += 1
        item_id = f"text_{self.texts}"
        item = Item.user_text(text, id=item_id)
        self.view.history.add(item)
        self.view.tracker.item_seen(item_id, self.outbox.now)
        self.outbox.send(ConversationItemCreate(item=item))

    def _pause(self, paused: bool) -> None:
        if paused == self.view.paused:
            return
        self.view.paused = paused
        self.microphone.set()
        self.outbox.play(Hold(paused))
        now = self.outbox.now
        self.outbox.emit(events.Paused(at=now) if paused else events.Resumed(at=now))

    def _settle(self) -> None:
        """Nobody speaks, and nothing is awaited."""
        self.view.phase = SessionState.LISTENING if self.microphone.listening else SessionState.CONNECTED


def _failure(details: object) -> str:
    error = getattr(details, "error", None)
    return getattr(error, "message", None) or getattr(error, "code", None) or "the server gave no reason"
