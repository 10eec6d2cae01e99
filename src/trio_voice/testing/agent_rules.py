"""What must hold of agents that hand a conversation over: at each moment one is in charge, at both ends the same.

Beside the other rules (`checks.py`), told of the same messages and events. The invariant: it only looks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection

import attrs

from trio_voice import events

TRANSFER = "transfer_to_"
_NAMED = re.compile(r"You are agent (\w+)\.")


def instructions_of(name: str) -> str:
    """By which a simulated agent is known."""
    return f"You are agent {name}."


@attrs.frozen
class Configured:
    """What a server holds of an agent."""

    agent: str = ""
    leads_to: frozenset[str] = frozenset()
    """To whom its tools hand over."""


@attrs.define(eq=False)
class ChargeRules:
    """`in_charge`: by the session's events."""

    wrong: Callable[[str, str], None]
    in_charge: str = ""
    everybody: frozenset[str] = frozenset()
    """Empty: there is one agent, and nothing to look at."""
    configured: dict[int, Configured] = attrs.Factory(dict)
    """By connection: what its server was told last."""
    made_by: dict[str, str] = attrs.Factory(dict)
    """By response id: the agent whose settings the server had when it began."""
    handoffs: int = 0
    _by_call: Counter[str] = attrs.Factory(Counter)

    def begin(self, in_charge: str, everybody: Collection[str]) -> None:
        if len(everybody) > 1:
            self.in_charge, self.everybody = in_charge, frozenset(everybody)

    # --- at the server ----------------------------------------------------------------------------

    def updated(self, connection: int, instructions: str, tools: Collection[str]) -> None:
        """The server has taken settings."""
        found = _NAMED.search(instructions)
        leads_to = frozenset(name.removeprefix(TRANSFER) for name in tools if name.startswith(TRANSFER))
        self.configured[connection] = Configured(found[1] if found else "", leads_to)

    def created(self, connection: int, response_id: str) -> None:
        """It begins a response."""
        if self.everybody:
            self.made_by.setdefault(response_id, self.configured.get(connection, Configured()).agent)

    # --- at the session ---------------------------------------------------------------------------

    def handed_over(self, event: events.HandoffOccurred) -> None:
        self.handoffs += 1
        if event.from_agent != self.in_charge:
            self.wrong("one agent in charge", f"{event.from_agent} handed over, but {self.in_charge} was in charge")
        self.in_charge = event.to_agent
        if event.call_id is not None:
            self._by_call[event.call_id] += 1
            if self._by_call[event.call_id] > 1:
                self.wrong("handed over once", f"{event.call_id} has handed over twice")

    def began(self, event: events.ResponseStart) -> None:
        """An answer is that of the agent in charge."""
        maker = self.made_by.get(event.response_id, self.in_charge)
        if maker != self.in_charge:
            self.wrong("one agent in charge", f"{maker} made turn {event.turn}, but {self.in_charge} was in charge")

    def finished(self, event: events.ToolFinished) -> None:
        """A call for a handoff has its result."""
        if not event.tool.startswith(TRANSFER):
            return
        if event.failed and self._by_call[event.call_id]:
            self.wrong("handed over once", f"{event.call_id} has handed over, and says that it failed")
        wanted = event.tool.removeprefix(TRANSFER)
        if not event.failed and self.in_charge != wanted:
            self.wrong("one agent in charge", f"{event.call_id} handed over to {wanted}; {self.in_charge} is in charge")

    # --- when it is over --------------------------------------------------------------------------

    def judge(self, connection: int, agent: str) -> None:
        """The session, its events and the newest server name the same agent."""
        if not self.everybody:
            return
        if agent != self.in_charge:
            self.wrong("one agent in charge", f"the session says {agent}, its events {self.in_charge}")
        told = self.configured.get(connection, Configured())
        if told != Configured(agent, self.everybody - {agent}):
            self.wrong("one agent in charge", f"{agent} is in charge, and the server has {told}")
