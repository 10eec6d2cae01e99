"""The tool executor: RunTool → the tool → ToolResult; every call gets exactly one result.

A tool never holds up the conversation: it runs in a task of its own, a plain function in a worker thread. What the
model is told is always an answer, also when the tool raised, hung, or gave what JSON cannot hold. The invariant: each
call is answered in bounded time, whatever the tool does, unless it stops the event loop itself.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import attrs
import msgspec
import trio
from msgspec import Struct, field

from trio_voice.agent import RealtimeAgent
from trio_voice.agent_tool import AgentTool, Silent, ToolContext
from trio_voice.channels import InboxItem, offer
from trio_voice.errors import ToolArgumentsError
from trio_voice.events import ToolApproval
from trio_voice.logs import log
from trio_voice.tool_items import (
    ApprovalWanted,
    ApproverDecided,
    AskApprover,
    CancelTurn,
    OfferTools,
    RunTool,
    ToolBegun,
    ToolItem,
    ToolProgressed,
    ToolResult,
    ToolStarted,
    Verdict,
)

MAX_OUTPUT_CHARS = 100_000
"""A model cannot use more, and the wire would carry it every time the conversation is restored."""
REMEMBERED_OFFERS = 8
"""Of agents that were in charge one after the other."""
MOST_LOGGED_CHARS = 10_000
"""Of what a tool raised; what says more is logged so far, and without its traceback."""
MAX_THREADS = 8
"""Plain functions that run at once."""
MAX_THREADS_LEFT = 56
"""More threads, of functions that nobody waits for any more."""
APPROVAL_S = 60.0
"""How long an approval is waited for of a call that the server makes itself; of others the tool's timeout says it."""
INTERRUPTED = "cancelled: the user interrupted"

Approver: TypeAlias = Callable[[ToolApproval], bool | Awaitable[bool]]


async def run(
    inbox: trio.MemoryReceiveChannel[ToolItem],
    results: trio.MemorySendChannel[InboxItem],
    *,
    tools: Sequence[AgentTool],
    context: Any = None,
    agent: RealtimeAgent | None = None,
    approver: Approver | None = None,
) -> None:
    """Run tools until `inbox` is closed and all have ended.

    Cancellation: async tools are cancelled; a plain function goes on in its thread, whose end nobody waits for.
    Closes: both ends.
    """
    with inbox, results:
        async with trio.open_nursery() as nursery:
            executor = _Executor(results, nursery, context, approver)
            executor.offers.append(OfferTools(0, tools, agent))
            async for item in inbox:
                match item:
                    case RunTool():
                        executor.take(item)
                    case CancelTurn(turn):
                        executor.cancel(turn)
                    case OfferTools():
                        executor.offers.append(item)
                    case Verdict():
                        executor.judge(item)
                    case AskApprover(asked):
                        nursery.start_soon(executor.ask_about, asked)


class _Line(Struct, eq=False):
    """Calls of one tool that wait for each other: first come, first served."""

    room: int
    waiting: deque[trio.Event] = field(default_factory=deque)

    def join(self) -> trio.Event:
        """A place, whose event is set when it is one's turn."""
        place = trio.Event()
        self.waiting.append(place)
        self._admit()
        return place

    def leave(self, place: trio.Event) -> None:
        if place.is_set():
            self.room += 1
        else:
            self.waiting.remove(place)
        self._admit()

    def _admit(self) -> None:
        while self.room and self.waiting:
            self.room -= 1
            self.waiting.popleft().set()


class _Approval(Struct, eq=False):
    decided: trio.Event = field(default_factory=trio.Event)
    given: bool = False
    reason: str = ""

    def decide(self, given: bool, reason: str) -> None:
        if not self.decided.is_set():
            self.given, self.reason = given, reason
            self.decided.set()


