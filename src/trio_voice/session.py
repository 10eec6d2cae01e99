"""A session: the whole topology on one screen (`RealtimeSession._run`), and the methods an application calls."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import trio

from trio_voice import capture, conversation, guardrails, history_export, logs, playback, supervisor, tools
from trio_voice.agent import RealtimeAgent
from trio_voice.agent_in_charge import AgentInCharge, connection_for
from trio_voice.audio import Frame
from trio_voice.channels import (
    CHECK_CAPACITY,
    INBOX_CAPACITY,
    PLAYBACK_CAPACITY,
    TOOL_CAPACITY,
    CheckText,
    Command,
    CommandName,
    DropOldest,
    EventFanOut,
    EventStream,
    InboxItem,
    OnDemand,
    PlaybackItem,
)
from trio_voice.config import (
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    ConnectionOptions,
    ConnectionState,
    SessionState,
)
from trio_voice.conversation_view import ConversationView
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.echo import EchoGate, PlaybackReference
from trio_voice.errors import ConfigError, SessionEnded, cause_of
from trio_voice.events import EVENT_NAMES, PROTOCOL_EVENTS, SOUND_EVENTS, Disconnected, ResponseAudio, SessionEvent
from trio_voice.frame_filters import FrameFilter
from trio_voice.logs import log
from trio_voice.mcp_tools import McpToolbox
from trio_voice.protocol.edits import check_words
from trio_voice.protocol.history import History
from trio_voice.session_figures import SessionFigures
from trio_voice.session_history import HistoryMethods, check_turns
from trio_voice.tool_items import ToolItem
from trio_voice.tracker import ConversationTracker, SessionMetrics
from trio_voice.turn_reports import tell_turns_over
from trio_voice.usage import Prices
from trio_voice.voice_activity import EnergyDetector, VoiceDetector, VoiceMeter

if TYPE_CHECKING:
    from trio_voice.devices import Microphone, Speaker
    from trio_voice.loop_watch import LoopWatch

CALLBACKS_GRACE_S = 1.0
"""How long callbacks may go on after the end, of which they are told as well."""

_SPREADING = random.Random()
"""For all sessions: the state of one takes 2.5 kB."""


class RealtimeSession(HistoryMethods):
    """One conversation, alive inside `async with`.

    Entering starts every actor, connects, and waits until the server has taken the configuration; leaving
    disconnects. If the connection fails in between, the body is cancelled and the error comes out of `async with`.

    A device that fails is opened again, and ends nothing.

    Raises, from `async with`: `WireLost`, `ConfigError`, `DeviceError` (at the start, or where opening it again cannot
    help); anything else is the body's own.
    """

    def __init__(
        self,
        agent: RealtimeAgent,
        *,
        context: Any = None,
        connection: ConnectionOptions | None = None,
        microphone: Microphone | None = None,
        speaker: Speaker | None = None,
        audio_input: AudioInputConfig | None = None,
        audio_output: AudioOutputConfig | None = None,
        capture_filters: Sequence[FrameFilter] = (),
        playback_filters: Sequence[FrameFilter] = (),
        metadata: dict[str, Any] | None = None,
        history: Mapping[str, Any] | None = None,
        history_turns: int | None = None,
        prices: Prices | None = None,
        approver: tools.Approver | None = None,
        open_stream: supervisor.OpenStream | None = None,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        loop_watch: LoopWatch | None = None,
    ) -> None:
        """`context` is your own object, for instructions that are made of it; tools find it in their `ToolContext`.

        `microphone` and `speaker` are opened when the agent's capabilities ask for them; None goes without.

        `capture_filters` see the microphone's frames after what `audio_input` asks for, and before they are sent;
        `playback_filters` see the blocks that the speaker takes. `loop_watch` is installed while the session lives.

        `history` is what an earlier session's `export()` gave: the server is told its items first, and the conversation
        goes on from there. `history_turns` is how many of the newest turns are kept, for conversations that go on for
        days; None keeps all. `prices` make `metrics.cost` of what is used.

        `approver`, plain or async, is asked about calls of tools that need approval; without it,
        `approve()` and `reject()` answer.

        Raises: `ConfigError` for settings that cannot be together, for what the server cannot do, and for a `history`
        that is none.

        For tests: `open_stream` makes the byte stream of each connection in place of the network; `wall_clock` tells
        the date, against which a server's session limit is read; `rng` spreads the attempts to reconnect.
        """
        self.context = context
        self._approver = approver
        self.connection = connection_for(agent, connection or ConnectionOptions())
        server, model = self.connection.server, self.connection.model
        self.audio_input = audio_input or AudioInputConfig(sample_rate_hz=server.input_rate_hz)
        self.audio_output = audio_output or AudioOutputConfig(sample_rate_hz=server.output_rate_hz)
        self._in_charge = AgentInCharge(agent, self.audio_input, self.audio_output, context, model, server)
        if server.sound_is_elsewhere and (microphone is not None or speaker is not None):
            raise ConfigError("a session with call_id has its sound elsewhere; give it no microphone and no speaker")
        self._microphone = microphone if agent.can(AgentCapability.VOICE_INPUT) else None
        self._speaker = speaker if agent.can(AgentCapability.VOICE_OUTPUT) else None
        self._capture_filters, self._playback_filters = tuple(capture_filters), tuple(playback_filters)
        self._reference: PlaybackReference | None = None
        self._voice: VoiceMeter | None = None
        if self._microphone is not None:
            self._prepare_capture()
        self._open_stream = open_stream
        self._wall_clock = wall_clock
        self._rng = rng or _SPREADING
        self._history_turns = check_turns(history_turns)
        self._earlier = history_export.read(history) if history is not None else history_export.NOTHING
        self._metadata, self._prices = {**self._earlier.metadata, **(metadata or {})}, prices
        self._loop_watch = loop_watch
        self._fan_out = EventFanOut()
        self._callbacks: dict[str, list[Callable[[Any], Any]]] = {}
        self._callback_stream = self._fan_out.subscribe()
        self._callback_stream.only = self._callbacks
        self._calling = trio.CancelScope(shield=True)  # until the session has ended, and a while longer
        self._waiting: set[Command] = set()
        self._lifetime: AbstractAsyncContextManager[None] | None = None
        self._ended_at: float | None = None
        self._ended = trio.Event()

    def _prepare_capture(self) -> None:
        """What stands between the microphone and the wire. What an extra has to bring is loaded here, and only here."""
        hearing, policy = self.audio_input, self.agent.interruption
        if hearing.echo != "off":
            if self._speaker is None or hearing.sample_rate_hz != self.audio_output.device_format.rate_hz:
                raise ConfigError(
                    f"echo={hearing.echo!r} needs to know what is played: give the session a speaker of its own, at "
                    "the sample rate of the microphone"
                )
            self._reference = PlaybackReference(self.audio_output.device_format, trio.current_time)
        if hearing.processes:
            from trio_voice.devices.webrtc import WebRtcFilter

            self._capture_filters = (WebRtcFilter(hearing, self._reference), *self._capture_filters)
        if hearing.echo == "gate" and self._reference is not None:
            self._capture_filters = (EchoGate(self._reference, hearing.gate_tail_ms), *self._capture_filters)
        if policy.listens_itself:
            detector: VoiceDetector = EnergyDetector()
            if policy.detector == "silero":
                from trio_voice.devices.silero import SileroVoiceDetector

                detector = SileroVoiceDetector()
            detector.start(hearing.format)
            self._voice = VoiceMeter(detector, hearing.format, policy.min_speech_ms)

    # --- the topology -----------------------------------------------------------------------------

    async def _run(self, outer: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The session nursery. Every actor, every channel, who holds which end: this is all there is.

        Callbacks run in `outer`: they are told of the end, too.
        """
        to_conversation, inbox = trio.open_memory_channel[InboxItem](INBOX_CAPACITY)
        self._toolbox = McpToolbox(self._in_charge, self._rng)
        frames = DropOldest[Frame](max(1, self.audio_input.capacity_ms // self.audio_input.chunk_ms))
        history = History()
        began_at = trio.current_time() - self._earlier.duration_s
        forgotten = history_export.restore(self._earlier, history, began_at, self._history_turns)
        self._view = ConversationView(
            history,
            ConversationTracker(
                history,
                started_at=trio.current_time(),
                metadata=self._metadata,
                began_at=began_at,
                forgotten_earlier=forgotten,
            ),
        )
        self._view.log_context.agent = self.agent.name
        logs.bind(self._view.log_context)  # before the first task: each inherits it
        self._commands = to_conversation.clone()
        speaker, microphone = self._speaker, self._microphone
        to_playback: trio.MemorySendChannel[PlaybackItem] | None = None
        playback_items: trio.MemoryReceiveChannel[PlaybackItem] | None = None
        hearing: DeviceRecovery | None = None
        sounding: DeviceRecovery | None = None
        if microphone is not None:
            reports, wait = to_conversation.clone(), self.audio_input.wait_for_device
            hearing = DeviceRecovery("microphone", microphone.name, reports, wait)
        if speaker is not None:
            reports, wait = to_conversation.clone(), self.audio_output.wait_for_device
            sounding = DeviceRecovery("speaker", speaker.name, reports, wait)
            to_playback, playback_items = trio.open_memory_channel[PlaybackItem](PLAYBACK_CAPACITY)
        self._link = supervisor.Link(
            frames if microphone is not None else None,
            to_conversation.clone(),
            to_playback,
            self._fan_out,
            self._view,
            self.connection,
            self.audio_input,
            self._open_stream,
            self._wall_clock,
            self._rng,
            self.audio_output.sample_rate_hz,
        )
        self._figures = SessionFigures(
            self._view,
            self._fan_out,
            frames,
            self._link,
            self.audio_output.device_format,
            hearing,
            sounding,
            self._loop_watch,
            self._prices,
        )
        self._view.readings = self._figures.readings
        try:
            async with trio.open_nursery() as nursery:
                self._actors = nursery.cancel_scope
                outer.start_soon(self._run_callbacks)
                if speaker is not None and sounding is not None and playback_items is not None:
                    play = partial(playback.run, playback_items, to_conversation.clone(), speaker=speaker)
                    play = partial(play, config=self.audio_output, recovery=sounding)
                    play = partial(play, filters=self._playback_filters, reference=self._reference)
                    play = partial(play, fan_out=self._fan_out)
                    self._figures.played = await nursery.start(play)
                if microphone is not None and hearing is not None:
                    hear = partial(capture.run, frames, microphone=microphone, config=self.audio_input)
                    hear = partial(hear, recovery=hearing, filters=self._capture_filters, voice=self._voice)
                    await nursery.start(partial(hear, reports=to_conversation.clone()))
                await self._toolbox.begin(to_conversation, nursery)
                execute = partial(tools.run, tools=self._in_charge.equipped.runnable, context=self.context)
                execute = partial(execute, agent=self.agent, approver=self._approver)
                to_tools = OnDemand[ToolItem](
                    TOOL_CAPACITY, lambda calls: nursery.start_soon(execute, calls, to_conversation.clone())
                )
                look = partial(guardrails.run, context=self.context)
                to_guardrails = OnDemand[CheckText](
                    CHECK_CAPACITY, lambda checks: nursery.start_soon(look, checks, to_conversation.clone())
                )
                conduct = partial(conversation.run, inbox, tool_calls=to_tools, checks=to_guardrails)
                conduct = partial(conduct, playback=to_playback.clone() if to_playback is not None else None)
                conduct = partial(conduct, fan_out=self._fan_out, view=self._view, in_charge=self._in_charge)
                conduct = partial(conduct, connection=self.connection, history_turns=self._history_turns)
                nursery.start_soon(conduct)
                nursery.start_soon(supervisor.run, self._link)
                task_status.started()
                del task_status  # it would keep the nursery of the start as long as the session lives
        finally:
            self._end()
            for end in (to_conversation, inbox, to_playback, playback_items):
                if end is not None:
                    end.close()
            frames.close()
            self._toolbox.close()

    # --- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._lifetime is not None:
            raise SessionEnded("a RealtimeSession is entered once; make a new one for a new conversation")
        logs.prepare()
        self._lifetime = self._alive()
        await self._lifetime.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._lifetime is not None
        return await self._lifetime.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        try:
            with self._loop_watch.watching() if self._loop_watch is not None else nullcontext():
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._run, nursery)
                    await self._view.ready.wait()
                    yield
                    await self.disconnect()
        except BaseExceptionGroup as group:
            raise cause_of(group) from None

    async def disconnect(self) -> None:
        """End the session; the body of `async with` goes on. Takes at most about a second, whatever the peer does."""
        if self._lifetime is None:
            raise SessionEnded("disconnect() needs a running session: call it inside `async with`")
        self._actors.cancel()
        await self._ended.wait()

    def _end(self) -> None:
        """Once, however the session ends: the last event, and the end of every stream of events."""
        self._ended_at = trio.current_time()
        self._view.phase, self._view.paused = SessionState.DISCONNECTED, False
        self._view.tracker.close(self._ended_at)
        tell_turns_over(self._view, self._fan_out, self._ended_at)
        self._fan_out.emit(Disconnected(at=self._ended_at, reason="the session ended"))
        self._fan_out.close()
        self._calling.deadline = self._ended_at + CALLBACKS_GRACE_S
        for command in self._waiting:
            command.lost = True
            command.done.set()
        self._ended.set()
        log.info("session.disconnected")

    # --- what it tells ----------------------------------------------------------------------------

    def events(self, *, audio: bool = False, protocol: bool = False, sound: bool = False) -> EventStream:
        """A stream of everything that happens from now on: `async for event in session.events()`.

        `audio` adds the agent's voice as it arrives (`ResponseAudio`), `sound` the microphone as it was sent and the
        loudspeaker as it played (`AudioSent`, `AudioPlayed`), `protocol` every event of the wire.
        """
        return self._fan_out.subscribe(audio=audio, protocol=protocol, sound=sound)

    def on(self, name: str, callback: Callable[[Any], Any]) -> None:
        """Call `callback(event)`, plain or async, for each event called `name`.

        Callbacks run one after the other, in a task of their own: a slow one delays other callbacks, never the
        conversation. One that raises is logged and changes nothing.
        Raises: `ConfigError` for a name that is no event.
        """
        if name not in EVENT_NAMES:
            raise ConfigError(f"there is no event {name!r}; there are: {', '.join(sorted(EVENT_NAMES))}")
        self._callbacks.setdefault(name, []).append(callback)
        self._callback_stream.audio |= EVENT_NAMES[name] is ResponseAudio
        self._callback_stream.protocol |= EVENT_NAMES[name] in PROTOCOL_EVENTS
        self._callback_stream.sound |= EVENT_NAMES[name] in SOUND_EVENTS

    async def _run_callbacks(self) -> None:
        with self._calling:
            async for event in self._callback_stream:
                await self._call_back(event)
                del event  # its sound is not kept for as long as nothing comes

    async def _call_back(self, event: SessionEvent) -> None:
        for callback in self._callbacks.get(event.name, ()):
            try:
                result = callback(event)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("callback.failed", event_name=event.name)

    @property
    def agent(self) -> RealtimeAgent:
        """The agent in charge."""
        return self._in_charge.agent

    @property
    def has_speaker(self) -> bool:
        """Whether the session plays the agent's voice itself."""
        return self._speaker is not None

    @property
    def state(self) -> SessionState:
        """INITIALIZING before the session is entered and configured."""
        return self._view.state if self._lifetime is not None else SessionState.INITIALIZING

    @property
    def connection_state(self) -> ConnectionState:
        """CONNECTED from the moment in which the server has taken the configuration."""
        if self._ended_at is not None:
            return ConnectionState.DISCONNECTED
        return ConnectionState.CONNECTED if self._view.connected else self._link.state

    @property
    def metrics(self) -> SessionMetrics:
        at = self._ended_at if self._ended_at is not None else trio.current_time()
        return self._figures.metrics(at)

    # --- what it can be told ----------------------------------------------------------------------

    async def start_listening(self) -> None:
        """Send what the microphone hears."""
        await self._command("listen")

    async def stop_listening(self) -> None:
        """Send no more. Without turn detection this ends the user's turn and asks for the answer."""
        await self._command("stop_listening")

    async def mute(self) -> None:
        """Send silence in place of the microphone, so that the server can still tell when an utterance ended."""
        await self._command("mute")

    async def unmute(self) -> None:
        await self._command("unmute")

    async def pause(self) -> None:
        """Hold: nothing is sent, and the agent falls silent in mid-word, to go on at `resume()`."""
        await self._command("pause")

    async def resume(self) -> None:
        await self._command("resume")

    async def interrupt(self) -> None:
        """Silence the agent now. When this returns, no sample of what it was saying will be played any more."""
        await self._command("interrupt")

    async def send_text(self, text: str) -> None:
        """Say something in writing; an answer under way is interrupted."""
        check_words("send_text()", text)
        self._check_answers("send_text()")
        if not self.agent.can(AgentCapability.TEXT_INPUT):
            raise ConfigError(f"agent {self.agent.name!r} takes no text; give it AgentCapability.TEXT_INPUT")
        await self._command("text", text=text)

    async def respond(self, instructions: str | None = None, *, interruptible: bool = True) -> None:
        """Ask the agent to speak, without a word from the user; `instructions` hold for this answer only.

        With `interruptible=False` neither speech nor text interrupts it: they are answered when it was heard to its
        end. `interrupt()` silences it all the same.
        """
        self._check_answers("respond()")
        await self._command("respond", instructions=instructions, interruptible=interruptible)

    async def say(self, text: str, *, interruptible: bool = True) -> None:
        """Have the agent say exactly this, when nothing else is being said; it becomes part of the conversation.

        It can be interrupted as any answer, or not with `interruptible=False`: see `respond()`.
        """
        check_words("say()", text)
        self._check_answers("say()")
        await self._command("say", text=text, interruptible=interruptible)

    async def update_agent(self, agent: RealtimeAgent) -> None:
        """Have another agent answer from now on; the conversation stays. When this returns, the server has taken it.

        The voice changes only as long as none was heard. The devices stay as they are.
        Raises: `ConfigError` when the session cannot go on with it, or the server refuses it; the agent that was in
        charge stays. `McpServerError` when one of its MCP servers does not start.
        """
        if self._ended_at is None:
            await self._toolbox.start(agent)
        await self._command("agent", agent=agent)

    async def approve(self, call_id: str) -> bool:
        """Let a call run that waits for it (event `tool_approval`). False when it does not wait, or no more."""
        return (await self._command("approve", call_id=call_id)).in_time

    async def reject(self, call_id: str, reason: str = "") -> bool:
        """The call does not run; the model is told so, and the reason. False when it does not wait, or no more."""
        return (await self._command("reject", call_id=call_id, text=reason)).in_time

    def _check_answers(self, what: str) -> None:
        if self.agent.transcribes_only:
            raise ConfigError(
                f"{what}: agent {self.agent.name!r} only transcribes; give it VOICE_OUTPUT or TEXT_OUTPUT"
            )

    async def _command(self, do: CommandName, **details: Any) -> Command:
        if self._lifetime is None or self._ended_at is not None:
            raise SessionEnded(f"{do!r} needs a running session: call it inside `async with`, before disconnect()")
        command = Command(do, **details)
        try:
            self._commands.send_nowait(command)
        except trio.BrokenResourceError:  # the conversation has ended, and the session is about to
            await trio.lowlevel.checkpoint_if_cancelled()
            raise SessionEnded(f"the session ended before {do!r} was carried out") from None
        self._waiting.add(command)
        try:
            await command.done.wait()
        finally:
            self._waiting.discard(command)
        if command.lost:
            raise SessionEnded(f"the session ended before {do!r} was carried out")
        if command.refused is not None:
            raise command.refused
        return command
