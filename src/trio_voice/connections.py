"""Connections as the conversation sees them: one that is listened to, one that is to follow it, and the time between.

A part of the conversation's step, synchronous. The invariant: nothing of another connection than the one that is
listened to has any effect, and each new one is told the conversation once, when its server has taken the configuration.
"""

from __future__ import annotations

from msgspec import Struct

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.agent_change import Change
from trio_voice.channels import (
    LinkDown,
    LinkUp,
    Send,
)
from trio_voice.config import SessionState
from trio_voice.conversation_parts import Parts
from trio_voice.errors import ConfigError
from trio_voice.logs import log
from trio_voice.protocol import (
    ResponseCreate,
    SessionUpdate,
    server_events as on,
)
from trio_voice.protocol.session_config import SessionConfig


class Connections(Struct, eq=False):
    parts: Parts
    epoch: int = 0
    """Of the connection that is listened to."""
    successor: LinkUp | None = None
    """A connection that is to take its place."""
    successor_agent: RealtimeAgent | None = None
    """Whom it was configured for."""
    configured_epoch: int = 0
    """The newest connection whose server has taken the configuration."""

    @property
    def is_configured(self) -> bool:
        """The server of the connection that is listened to has taken the configuration."""
        return self.configured_epoch == self.epoch

    def is_about_configuration(self, event_id: str | None) -> bool:
        """An error with this id refuses the configuration."""
        return event_id == f"configure_{self.epoch}" and not self.is_configured

    def link_up(self, news: LinkUp) -> None:
        configure = SessionUpdate(event_id=f"configure_{news.epoch}", session=self._configuration())
        if news.handover is not None:
            self.successor, self.successor_agent = news, self.parts.in_charge.agent
            news.control.send_nowait(Send(configure))
            return
        if self.parts.view.connected:  # the news of the loss was about a connection that had just been replaced
            self._gone()
        self.successor = None
        self._move_to(news)
        self.parts.outbox.configure(configure)

    def _configuration(self) -> SessionConfig:
        """Of the agent in charge. Where it cannot be made any more, what the last server was told holds."""
        try:
            self.parts.in_charge.told = self.parts.in_charge.configuration()
        except ConfigError as problem:
            if self.parts.in_charge.told is None:
                raise
            self.parts.outbox.report(str(problem), code=None, source="session")
        return self.parts.in_charge.told

    def successor_event(self, news: LinkUp, event: object) -> None:
        """The new connection is configured: move to it, unless something is going on."""
        if news.handover is None or not isinstance(event, on.SessionUpdated | on.ErrorEvent):
            return
        self.successor = None
        in_progress = self.parts.view.turn_in_progress
        if isinstance(event, on.SessionUpdated) and (news.handover.forced or not in_progress):
            if in_progress:
                self._gone()
            self._move_to(news)
            self.configured(event.session.id or "")
            news.handover.accepted = True
            if self.successor_agent is not self.parts.in_charge.agent:  # who has taken over on the old one meanwhile
                self.parts.change.ask(Change(self.parts.in_charge.agent, lambda problem: None))
        else:
            news.control.close()
        news.handover.answered.set()

    def _move_to(self, news: LinkUp) -> None:
        self.epoch, self.parts.resumption.remembers = news.epoch, news.remembers
        self.parts.view.log_context.epoch = news.epoch
        self.parts.barge_in.epoch = 0
        self.parts.outbox.connect(news.control)
        self.parts.utterances.connect(news.sent)

    def link_down(self, news: LinkDown) -> None:
        if news.epoch < self.epoch:
            return
        log.info("wire.lost", epoch=news.epoch, reason=news.reason, attempt=news.attempt)
        if news.epoch == self.epoch:  # a later one never came up, and nothing was under way on it
            self.parts.outbox.connect(None)
            self.parts.view.connected, self.successor = False, None
            self._gone()
        if news.attempt is not None:
            now, attempt, delay_ms = self.parts.outbox.now, news.attempt, news.delay_ms
            self.parts.outbox.emit(events.Reconnecting(at=now, reason=news.reason, attempt=attempt, delay_ms=delay_ms))

    def _gone(self) -> None:
        """Note what the user still waits for; what was under way will not be finished."""
        self.parts.resumption.take_stock(self.parts.answers.speaking)
        self.parts.tools.hosted.connection_gone()
        self.parts.answers.connection_gone()
        self.parts.user.connection_gone()
        self.parts.change.connection_gone()
        if self.parts.view.phase is SessionState.PROCESSING and not self.parts.resumption.response_owed:
            self.parts.answers.settle()

    def configured(self, session_id: str) -> None:
        resumed = self.configured_epoch > 0
        self.configured_epoch, self.parts.view.connected, self.parts.outbox.is_open = self.epoch, True, True
        self.parts.barge_in.epoch = self.epoch
        self.parts.detection.connected()
        self.parts.view.session_id = session_id
        self.parts.view.log_context.session = self.parts.view.log_context.session or session_id
        log.info("session.connected", server_session=session_id, resumed=resumed)
        self.parts.outbox.emit(events.Connected(at=self.parts.outbox.now, session_id=session_id, resumed=resumed))
        if resumed:
            self._resume_conversation()
        else:
            self.parts.view.tracker.started_at = self.parts.outbox.now
            self.parts.view.phase = SessionState.CONNECTED
            self.parts.view.ready.set()
            self.parts.resumption.tell_earlier_session()
            self._greet(self.parts.in_charge.agent)
            self.parts.microphone.set()

    def _greet(self, agent: RealtimeAgent) -> None:
        if agent.greeting is not None:
            self.parts.asking.say(agent.greeting, interruptible=agent.interruption.greeting)
        elif agent.greets_first:
            self.parts.asking.speak(None, interruptible=agent.interruption.greeting)

    def _resume_conversation(self) -> None:
        self.parts.change.connected()
        self.parts.resumption.tell(self.parts.answers.speaking)
        asked = any(command.do in ("text", "respond") for command in self.parts.commands.postponed)
        self.parts.commands.carry_out_postponed()
        answered_anyway = asked or self.parts.guarding.owed is not None or self.parts.handoffs.pending is not None
        if self.parts.resumption.response_owed and not answered_anyway:
            self.parts.asking.respond(ResponseCreate())
        self.parts.resumption.response_owed = False
        self.parts.guarding.ask()
        self.parts.speak_of_tools()
