"""One simulated conversation: a `Plan` in, an `Outcome` out, in virtual time.

Between the plan (`people.py`) and the rules (`checks.py`): the real session, a server in memory, a person, and the
weather that strikes. The invariant: the same plan gives the same outcome, to the sample.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias

import attrs
import trio

from trio_voice import supervisor
from trio_voice.agent import RealtimeAgent
from trio_voice.agent_settings import Filler, IdlePrompts
from trio_voice.audio import AudioFormat, Samples
from trio_voice.config import AudioInputConfig, AudioOutputConfig, ConnectionOptions, ConnectionState
from trio_voice.devices import OpenSpeaker, Pull
from trio_voice.devices.wav import SoftwareSpeaker
from trio_voice.errors import SessionEnded
from trio_voice.events import ResponseEnd, ResponseStart, ToolApproval
from trio_voice.protocol import TurnDetection
from trio_voice.protocol.items import Item
from trio_voice.server import input_audio
from trio_voice.server.brain import ResponseRequest, ResponseWriter
from trio_voice.server.scripted import Say, ScriptedBrain, Step, marked_samples
from trio_voice.server.server_settings import ServerSettings
from trio_voice.session import RealtimeSession
from trio_voice.testing.checks import CLOSING_S, Violation, Watch
from trio_voice.testing.devices import ScriptedMicrophone
from trio_voice.testing.direct import DIRECT_FAULTS, DIRECT_FRAME_MS, DirectServer, without_bytes
from trio_voice.testing.drawn_agents import agents_of, guarded
from trio_voice.testing.drawn_tools import SHOP, SHOP_TOOLS, decide, tools_of
from trio_voice.testing.faults import Fault, FaultKind
from trio_voice.testing.hearing import CheapDetector, CheapResampler, Ear
from trio_voice.testing.people import Answers, Plan, State
from trio_voice.testing.person import Person
from trio_voice.testing.server import FaultyServer, memory_server
from trio_voice.testing.virtual_time import VirtualClock, without_sockets
from trio_voice.testing.weather import Weather
from trio_voice.testing.word_rules import FORBIDDEN

FRAME_MS = 20
REST_WITHIN_S = 400.0
ANSWER_WITHIN_S = 120.0
TALKATIVE: dict[str, Any] = {
    "greeting": "Hello, this is the agent.",
    "idle_prompts": IdlePrompts(after_ms=3000, at_most=2),
    "filler": Filler(after_ms=300),
}


Wire: TypeAlias = Literal["websocket", "direct"]


@attrs.frozen
class Outcome:
    """What came of a conversation."""

    plan: Plan
    violations: tuple[Violation, ...] = ()
    virtual_s: float = 0.0
    faults: Counter[FaultKind] = attrs.Factory(Counter)
    cells: Counter[tuple[FaultKind, State]] = attrs.Factory(Counter)
    reconnects: int = 0
    interruptions: int = 0
    tools: Counter[str] = attrs.Factory(Counter)
    """Calls, by the name of the tool."""
    handoffs: int = 0
    approvals: int = 0
    """Answers to a server that asks whether it may call a tool of its own."""
    hosted_calls: int = 0
    edits: int = 0
    trips: int = 0
    """Of guardrails."""
    said: int = 0
    """Words that the application had said."""
    rotations: int = 0
    turns: int = 0
    wall_s: float = 0.0
    """Of CPU time."""
    ended_by: str = ""
    """The `WireLost` that ended it early."""


def converse(plan: Plan, *, wire: Wire = "websocket") -> Outcome:
    """Hold the conversation of `plan`."""
    began_at = time.process_time()
    is_direct = wire == "direct"
    held = plan
    if is_direct:
        held = attrs.evolve(
            plan, faults=tuple(f for f in plan.faults if f.fault.kind in DIRECT_FAULTS), block_ms=DIRECT_FRAME_MS
        )
    bytes_or_not = without_bytes() if is_direct else nullcontext()
    with _repeatable(plan.seed), _cheap_hearing(), bytes_or_not, without_sockets():
        clock = VirtualClock()
        outcome = trio.run(_hold, held, is_direct, clock, clock=clock)
    return attrs.evolve(outcome, plan=plan, wall_s=time.process_time() - began_at)


async def _compare(session: RealtimeSession, brain: _Brain, watch: Watch) -> None:
    """What the model knows, and what the session takes it to know."""
    with trio.move_on_after(ANSWER_WITHIN_S) as waiting:
        await trio.sleep(3)
        while session.connection_state is not ConnectionState.CONNECTED:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.5)
        brain.look = partial(_same_record, watch, session)
        await session.respond()
        while brain.look is not None:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.5)
        await trio.sleep(3)
    if waiting.cancelled_caught:
        watch.wrong("the conversation goes on", "at rest an answer was asked for, and none was made")


def _same_record(watch: Watch, session: RealtimeSession, shown: Sequence[Item]) -> None:
    if not watch.corrupted:
        watch.record.compare(shown, session._view.history)


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Trio shuffles its tasks, the supervisor draws its delays: both from the seed, as trio has it for hypothesis."""
    from trio._core import _run

    run, before = supervisor.run, _run._ALLOW_DETERMINISTIC_SCHEDULING

    async def supervise(link: supervisor.Link) -> None:
        link.rng, link.wall_clock = random.Random(seed), trio.current_time
        await run(link)

    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # a Final, set as hypothesis sets it
    _run._r.seed(seed)
    supervisor.run = supervise
    try:
        yield
    finally:
        supervisor.run = run
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


