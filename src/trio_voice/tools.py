"""The tool executor: RunTool → the function → ToolResult; every call gets exactly one result.

A tool never holds up the conversation: it runs in a task of its own, a plain function in a worker thread. What the
model is told is always an answer, also when the tool raised, hung, or gave what JSON cannot hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import trio

from trio_voice.channels import CancelTurn, InboxItem, OfferTools, RunTool, ToolItem, ToolResult, ToolStarted, offer
from trio_voice.function_tools import FunctionTool
from trio_voice.logs import log

MAX_OUTPUT_CHARS = 100_000
"""A model cannot use more, and the wire would carry it every time the conversation is restored."""
MAX_THREADS = 8


async def run(
    inbox: trio.MemoryReceiveChannel[ToolItem],
    results: trio.MemorySendChannel[InboxItem],
    *,
    tools: Sequence[FunctionTool],
) -> None:
    """Run tools until `inbox` is closed and all have ended.

    Cancellation: async tools are cancelled; a plain function goes on in its thread, whose end nobody waits for.
    Closes: `results`.
    """
    executor = _Executor(results, trio.CapacityLimiter(MAX_THREADS))
    executor.offer(0, tools)
    with results:
        async with trio.open_nursery() as nursery:
            async for item in inbox:
                match item:
                    case RunTool():
                        nursery.start_soon(executor.answer, item)
                    case CancelTurn(turn):
                        executor.cancel(turn)
                    case OfferTools(after_turn, tools):
                        executor.offer(after_turn, tools)


@attrs.define(eq=False)
class _Executor:
    results: trio.MemorySendChannel[InboxItem]
    threads: trio.CapacityLimiter
    running: dict[str, tuple[int, trio.CancelScope]] = attrs.Factory(dict)
    """By call id: the turn that called, and the scope to cancel, for tools whose policy it is."""
    cancelled_turn: int = 0
    """Turns at or below it were interrupted: a call of theirs whose task has yet to run must not begin."""
    offers: list[tuple[int, dict[str, FunctionTool]]] = attrs.Factory(list)
    """The tools of each agent so far, and the last turn before it was in charge: a call is for those of its turn."""

    def offer(self, after_turn: int, tools: Sequence[FunctionTool]) -> None:
        self.offers.append((after_turn, {function.name: function for function in tools}))

    def of_turn(self, turn: int) -> dict[str, FunctionTool]:
        return next((tools for after_turn, tools in reversed(self.offers) if turn > after_turn), {})

    def cancel(self, turn: int) -> None:
        self.cancelled_turn = max(self.cancelled_turn, turn)
        for called_in, scope in self.running.values():
            if called_in <= turn:
                scope.cancel()

    async def answer(self, call: RunTool) -> None:
        """Run one call. The result is sent in the same step in which the call ends: no checkpoint can lose it."""
        started_at = trio.current_time()
        offer(self.results, ToolStarted(call.turn, call.call_id, call.tool, call.arguments))
        failure: str | None = None
        value: Any = None
        tools = self.of_turn(call.turn)
        function = tools.get(call.tool)
        may_cancel = function is not None and function.on_interrupt == "cancel" and function.is_async
        if may_cancel and call.turn <= self.cancelled_turn:
            failure = "cancelled: the user interrupted"
        elif function is None:
            failure = f"there is no tool {call.tool!r}; there are: {', '.join(sorted(tools)) or 'none'}"
        else:
            with trio.move_on_after(function.timeout_s) as timeout, trio.CancelScope() as interrupted:
                if may_cancel:
                    self.running[call.call_id] = (call.turn, interrupted)
                try:
                    keywords = function.arguments(call.arguments)
                except (msgspec.ValidationError, msgspec.DecodeError) as error:
                    failure = f"the arguments do not fit: {error}"
                else:
                    try:
                        value = await self._invoke(function, keywords)
                    except Exception as error:
                        log.exception("tool.failed", tool=call.tool, call_id=call.call_id)
                        failure = f"the tool failed: {type(error).__name__}: {error}"
            self.running.pop(call.call_id, None)
            if timeout.cancelled_caught:
                failure = f"the tool took longer than {function.timeout_s:g} s"
            elif interrupted.cancelled_caught:
                failure = "cancelled: the user interrupted"
        output = _as_text({"error": failure} if failure else value)
        duration_ms = (trio.current_time() - started_at) * 1000
        offer(self.results, ToolResult(call.turn, call.call_id, call.tool, output, failure is not None, duration_ms))

    async def _invoke(self, function: FunctionTool, keywords: dict[str, Any]) -> Any:
        if function.is_async:
            return await function.function(**keywords)
        value = await trio.to_thread.run_sync(
            lambda: function.function(**keywords), abandon_on_cancel=True, limiter=self.threads
        )
        # A plain function around an async one gives a coroutine.
        return await value if inspect.isawaitable(value) else value


def _as_text(value: Any) -> str:
    """What the model is told: text as it is, anything else as JSON."""
    if not isinstance(value, str):
        try:
            value = msgspec.json.encode(value).decode()
        except Exception as error:  # a result may be any object: its own code runs here
            value = msgspec.json.encode({"error": f"the result cannot be put into JSON: {error!r}"}).decode()
    if len(value) > MAX_OUTPUT_CHARS:
        value = value[:MAX_OUTPUT_CHARS] + " … (cut: the result was too long)"
    # Half a surrogate pair is no text: it would break the connection's encoder.
    return str(value).encode("utf-8", "replace").decode()
