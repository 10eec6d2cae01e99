"""Noticing in time that nobody is there: pings into silence, and a watchdog for an answer that does not come.

A connection can be dead without a sign: a half-open socket takes what is sent and gives nothing back. Any byte counts
as life, not the pong alone. A ping is never cut short, since that could cut a message: it runs in a task of its own,
and it is the waiting that ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from trio_voice.config import ConnectionOptions
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import WireLost

if TYPE_CHECKING:
    from trio_voice.wire import Wire

REMEMBERED = 32
BUSY_INTERVAL_S = 2.0
BUSY_TIMEOUT_S = 2.0
"""While a turn is in progress: together four seconds; a person gives up after five."""


class RoundTrips(Struct, eq=False):
    """The latest round trips of pings, in milliseconds."""

    latest_ms: list[float] = field(default_factory=list)

    def add(self, round_trip_ms: float) -> None:
        self.latest_ms.append(round_trip_ms)
        del self.latest_ms[:-REMEMBERED]

    @property
    def median_ms(self) -> float | None:
        ordered = sorted(self.latest_ms)
        return ordered[len(ordered) // 2] if ordered else None


async def watch(
    wire: Wire, view: ConversationView, options: ConnectionOptions, round_trips: RoundTrips, pings: trio.Nursery
) -> None:
    """Watch a connection until it is cancelled. Its pings run in the nursery `pings`.

    Raises: `WireLost` when the peer is dead, or owes an answer for too long.
    """
    answers = _Answers(wire, view, options.response_timeout_ms / 1000)
    while True:
        answers.check()
        interval_s = options.heartbeat_interval_ms / 1000
        if view.turn_in_progress:
            interval_s = min(interval_s, BUSY_INTERVAL_S)
        due_at = wire.last_received_at + interval_s
        if trio.current_time() < due_at:
            # Look again soon: a turn may begin in between.
            await trio.sleep_until(min(due_at, answers.next_check_at))
            continue
        await _probe(wire, view, options, round_trips, pings, answers)


async def _probe(
    wire: Wire,
    view: ConversationView,
    options: ConnectionOptions,
    round_trips: RoundTrips,
    pings: trio.Nursery,
    answers: _Answers,
) -> None:
    """One ping into the silence."""
    pinged_at = trio.current_time()
    answered = trio.Event()

    async def ping() -> None:
        await wire.ping()
        round_trips.add((trio.current_time() - pinged_at) * 1000)
        answered.set()

    pings.start_soon(ping)
    while not answered.is_set() and wire.last_received_at <= pinged_at:
        now, timeout_s = trio.current_time(), options.heartbeat_timeout_ms / 1000
        if view.turn_in_progress:
            timeout_s = min(timeout_s, BUSY_TIMEOUT_S)
        if now >= pinged_at + timeout_s:
            silent_s = now - wire.last_received_at
            wire.is_dead = True
            raise WireLost(f"the server has been silent for {silent_s:.3g} s and answered no ping", retryable=True)
        # Until a point in time, not for a while: what is left of a while may be too little to move a virtual clock.
        with trio.move_on_at(min(pinged_at + timeout_s, answers.next_check_at)):
            await answered.wait()
        answers.check()


class _Answers(Struct, eq=False):
    """The socket may live, and the answer that was promised not come."""

    wire: Wire
    view: ConversationView
    timeout_s: float
    awaited_since: float | None = None

    def check(self) -> None:
        now = trio.current_time()
        if not self.view.awaiting_server:
            self.awaited_since = None
        elif self.awaited_since is None:
            self.awaited_since = now
        elif now - max(self.awaited_since, self.wire.last_message_at) >= self.timeout_s:
            raise WireLost(f"nothing has come for {self.timeout_s:g} s although an answer is due", retryable=True)

    @property
    def next_check_at(self) -> float:
        return trio.current_time() + min(self.timeout_s / 4, BUSY_INTERVAL_S)
