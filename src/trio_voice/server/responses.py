"""One response, from `response.created` to `response.done`: the writer that a brain answers into.

Between the brain and the outbox. The invariant: whatever the brain does and whenever the response is cut off,
the client gets every event of what was begun, in the real server's order, and nothing after `response.done`.
Ending is synchronous, so a barge-in never waits on the brain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio
from msgspec.structs import replace

from trio_voice.audio import encode_g711
from trio_voice.errors import TrioVoiceError
from trio_voice.logs import log
from trio_voice.protocol.items import ContentPart, Item, ReportedError
from trio_voice.protocol.responses import RateLimit, Response, StatusDetails, Usage
from trio_voice.protocol.server_events import (
    ConversationItemAdded,
    ConversationItemDone,
    RateLimitsUpdated,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseCreated,
    ResponseDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseMcpCallArgumentsDelta,
    ResponseMcpCallArgumentsDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from trio_voice.protocol.session_config import AudioConfig, AudioOutput, SessionConfig, VoiceId
from trio_voice.server.brain import Brain, ResponseRequest
from trio_voice.server.conversation_items import Clause, ConversationItems, Entry, Sound
from trio_voice.server.hosted_mcp import HostedCall
from trio_voice.server.outbox import Outbox
from trio_voice.server.session_settings import audio_format, audio_output
from trio_voice.server.token_counts import spoken_tokens, text_tokens, usage_of

if TYPE_CHECKING:
    from trio_voice.audio import Samples

DELTA_MS = 100
"""Of sound in one delta."""
ARGUMENTS_DELTA_CHARS = 24
TOKENS_PER_MINUTE = 1_000_000
"""The limit that `rate_limits.updated` reports; nothing here enforces it."""


@attrs.frozen
class ResponseInput:
    """What a response answers, and how much of it was sound."""

    items: Sequence[Item]
    heard_ms: float = 0.0


@attrs.frozen
class ResponsePlan:
    """What was asked for."""

    settings: SessionConfig
    """The session's, with what `response.create` overrides."""
    conversation_id: str | None
    """None: outside the conversation."""
    gather: Callable[[], Awaitable[ResponseInput]]
    """What to answer; may wait until the user's words are known."""
    metadata: Mapping[str, str] | None = None
    hosted: Callable[[HostedCall, Entry, int], None] = lambda call, entry, output_index: None
    """Makes a call of an MCP server's tool, or awaits the approval of it."""
    burst: float | None = None
    """How many times faster than real time sound is sent at most; None: as fast as it comes."""


@attrs.define
class _Open:
    """The output item being written: a message, or a function call."""

    entry: Entry
    sent: str = ""
    """The words, or the arguments, so far."""

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def is_message(self) -> bool:
        return self.entry.item.type == "message"