@contextmanager
def _cheap_hearing() -> Iterator[None]:
    """Scripted people are loud or mute: the server needs no filter to hear which."""
    place, name = input_audio, "StreamResampler"
    before = getattr(place, name)
    setattr(place, name, CheapResampler)
    try:
        yield
    finally:
        setattr(place, name, before)


async def _hold(plan: Plan, is_direct: bool, clock: VirtualClock) -> Outcome:
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    answers, ear = Answers(plan.seed, plan.tools, guarded=bool(plan.guardrails)), Ear()
    watch = Watch(ear)
    brain = _Brain(
        answers, _words_of(plan), watch=watch, think_ms=plan.think_ms, chunk_delay_ms=plan.clause_delay_ms,
        hear_ms=plan.hear_ms,
        detector=CheapDetector, mcp_tools=SHOP_TOOLS,
    )  # fmt: skip
    rng = random.Random(f"{plan.seed}/server")
    settings = ServerSettings(
        session_limit_s=plan.session_limit_s, rng=rng, wall_clock=trio.current_time, dialect=plan.dialect
    )
    lost: BaseException | None = None
    began_at = trio.current_time()
    kind = DirectServer if is_direct else FaultyServer
    chunk_ms = DIRECT_FRAME_MS if is_direct else FRAME_MS
    watch.frame_ms = chunk_ms
    async with memory_server(brain, settings=settings, rng=rng, kind=kind) as server, trio.open_nursery() as nursery:
        server.watch = watch.message
        microphone = _Microphone(sleep_until=clock.sleep_until)
        base = RealtimeAgent(turn_detection=None if plan.push_to_talk else TurnDetection())
        base = attrs.evolve(base, **TALKATIVE) if plan.talkative else base
        base = guarded(base, plan.guardrails, watch) if plan.guardrails else base
        agents = agents_of(base, plan.agents, [*tools_of(watch), *([SHOP] if plan.hosted else [])], watch)
        session = RealtimeSession(
            next(iter(agents.values())),
            connection=ConnectionOptions(
                url="ws://memory/v1/realtime", model="any", dialect=plan.dialect, native_resume=False
            ),
            microphone=microphone,
            speaker=_Speaker(clock, ear, plan.block_ms, plan.latency_ms),
            audio_input=AudioInputConfig(chunk_ms=chunk_ms),
            audio_output=AudioOutputConfig(prebuffer_ms=plan.prebuffer_ms, fade_ms=0),
            open_stream=server.open_stream,
        )
        weather = Weather(plan, session, server, watch, nursery)
        server.on_connect = weather.on_connect
        microphone.on_frame = weather.look
        nursery.start_soon(_listen, session, watch, weather)
        left_at: float | None = None
        goes_on = False
        try:
            async with session:
                weather.entered = True
                person = Person(plan, session, microphone, weather, brain, watch, tuple(agents.values()))
                await person.take_part()
                await weather.clear_up()
                goes_on = await _come_to_rest(person, session, watch, weather)
                if goes_on:
                    await _compare(session, brain, watch)
                    await server.strike(Fault("reset"))
                    await _compare(session, brain, watch)
                await weather.close_in()
                left_at = trio.current_time()
        except SessionEnded:
            pass
        except Exception as error:
            lost = error
        if left_at is not None and trio.current_time() - left_at > CLOSING_S:
            watch.wrong("bounded closing", f"leaving took {trio.current_time() - left_at:.2f} s")
        nursery.cancel_scope.cancel()
    if clock.stood_still_at is not None:
        watch.wrong("time goes on", f"a task waited for ever for what was past at {clock.stood_still_at} s")
    watch.judge_end(lost, weather.struck)
    watch.judge_sound()
    watch.judge_words(session_goes_on=goes_on)
    if lost is None:
        watch.hosted.judge(watch.connected)
    if goes_on:
        watch.charge.judge(watch.connected, session.agent.name)
    watch.leave_out(session._view.history)
    watch.judge_texts(session_goes_on=goes_on)
    watch.judge_utterances(session._view.history, session_goes_on=goes_on)
    watch.judge_tools(session_goes_on=goes_on)
    left = trio.lowlevel.current_statistics().tasks_living - tasks_before
    if left:
        watch.wrong("nothing outlives its nursery", f"{left} tasks are left")
    return Outcome(
        plan,
        tuple(watch.violations),
        trio.current_time() - began_at,
        Counter(fault.kind for fault in weather.struck),
        weather.cells,
        watch.reconnects,
        watch.interruptions,
        watch.tools_called,
        watch.charge.handoffs,
        watch.hosted.answers,
        watch.hosted.runs.total(),
        watch.record.edits,
        watch.words.trips,
        watch.words.said,
        weather.rotations,
        len(watch.turns),
        ended_by=str(lost or ""),
    )


