"""What must hold of a conversation, looked for while it goes on and when it is over.

Watches a `RealtimeSession` from both ends: the messages as they pass the server, and the session's events, sound and
tools. The invariant: it only looks. A `Violation` says which rule, when, and what was seen.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import attrs
import msgspec
import trio

from trio_voice import events
from trio_voice.errors import WireLost
from trio_voice.protocol.history import History
from trio_voice.testing.agent_rules import ChargeRules
from trio_voice.testing.faults import FATAL_FAULTS, Fault
from trio_voice.testing.hearing import Ear, Run, in_order, mark_of
from trio_voice.testing.hosted_rules import HostedRules
from trio_voice.testing.record_rules import RecordRules
from trio_voice.testing.server import Direction, ServedConnection
from trio_voice.testing.word_rules import WordRules

HARMLESS = {
    "response_cancel_not_active",
    "conversation_already_has_active_response",
    "input_audio_buffer_commit_empty",
    "session_expired",
    "simulated",
}
"""Errors of the server that are part of normal life."""
CLOSING_S = 1.05
STALE_MS = 100.0
"""Sound that may be sent ahead of real time on a connection: the frame under way, and rounding."""

LONGEST_CALL_S = 40.0
"""From the call to its answer: of the tools there are, none may take longer, nor wait so long for others."""

_LATER = re.compile(r'\(call "([^"]+)"\), which worked in the background')
_NUMBERED = re.compile(r"\[(\d+)\]")
CREATE = '{"type":"conversation.item.create"'
ADDED = '{"type":"conversation.item.added"'
APPEND = '{"type":"input_audio_buffer.append"'
DELTAS = ("response.output_audio.delta", "response.audio.delta")
"""By both its names: the simulated server may speak the beta."""


@attrs.frozen
class Violation:
    """A rule that did not hold."""

    rule: str
    at_s: float
    seen: str


class _Part(msgspec.Struct):
    text: str = ""


class _Item(msgspec.Struct):
    type: str = ""
    role: str | None = ""
    content: list[_Part] = msgspec.field(default_factory=list)
    id: str | None = ""
    call_id: str | None = ""
    status: str | None = ""
    output: str | None = ""
    arguments: str | None = ""
    approval_request_id: str | None = ""
    approve: bool = False


class _Tool(msgspec.Struct):
    name: str | None = ""


class _Named(msgspec.Struct):
    """A response, or a session."""

    id: str | None = ""
    status: str | None = ""
    instructions: str | None = ""
    tools: list[_Tool] | None = None


class _Error(msgspec.Struct):
    code: str | None = ""
    message: str | None = ""


class _Message(msgspec.Struct):
    type: str
    response_id: str = ""
    item_id: str = ""
    delta: str = ""
    item: _Item = msgspec.field(default_factory=_Item)
    response: _Named = msgspec.field(default_factory=_Named)
    session: _Named = msgspec.field(default_factory=_Named)
    error: _Error = msgspec.field(default_factory=_Error)


_read = msgspec.json.Decoder(_Message).decode
WATCHED = tuple(
    f'{{"type":"{name}"'
    for name in (
        "response.created", "response.done", "response.output_item.done", "response.mcp_call.in_progress",
        "session.updated", "error", *DELTAS,
    )
)  # fmt: skip


@attrs.define(eq=False)
class Answered:
    """A response, as the server made it."""

    connection: int
    mark: int = 0
    samples: int = 0
    status: str = ""


@attrs.define(eq=False)
class Told:
    """What passed the server on one connection."""

    session_id: str = ""
    configured_at: float | None = None
    appended_ms: float = 0.0
    carried_ms: float = 0.0
    """Of an utterance that had begun on the connection before."""
    calls: set[str] = attrs.Factory(set)
    hosted: set[str] = attrs.Factory(set)
    """Calls of the server's own, and what it asks before them."""
    outputs: Counter[str] = attrs.Factory(Counter)
    begun: set[str] = attrs.Factory(set)
    """Calls that go on in the background."""
    later: Counter[str] = attrs.Factory(Counter)
    """Messages with what these found, by call id."""
    texts: Counter[int] = attrs.Factory(Counter)
    """What the user wrote, by the number of each text."""


