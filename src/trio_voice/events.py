"""What a session tells its application, one frozen value per occurrence.

Each event has the `name` that `session.on(name, callback)` takes, and `at`: seconds on `trio.current_time()`'s
clock. `async for event in session.events()` gives the same values in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict

from trio_voice.protocol.history import HistoryItem  # a replay reads events back by their annotations

if TYPE_CHECKING:
    from trio_voice.protocol import ClientEvent, RemoteProtocolError, ServerEvent, UnknownEvent

DeviceKind: TypeAlias = Literal["microphone", "speaker"]


class SessionEvent(Struct, frozen=True, kw_only=True):
    """The base of everything a session reports."""

    name: ClassVar[str] = ""
    at: float


class Connected(SessionEvent, frozen=True, kw_only=True):
    """The server is there and took the configuration. `resumed`: after a loss, with the conversation restored."""

    name: ClassVar[str] = "connected"
    session_id: str
    resumed: bool = False


class Reconnecting(SessionEvent, frozen=True, kw_only=True):
    """The connection is lost; the next attempt follows after `delay_ms`. What has arrived is still played."""

    name: ClassVar[str] = "reconnecting"
    reason: str
    attempt: int
    delay_ms: float


class Disconnected(SessionEvent, frozen=True, kw_only=True):
    """The session is over."""

    name: ClassVar[str] = "disconnected"
    reason: str


class ListeningStarted(SessionEvent, frozen=True, kw_only=True):
    """The microphone is being sent."""

    name: ClassVar[str] = "listening_started"


class ListeningStopped(SessionEvent, frozen=True, kw_only=True):
    """The microphone is no longer sent."""

    name: ClassVar[str] = "listening_stopped"


class SpeechStart(SessionEvent, frozen=True, kw_only=True):
    """The user began to speak. `audio_ms` counts from the first microphone sample that was sent."""

    name: ClassVar[str] = "speech_start"
    audio_ms: int


class SpeechEnd(SessionEvent, frozen=True, kw_only=True):
    """The user stopped speaking: known only after the silence that the server waits for."""

    name: ClassVar[str] = "speech_end"
    audio_ms: int


class ResponseStart(SessionEvent, frozen=True, kw_only=True):
    """The model began to answer."""

    name: ClassVar[str] = "response_start"
    turn: int
    response_id: str


class ResponseEnd(SessionEvent, frozen=True, kw_only=True):
    """The model finished making its answer. It may play for a long time yet: see `PlaybackEnd`."""

    name: ClassVar[str] = "response_end"
    turn: int
    response_id: str
    status: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    """None where the server does not say."""


class Transcript(SessionEvent, frozen=True, kw_only=True):
    """Words, of either side.

    `delta` is what is new; `text` is all of the item so far. `final` says that no more will come. After a barge-in
    the agent's final transcript holds only what was heard, and `truncated` is true.
    """

    name: ClassVar[str] = "transcript"
    role: Literal["user", "agent"]
    item_id: str
    delta: str
    text: str
    final: bool
    truncated: bool = False


class ResponseAudio(SessionEvent, frozen=True, kw_only=True):
    """A piece of the agent's voice, as `pcm16` at the output rate, the moment it arrived.

    A copy for the application; the session's own speaker does not depend on it. After an interruption no piece of
    the interrupted turn is delivered, not even one that was already waiting.
    """

    name: ClassVar[str] = "audio"
    turn: int
    item_id: str
    pcm: bytes

    def __repr__(self) -> str:
        return _shown(self)


class AudioSent(SessionEvent, frozen=True, kw_only=True):
    """A frame of the microphone, as `pcm16` at the input rate, as it went to the server; only for those who ask.

    What is muted went as silence, and what was not sent is not here. `captured_at`: of its first sample.
    """

    name: ClassVar[str] = "audio_sent"
    captured_at: float
    pcm: bytes

    def __repr__(self) -> str:
        return _shown(self)


class AudioPlayed(SessionEvent, frozen=True, kw_only=True):
    """What the loudspeaker took since the one before, silence too, as `pcm16` at its rate; only for those who ask.

    `heard_at`: of its first sample, by the device's own account of its latency when it was opened.
    """

    name: ClassVar[str] = "audio_played"
    heard_at: float
    pcm: bytes

    def __repr__(self) -> str:
        return _shown(self)


class Interruption(SessionEvent, frozen=True, kw_only=True):
    """The agent fell silent before it had finished.

    `heard_ms` is how much of the sentence being played had reached the user's ear, by the device's own account.
    """

    name: ClassVar[str] = "interruption"
    turn: int
    cause: Literal["speech", "manual", "guardrail"]
    item_id: str | None
    heard_ms: int
    discarded_ms: int


class FalseAlarm(SessionEvent, frozen=True, kw_only=True):
    """Somebody made a sound, shorter than `min_speech_ms`, while the agent spoke: it is at full level again.

    Speech that follows at once may still become an interruption.
    """

    name: ClassVar[str] = "false_alarm"
    turn: int


class UserIdle(SessionEvent, frozen=True, kw_only=True):
    """The agent's `idle_prompts` were no use: nobody has said anything since.

    `silent_ms` is the length of the silence after the last of them. It comes once; any word of the user begins anew.
    """

    name: ClassVar[str] = "user_idle"
    prompts: int
    silent_ms: int


class HandoffOccurred(SessionEvent, frozen=True, kw_only=True):
    """Another agent is in charge. `call_id`: of the model's call; None where the application did it."""

    name: ClassVar[str] = "handoff"
    from_agent: str
    to_agent: str
    call_id: str | None


