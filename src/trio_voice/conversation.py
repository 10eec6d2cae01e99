"""The conversation actor, the conductor: server events, heard positions, tool results and commands come in here;
what is sent, played, run and reported is decided here, each decision in one synchronous step.

The invariant: a response that was interrupted has no effect after that step: no sound of it is played or delivered,
no tool of it begins, and the model is told exactly what was heard.
"""

from __future__ import annotations

import attrs
import trio

from trio_voice import events
from trio_voice.agent_in_charge import AgentInCharge
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
    SendingEnd,
    TurnPlayed,
    TurnStarted,
    VoiceHeard,
    at_hand,
    receive_until,
)
from trio_voice.config import ConnectionOptions, SessionState
from trio_voice.connections import Connections
from trio_voice.conversation_parts import Parts
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import ConfigError
from trio_voice.interruption import as_told
from trio_voice.mcp_tools import McpTools
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.protocol import (
    ClientEvent,
    ResponseCreate,
    ServerEvent,
    server_events as on,
)
from trio_voice.protocol.codec import RemoteProtocolError, UnknownEvent
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_calls import ToolCalls
from trio_voice.tool_items import ToolItem
from trio_voice.turn_reports import tell_turns_over
from trio_voice.usage import of_transcription
from trio_voice.utterances import Utterances

VOICE = (on.ResponseOutputAudioDelta, on.ResponseOutputAudioTranscriptDelta, on.ResponseOutputAudioDone)
"""Sound may take the short way past the conversation; its words do not."""
HARMLESS_ERRORS = {"response_cancel_not_active", "conversation_already_has_active_response"}


async def run(
    inbox: trio.MemoryReceiveChannel[InboxItem],
    *,
    playback: trio.MemorySendChannel[PlaybackItem] | None,
    tool_calls: SendingEnd[ToolItem],
    checks: SendingEnd[CheckText],
    fan_out: EventFanOut,
    view: ConversationView,
    in_charge: AgentInCharge,
    connection: ConnectionOptions | None = None,
    history_turns: int | None = None,
) -> None:
    """Conduct until `inbox` is closed. `connection`: what its server can, and whether that keeps the conversation
    through a loss. `history_turns`: how many of the newest turns are kept; None keeps all.

    Raises: `ConfigError` when the server refuses the configuration, or there can be none.
    Closes: its sending ends, and every event stream.
    """
    connection, agent = connection or ConnectionOptions(), in_charge.agent
    unconfirmed: dict[str, ClientEvent] | None = {} if connection.native_resume else None
    outbox = Outbox(playback, tool_calls, fan_out, checks, unconfirmed=unconfirmed, dialect=connection.server)
    detection = ServerDetection(as_told(agent.interruption, agent.turn_detection))
    barge_in = BargeIn(outbox, view.history, view.tracker, detection)
    microphone, tools = MicrophoneGate(outbox, view, agent), ToolCalls(outbox, view.tracker, barge_in, view.history)
    utterances = Utterances(agent.turn_detection is None, view.history.new_id)
    conductor = _Conductor(outbox, view, in_charge, barge_in, microphone, tools, utterances, detection, history_turns)
    try:
        with inbox:
            while True:
                item = await receive_until(inbox, conductor.deadline)
                conductor.take(item) if item is not None else conductor.look()
                for item in at_hand(inbox):
                    conductor.take(item)
                item = None  # a piece of sound is not kept for as long as nothing comes
    except trio.EndOfChannel:
        pass
    finally:
        outbox.close()


