"""What the application asks of the conversation, carried out: at once, or as soon as it can be.

A part of the conversation's step, synchronous. The invariant: each command is carried out once, and its caller waits
until then.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import assert_never

import attrs
import trio

from trio_voice.agent_change import AgentChange, Change
from trio_voice.answers import Answers
from trio_voice.asking import Asking
from trio_voice.barge_in import BargeIn
from trio_voice.channels import Command
from trio_voice.config import SessionState
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import ConfigError, HistoryError
from trio_voice.guarding import Guarding
from trio_voice.history_edits import HistoryEdits
from trio_voice.hosted_calls import HostedCalls
from trio_voice.initiative import Initiative
from trio_voice.microphone_gate import MicrophoneGate
from trio_voice.outbox import Outbox
from trio_voice.protocol import ResponseCreate
from trio_voice.tool_items import Verdict
from trio_voice.user_turn import UserTurn


@attrs.define(eq=False)
class Commands:
    outbox: Outbox
    view: ConversationView
    barge_in: BargeIn
    microphone: MicrophoneGate
    asking: Asking
    answers: Answers
    user: UserTurn
    history: HistoryEdits
    change: AgentChange
    initiative: Initiative
    guarding: Guarding = attrs.field(init=False)
    """Set by the conductor: the two know each other."""
    hosted: HostedCalls = attrs.field(init=False)
    postponed: list[Command] = attrs.Factory(list)
    """What was asked for when it could not be; each caller waits, so they are as many as the callers."""

    def carry_out(self, command: Command) -> None:
        if command.do == "text" and self.view.connected and not self.user.uninterruptible:
            self.answers.interrupt("manual")
        if command.do == "text" and not self.guarding.admits(command):
            return
        if command.do in ("text", "respond", "say") and not self._may_ask:
            self.postponed.append(command)
            return
        if command.do in ("text", "listen"):
            self.initiative.user_is_there()
        match command.do:
            case "interrupt":
                self.guarding.forget()
                if not self.answers.interrupt("manual", whole=True):
                    awaited = self.answers.arbiter.asked or self.view.phase is SessionState.PROCESSING
                    self.answers.cancel_when_created = "manual" if awaited else None
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
                self.answers.cancel_when_created = None
                self.guarding.forget()
                self.view.tracker.user_began(self.outbox.now)
                self.asking.write(command.text)
                self.view.tracker.user_ended(self.outbox.now, 0.0)
                self.asking.respond(ResponseCreate())
            case "respond":
                self.asking.speak(command.instructions, interruptible=command.interruptible)
            case "history":
                if not self._edited(command):
                    self.postponed.append(command)
                    return
            case "approve" | "reject":
                if self.hosted.judge(command):
                    return
                with suppress(trio.WouldBlock):
                    self.outbox.run_tool(Verdict(command))
                    return  # the executor says whether it was in time
            case "say":
                self.asking.say(command.text, interruptible=command.interruptible)
            case "agent":
                assert command.agent is not None
                self.change.ask(Change(command.agent, partial(_settled, command)))
                return
            case _:
                assert_never(command.do)
        command.done.set()

    def carry_out_postponed(self) -> None:
        """Something has changed: perhaps it can be done now."""
        postponed, self.postponed = self.postponed, []
        for command in postponed:
            self.carry_out(command)

    def _edited(self, command: Command) -> bool:
        """False when it has to wait."""
        assert command.edit is not None
        try:
            made = self.history.carry_out(command.edit, may_ask=self._may_ask)
        except HistoryError as refusal:
            command.refused = refusal
            return True
        command.item_id = made or ""
        return made is not None

    @property
    def _may_ask(self) -> bool:
        """There is a server, and it has been told what was heard of the answer before."""
        return self.view.connected and not self.barge_in.under_way


def _settled(command: Command, problem: ConfigError | None) -> None:
    command.refused = problem
    command.done.set()
