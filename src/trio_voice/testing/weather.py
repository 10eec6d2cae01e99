"""The faults of a simulated conversation: each strikes in the state of the conversation that it is meant for.

Between the plan (`people.py`) and the server that faults are struck on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import attrs
import trio

from trio_voice.config import ConnectionState, SessionState
from trio_voice.session import RealtimeSession
from trio_voice.testing.checks import Watch
from trio_voice.testing.faults import Fault, FaultKind
from trio_voice.testing.people import Plan, PlannedFault, State, is_of_connecting
from trio_voice.testing.server import FaultyServer

SILENT_S = 8.0
"""With nothing going on for this long a conversation has come to rest."""


@attrs.define(eq=False)
class Weather:
    """Strikes the planned faults, each in the state of the conversation that it is meant for."""

    plan: Plan
    session: RealtimeSession
    server: FaultyServer
    watch: Watch
    nursery: trio.Nursery
    entered: bool = False
    user_speaks: bool = False
    closing: bool = False
    last_stir_at: float = 0.0
    answered: int = 0
    rotations: int = 0
    struck: list[Fault] = attrs.Factory(list)
    cells: Counter[tuple[FaultKind, State]] = attrs.Factory(Counter)
    _due: list[PlannedFault] = attrs.Factory(list)
    _next_at: float = 0.0
    _for_connect: list[Fault] = attrs.Factory(list)
    _began_at: float = attrs.Factory(trio.current_time)

    def __attrs_post_init__(self) -> None:
        self._due = list(self.plan.faults)

    @property
    def state(self) -> State:
        if self.closing:
            return "closing"
        if not self.entered:
            return "connecting"
        if self.session.connection_state is not ConnectionState.CONNECTED:
            return "resuming"
        if self.watch.tools_running:
            return "tool running"
        if self.user_speaks:
            return "user speaking"
        if self.session.state is SessionState.PROCESSING:
            return "processing"
        if self.session.state is SessionState.RESPONDING:
            return "responding"
        return "listening"

    def look(self) -> None:
        """Whether a planned fault is due in this state. Called with every frame and every event."""
        now = trio.current_time() - self._began_at
        if not self._due or now < max(self._next_at, self._due[0].at_s) or not self.entered or self.closing:
            return
        state = self.state
        for planned in self._due:
            if planned.at_s > now:
                break
            if planned.state == "resuming" and state != "resuming":
                # It strikes while the session connects again: see to it that it does.
                self._next_at = now + 1
                self.nursery.start_soon(self.server.strike, Fault("reset"))
                return
            if planned.state == state and state not in ("resuming", "rotating"):
                self._due.remove(planned)
                self._strike(planned.fault, state)
                self._next_at = now + 1
                return

    def _strike(self, fault: Fault, state: State) -> None:
        self._count(fault, state)
        if is_of_connecting(fault):
            self._for_connect.append(fault)
            fault = Fault("reset")
        self.nursery.start_soon(self.server.strike, attrs.evolve(fault, after_bytes=None))

    def _count(self, fault: Fault, state: State) -> None:
        self.watch.corrupted |= fault.kind == "corrupt"
        self.struck.append(fault)
        self.cells[fault.kind, state] += 1

    def on_connect(self, number: int) -> Iterable[Fault]:
        """The faults of a new connection."""
        # A connection that is made while there is one is to take its place.
        serving = self.session.connection_state is ConnectionState.CONNECTED
        state: State = "connecting" if not self.entered else "rotating" if serving else "resuming"
        now = trio.current_time() - self._began_at
        self.rotations += state == "rotating"
        faults, self._for_connect = self._for_connect[:1], self._for_connect[1:]
        for planned in self._due:
            if planned.state == state and planned.at_s <= now and not faults and not self.closing:
                self._due.remove(planned)
                self._count(planned.fault, state)
                return [planned.fault]
        return faults

    async def clear_up(self) -> None:
        """No more faults; those under way have their time."""
        self._due = [planned for planned in self._due if planned.state == "closing"]
        self._for_connect.clear()
        self._next_at = float("inf")
        await trio.sleep(10)

    async def close_in(self) -> None:
        """The faults that strike as the person hangs up."""
        self.closing = True
        for planned in self._due:
            self._count(planned.fault, "closing")
            fault = Fault("reset") if is_of_connecting(planned.fault) else planned.fault
            self._for_connect += [planned.fault] if is_of_connecting(planned.fault) else []
            await self.server.strike(attrs.evolve(fault, after_bytes=None))

    def at_rest(self) -> bool:
        quiet = trio.current_time() - self.last_stir_at > SILENT_S
        waits = self.session.state in (SessionState.CONNECTED, SessionState.LISTENING)
        return quiet and waits and not self.watch.busy