@attrs.define(eq=False)
class _Call:
    """One call, until it is answered."""

    asked: RunTool
    tool: AgentTool
    began_at: float
    context: ToolContext[Any] = attrs.field(init=False)
    approval: _Approval | None = None
    place: trio.Event | None = None
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """What an interruption ends: first the waiting, then the tool."""
    clock: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """How long the tool is waited for."""
    threads: int = 0
    """Of its functions, how many run in threads now: these cannot be cancelled, so what they do is told."""
    ended: trio.Event = attrs.Factory(trio.Event)
    answered: bool = False
    progress: str = ""
    news: ToolProgressed | None = None

    def interrupt(self) -> None:
        if self.tool.on_interrupt == "cancel" and not self.threads:
            self.scope.cancel()

    def restart_clock(self) -> None:
        self.clock.deadline = trio.current_time() + self.tool.timeout_s


class _NotApproved(Exception):
    """The message is for the model."""


class _TookTooLong(TimeoutError):
    """The message is for the model."""


class _Executor(Struct, eq=False):
    results: trio.MemorySendChannel[InboxItem]
    nursery: trio.Nursery
    session_context: Any
    approver: Approver | None
    offers: deque[OfferTools] = field(default_factory=lambda: deque(maxlen=REMEMBERED_OFFERS))
    """The tools of the newest agents, the one in charge last."""
    calls: dict[str, _Call] = field(default_factory=dict)
    """By call id, those that have not been answered."""
    cancelled_turn: int = 0
    """Turns at or below it were interrupted: a call of theirs whose task has yet to run must not begin."""
    lines: dict[str, _Line] = field(default_factory=dict)
    """By the name of the tool."""
    free_threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_THREADS))
    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_THREADS + MAX_THREADS_LEFT))
    thread: int = field(default_factory=threading.get_ident)
    token: trio.lowlevel.TrioToken = field(default_factory=trio.lowlevel.current_trio_token)

    # --- what the conversation says: synchronous, in its order ------------------------------------

    def offer_of(self, turn: int) -> OfferTools:
        """What the agent of that turn could call."""
        return next((offer for offer in reversed(self.offers) if turn > offer.after_turn), self.offers[0])

    def cancel(self, turn: int) -> None:
        self.cancelled_turn = max(self.cancelled_turn, turn)
        for call in self.calls.values():
            if call.asked.turn <= turn:
                call.interrupt()

    def judge(self, verdict: Verdict) -> None:
        """The application's word on a call that waits for it; it may be too late."""
        command = verdict.command
        call = self.calls.get(command.call_id)
        waits = call is not None and call.approval is not None and not call.scope.cancel_called
        if call is not None and call.approval is not None and waits and not call.approval.decided.is_set():
            call.approval.decide(command.do == "approve", command.text)
            command.in_time = True
        command.done.set()

    def take(self, asked: RunTool) -> None:
        """A call: whether it may begin, and after which others, is decided before the next item is looked at."""
        offer(self.results, ToolStarted(asked.turn, asked.call_id, asked.tool, asked.arguments))
        offered = self.offer_of(asked.turn)
        tools = {tool.name: tool for tool in offered.tools}
        tool = tools.get(asked.tool)
        if tool is None:
            failure = f"there is no tool {asked.tool!r}; there are: {', '.join(sorted(tools)) or 'none'}"
            self._send(asked, {"error": failure}, failed=True)
            return
        call = self.calls[asked.call_id] = _Call(asked, tool, trio.current_time())
        call.context = ToolContext(
            self.session_context,
            asked.call_id,
            tool.name,
            asked.turn,
            offered.agent,
            tell=partial(self._progress, call),
            thread=partial(self._in_thread, call),
        )
        if tool.on_interrupt == "cancel" and asked.turn <= self.cancelled_turn:
            self._fail(call, INTERRUPTED)
            return
        try:
            tool.check(asked.arguments)
            if self._needs_approval(call):
                call.approval = _Approval()
            else:
                self._join_line(call)
        except Exception as error:  # what a tool decides by is anyone's code
            self._failed(call, error)
            return
        self.nursery.start_soon(self._answer, call)

    def _needs_approval(self, call: _Call) -> bool:
        needed = call.tool.needs_approval
        if not callable(needed):
            return needed
        return bool(needed(call.context, msgspec.json.decode(call.asked.arguments or "{}")))

    def _join_line(self, call: _Call) -> None:
        if call.tool.max_concurrency is not None:
            line = self.lines.setdefault(call.tool.name, _Line(call.tool.max_concurrency))
            call.place = line.join()

    # --- one call ---------------------------------------------------------------------------------

    async def _answer(self, call: _Call) -> None:
        """See to it that the call is answered: by its tool, or because it may not run, or takes too long."""
        try:
            with call.scope:
                if call.approval is not None:
                    await self._wait_for_approval(call, call.approval)
                    self._join_line(call)
                if call.place is not None:
                    await call.place.wait()
        except _NotApproved as error:
            self._fail(call, str(error))
            return
        if call.scope.cancel_called:
            self._fail(call, INTERRUPTED)
            return
        call.scope = trio.CancelScope()
        if call.tool.result == "background":
            told = {"status": "begun", "note": "The work goes on in the background; its result follows in a message."}
            begun = ToolBegun(call.asked.turn, call.asked.call_id, call.asked.tool, _as_text(told))
            offer(self.results, begun)
        call.restart_clock()
        self.nursery.start_soon(self._do, call)
        with call.clock:
            await call.ended.wait()
        if call.clock.cancelled_caught:
            call.scope.cancel()
            self._failed(call, _TookTooLong(f"the tool took longer than {call.tool.timeout_s:g} s"))

    async def _wait_for_approval(self, call: _Call, approval: _Approval) -> None:
        """Raises: `_NotApproved`."""
        asked, name = call.asked, call.context.agent.name if call.context.agent is not None else ""
        offer(self.results, ApprovalWanted(asked.turn, asked.call_id, asked.tool, asked.arguments, name))
        with trio.move_on_after(call.tool.timeout_s):
            async with trio.open_nursery() as nursery:
                if self.approver is not None:
                    nursery.start_soon(self._ask, self.approver, call, approval, name)
                await approval.decided.wait()
                nursery.cancel_scope.cancel()
        approval.decide(False, f"nobody answered within {call.tool.timeout_s:g} s")
        if not approval.given:
            raise _NotApproved("not approved" + (f": {approval.reason}" if approval.reason else ""))

    async def ask_about(self, asked: ToolApproval) -> None:
        """Have a call approved that the server would make itself."""
        given, reason = False, f"nobody answered within {APPROVAL_S:g} s"
        with trio.move_on_after(APPROVAL_S):
            if self.approver is None:
                await trio.sleep_forever()
            else:
                given, reason = await _asked(self.approver, asked)
        offer(self.results, ApproverDecided(asked.call_id, given, reason))

    async def _ask(self, approver: Approver, call: _Call, approval: _Approval, agent: str) -> None:
        asked = call.asked
        wanted = ToolApproval(
            at=trio.current_time(),
            turn=asked.turn,
            call_id=asked.call_id,
            tool=asked.tool,
            arguments=asked.arguments,
            agent=agent,
        )
        approval.decide(*await _asked(approver, wanted))

    async def _do(self, call: _Call) -> None:
        """Let the tool work. Its result is sent in the same step in which it ends: no checkpoint can lose it."""
        value: Any = None
        failure: BaseException | None = None
        finished = False
        try:
            if not call.scope.cancel_called:
                with call.scope:
                    value = await call.tool.call(call.context, call.asked.arguments)
                    finished = True
        except BaseException as error:
            # Outside of the scope, which takes its own Cancelled out of a group and lets the rest of it pass.
            if not _is_of_the_tool(error):
                raise
            failure = error
        finally:
            call.ended.set()
        if finished:
            self._send_of(call, value, failed=False)
        elif failure is not None and not call.scope.cancel_called:
            self._failed(call, failure)
        else:
            self._fail(call, INTERRUPTED)

    # --- threads ----------------------------------------------------------------------------------

    async def _in_thread(self, call: _Call, function: Callable[[], Any]) -> Any:
        async with self.free_threads:
            if not self.threads.available_tokens:
                raise RuntimeError(f"{MAX_THREADS_LEFT} functions of earlier calls have never ended")
            call.restart_clock()
            call.threads += 1
            try:
                return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=self.threads)
            finally:
                call.threads -= 1

    def _progress(self, call: _Call, text: str) -> None:
        """From the tool, in whichever thread it is."""
        call.progress = text
        if threading.get_ident() == self.thread:
            self._tell_progress(call)
            return
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self._tell_progress, call, idempotent=True)

    def _tell_progress(self, call: _Call) -> None:
        if call.answered or not call.progress.strip():
            return
        if call.news is not None and not call.news.taken:
            call.news.text = call.progress
            return
        quiet = call.tool.on_interrupt == "finish_silently"
        call.news = ToolProgressed(call.asked.turn, call.asked.call_id, call.asked.tool, call.progress, quiet)
        offer(self.results, call.news)

    # --- the answer -------------------------------------------------------------------------------

    def _failed(self, call: _Call, error: BaseException) -> None:
        """The tool raised, or took too long: in the tool's own words for it, where it has some."""
        if call.answered:
            return
        if isinstance(error, ToolArgumentsError | _TookTooLong):
            words = str(error)
        else:
            own_words = _words_of(error)
            # The application's log may render a traceback with all its words: megabytes of them would hold up the loop.
            is_short = len(own_words) <= MOST_LOGGED_CHARS
            why: dict[str, Any] = {"exc_info": error} if is_short else {"error": own_words[:MOST_LOGGED_CHARS]}
            log.error("tool.failed", tool=call.asked.tool, call_id=call.asked.call_id, **why)
            words = f"the tool failed: {type(error).__name__}: {own_words}"
        if call.tool.on_error is not None and isinstance(error, Exception):
            try:
                self._send_of(call, call.tool.on_error(call.context, error), failed=True)
            except Exception:
                log.exception("tool.on_error_failed", tool=call.asked.tool, call_id=call.asked.call_id)
            else:
                return
        self._fail(call, words)

    def _fail(self, call: _Call, words: str) -> None:
        self._send_of(call, {"error": words}, failed=True)

    def _send_of(self, call: _Call, value: Any, *, failed: bool) -> None:
        if call.answered:
            return
        call.answered = True
        del self.calls[call.asked.call_id]
        if call.place is not None:
            self.lines[call.tool.name].leave(call.place)
        tool = call.tool
        quiet = tool.result == "silent" or isinstance(value, Silent)
        value = value.value if isinstance(value, Silent) else value
        began_at, soft = call.began_at, tool.on_interrupt == "finish_silently"
        self._send(call.asked, value, failed=failed, began_at=began_at, quiet=quiet, quiet_if_interrupted=soft)

    def _send(self, asked: RunTool, value: Any, *, failed: bool, began_at: float | None = None, **quiet: bool) -> None:
        duration_ms = (trio.current_time() - began_at) * 1000 if began_at is not None else 0.0
        result = ToolResult(asked.turn, asked.call_id, asked.tool, _as_text(value), failed, duration_ms, **quiet)
        offer(self.results, result)


