"""Another agent takes over: the server is told, and only when it has taken that is the new one in charge.

A part of the conversation's step, synchronous. The invariant: one change at a time is open, each is answered once, and
a server that refuses it leaves the agent that was in charge.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from trio_voice.agent import RealtimeAgent
from trio_voice.agent_in_charge import AgentInCharge, with_voice
from trio_voice.errors import ConfigError
from trio_voice.logs import log
from trio_voice.outbox import Outbox
from trio_voice.protocol import (
    AudioConfig,
    AudioInput,
    SessionConfig,
    SessionUpdate,
    TurnDetection,
    server_events as on,
)
from trio_voice.server_detection import ServerDetection


class Change(Struct, frozen=True, eq=False):
    """Who is to take over. `answered` is called once, in the step in which that is settled: with None when the agent is
    in charge, and otherwise with why it is not."""

    agent: RealtimeAgent
    answered: Callable[[ConfigError | None], None]
    call_id: str | None = None
    """Of the model's call that leads to it; None: the application wants it."""


class AgentChange(Struct, eq=False):
    """`took_over` is called when another agent is in charge."""

    outbox: Outbox
    in_charge: AgentInCharge
    detection: ServerDetection
    took_over: Callable[[Change], None]
    _open: Change | None = None
    """The server has been told, and has not answered."""
    _config: SessionConfig = field(default_factory=SessionConfig)
    _waiting: list[Change] = field(default_factory=list)
    _told: int = 0

    @property
    def under_way(self) -> bool:
        return self._open is not None

    def ask(self, change: Change) -> None:
        """Tell the server of `change.agent`, once earlier changes are answered."""
        self._waiting.append(change)
        self._next()

    def taken(self) -> None:
        """The server has taken it."""
        change, self._open = self._open, None
        if change is not None:
            before = self.in_charge.agent
            self.in_charge.take_over(change.agent, self._config)
            log.info("agent.changed", before=before.name, agent=change.agent.name)
            self.took_over(change)
            change.answered(None)
        self._next()

    def refused(self, event: on.ErrorEvent) -> bool:
        """An error; returns whether it was about this. A voice that comes too late is left out, and the rest kept."""
        change, error = self._open, event.error
        if (error.event_id or "").startswith("tools_"):  # it goes on with those that it had
            self.detection.not_taken()
        if change is None or error.event_id != f"agent_{self._told}":
            return False
        self._open = None
        undo = self.detection.refused(_detection(self.in_charge.told))
        if undo is not None:
            self.outbox.send(undo)
        if _has_voice(self._config) and "voice" in f"{error.code} {error.param}":
            self.in_charge.has_spoken = True
            self._waiting.insert(0, change)
        else:
            change.answered(ConfigError(f"the server refused agent {change.agent.name!r}: {error.message}"))
        self._next()
        return True

    def connection_gone(self) -> None:
        """It is told again on the next one."""
        if self._open is not None:
            self.detection.refused(_detection(self.in_charge.told))
            self._waiting.insert(0, self._open)
            self._open = None

    def connected(self) -> None:
        """The server has taken the configuration of the agent in charge."""
        self._next()

    def _next(self) -> None:
        while self._open is None and self._waiting and self.outbox.is_open:
            change = self._waiting.pop(0)
            try:
                config = self.in_charge.successor(change.agent)
            except ConfigError as problem:
                change.answered(problem)
                continue
            self._open, self._config = change, config
            self._told += 1
            said = _with_detection(config, self.detection)
            self.outbox.send(SessionUpdate(event_id=f"agent_{self._told}", session=said))


def _input(config: SessionConfig | None) -> AudioInput:
    return (config.audio.input if config is not None and config.audio else UNSET) or AudioInput()


def _detection(config: SessionConfig | None) -> TurnDetection | None:
    return _input(config).turn_detection or None


def _has_voice(config: SessionConfig) -> bool:
    return with_voice(config, UNSET) != config


def _with_detection(config: SessionConfig, detection: ServerDetection) -> SessionConfig:
    """As it has to be said just now: while an answer may not be interrupted the server goes on leaving it to us."""
    hearing = replace(_input(config), turn_detection=detection.change(_detection(config)))
    return replace(config, audio=replace(config.audio or AudioConfig(), input=hearing))