class GuardrailTripped(SessionEvent, frozen=True, kw_only=True):
    """A guardrail found something in the agent's words (`output`) or the user's (`input`): once for each turn.

    `replaced` says whether something else is said instead. It is not where that would come too late: the user has
    gone on, or was the first to interrupt.
    """

    name: ClassVar[str] = "guardrail_tripped"
    guardrail: str
    kind: Literal["output", "input"]
    reason: str
    info: Any
    item_id: str
    turn: int | None
    """Of the response; None for the user's words."""
    replaced: bool


class ToolCalled(SessionEvent, frozen=True, kw_only=True):
    """The model has called a tool. It runs at once, unless it has to be approved first, or waits for others."""

    name: ClassVar[str] = "tool_call"
    turn: int
    call_id: str
    tool: str
    arguments: str


class ToolFinished(SessionEvent, frozen=True, kw_only=True):
    """A tool has run; `output` is what the model is told."""

    name: ClassVar[str] = "tool_result"
    turn: int
    call_id: str
    tool: str
    output: str
    failed: bool
    duration_ms: float


class ToolApproval(SessionEvent, frozen=True, kw_only=True):
    """A call waits until `session.approve(call_id)` or `session.reject(call_id)`. `agent`: the name of who made it."""

    name: ClassVar[str] = "tool_approval"
    turn: int
    call_id: str
    tool: str
    arguments: str
    agent: str


class ToolProgress(SessionEvent, frozen=True, kw_only=True):
    """A running tool says how it is going; the agent says `text` aloud when nobody else speaks."""

    name: ClassVar[str] = "tool_progress"
    turn: int
    call_id: str
    tool: str
    text: str


class McpToolsListed(SessionEvent, frozen=True, kw_only=True):
    """Which tools an MCP server has: the server is being asked, has answered, or cannot be reached.

    Of a hosted server `server` is its label, of a local one its name. A local one says it again when its tools change,
    and fails with a `reason` when it is lost; it is then started again.
    """

    name: ClassVar[str] = "mcp_tools"
    server: str
    status: Literal["in_progress", "completed", "failed"]
    tools: tuple[str, ...] = ()
    reason: str | None = None


class PlaybackStart(SessionEvent, frozen=True, kw_only=True):
    """The first sample of a turn reached the speaker."""

    name: ClassVar[str] = "playback_start"
    turn: int


class PlaybackEnd(SessionEvent, frozen=True, kw_only=True):
    """The last sample of a turn was heard."""

    name: ClassVar[str] = "playback_end"
    turn: int


