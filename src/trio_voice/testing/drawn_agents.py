"""The agents of simulated conversations, who hand over to each other.

Each of the three can hand over to the other two, and each way has something of its own: one takes its time, one fails
now and then, one leaves out what was said long ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs
import msgspec
import trio

from trio_voice.agent import RealtimeAgent
from trio_voice.agent_tool import AgentTool, ToolContext
from trio_voice.guardrail_functions import OnTrip, Trip, input_guardrail, output_guardrail
from trio_voice.handoff_tools import Handoff, handoff
from trio_voice.mcp_servers import HostedMcpTool
from trio_voice.protocol.history import HistoryItem
from trio_voice.testing.agent_rules import TRANSFER, instructions_of
from trio_voice.testing.checks import Watch
from trio_voice.testing.drawn_tools import run
from trio_voice.testing.word_rules import FORBIDDEN, words_for

NAMES = ("front", "billing", "repairs")
FAILS_EVERY = 7
SEEN_AFTER = 8
"""How many items `repairs` is shown of what was before."""


class Reason(msgspec.Struct):
    """What the model says with a handoff."""

    number: int


def agents_of(
    base: RealtimeAgent, count: int, tools: Sequence[AgentTool | HostedMcpTool], watch: Watch
) -> dict[str, RealtimeAgent]:
    """`count` agents like `base`, by name; the first begins."""
    agents: dict[str, RealtimeAgent] = {}
    for name in NAMES[:count]:
        agents[name] = attrs.evolve(
            base,
            name=name,
            instructions=instructions_of(name),
            tools=tools,
            handoffs=[_way(agents, other, watch) for other in NAMES[:count] if other != name],
        )
    watch.charge.begin(NAMES[0], agents)
    return agents


def guarded(base: RealtimeAgent, on_trip: OnTrip, watch: Watch) -> RealtimeAgent:
    """With guardrails that look at what it says and is told."""
    look = partial(_look, watch)
    return attrs.evolve(
        base,
        output_guardrails=[output_guardrail(name="out", every_chars=20)(look)],
        input_guardrails=[input_guardrail(name="in", on_trip=on_trip)(look)],
    )


async def _look(watch: Watch, text: str) -> Trip | None:
    await trio.sleep((0.0, 0.06, 0.7)[len(text) % 3])
    if FORBIDDEN not in text:
        return None
    number = watch.words.found = watch.words.found + 1
    instead = words_for("In place of", number)
    return Trip(str(number), say=instead) if number % 2 else Trip(str(number), instructions=instead)


def _way(agents: dict[str, RealtimeAgent], to: str, watch: Watch) -> Handoff:
    async def before(context: ToolContext[None], reason: Reason) -> None:
        await run(watch, reason.number, 1.2 if to == "billing" else 0.0)
        if to == "front" and reason.number % FAILS_EVERY == 0:
            await trio.lowlevel.checkpoint()
            raise RuntimeError("nobody there, as planned")

    return handoff(
        partial(agents.__getitem__, to),
        tool_name=TRANSFER + to,
        input_type=Reason,
        on_handoff=before,
        input_filter=_the_last if to == "repairs" else None,
    )


def _the_last(items: Sequence[HistoryItem]) -> Sequence[HistoryItem]:
    return items[-SEEN_AFTER:]