async def _asked(approver: Approver, wanted: ToolApproval) -> tuple[bool, str]:
    """Whether it agrees, and why not where there is a reason."""
    try:
        given = approver(wanted)
        if inspect.isawaitable(given):
            given = await given
    except Exception:
        log.exception("tool.approver_failed", tool=wanted.tool, call_id=wanted.call_id)
        return False, "the question could not be put"
    return bool(given), ""


def _is_of_the_tool(error: BaseException) -> bool:
    """Whether the tool is to blame for it. Ctrl-C is meant for the program, and a `Cancelled` for whoever is cancelled;
    one that comes while nobody is has leaked from a scope of the tool's own."""
    if _has(error, KeyboardInterrupt):
        return False
    return not (_has(error, trio.Cancelled) and trio.current_effective_deadline() == -float("inf"))


def _has(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind)


def _words_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "it has no words for it"


def _as_text(value: Any) -> str:
    """What the model is told: text as it is, anything else as JSON."""
    if not isinstance(value, str):
        try:
            value = msgspec.json.encode(value).decode()
        except Exception as error:  # a result may be any object: its own code runs here
            told = f"the result cannot be put into JSON: {type(error).__name__}: {_words_of(error)}"
            value = msgspec.json.encode({"error": told.encode("utf-8", "replace").decode()}).decode()
    if len(value) > MAX_OUTPUT_CHARS:
        value = value[:MAX_OUTPUT_CHARS] + " … (cut: the result was too long)"
    # Half a surrogate pair is no text: it would break the connection's encoder.
    return str(value).encode("utf-8", "replace").decode()