class Paused(SessionEvent, frozen=True, kw_only=True):
    """The session holds its breath: nothing is sent, nothing is played."""

    name: ClassVar[str] = "paused"


class Resumed(SessionEvent, frozen=True, kw_only=True):
    """The session goes on where it was."""

    name: ClassVar[str] = "resumed"


class DeviceLost(SessionEvent, frozen=True, kw_only=True):
    """A microphone or loudspeaker failed, or was not there at the start; it is tried again until it is back.

    Meanwhile the server hears silence, or playback keeps what is unheard.
    """

    name: ClassVar[str] = "device_lost"
    kind: DeviceKind
    device: str
    reason: str


class DeviceRestored(SessionEvent, frozen=True, kw_only=True):
    """It works again: sound has passed through it. `outage_ms` counts from its loss until it was open."""

    name: ClassVar[str] = "device_restored"
    kind: DeviceKind
    device: str
    outage_ms: float


class HistoryChanged(SessionEvent, frozen=True, kw_only=True):
    """An item of the conversation is new, is otherwise than it was, or is gone.

    `changed` when its words are complete, and when it was cut; words that are still arriving are `Transcript`s. An
    edited message is one item `added` and one `deleted`. `forgotten` when it became older than the session is to keep
    (`history_turns`): it was not taken out of the conversation, and the model may know it still. `after` is the id of
    the item before it, None for the first: not every item is added at the end, and one may be found to stand elsewhere.
    """

    name: ClassVar[str] = "history"
    change: Literal["added", "changed", "deleted", "forgotten"]
    item: HistoryItem
    after: str | None = None


class TurnMetrics(SessionEvent, frozen=True, kw_only=True):
    """A `ConversationTurn` is over: its figures. The user has begun the next one, or the session has ended.

    Of a tool that still runs there is nothing in it; `session.turns()` has that later.
    """

    name: ClassVar[str] = "turn_metrics"
    id: int
    """Of the `ConversationTurn`."""
    first_delta_ms: float | None
    latency_ms: float | None
    user_audio_ms: float
    agent_audio_ms: float
    tool_calls: int
    tool_ms: float
    interrupted: bool
    false_alarms: int
    underruns: int
    dropped: Mapping[str, int]
    """By channel, since the turn before was over."""
    round_trip_ms: float | None
    """Of the latest pings, the median."""
    stalls: int
    """Of the event loop, since the turn before was over; 0 where nobody watches."""
    stall_ms: float


class ErrorReported(SessionEvent, frozen=True, kw_only=True):
    """Something went wrong and the session goes on. `code` is the server's, where it gave one."""

    name: ClassVar[str] = "error"
    message: str
    code: str | None = None
    source: Literal["server", "protocol", "device", "tool", "guardrail", "session"] = "session"


class ServerEventReceived(SessionEvent, frozen=True, kw_only=True):
    """An event as it came over the wire; only for those who ask (`session.events(protocol=True)`)."""

    name: ClassVar[str] = "server_event"
    event: ServerEvent | UnknownEvent | RemoteProtocolError


class ClientEventSent(SessionEvent, frozen=True, kw_only=True):
    """An event as it was handed to the uplink; only for those who ask. Microphone frames are not among them."""

    name: ClassVar[str] = "client_event"
    event: ClientEvent


def _shown(event: ResponseAudio | AudioSent | AudioPlayed) -> str:
    """With its sound as a length."""
    fields = asdict(event) | {"pcm": f"<{len(event.pcm)} bytes>"}
    told = (f"{name}={value if name == 'pcm' else repr(value)}" for name, value in fields.items())
    return f"{type(event).__name__}({', '.join(told)})"


def _names(base: type[SessionEvent]) -> dict[str, type[SessionEvent]]:
    return {event.name: event for event in base.__subclasses__()}


EVENT_NAMES: dict[str, type[SessionEvent]] = _names(SessionEvent)
"""Every name that `session.on()` takes, and the event that comes with it."""

PROTOCOL_EVENTS: tuple[type[Any], ...] = (ServerEventReceived, ClientEventSent)
SOUND_EVENTS: tuple[type[Any], ...] = (AudioSent, AudioPlayed)
