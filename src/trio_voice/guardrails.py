"""The guardrails' actor: words → the guardrails, several at once → what each of them says.

A guardrail never holds up the conversation, nor another guardrail. Of one item each guardrail looks at one text at a
time; while it does, only the newest of the texts that follow waits for it, since it has all the words of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from trio_voice.channels import Checked, CheckText, InboxItem, offer
from trio_voice.logs import log

if TYPE_CHECKING:
    from trio_voice.guardrail_functions import Guardrail, Trip

MAX_AT_ONCE = 16
MAX_UNDER_WAY = 64
"""Pairs of an item and a guardrail, running or waiting. Beyond that a text is not looked at, and this is reported."""
TOO_MANY = "too many checks are under way already; these words were not looked at"


async def run(
    inbox: trio.MemoryReceiveChannel[CheckText],
    verdicts: trio.MemorySendChannel[InboxItem],
    *,
    context: object = None,
) -> None:
    """Look at what comes until `inbox` is closed and all checks have ended. `context` is the session's.

    Cancellation: a plain function goes on in its thread, whose end nobody waits for.
    Closes: both ends.
    """
    with inbox, verdicts:
        async with trio.open_nursery() as nursery:
            desk = _Desk(verdicts, context, nursery)
            async for check in inbox:
                desk.take(check)


class _Desk(Struct, eq=False):
    verdicts: trio.MemorySendChannel[InboxItem]
    context: object
    nursery: trio.Nursery
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_AT_ONCE))
    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_AT_ONCE))
    under_way: dict[tuple[str, str, str], CheckText | None] = field(default_factory=dict)
    """By item and guardrail: the newest text that came since its check began."""

    def take(self, check: CheckText) -> None:
        for guardrail in check.guardrails:
            key = (check.kind, check.item_id, guardrail.name)
            if key in self.under_way:
                self.under_way[key] = check
            elif len(self.under_way) >= MAX_UNDER_WAY:
                offer(self.verdicts, Checked(check, guardrail, failure=TOO_MANY))
            else:
                self.under_way[key] = None
                self.nursery.start_soon(self._keep_looking, key, guardrail, check)

    async def _keep_looking(self, key: tuple[str, str, str], guardrail: Guardrail, check: CheckText) -> None:
        following: CheckText | None = check
        while following is not None:
            check = following
            async with self.limiter:
                verdict = await self._verdict(guardrail, check)
            offer(self.verdicts, verdict)
            following, self.under_way[key] = self.under_way[key], None
            if verdict.trip is not None:
                break
        del self.under_way[key]

    async def _verdict(self, guardrail: Guardrail, check: CheckText) -> Checked:
        from trio_voice.guardrail_functions import GuardrailContext  # here: most sessions look at no words

        found: Trip | None = None
        failure: str | None = None
        context = GuardrailContext(self.context, check.agent, check.item_id, check.turn, check.final)
        arguments = guardrail.arguments(check.text, context)
        with trio.move_on_after(guardrail.timeout_s) as timeout:
            try:
                if guardrail.is_async:
                    returned = await guardrail.function(*arguments)
                else:
                    returned = await trio.to_thread.run_sync(
                        guardrail.function, *arguments, abandon_on_cancel=True, limiter=self.threads
                    )
                found = guardrail.judged(returned)
            except Exception as error:  # it is anyone's code
                log.exception("guardrail.failed", guardrail=guardrail.name, item_id=check.item_id)
                failure = f"{type(error).__name__}: {error}"
        if timeout.cancelled_caught:
            failure = f"it took longer than {guardrail.timeout_s:g} s"
        return Checked(check, guardrail, found, failure)