async def _listen(session: RealtimeSession, watch: Watch, weather: Weather) -> None:
    stream = session.events()
    async for first in stream:
        burst = [first, *stream._queue]  # one pass for all that is there
        stream._queue.clear()
        for event in burst:
            if isinstance(event, ResponseStart | ResponseEnd):
                weather.last_stir_at = trio.current_time()
                weather.answered += isinstance(event, ResponseEnd)
            if isinstance(event, ToolApproval):
                weather.nursery.start_soon(decide, event, session, watch)
            watch.event(event)
            weather.look()


async def _come_to_rest(person: Person, session: RealtimeSession, watch: Watch, weather: Weather) -> bool:
    """After the last fault a word is answered, and then all is quiet; both in bounded time."""
    answered = weather.answered
    with trio.move_on_after(ANSWER_WITHIN_S) as waiting:
        while session.connection_state is not ConnectionState.CONNECTED:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.5)
        await person.write("Goodbye.")
        while weather.answered <= answered:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.5)
    if waiting.cancelled_caught:
        watch.wrong("the conversation goes on", f"no answer for {ANSWER_WITHIN_S:g} s after the last fault")
        return False
    with trio.move_on_after(REST_WITHIN_S) as waiting:
        while not weather.at_rest():  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.5)
    if waiting.cancelled_caught:
        watch.wrong("the conversation comes to rest", f"{session.state.value}, {watch.tools_running} tools running")
        return False
    return True


def _words_of(plan: Plan) -> Callable[[Samples, int], str]:
    """What people say aloud: where it is looked at, now and then what they must not."""

    def words(samples: Samples, rate_hz: int) -> str:
        return f"tell me about {FORBIDDEN}" if plan.guardrails and len(samples) // 480 % 5 == 0 else "yes please"

    return words


class _Brain(ScriptedBrain):
    """Marks all that it says by its turn, words that it was given too: no two answers may sound the same."""

    def __init__(self, *scripts: Any, watch: Watch, **more: Any) -> None:
        super().__init__(*scripts, **more)
        self._watch = watch
        self.look: Callable[[Sequence[Item]], None] | None = None
        """Called once, with what the next request shows."""

    async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
        if self.look is not None and request.tool_choice != "none":
            self.look(request.items)
            self.look = None
            self._answered += 1
            await writer.speak("Yes.", marked_samples(self._answered - 1, 4800))
            return
        self._watch.words.asked(request.instructions, self._answered + 1)
        await super().respond(attrs.evolve(request, instructions=""), writer)

    def _steps(self, turn: int, request: ResponseRequest) -> Iterator[Step]:
        for step in super()._steps(turn, request):
            if isinstance(step, Say) and FORBIDDEN in step.text:
                self._watch.words.forbidden.add(turn + 1)
            yield step


@attrs.define(eq=False)
class _Microphone(ScriptedMicrophone):
    on_frame: Callable[[], None] | None = None

    def take(self, byte_count: int, captured_at: float) -> bytes:
        if self.on_frame is not None:
            self.on_frame()
        return super().take(byte_count, captured_at)


@attrs.define(eq=False)
class _Speaker:
    """Pulls at each tick of the clock, outside of every task, as a sound card does."""

    clock: VirtualClock
    ear: Ear
    block_ms: int
    latency_ms: int
    name: str = "ear"

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        block_samples, write = audio_format.samples_of_ms(self.block_ms), self.ear.write
        with self.clock.every(self.block_ms / 1000, lambda: write(pull(block_samples))):
            yield SoftwareSpeaker(audio_format.samples_of_ms(self.latency_ms))