@attrs.define(eq=False)
class Watch:
    """Both ends of one conversation."""

    ear: Ear
    violations: list[Violation] = attrs.Factory(list)
    words: WordRules = attrs.Factory(lambda self: WordRules(self.wrong), takes_self=True)
    charge: ChargeRules = attrs.Factory(lambda self: ChargeRules(self.wrong), takes_self=True)
    told: dict[int, Told] = attrs.Factory(dict)
    """By connection."""
    responses: dict[str, Answered] = attrs.Factory(dict)
    """By id."""
    item_ms: defaultdict[str, float] = attrs.Factory(lambda: defaultdict(float))
    turns: dict[int, str] = attrs.Factory(dict)
    """Response ids by turn."""
    silent_from: dict[int, int] = attrs.Factory(dict)
    """By turn: the sample from which it must not be heard."""
    hushed_from: dict[int, int] = attrs.Factory(dict)
    """The same, by the word of `interrupt()`, which has returned."""
    played: set[int] = attrs.Factory(set)
    ended: dict[int, str] = attrs.Factory(dict)
    connected: int = 0
    """The newest connection that the session has told of."""
    reconnects: int = 0
    interruptions: int = 0
    tool_runs: Counter[int] = attrs.Factory(Counter)
    tools_running: int = 0
    tools_called: Counter[str] = attrs.Factory(Counter)
    """By the name of the tool."""
    called: dict[str, str | None] = attrs.Factory(dict)
    """By call id: the output."""
    called_at: dict[str, float] = attrs.Factory(dict)
    asked_about: set[str] = attrs.Factory(set)
    """Calls that somebody was asked to approve."""
    approved: set[int] = attrs.Factory(set)
    """Numbers of calls that were about to be approved."""
    counted: set[int] = attrs.Factory(set)
    """Of these, the ones whose approval was in time, and which no interruption cancels."""
    corrupted: bool = False
    frame_ms: int = 20
    """Of the microphone."""
    written: int = 0
    """Texts of the user, numbered from 1."""
    newest: Told = attrs.Factory(Told)
    """The connection that the conversation was on last."""
    unsaid: set[int] = attrs.Factory(set)
    """Numbers of texts that were taken out of the conversation, or never let into it."""
    deciding: int = 0
    """How many approvals the person is thinking about."""
    hosted: HostedRules = attrs.Factory(lambda self: HostedRules(self.wrong, self.approved), takes_self=True)
    record: RecordRules = attrs.Factory(lambda self: RecordRules(self.wrong), takes_self=True)
    forgotten: set[str] = attrs.Factory(set)
    """Calls that were."""

    @property
    def busy(self) -> bool:
        """Tools run, here or at the server, or wait for the person."""
        hosted = (output for call_id, output in self.called.items() if call_id.startswith("mcp"))
        return bool(self.tools_running or self.deciding) or None in hosted

    def wrong(self, rule: str, seen: str) -> None:
        self.violations.append(Violation(rule, round(trio.current_time(), 3), seen))

    # --- at the server ----------------------------------------------------------------------------

    def message(self, connection: ServedConnection, direction: Direction, text: str) -> None:
        told = self.told.get(connection.number)
        if told is None:
            told = self.told[connection.number] = Told()
        if direction == "received":
            if text.startswith(APPEND):
                self._appended(told, connection, text)
            elif text.startswith(CREATE):
                self.newest = told
                self._created(told, connection.number, _read(text).item)
        elif (event := getattr(text, "event", None)) is not None:
            self._sound(connection, event.response_id, event.item_id, event.delta[1], len(event.delta) // 2)
        elif text.startswith(WATCHED) or (text.startswith(ADDED) and '"type":"mcp_call"' in text):
            self._sent(told, connection, _read(text))

    def _appended(self, told: Told, connection: ServedConnection, text: str) -> None:
        event = getattr(text, "event", None)  # where sound passes without bytes
        length_ms = len(event.audio) / 48 if event is not None else len(text) * 3 / 4 / 48
        if told.configured_at is None:
            self.wrong("stale microphone", f"sound on connection {connection.number} before it was configured")
            return
        if length_ms > self.frame_ms * 1.5 and not told.appended_ms and not told.carried_ms:
            told.carried_ms = length_ms  # the beginning of an utterance that was under way when the last one was lost
            return
        told.appended_ms += length_ms
        open_ms = (trio.current_time() - told.configured_at) * 1000
        if told.appended_ms * 0.95 > open_ms + STALE_MS + self.frame_ms:
            self.wrong("stale microphone", f"{told.appended_ms:.0f} ms sent on a connection open for {open_ms:.0f} ms")

    def _created(self, told: Told, number: int, item: _Item) -> None:
        if item.role == "user":
            for found in _NUMBERED.findall("".join(part.text for part in item.content)):
                told.texts[int(found)] += 1
                self.words.sent(int(found))
                if told.texts[int(found)] > 1:
                    self.wrong("every text once", f"text {found} was sent twice on connection {number}")
        if item.type == "mcp_approval_response":
            self.hosted.answered(number, item.approval_request_id or "", item.approve)
        elif item.type == "function_call":
            told.calls.add(item.call_id or "")
        elif item.type == "function_call_output":
            told.outputs[item.call_id or ""] += 1
            if told.outputs[item.call_id or ""] > 1:
                self.wrong("result once", f"the result of {item.call_id} was delivered twice on one connection")
            if (item.output or "").startswith('{"status":"begun"'):
                told.begun.add(item.call_id or "")
        elif item.role == "system":
            for call_id in _LATER.findall("".join(part.text for part in item.content)):
                told.later[call_id] += 1
                if told.later[call_id] > 1:
                    self.wrong("result once", f"what {call_id} found was told twice on connection {number}")

    def _sent(self, told: Told, connection: ServedConnection, message: _Message) -> None:
        match message.type:
            case "response.output_audio.delta" | "response.audio.delta":
                samples = (len(message.delta) * 3 // 4 - message.delta[-2:].count("=")) // 2
                self._sound(connection, message.response_id, message.item_id, mark_of(message.delta), samples)
            case "response.created":
                self.charge.created(connection.number, message.response.id or "")
            case "response.done":
                answered = self.responses.setdefault(message.response.id or "", Answered(connection.number))
                answered.status = message.response.status or ""
            case "response.output_item.done":
                if message.item.type == "function_call" and message.item.status == "completed":
                    told.calls.add(message.item.call_id or "")
                elif message.item.type in ("mcp_call", "mcp_approval_request"):
                    told.hosted.add(message.item.id or "")
                    self._hosted(connection.number, message.item)
            case "conversation.item.added":
                self._hosted(connection.number, message.item)
            case "response.mcp_call.in_progress":
                self.hosted.run(message.item_id)
            case "session.updated":
                session = message.session
                told.session_id = session.id or ""
                tools = [tool.name or "" for tool in session.tools or ()]
                self.charge.updated(connection.number, session.instructions or "", tools)
                if told.configured_at is None:
                    told.configured_at = trio.current_time()
            case "error":
                if (message.error.code or "") not in HARMLESS and not self.corrupted:
                    self.wrong("accepted by the server", f"{message.error.code}: {message.error.message}")

    def _hosted(self, connection: int, item: _Item) -> None:
        if item.type == "mcp_approval_request":
            self.hosted.asked(connection, item.id or "", item.arguments or "")
        elif item.arguments:
            self.hosted.made(item.id or "", item.arguments)

    def _sound(self, connection: ServedConnection, response_id: str, item_id: str, mark: int, samples: int) -> None:
        answered = self.responses.setdefault(response_id, Answered(connection.number))
        answered.mark = answered.mark or mark
        answered.samples += samples
        self.item_ms[item_id] += samples / 24

    # --- at the session ---------------------------------------------------------------------------

    def event(self, event: events.SessionEvent) -> None:
        match event:
            case events.Connected():
                self.reconnects += event.resumed
                numbers = [number for number, told in self.told.items() if told.session_id == event.session_id]
                self.connected = max(numbers, default=self.connected)
            case events.ResponseStart():
                self._began(event)
                self.charge.began(event)
            case events.Interruption():
                self._interrupted(event)
            case events.ResponseEnd():
                self.ended[event.turn] = event.status
            case events.PlaybackEnd():
                self.played.add(event.turn)
            case events.ToolCalled():
                if event.call_id in self.called:
                    self.wrong("tool once", f"{event.call_id} was begun twice")
                self.called[event.call_id] = None
                self.called_at[event.call_id] = event.at
                self.tools_called[event.tool] += 1
            case events.ToolApproval():
                if event.call_id in self.asked_about:
                    self.wrong("asked once", f"approval of {event.call_id} was asked for twice")
                self.asked_about.add(event.call_id)
            case events.ToolFinished():
                self._tool_finished(event)
                self.charge.finished(event)
            case events.GuardrailTripped():
                self._tripped(event)
            case events.SpeechStart() | events.SpeechEnd() | events.Transcript(role="user"):
                self.words.went_on()
            case events.HandoffOccurred():
                self.charge.handed_over(event)
            case events.ErrorReported(code="conversation_already_has_active_response"):
                self.wrong("one response at a time", "the user was told of a collision")

    def _tool_finished(self, event: events.ToolFinished) -> None:
        if self.called.get(event.call_id) is not None:
            self.wrong("result once", f"{event.call_id} ended twice")
        self.called[event.call_id] = event.output
        took_s = event.at - self.called_at.get(event.call_id, event.at)
        if took_s > LONGEST_CALL_S:
            self.wrong("answered in time", f"{event.tool} took {took_s:.1f} s")

    def paid(self, number: int) -> None:
        """A tool runs that has to be approved."""
        if number not in self.approved:
            self.wrong("approved first", f"call {number} runs, and nobody has approved it")

    def _began(self, event: events.ResponseStart) -> None:
        self.turns[event.turn] = event.response_id
        answered = self.responses.get(event.response_id)
        if answered is not None and answered.connection < self.connected:
            self.wrong(
                "nothing of an old epoch",
                f"a response of connection {answered.connection} began after connection {self.connected} was there",
            )

    def _interrupted(self, event: events.Interruption) -> None:
        self.interruptions += 1
        self.silent_from[event.turn] = self.ear.position
        if event.item_id is not None and event.heard_ms > self.item_ms[event.item_id] + 1 and not self.corrupted:
            self.wrong("heard ≤ received", f"{event.heard_ms} ms heard of {self.item_ms[event.item_id]:.0f} ms sent")

    def _tripped(self, event: events.GuardrailTripped) -> None:
        answered = self.responses.get(self.turns.get(event.turn or 0, ""))
        self.words.trip(event, answered.mark if answered is not None else 0)
        if event.replaced and not event.item_id.startswith("checked_"):
            self.hushed(set(self.turns))

    def hushed(self, turns: set[int]) -> None:
        """`interrupt()` has returned: of what was being said when it was called no sample may follow."""
        for turn in turns:
            self.hushed_from.setdefault(turn, self.ear.position)

    # --- when it is over --------------------------------------------------------------------------

    def judge_sound(self) -> None:
        """Every sample that was played, against who was interrupted and what was sent."""
        runs: defaultdict[int, list[Run]] = defaultdict(list)
        for run in self.ear.runs():
            runs[run.mark].append(run)
        of_mark = {answered.mark for answered in self.responses.values() if answered.samples}
        for mark in sorted(runs):
            if mark not in of_mark and not self.corrupted:
                self.wrong("played as sent", f"samples of mark {mark}, which nobody sent")
        for turn, response_id in self.turns.items():
            answered = self.responses.get(response_id)
            if answered is None or not answered.samples:
                continue
            mine = runs[answered.mark]
            played = sum(len(run.places) for run in mine)
            since = self.silent_from.get(turn)
            limit = min(since or self.ear.position, self.hushed_from.get(turn, self.ear.position))
            stale = sum(max(0, run.at + len(run.places) - max(run.at, limit)) for run in mine)
            if stale:
                self.wrong("zero stale samples", f"{stale} samples of turn {turn} after it was interrupted")
            if self.corrupted:
                continue
            if not in_order(mine):
                self.wrong("in order, each once", f"turn {turn}: its {played} samples are not the first {played} sent")
            if played > answered.samples:
                self.wrong("in order, each once", f"turn {turn}: {played} played of {answered.samples} sent")
            whole = since is None and self.ended.get(turn) == "completed" and turn in self.played
            if whole and played != answered.samples:
                self.wrong("every sample of a turn", f"turn {turn}: {played} played of {answered.samples} sent")

    def leave_out(self, history: History) -> None:
        """Of what the model is no longer to know, none is missed."""
        for entry in history:
            if entry.hidden:
                self.not_missed(entry.text, entry.call_id)

    def not_missed(self, text: str, call_id: str) -> None:
        """An item with these words, or of this call, is no longer in the conversation."""
        self.unsaid |= {int(found) for found in _NUMBERED.findall(text)}
        self.forgotten |= {call_id, *_LATER.findall(text)}

    def nothing_is_missed(self) -> None:
        """All items so far are not."""
        self.unsaid |= set(range(1, self.written + 1))
        self.forgotten |= {*self.called, *(call_id for told in self.told.values() for call_id in told.calls)}

    def judge_tools(self, *, session_goes_on: bool) -> None:
        """What ran, and what the newest server knows of it."""
        for number, runs in self.tool_runs.items():
            if runs > 1:
                self.wrong("tool once", f"call {number} ran {runs} times")
        never = sorted(number for number in self.counted if not self.tool_runs[number])
        if never and session_goes_on:
            self.wrong("approved first", f"calls {never} were approved and never ran")
        if not session_goes_on:
            return
        last = self.newest
        for call_id, output in self.called.items():
            if output is None:
                self.wrong("every call is answered", f"{call_id} was begun and never answered")
            elif call_id not in last.calls | last.hosted | self.forgotten:
                self.wrong("result once", f"the server does not know of {call_id} any more")
        for call_id in last.calls:
            if last.outputs[call_id] != 1:
                self.wrong("result once", f"{last.outputs[call_id]} results of {call_id} on the last connection")
        for call_id in last.begun:
            told = last.later[call_id]
            if self.called.get(call_id) is not None and told != 1 and call_id not in self.forgotten:
                self.wrong("result once", f"what {call_id} found is told {told} times at the end")

    def judge_words(self, *, session_goes_on: bool) -> None:
        """What guardrails and `say()` have led to."""
        made = {each.mark: (each.connection, each.samples) for each in self.responses.values() if each.mark}
        whole = (turn for turn in self.played if self.ended.get(turn) == "completed")
        heard: Counter[int] = Counter()
        for turn in whole:
            answered = self.responses.get(self.turns.get(turn, ""))
            if answered is not None and turn not in self.silent_from and turn not in self.words.tripped:
                heard[answered.mark] += 1
        self.words.judge(made, heard, session_goes_on=session_goes_on)

    def judge_texts(self, *, session_goes_on: bool) -> None:
        """What the user wrote is in the conversation at its end."""
        if session_goes_on:
            wanted = [number for number in range(1, self.written + 1) if number not in self.unsaid]
            missing = [number for number in wanted if not self.newest.texts[number]]
            if missing:
                self.wrong("every text once", f"texts {missing} of {self.written} are not in the conversation")

    def judge_utterances(self, history: History, *, session_goes_on: bool) -> None:
        """What the user said aloud and the server took for an utterance has become words, whatever happened then."""
        if session_goes_on and not self.corrupted:
            spoken = [entry for entry in history if entry.role == "user" and entry.spoken]
            wordless = [entry.item_id for entry in spoken if not entry.text]
            if wordless:
                self.wrong("every utterance", f"{wordless} of {len(spoken)} utterances never became words")

    def judge_end(self, lost: BaseException | None, struck: list[Fault]) -> None:
        """Only a `WireLost`, and only where a fault explains it."""
        if lost is None:
            return
        if not isinstance(lost, WireLost):
            self.wrong("ends with WireLost", f"{type(lost).__name__}: {lost}")
        elif not lost.retryable and not self.corrupted and not any(fault.kind in FATAL_FAULTS for fault in struck):
            self.wrong("ends with WireLost", f"gave up for good without a reason: {lost}")