@attrs.define(eq=False)
class _Conductor(Parts):
    connections: Connections = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.connections = Connections(self)

    @property
    def deadline(self) -> float:
        """When to `look`, unless something comes before."""
        return min(self.user.judge.deadline, self.initiative.deadline)

    def look(self) -> None:
        """The deadline has come."""
        self.user.look()
        self.guarding.ask()
        self.initiative.look()
        self.show()

    # --- dispatch ---------------------------------------------------------------------------------

    def take(self, item: InboxItem) -> None:
        """Synchronous: whatever follows from an item happens before the next one is looked at."""
        match item:
            case FromServer(epoch, turn, event):
                if epoch == self.connections.epoch:
                    self._server_event(turn, event)
                elif self.connections.successor is not None and epoch == self.connections.successor.epoch:
                    self.connections.successor_event(self.connections.successor, event)
            case LinkUp():
                self.connections.link_up(item)
            case LinkDown():
                self.connections.link_down(item)
            case TurnStarted(turn):
                self.view.tracker.agent_heard(self.outbox.now)
                self.outbox.emit(events.PlaybackStart(at=self.outbox.now, turn=turn))
            case TurnPlayed():
                self.answers.played(item)
                self.guarding.heard(item.turn)
                self.speak_of_tools()
            case Interrupted():
                self.barge_in.silenced(item, self.answers.speaking)
                self.commands.carry_out_postponed()
            case Checked():
                self.guarding.checked(item)
            case VoiceHeard(change):
                self.user.voice_heard(change)
            case Command():
                self.commands.carry_out(item)
                self.speak_of_tools()
            case McpTools():
                self.offer.take(item, self.answers.newest_turn)
            case events.DeviceLost() | events.DeviceRestored():
                self.outbox.emit(item)
            case _:  # the news of tools
                self.tools.take(item)
                self.speak_of_tools()
        if self.detection.held and self.view.connected and not self.user.uninterruptible and not self.user.is_speaking:
            self.asking.release()
        if self.view.tracker.has_turns_over and not self.barge_in.under_way:
            tell_turns_over(self.view, self.outbox.fan_out, self.outbox.now)
        self.guarding.ask()
        self.initiative.watch()
        if self.forgetting is not None:
            self.forgetting.look()
        if self.view.history.changes:
            self.tell_changes()
        self.show()

    # --- what the server says ---------------------------------------------------------------------

    def _server_event(self, turn: int | None, event: ServerEvent | UnknownEvent | RemoteProtocolError) -> None:
        if self.outbox.fan_out.wants_protocol:
            self.outbox.emit(events.ServerEventReceived(at=self.outbox.now, event=event))
        if turn is not None and self.answers.begun(turn, event, self.connections.epoch):
            is_verbatim = self.answers.speaking is not None and self.answers.speaking.is_verbatim
            if not is_verbatim:
                self.resumption.response_owed = False
                self.tools.ledger.response_began()
            self.guarding.begun(turn)
        self.in_charge.has_spoken |= isinstance(event, VOICE)
        if isinstance(event, on.ResponseOutputAudioDelta):  # first: by far the most frequent
            if turn is not None and turn > self.barge_in.floor:
                self.answers.voice(turn, event)
            return
        self.outbox.confirm(event)
        entry = self.view.history.apply(event)
        if entry is not None and entry.kind == "message":
            self.view.tracker.item_seen(entry.item_id, self.outbox.now)
        if turn is None or turn > self.barge_in.floor:
            self.transcripts.take(event)
            self.guarding.take(turn, event)
        if self.tools.hosted.take(turn, event):
            self.speak_of_tools()
        match event:
            case on.SessionUpdated():
                if not self.connections.is_configured:
                    self.connections.configured(event.session.id or "")
                elif self.detection.acknowledged():
                    self.change.taken()
                    self.speak_of_tools()
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
                self.speak_of_tools()
            case on.ConversationItemInputAudioTranscriptionFailed():
                if not self.asking.answers and self.view.phase is SessionState.PROCESSING:
                    self.answers.settle()
            case on.ResponseOutputItemAdded():
                if turn is not None and event.item.type == "message" and event.item.id:
                    self.answers.item_added(turn, event.item.id)
            case on.ResponseOutputTextDelta() if turn is not None and turn > self.barge_in.floor:
                self.answers.piece(turn)
            case on.ConversationItemAdded() | on.ConversationItemCreated():
                self.tools.ledger.arrived(event.item.call_id or event.item.id or "")
            case on.ResponseOutputAudioDone():
                self.barge_in.item_complete(turn, event.item_id)
            case on.ResponseOutputItemDone():
                if event.item.type == "message" and event.item.id:
                    self.barge_in.item_complete(turn, event.item.id)
                elif event.item.type == "function_call":
                    self.tools.called(turn or 0, event.item)
                    self.speak_of_tools()
            case on.OutputAudioBufferStarted() | on.OutputAudioBufferStopped() | on.OutputAudioBufferCleared():
                if turn is not None:
                    self.answers.sounds_elsewhere(turn, isinstance(event, on.OutputAudioBufferStarted))
            case on.ResponseDone():
                if turn is not None:
                    self.answers.done(turn, event)
                    self.guarding.made(turn)
                self.speak_of_tools()

    def _server_error(self, event: on.ErrorEvent) -> None:
        error = event.error
        if self.connections.is_about_configuration(error.event_id):
            raise ConfigError(f"the server refused the configuration: {error.message}")
        if self.change.refused(event):
            self.speak_of_tools()
            return
        if error.code == "conversation_already_has_active_response":
            ours = self.arbiter.is_refused(error.event_id)
            if ours:
                self._collided()
            unanswered = self.view.phase is SessionState.PROCESSING and self.detection.answers
            if not ours or (unanswered and not self.arbiter.waits):
                # The one refused was the server's own, to what the user said last: it will not try again.
                self.asking.respond(ResponseCreate())
        if error.code == "input_audio_buffer_commit_empty":
            self.utterances.refused()
            self.microphone.respond_on_commit = False
        if error.code not in HARMLESS_ERRORS:
            self.outbox.report(error.message or "unknown error", code=error.code or None, source="server")

    def _collided(self) -> None:
        """What began was not what we asked for: that is asked for again."""
        if self.answers.speaking is not None:
            self.answers.speaking.is_verbatim = False
            if self.arbiter.sent_marked:
                self.user.uninterruptible.discard(self.answers.speaking.turn)
        self.arbiter.on_collision()
        self.asking.withdraw()
        self.guarding.collided()
