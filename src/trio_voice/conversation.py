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
from trio_voice.channels import (
    CancelTurn,
    Command,
    EndTurn,
    EventFanOut,
    FromServer,
    Hold,
    InboxItem,
    Interrupt,
    Interrupted,
    LinkDown,
    LinkUp,
    PlaybackItem,
    RunTool,
    Send,
    SetMicrophone,
    ToolItem,
    ToolResult,
    ToolStarted,
    TurnPlayed,
    TurnStarted,
    UplinkItem,
)
from trio_voice.config import SessionState
from trio_voice.errors import ConfigError
from trio_voice.logs import log
from trio_voice.protocol import (
    ClientEvent,
    ConversationItemCreate,
    Item,
    ResponseConfig,
    ResponseCreate,
    SessionUpdate,
    server_events as on,
)
from trio_voice.protocol.codec import RemoteProtocolError
from trio_voice.protocol.history import History
from trio_voice.protocol.resume import replay
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.protocol.truncation import plan_truncation
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.tool_ledger import ToolLedger
from trio_voice.tracker import ConversationTracker, ToolUse

CLOSING_SILENCE_MS = 1500
"""Sent after listening stops: a server's voice detection waits for silence to end the utterance."""

HARMLESS_ERRORS = {"response_cancel_not_active", "conversation_already_has_active_response"}