class ResponseRun:
    """A response under way; the `ResponseWriter` of its brain. Making one sends `response.created`."""

    def __init__(self, outbox: Outbox, conversation: ConversationItems, plan: ResponsePlan) -> None:
        self.id = outbox.ids.new("resp")
        self.status = "in_progress"
        self.first_audio_at: float | None = None
        """On `trio.current_time()`'s clock."""
        self.sent_audio_ms = 0.0
        self._outbox = outbox
        self._conversation = conversation if plan.conversation_id is not None else None
        self._plan = plan
        self._scope = trio.CancelScope()
        self._format = audio_format(audio_output(plan.settings).format)
        self._spoken = plan.settings.output_modalities != ["text"]
        limit = plan.settings.max_output_tokens
        self._max_tokens = limit if isinstance(limit, int) else math.inf
        self._written_tokens = 0
        self._input = ResponseInput(())
        self._output: list[Item] = []
        self._open: _Open | None = None
        outbox.emit(ResponseCreated(response=self._response()))

    @property
    def ended(self) -> bool:
        return self.status != "in_progress"

    @property
    def has_spoken(self) -> bool:
        return self.first_audio_at is not None

    @property
    def in_conversation(self) -> bool:
        return self._conversation is not None

    async def run(self, brain: Brain) -> None:
        """Let the brain answer. What it raises fails the response, not the session.

        Cancellation: by `end`, from anywhere.
        """
        with self._scope:
            try:
                self._input = await self._plan.gather()
                await brain.respond(request_of(self._plan.settings, self._input.items, self._plan.metadata), self)
            except Exception as failure:  # a brain is anyone's code: its failures must not end the session
                if isinstance(failure, TrioVoiceError):  # one that says itself what to do
                    log.warning("response.failed", response_id=self.id, reason=str(failure))
                else:
                    log.exception("response.failed", response_id=self.id)
                error = ReportedError(type="server_error", code="brain_failed", message=_sendable(str(failure)))
                self.end("failed", error=error)
            else:
                self.end("completed")

    def end(self, status: str, *, reason: str | None = None, error: ReportedError | None = None) -> None:
        """Close what is open, say how it ended, and cut the brain off. The first end counts."""
        if self.ended:
            return
        self._close("completed" if status == "completed" else "incomplete")
        self.status = status
        details = None
        if status == "failed" and error is not None:
            details = StatusDetails(type=status, error=error)
        elif reason is not None:
            details = StatusDetails(type=status, reason=reason)
        usage = usage_of(
            instructions=self._plan.settings.instructions or "",
            items=self._input.items,
            heard_ms=self._input.heard_ms,
            written_tokens=self._written_tokens,
            spoken_ms=self.sent_audio_ms,
        )
        self._outbox.emit(ResponseDone(response=self._response(details, usage)))
        left = TOKENS_PER_MINUTE - (usage.total_tokens or 0)
        limit = RateLimit(name="tokens", limit=TOKENS_PER_MINUTE, remaining=left, reset_seconds=0.0)
        self._outbox.emit(RateLimitsUpdated(rate_limits=[limit]))
        self._scope.cancel()

    # --- the brain's side ---------------------------------------------------------------------

    async def speak(self, text: str, audio: Samples) -> None:
        """Send a clause. Waits while the client is behind, and as `burst` demands."""
        if self.ended:
            return await trio.lowlevel.checkpoint()
        if self._open is None or not self._open.is_message:
            self._close("completed")
            self._open_message()
        message = self._open
        assert message is not None
        text = _joined(message.sent, _sendable(text))
        if self._spoken:
            return await self._speak_aloud(message, text, audio)
        for word in _words(text):
            await self._outbox.room()
            if self.ended or not self._affords(text_tokens(word)):
                return None
            self._written_tokens += text_tokens(word)
            self._send_words(message, word)
        return None

    async def call(self, name: str, arguments: str) -> None:
        """Send a function call, piece by piece."""
        if self.ended:
            return await trio.lowlevel.checkpoint()
        self._close("completed")
        arguments = _sendable(arguments)
        call_id = self._outbox.ids.new("call")
        call = self._begin_item(
            Item(
                type="function_call",
                id=self._outbox.ids.new("item"),
                status="in_progress",
                name=name,
                call_id=call_id,
                arguments="",
            )
        )
        for start in range(0, len(arguments), ARGUMENTS_DELTA_CHARS):
            piece = arguments[start : start + ARGUMENTS_DELTA_CHARS]
            await self._outbox.room()
            if self.ended or not self._affords(text_tokens(piece)):
                return None
            self._written_tokens += text_tokens(piece)
            call.sent += piece
            self._outbox.emit(
                ResponseFunctionCallArgumentsDelta(
                    response_id=self.id,
                    item_id=call.id,
                    output_index=len(self._output),
                    call_id=call_id,
                    delta=piece,
                    obfuscation=self._outbox.ids.padding(piece),
                )
            )
        self._close("completed")
        return None

    async def call_hosted(self, call: HostedCall) -> None:
        """Call a tool of an MCP server, or ask the client whether to. What comes of it comes outside the response."""
        await self._outbox.room()
        if self.ended:
            return
        self._close("completed")
        kind, prefix = ("mcp_approval_request", "mcpr") if call.needs_approval else ("mcp_call", "mcp")
        item_id, index = self._outbox.ids.new(prefix), len(self._output)
        item = Item(type=kind, id=item_id, name=call.name, arguments="", server_label=call.server_label)
        written, self._open = self._begin_item(item), None
        place: dict[str, Any] = {"response_id": self.id, "item_id": item_id, "output_index": index}
        if not call.needs_approval:
            padding = self._outbox.ids.padding(call.arguments)
            self._outbox.emit(ResponseMcpCallArgumentsDelta(**place, delta=call.arguments, obfuscation=padding))
            self._outbox.emit(ResponseMcpCallArgumentsDone(**place, arguments=call.arguments))
        self._done(written.entry, replace(item, arguments=call.arguments))
        self._plan.hosted(call, written.entry, index)

    # --- what is sent -------------------------------------------------------------------------

    async def _speak_aloud(self, message: _Open, text: str, audio: Samples) -> None:
        """Words and sound in step, so that a cut of the one is a cut of the other."""
        sound = message.entry.sound
        assert sound is not None
        if not message.entry.truncated:
            sound.clauses.append(Clause(text, len(audio)))
        delta_samples = self._format.samples_of_ms(DELTA_MS)
        deltas = max(1, math.ceil(len(audio) / delta_samples))
        words = _words(text)
        for index in range(deltas):
            await self._outbox.room()
            await self._pace()
            first, last = (math.ceil(len(words) * step / deltas) for step in (index, index + 1))
            piece = "".join(words[first:last])
            samples = audio[index * delta_samples : (index + 1) * delta_samples]
            duration_ms = self._format.ms_of_samples(len(samples))
            if self.ended or not self._affords(text_tokens(piece) + spoken_tokens(duration_ms)):
                return
            self._written_tokens += text_tokens(piece)
            self._send_words(message, piece)
            if not len(samples):
                continue
            if self.first_audio_at is None:
                self.first_audio_at = trio.current_time()
            self.sent_audio_ms += duration_ms
            pcm = samples.astype("<i2", copy=False).tobytes()
            if not message.entry.truncated:
                sound.pcm += pcm
            encoding = self._format.encoding
            self._outbox.emit(
                ResponseOutputAudioDelta(
                    response_id=self.id,
                    item_id=message.id,
                    output_index=len(self._output),
                    content_index=0,
                    delta=pcm if encoding == "pcm16" else encode_g711(pcm, encoding),
                )
            )

    async def _pace(self) -> None:
        if self._plan.burst is None or self.first_audio_at is None:
            return
        await trio.sleep_until(self.first_audio_at + self.sent_audio_ms / 1000 / self._plan.burst)

    def _affords(self, tokens: int) -> bool:
        """Whether `max_output_tokens` allows for more; if not, the response ends here."""
        if self._written_tokens + spoken_tokens(self.sent_audio_ms) + tokens <= self._max_tokens:
            return True
        self.end("incomplete", reason="max_output_tokens")
        return False

    def _send_words(self, message: _Open, piece: str) -> None:
        if not piece:
            return
        message.sent += piece
        delta_class = ResponseOutputAudioTranscriptDelta if self._spoken else ResponseOutputTextDelta
        self._outbox.emit(
            delta_class(
                response_id=self.id,
                item_id=message.id,
                output_index=len(self._output),
                content_index=0,
                delta=piece,
                obfuscation=self._outbox.ids.padding(piece),
            )
        )

    def _begin_item(self, item: Item, sound: Sound | None = None) -> _Open:
        entry = Entry(item, sound)
        self._open = _Open(entry)
        self._outbox.emit(ResponseOutputItemAdded(response_id=self.id, output_index=len(self._output), item=item))
        if self._conversation is not None:
            previous_id = self._conversation.add(entry)
            self._outbox.emit(ConversationItemAdded(previous_item_id=previous_id, item=item))
        return self._open

    def _open_message(self) -> None:
        item_id = self._outbox.ids.new("item")
        item = Item(type="message", id=item_id, status="in_progress", role="assistant", content=[])
        message = self._begin_item(item, Sound(self._format) if self._spoken else None)
        # The item has its part from here on, so that it can be truncated or retrieved before it is done.
        message.entry.item = replace(item, content=[self._content("")])
        part = ContentPart("audio", transcript="") if self._spoken else ContentPart("text", text="")
        self._outbox.emit(
            ResponseContentPartAdded(
                response_id=self.id,
                item_id=item_id,
                output_index=len(self._output),
                content_index=0,
                part=part,
            )
        )

    def _content(self, words: str) -> ContentPart:
        if self._spoken:
            return ContentPart("output_audio", transcript=words)
        return ContentPart("output_text", text=words)

    def _close(self, status: str) -> None:
        """Send what ends the open item."""
        closing, self._open = self._open, None
        if closing is None:
            return
        place: dict[str, Any] = {
            "response_id": self.id,
            "item_id": closing.id,
            "output_index": len(self._output),
        }
        entry = closing.entry
        if closing.is_message:
            self._close_message(closing, place)
            content = self._content(closing.sent)
            if entry.truncated:
                content = ContentPart("output_audio")
            item = replace(entry.item, status=status, content=[content])
        else:
            item = replace(entry.item, status=status, arguments=closing.sent)
            self._outbox.emit(
                ResponseFunctionCallArgumentsDone(
                    **place, call_id=item.call_id or "", name=item.name, arguments=closing.sent
                )
            )
        self._done(entry, item)

    def _done(self, entry: Entry, item: Item) -> None:
        entry.item = item
        if self._conversation is not None:
            previous_id = self._conversation.previous_id(entry.id)
            self._outbox.emit(ConversationItemDone(previous_item_id=previous_id, item=item))
        self._outbox.emit(ResponseOutputItemDone(response_id=self.id, output_index=len(self._output), item=item))
        self._output.append(item)

    def _close_message(self, closing: _Open, place: Mapping[str, Any]) -> None:
        if self._spoken:
            part = ContentPart("audio", transcript=closing.sent)
            self._outbox.emit(ResponseOutputAudioDone(**place, content_index=0))
            self._outbox.emit(ResponseOutputAudioTranscriptDone(**place, content_index=0, transcript=closing.sent))
        else:
            part = ContentPart("text", text=closing.sent)
            self._outbox.emit(ResponseOutputTextDone(**place, content_index=0, text=closing.sent))
        self._outbox.emit(ResponseContentPartDone(**place, content_index=0, part=part))

    def _response(self, details: StatusDetails | None = None, usage: Usage | None = None) -> Response:
        settings = self._plan.settings
        output = audio_output(settings)
        return Response(
            id=self.id,
            status=self.status,
            status_details=details,
            output=list(self._output),
            conversation_id=self._plan.conversation_id,
            output_modalities=settings.output_modalities,
            max_output_tokens=settings.max_output_tokens or "inf",
            audio=AudioConfig(output=AudioOutput(format=output.format, voice=output.voice)),
            usage=usage,
            metadata=dict(self._plan.metadata) if self._plan.metadata else None,
        )


def request_of(
    settings: SessionConfig, items: Sequence[Item], metadata: Mapping[str, str] | None = None
) -> ResponseRequest:
    """What a brain is asked under `settings`."""
    output = audio_output(settings)
    return ResponseRequest(
        items=items,
        instructions=settings.instructions or "",
        tools=settings.tools or [],
        modalities=["text"] if settings.output_modalities == ["text"] else ["audio"],
        rate_hz=audio_format(output.format).rate_hz,
        voice=output.voice.id if isinstance(output.voice, VoiceId) else output.voice or "",
        speed=output.speed or 1.0,
        tool_choice=settings.tool_choice or "auto",
        metadata=metadata,
    )


def _sendable(text: str) -> str:
    """`text` without lone surrogates, which no UTF-8 frame can carry."""
    return text.encode(errors="replace").decode()


def _joined(before: str, text: str) -> str:
    """`text` with the space that separates it from what came before."""
    if not before or not text or before[-1].isspace() or text[0].isspace():
        return text
    return " " + text


def _words(text: str) -> list[str]:
    """The words of `text`, each with the white space before it; together they are `text`."""
    words = re.findall(r"\s*\S+", text)
    rest = text[sum(len(word) for word in words) :]
    return [*words, rest] if rest else words
