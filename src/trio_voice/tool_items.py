"""What the conversation and the tool executor say to each other. Of the channel table: `channels.py`.

Core ring: values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent
    from trio_voice.agent_tool import AgentTool
    from trio_voice.channels import Command
    from trio_voice.events import ToolApproval


# --- conversation → tool executor -----------------------------------------------------------------


class RunTool(Struct, frozen=True):
    """A completed function call of `turn`."""

    turn: int
    call_id: str
    tool: str
    arguments: str


class CancelTurn(Struct, frozen=True):
    """`turn` was interrupted: end those of its tools whose policy is to be cancelled."""

    turn: int


class OfferTools(Struct, frozen=True):
    """What calls of later turns than `after_turn` may run, and which agent makes them: another one has taken over."""

    after_turn: int
    tools: Sequence[AgentTool]
    agent: RealtimeAgent | None = None


class Verdict(Struct, frozen=True, eq=False):
    """The application approves or rejects a call; the executor says in the command whether it was in time."""

    command: Command


class AskApprover(Struct, frozen=True):
    """A call that the server makes itself waits for an approval: ask whom the session has for that."""

    asked: ToolApproval


ToolItem: TypeAlias = RunTool | CancelTurn | OfferTools | Verdict | AskApprover


# --- tool executor → conversation -----------------------------------------------------------------


class ToolStarted(Struct, frozen=True):
    """A call has come to the executor."""

    turn: int
    call_id: str
    tool: str
    arguments: str


class ApprovalWanted(Struct, frozen=True):
    """The call waits until somebody approves or rejects it. `agent`: the name of who made it."""

    turn: int
    call_id: str
    tool: str
    arguments: str
    agent: str


class ToolBegun(Struct, frozen=True):
    """A tool works in the background: `output` is what the model is told at once."""

    turn: int
    call_id: str
    tool: str
    output: str


class ToolProgressed(Struct, eq=False):
    """A tool says how it is going. Of each call there is one at most in the channel: the tool changes its text until
    the conversation has taken it, so a talkative tool fills nothing."""

    turn: int
    call_id: str
    tool: str
    text: str
    quiet_if_interrupted: bool = False
    taken: bool = False


class ToolResult(Struct, frozen=True):
    """`output` is the JSON text (or plain text) that the model is told."""

    turn: int
    call_id: str
    tool: str
    output: str
    failed: bool
    duration_ms: float
    quiet: bool = False
    """The model is told, and no response is asked for."""
    quiet_if_interrupted: bool = False
    """The same, if the turn that called was interrupted."""


class ApproverDecided(Struct, frozen=True):
    """What came of asking, or that nobody has answered for too long."""

    call_id: str
    given: bool
    reason: str


ToolNews: TypeAlias = ToolStarted | ApprovalWanted | ToolBegun | ToolProgressed | ToolResult | ApproverDecided