async def run(
    inbox: trio.MemoryReceiveChannel[InboxItem],
    *,
    control: trio.MemorySendChannel[UplinkItem],
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
    conductor = _Conductor(control, playback, tool_calls, fan_out, view, agent, config)
    try:
        with inbox, control, tool_calls:
            async for item in inbox:
                conductor.take(item)
    finally:
        if playback is not None:
            playback.close()


@attrs.define(eq=False)
class ConversationView:
    """What the session shows its application. Written by the conversation alone, read by the session."""

    history: History
    tracker: ConversationTracker
    state: SessionState = SessionState.INITIALIZING
    session_id: str = ""
    ready: trio.Event = attrs.Factory(trio.Event)
    """The server has taken the configuration."""


@attrs.define(eq=False)
class _Speaking:
    """The response that is being made or played."""

    turn: int
    response_id: str
    item_ids: list[str] = attrs.Factory(list)
    """Its messages."""
    done: bool = False
    played: bool = False


@attrs.define(eq=False)
class _Conductor:
    control: trio.MemorySendChannel[UplinkItem]
    playback: trio.MemorySendChannel[PlaybackItem] | None
    tool_calls: trio.MemorySendChannel[ToolItem]
    fan_out: EventFanOut
    view: ConversationView
    agent: RealtimeAgent
    config: SessionConfig

    epoch: int = 0
    arbiter: ResponseArbiter = attrs.Factory(ResponseArbiter)
    speaking: _Speaking | None = None
    complete_items: set[str] = attrs.Factory(set)
    """Items of which the server has sent all, and which are not yet played."""
    aside: set[int] = attrs.Factory(set)
    """Responses out of band: they say nothing in this conversation."""
    floor: int = 0
    """Turns at or below it were interrupted."""
    silenced: int = 0
    """Turns at or below it were interrupted by command: what their tools find is told the model, but not spoken of."""
    cancel_when_created: bool = False
    """Interrupted by command before the answer began. Cleared when the user says something new."""
    causes: dict[int, Literal["speech", "manual"]] = attrs.Factory(dict)
    """By turn, why it was interrupted; until playback has reported."""
    interrupting: Command | None = None
    gate: Literal["open", "muted", "closed"] = "closed"
    listening: bool = False
    muted: bool = False
    user_speaking: bool = False
    speech_started_ms: int = 0
    respond_on_commit: bool = False
    ledger: ToolLedger = attrs.Factory(ToolLedger)
    configured_epoch: int = 0
    """The newest connection whose server has taken the configuration."""
    response_owed: bool = False
    """The connection was lost while the user waited for an answer."""

    # --- dispatch ---------------------------------------------------------------------------------

    def take(self, item: InboxItem) -> None:
        """Synchronous: whatever follows from an item happens before the next one is looked at."""
        match item:
            case FromServer(epoch, turn, event):
                if epoch == self.epoch:
                    self._server_event(turn, event)
            case LinkUp(epoch):
                self._link_up(epoch)
            case LinkDown():
                self._link_down(item)
            case TurnStarted(turn):
                self.view.tracker.agent_heard(self._now)
                self._emit(events.PlaybackStart(at=self._now, turn=turn))
            case TurnPlayed():
                self._turn_played(item)
            case Interrupted():
                self._playback_interrupted(item)
            case ToolStarted():
                self.view.tracker.tool_changed(ToolUse(item.call_id, item.tool, item.arguments), self._now)
                self._emit(
                    events.ToolCalled(
                        at=self._now,
                        turn=item.turn,
                        call_id=item.call_id,
                        tool=item.tool,
                        arguments=item.arguments,
                    )
                )
            case ToolResult():
                self._tool_result(item)
            case Command():
                self._command(item)
            case _:
                assert_never(item)

    @property
    def _now(self) -> float:
        return trio.current_time()

    def _emit(self, event: events.SessionEvent) -> None:
        self.fan_out.emit(event)

    def _send(self, event: ClientEvent) -> None:
        """To the server of this connection. In an outage it is dropped: a resume restores from the record instead."""
        self.control.send_nowait(Send(self.epoch, event))
        if self.fan_out.wants_protocol:
            self._emit(events.ClientEventSent(at=self._now, event=event))

    def _play(self, item: PlaybackItem) -> None:
        if self.playback is not None:
            self.playback.send_nowait(item)

    def _report(self, message: str, *, code: str | None, source: Literal["server", "protocol", "session"]) -> None:
        log.warning("session.error", message=message, code=code, source=source)
        self._emit(events.ErrorReported(at=self._now, message=message, code=code, source=source))

    # --- the connection ---------------------------------------------------------------------------

    def _link_up(self, epoch: int) -> None:
        self.epoch = epoch
        self._send(SessionUpdate(event_id=self._update_id, session=self.config))

    @property
    def _update_id(self) -> str:
        return f"configure_{self.epoch}"

    def _link_down(self, news: LinkDown) -> None:
        log.info("wire.lost", epoch=news.epoch, reason=news.reason, attempt=news.attempt)
        waiting = self.view.state is SessionState.PROCESSING or self.arbiter.asked
        unheard = self.arbiter.active and self.speaking is not None and not self.speaking.item_ids
        self.response_owed = self.response_owed or waiting or unheard
        self.arbiter.on_connection_lost()
        self.user_speaking = self.respond_on_commit = self.cancel_when_created = False
        if self.speaking is not None and not self.speaking.done:
            # What has arrived of it is played; no more will come.
            self.speaking.done = True
            self._play(EndTurn(self.speaking.turn))
        if news.attempt is not None:
            self._emit(
                events.Reconnecting(at=self._now, reason=news.reason, attempt=news.attempt, delay_ms=news.delay_ms)
            )

    def _configured(self, session_id: str) -> None:
        resumed = self.configured_epoch > 0
        self.configured_epoch = self.epoch
        self.view.session_id = session_id
        log.info("session.connected", session=session_id, resumed=resumed)
        self._emit(events.Connected(at=self._now, session_id=session_id, resumed=resumed))
        if resumed:
            self._resume_conversation()
        else:
            self.view.tracker.started_at = self._now
            self.view.state = SessionState.CONNECTED
            self.view.ready.set()
            if self.agent.greets_first:
                self._respond(ResponseCreate())
        self._set_gate()

    def _resume_conversation(self) -> None:
        for event in replay(self.view.history, self.ledger.results):
            self._send(event)
        if self.response_owed:
            self.response_owed = False
            self._respond(ResponseCreate())
        self._answer_if_owed()

    # --- what the server says ---------------------------------------------------------------------

    def _server_event(self, turn: int | None, event: object) -> None:
        if self.fan_out.wants_protocol:
            self._emit(events.ServerEventReceived(at=self._now, event=event))  # type: ignore[arg-type]
        if turn is not None:
            self._notice(turn, event)
        if isinstance(event, on.ResponseOutputAudioDelta):  # first: by far the most frequent
            if turn is not None and turn > self.floor and self.fan_out.wants_audio:
                self._emit(events.ResponseAudio(at=self._now, turn=turn, item_id=event.item_id, pcm=event.delta))
            return
        entry = self.view.history.apply(event)
        if entry is not None and entry.kind == "message":
            self.view.tracker.item_seen(entry.item_id, self._now)
        match event:
            case on.SessionUpdated():
                if self.configured_epoch != self.epoch:
                    self._configured(event.session.id or "")
            case on.ErrorEvent():
                self._server_error(event)
            case RemoteProtocolError():
                self._report(f"the server sent what is no event: {event.reason}", code=None, source="protocol")
            case on.InputAudioBufferSpeechStarted():
                self._speech_started(event.audio_start_ms)
            case on.InputAudioBufferSpeechStopped():
                self._speech_stopped(event.audio_end_ms)
            case on.InputAudioBufferCommitted():
                if self.respond_on_commit:
                    self.respond_on_commit = False
                    self._respond(ResponseCreate())
            case on.ConversationItemInputAudioTranscriptionDelta():
                self._transcript("user", event.item_id, event.delta or "", final=False)
            case on.ConversationItemInputAudioTranscriptionCompleted():
                self._transcript("user", event.item_id, "", final=True)
                self._answer_if_owed()
            case on.ResponseOutputAudioTranscriptDelta() | on.ResponseOutputTextDelta():
                if turn is None or turn > self.floor:
                    self._transcript("agent", event.item_id, event.delta, final=False)
            case on.ResponseOutputAudioTranscriptDone() | on.ResponseOutputTextDone():
                if turn is None or turn > self.floor:
                    self._transcript("agent", event.item_id, "", final=True)
            case on.ResponseOutputItemAdded():
                if self.speaking is not None and turn == self.speaking.turn and event.item.type == "message":
                    self.speaking.item_ids.append(event.item.id or "")
            case on.ResponseOutputAudioDone():
                self.complete_items.add(event.item_id)
            case on.ResponseOutputItemDone():
                self._item_done(turn, event.item)
            case on.ResponseDone():
                self._response_done(turn, event)

    def _server_error(self, event: on.ErrorEvent) -> None:
        error = event.error
        if error.event_id == self._update_id and self.configured_epoch != self.epoch:
            raise ConfigError(f"the server refused the configuration: {error.message}")
        if error.code == "conversation_already_has_active_response":
            self.arbiter.on_collision()
        if error.code == "input_audio_buffer_commit_empty":
            self.respond_on_commit = False
        if error.code not in HARMLESS_ERRORS:
            self._report(error.message or "unknown error", code=error.code or None, source="server")

    def _transcript(self, role: Literal["user", "agent"], item_id: str, delta: str, *, final: bool) -> None:
        entry = self.view.history.get(item_id)
        text = entry.text if entry is not None else delta
        self._emit(events.Transcript(at=self._now, role=role, item_id=item_id, delta=delta, text=text, final=final))

    # --- the user's voice -------------------------------------------------------------------------

    def _speech_started(self, audio_ms: int) -> None:
        self.user_speaking, self.speech_started_ms = True, audio_ms
        self.cancel_when_created = False
        self._emit(events.SpeechStart(at=self._now, audio_ms=audio_ms))
        detection = self.agent.turn_detection
        if detection is None or detection.interrupt_response is not False:
            self._interrupt("speech")
        self.view.tracker.user_began(self._now)
        self.view.state = SessionState.LISTENING

    def _speech_stopped(self, audio_ms: int) -> None:
        self.user_speaking = False
        self._emit(events.SpeechEnd(at=self._now, audio_ms=audio_ms))
        self.view.tracker.user_ended(self._now, audio_ms - self.speech_started_ms)
        self.view.state = SessionState.PROCESSING

    # --- responses --------------------------------------------------------------------------------

    def _respond(self, request: ResponseCreate) -> None:
        allowed = self.arbiter.request(request)
        if allowed is not None:
            self._send(allowed)

    def _notice(self, turn: int, event: object) -> None:
        """A turn begins with the first event that names it: not every server sends `response.created`."""
        if isinstance(event, on.ResponseCreated) and event.response.conversation_id is None:
            self.aside.add(turn)
        newest = self.speaking.turn if self.speaking is not None else 0
        if turn <= newest or turn in self.aside:
            return
        self.arbiter.on_created()
        self.ledger.answer_owed = self.response_owed = False
        response_id = event.response.id or "" if isinstance(event, on.ResponseCreated) else ""
        self.speaking = _Speaking(turn, response_id)
        self.view.tracker.response_began(self._now)
        self.view.state = SessionState.RESPONDING
        self._emit(events.ResponseStart(at=self._now, turn=turn, response_id=response_id))
        if self.cancel_when_created:
            self.cancel_when_created = False
            self._interrupt("manual")

    def _item_done(self, turn: int | None, item: Item) -> None:
        if item.type == "message" and item.id:
            self.complete_items.add(item.id)
        if item.type != "function_call" or item.status in ("incomplete", "in_progress") or not item.call_id:
            return
        if not self.ledger.begin(item.call_id):
            return
        turn = turn or 0
        call = RunTool(turn, item.call_id, item.name or "", item.arguments or "{}")
        if turn <= self.floor:
            self._tool_result(_not_run(call, "cancelled: the user interrupted before the tool was started"))
            return
        try:
            self.tool_calls.send_nowait(call)
        except trio.WouldBlock:
            self._tool_result(_not_run(call, "too many tools are waiting already; try again later"))

    def _response_done(self, turn: int | None, event: on.ResponseDone) -> None:
        response = event.response
        if turn is None or turn in self.aside:
            return
        status = response.status or "completed"
        following = self.arbiter.on_done()
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.done = True
            if self.playback is None:
                self._finished(turn)
        self._play(EndTurn(turn))
        self._emit(events.ResponseEnd(at=self._now, turn=turn, response_id=response.id or "", status=status))
        if status == "failed":
            self._report(f"the response failed: {_failure(response.status_details)}", code=None, source="server")
        if following is not None:
            self._send(following)
        self._answer_if_owed()

    def _turn_played(self, item: TurnPlayed) -> None:
        heard_ms = sum(position.heard_ms for position in item.positions)
        self.view.tracker.agent_played(self._now, heard_ms)
        if heard_ms:
            self._emit(events.PlaybackEnd(at=self._now, turn=item.turn))
        self.complete_items.difference_update(position.item_id for position in item.positions)
        self._finished(item.turn)

    def _finished(self, turn: int) -> None:
        if self.speaking is not None and self.speaking.turn == turn:
            self.speaking.played = True
            if self.view.state is SessionState.RESPONDING:
                self.view.state = SessionState.LISTENING if self.listening else SessionState.CONNECTED

    # --- interruption -----------------------------------------------------------------------------

    def _interrupt(self, cause: Literal["speech", "manual"]) -> bool:
        """Retire the turn that is being made or played. Returns whether there was one."""
        speaking = self.speaking
        if speaking is None or speaking.turn <= self.floor or (speaking.done and speaking.played):
            return False
        self.floor = speaking.turn
        if cause == "manual":
            self.silenced = speaking.turn
        self.causes[speaking.turn] = cause
        self.arbiter.drop_waiting()
        self.fan_out.discard_audio(speaking.turn)
        self.tool_calls.send_nowait(CancelTurn(speaking.turn))
        if self.playback is None:
            self._playback_interrupted(Interrupted(speaking.turn, (), 0.0))
        else:
            self._play(Interrupt(speaking.turn))
        return True

    def _playback_interrupted(self, item: Interrupted) -> None:
        """Playback is silent; tell the server and the record what was heard."""
        speaking = self.speaking
        active = speaking is not None and speaking.turn == item.turn and not speaking.done
        spoken = self.playback is not None
        cause = self.causes.pop(item.turn, "manual")
        plan = plan_truncation(
            item.positions,
            complete_items=self.complete_items,
            unheard_items=speaking.item_ids if speaking is not None and spoken else (),
            cancel=active and not self._server_cancels(cause),
        )
        for event in plan:
            self._send(event)
        self.complete_items.difference_update(position.item_id for position in item.positions)
        self._record_cuts(item, speaking, spoken)
        being_heard = next((position for position in reversed(item.positions) if position.heard_ms > 0), None)
        if active or item.discarded_ms > 0:
            self.view.tracker.agent_interrupted(self._now)
            heard_ms = int(being_heard.heard_ms) if being_heard is not None else 0
            log.info("turn.interrupted", turn=item.turn, cause=cause, heard_ms=heard_ms)
            self._emit(
                events.Interruption(
                    at=self._now,
                    turn=item.turn,
                    cause=cause,
                    item_id=being_heard.item_id if being_heard is not None else None,
                    heard_ms=heard_ms,
                    discarded_ms=int(item.discarded_ms),
                )
            )
        self.view.tracker.agent_played(self._now, sum(position.heard_ms for position in item.positions))
        if self.interrupting is not None:
            self.interrupting.done.set()
            self.interrupting = None

    def _record_cuts(self, item: Interrupted, speaking: _Speaking | None, spoken: bool) -> None:
        heard = {position.item_id: position for position in item.positions}
        for item_id, position in heard.items():
            if position.heard_ms <= 0:
                self.view.history.delete(item_id)
            elif position.heard_ms < position.received_ms:
                self.view.tracker.truncation_count += 1
                entry = self.view.history.cut(item_id, position.heard_ms, position.received_ms)
                if entry is not None:
                    self._emit(
                        events.Transcript(
                            at=self._now,
                            role="agent",
                            item_id=item_id,
                            delta="",
                            text=entry.heard_text,
                            final=True,
                            truncated=True,
                        )
                    )
        if speaking is not None and spoken:
            for item_id in speaking.item_ids:
                if item_id not in heard:
                    self.view.history.delete(item_id)

    def _server_cancels(self, cause: Literal["speech", "manual"]) -> bool:
        """Whether the server has cancelled its response by itself."""
        detection = self.agent.turn_detection
        return cause == "speech" and detection is not None and detection.interrupt_response is not False

    # --- tools ------------------------------------------------------------------------------------

    def _tool_result(self, result: ToolResult) -> None:
        if not self.ledger.finish(result.call_id, result.output):
            return
        self._send(ConversationItemCreate(item=Item.function_call_output(result.call_id, result.output)))
        use = ToolUse(result.call_id, result.tool, "", result.output, result.failed, result.duration_ms)
        self.view.tracker.tool_finished(use, self._now)
        self._emit(
            events.ToolFinished(
                at=self._now,
                turn=result.turn,
                call_id=result.call_id,
                tool=result.tool,
                output=result.output,
                failed=result.failed,
                duration_ms=result.duration_ms,
            )
        )
        if result.turn > self.silenced:
            self.ledger.answer_owed = True
            self._answer_if_owed()

    def _answer_if_owed(self) -> None:
        """Ask for the response that tells the user what the tools found: once, when all have answered."""
        ledger = self.ledger
        if ledger.answer_owed and not ledger.running and not self.user_speaking and not self.arbiter.active:
            ledger.answer_owed = False
            self._respond(ResponseCreate())

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        match command.do:
            case "interrupt":
                if not self._interrupt("manual"):
                    self.cancel_when_created = self.arbiter.asked or self.view.state is SessionState.PROCESSING
                elif self.playback is not None:
                    self.interrupting = command
                    return
            case "listen":
                self._listen(True)
            case "stop_listening":
                self._listen(False)
            case "mute" | "unmute":
                self.muted = command.do == "mute"
                self._set_gate()
            case "pause":
                self._pause()
            case "resume":
                self._resume()
            case "text":
                self._interrupt("manual")
                self.cancel_when_created = False
                self.view.tracker.user_began(self._now)
                self._send(ConversationItemCreate(item=Item.user_text(command.text)))
                self.view.tracker.user_ended(self._now, 0.0)
                self._respond(ResponseCreate())
            case "respond":
                instructions = command.instructions
                config = ResponseConfig(instructions=instructions) if instructions is not None else UNSET
                self._respond(ResponseCreate(response=config))
            case _:
                assert_never(command.do)
        command.done.set()

    def _listen(self, listening: bool) -> None:
        if listening == self.listening:
            return
        self.listening = listening
        if listening:
            self._emit(events.ListeningStarted(at=self._now))
            if self.view.state is SessionState.CONNECTED:
                self.view.state = SessionState.LISTENING
            self._set_gate()
            return
        push_to_talk = self.agent.turn_detection is None
        self.respond_on_commit = push_to_talk
        self._set_gate(tail_ms=0 if push_to_talk else CLOSING_SILENCE_MS, commit=push_to_talk)
        self._emit(events.ListeningStopped(at=self._now))
        if self.view.state is SessionState.LISTENING:
            self.view.state = SessionState.CONNECTED

    def _pause(self) -> None:
        if self.view.state is SessionState.PAUSED:
            return
        self.view.state = SessionState.PAUSED
        self._set_gate()
        self._play(Hold(True))
        self._emit(events.Paused(at=self._now))

    def _resume(self) -> None:
        if self.view.state is not SessionState.PAUSED:
            return
        self.view.state = SessionState.LISTENING if self.listening else SessionState.CONNECTED
        self._set_gate()
        self._play(Hold(False))
        self._emit(events.Resumed(at=self._now))

    def _set_gate(self, *, tail_ms: int = 0, commit: bool = False) -> None:
        if not self.listening or self.view.state is SessionState.PAUSED:
            self.gate = "closed"
        else:
            self.gate = "muted" if self.muted else "open"
        if self.configured_epoch == self.epoch > 0:
            self.control.send_nowait(SetMicrophone(self.epoch, self.gate, tail_ms, commit))


def _not_run(call: RunTool, reason: str) -> ToolResult:
    return ToolResult(call.turn, call.call_id, call.tool, f'{{"error": "{reason}"}}', failed=True, duration_ms=0.0)


def _failure(details: object) -> str:
    error = getattr(details, "error", None)
    return getattr(error, "message", None) or getattr(error, "code", None) or "the server gave no reason"
