"""One connection: a client's events in, a session's state, the server's events out.

Between the WebSocket (`listen.py`) and everything else in this package. The invariant: carrying out a client
event never waits on the brain nor on the client's reading; what takes time runs in the connection's nursery
and comes back through synchronous methods. What a client gets wrong is answered by `error`, and the session
goes on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
import trio
from msgspec import UNSET
from msgspec.structs import replace

from trio_voice.protocol.client_events import (
    ClientEvent,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from trio_voice.protocol.codec import RemoteProtocolError, UnknownEvent, decode_client_event
from trio_voice.protocol.items import ContentPart, ErrorDetail, Item, Maybe
from trio_voice.protocol.responses import ResponseConfig
from trio_voice.protocol.server_events import (
    ConversationItemAdded,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemRetrieved,
    ConversationItemTruncated,
    ErrorEvent,
    OutputAudioBufferCleared,
    SessionCreated,
    SessionUpdated,
)
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.server.brain import Brain, ForesightedBrain
from trio_voice.server.conversation_items import ConversationItems, Entry, check_created, shown_to_brain
from trio_voice.server.hosted_mcp import HostedMcp
from trio_voice.server.outbox import Outbox
from trio_voice.server.refusals import Refused
from trio_voice.server.responses import ResponseInput, ResponsePlan, ResponseRun, request_of
from trio_voice.server.server_settings import ServerSettings
from trio_voice.server.session_settings import check_names, default_session, for_response, updated, without_model
from trio_voice.server.user_audio import UserAudio

MAX_FRAME_BYTES = 24 * 1024 * 1024
"""A frame that holds the largest append, 15 MiB of sound, is 20 MiB of base64 and a little more."""
MAX_APPEND_BYTES = 15 * 1024 * 1024
MAX_OUTSIDE_RESPONSES = 8
"""Under way at once outside the conversation, for one client."""


@attrs.frozen
class Opening:
    """What a client asks for in coming."""

    model: str
    session: SessionConfig | None = None
    """What its ephemeral key brings with it."""
    call_id: str = ""
    """It controls this call, whose sound is with another connection."""


class Connection:
    """The session of one client. Making one sends `session.created`."""

    def __init__(
        self, brain: Brain, outbox: Outbox, nursery: trio.Nursery, settings: ServerSettings, opening: Opening
    ) -> None:
        self._brain = brain
        self._outbox = outbox
        self._nursery = nursery
        self._burst = settings.burst
        self._conversation_id = outbox.ids.new("conv")
        self._items = ConversationItems()
        self._mcp = HostedMcp(brain, outbox, nursery, self._items)
        self._active: ResponseRun | None = None
        self._outside: list[ResponseRun] = []
        self._voice_fixed = False
        self._session = default_session(
            session_id=outbox.ids.new("sess"),
            model=opening.model,
            expires_at=int(settings.wall_clock() + settings.session_limit_s),
            rates_hz=(settings.dialect.input_rate_hz, settings.dialect.output_rate_hz),
        )
        self._call_id = opening.call_id
        if opening.session is not None:
            self._session = updated(self._session, without_model(opening.session), voice_fixed=False)
        self._user = UserAudio(brain, outbox, nursery, self._items, self._session, self)
        outbox.emit(SessionCreated(session=self._session))

    async def handle(self, raw: str | bytes) -> None:
        """Carry out one frame. Waits for nothing; only a long append lets other tasks run in between."""
        event = decode_client_event(raw, max_bytes=MAX_FRAME_BYTES)
        if isinstance(event, ClientEvent):
            try:
                event, raw = self._outbox.played.understood(sent := event, raw)
            except Refused as refused:
                self.report(refused, sent.event_id or None)
                return
        if isinstance(event, UnknownEvent):
            message = f"Invalid value: '{event.type}'. It is no client event of the Realtime protocol."
            self.report(Refused(message, param="type"))
        elif isinstance(event, RemoteProtocolError):
            self.report(_refusal_of(event), event.event_id)
        else:
            try:
                await self._carry_out(event, raw)
            except Refused as refused:
                self.report(refused, event.event_id or None)

    def report(self, refused: Refused, event_id: str | None = None) -> None:
        """Tell the client what was not done."""
        detail = ErrorDetail(
            type="invalid_request_error",
            code=refused.code,
            message=refused.message,
            param=refused.param,
            event_id=event_id,
        )
        self._outbox.emit(ErrorEvent(error=detail))

    def report_failure(self, code: str, message: str) -> None:
        """Tell the client that something broke here."""
        self._outbox.emit(ErrorEvent(error=ErrorDetail(type="server_error", code=code, message=message)))

    async def _carry_out(self, event: ClientEvent, raw: str | bytes) -> None:
        match event:
            case InputAudioBufferAppend():
                if len(event.audio) > MAX_APPEND_BYTES:
                    raise Refused(
                        f"{len(event.audio)} bytes of audio are more than 15 MiB: send several events.",
                        param="audio",
                    )
                await self._user.append(event.audio)
            case InputAudioBufferCommit():
                self._user.commit()
            case InputAudioBufferClear():
                self._user.clear()
            case OutputAudioBufferClear() if self._call_id:
                response_id = self._active.id if self._active is not None else ""
                self._outbox.emit(OutputAudioBufferCleared(response_id=response_id))
            case OutputAudioBufferClear():
                raise Refused(
                    "output_audio_buffer.clear is for WebRTC and SIP. On a WebSocket the client plays the sound: "
                    "stop playing, send response.cancel and conversation.item.truncate.",
                    param="type",
                )
            case SessionUpdate():
                check_names(raw, event.session, "session")
                spoken = self._voice_fixed or (self._active is not None and self._active.has_spoken)
                self._session = updated(self._session, event.session, voice_fixed=spoken)
                self._user.configure(self._session)
                self._outbox.emit(SessionUpdated(session=self._session))
                self._mcp.configured(self._session.tools or [])
            case ConversationItemCreate():
                self._create_item(event)
            case ConversationItemRetrieve():
                self._outbox.emit(ConversationItemRetrieved(item=self._items.retrieve(event.item_id)))
            case ConversationItemTruncate():
                self._items.truncate(event.item_id, event.content_index, event.audio_end_ms)
                self._outbox.emit(
                    ConversationItemTruncated(
                        item_id=event.item_id,
                        content_index=event.content_index,
                        audio_end_ms=event.audio_end_ms,
                    )
                )
            case ConversationItemDelete():
                self._items.delete(event.item_id)
                self._outbox.emit(ConversationItemDeleted(item_id=event.item_id))
            case ResponseCreate():
                wanted = event.response or ResponseConfig()
                if event.response:
                    check_names(raw, wanted, "response")
                self.respond(wanted)
            case ResponseCancel():
                self._cancel(event.response_id)

    # --- items ------------------------------------------------------------------------------------

    def _create_item(self, event: ConversationItemCreate) -> None:
        item = event.item
        check_created(item)
        entry = Entry(_settled(item, item.id or self._outbox.ids.new("item")))
        sounds = [part.audio for part in item.parts if part.type == "input_audio"]
        if sounds:
            entry.sound = self._user.sound_of(sounds[0] or b"")
            silent = [replace(part, audio=UNSET, transcript=part.transcript or None) for part in item.parts]
            entry.item = replace(entry.item, content=silent)
        previous_id = self._items.add(entry, event.previous_item_id)
        self._outbox.emit(ConversationItemAdded(previous_item_id=previous_id, item=entry.item))
        self._outbox.emit(ConversationItemDone(previous_item_id=previous_id, item=entry.item))
        if item.type == "mcp_approval_response":
            self._mcp.answered(entry.item)
        if sounds and not entry.item.text:
            self._user.recognise(entry)

    # --- responses --------------------------------------------------------------------------------

    @property
    def responding(self) -> bool:
        return self._active is not None and not self._active.ended

    def respond(self, wanted: ResponseConfig | None = None) -> None:
        """Begin a response. Raises: `Refused` when it cannot be."""
        wanted = wanted or ResponseConfig()
        if self._session.type == "transcription":
            raise Refused("A transcription session has no responses.", param="type")
        settings = for_response(self._session, wanted)
        inside = wanted.conversation != "none"
        given = None if not isinstance(wanted.input, list) else self._given(wanted.input)
        if inside and self._active is not None and not self._active.ended:
            raise Refused(
                f"Conversation already has an active response in progress: {self._active.id}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        self._outside = [run for run in self._outside if not run.ended]
        if not inside and len(self._outside) >= MAX_OUTSIDE_RESPONSES:
            raise Refused(
                f"{MAX_OUTSIDE_RESPONSES} responses outside the conversation are under way: wait.",
                code="too_many_responses",
            )

        async def gather() -> ResponseInput:
            if given is not None:
                await self._user.known(given)
                shown = [shown_to_brain(entry) for entry in given]
                return ResponseInput([item for item in shown if item is not None])
            await self._user.known(self._items.entries)
            return ResponseInput(self._items.for_brain(), self._items.heard_ms)

        plan = ResponsePlan(
            settings=settings,
            conversation_id=self._conversation_id if inside else None,
            gather=gather,
            metadata=wanted.metadata or None,
            burst=self._burst,
            hosted=self._mcp.begin,
        )
        run = ResponseRun(self._outbox, self._items, plan)
        if inside:
            self._active = run
            self._user.response_began()
        else:
            self._outside.append(run)
        self._nursery.start_soon(self._run, run)

    async def foresee(self, words: str) -> None:
        """The user probably said `words` and is done: let the brain begin, unseen, what it would answer."""
        if self._session.type == "transcription" or not isinstance(self._brain, ForesightedBrain):
            return
        part = ContentPart("input_audio", transcript=words)
        said = Item(type="message", status="completed", role="user", content=[part])
        settings = for_response(self._session, ResponseConfig())
        await self._brain.foresee(request_of(settings, [*self._items.for_brain(), said]))

    async def _run(self, run: ResponseRun) -> None:
        await run.run(self._brain)
        self._voice_fixed = self._voice_fixed or run.has_spoken
        if run is self._active:
            played_at = (run.first_audio_at or 0) + run.sent_audio_ms / 1000
            self._user.response_ended(unplayed_ms=max(0.0, (played_at - trio.current_time()) * 1000))

    def interrupt(self) -> None:
        """The user speaks: the response of the conversation ends, others do not."""
        if self._active is not None:
            self._active.end("cancelled", reason="turn_detected")

    def _cancel(self, response_id: Maybe[str]) -> None:
        under_way = [run for run in (self._active, *self._outside) if run is not None and not run.ended]
        wanted = [run for run in under_way if run.id == response_id or (not response_id and run.in_conversation)]
        if not wanted:
            raise Refused(
                "Cancellation failed: no active response found", code="response_cancel_not_active", param=None
            )
        for run in wanted:
            run.end("cancelled", reason="client_cancelled")

    def _given(self, items: Sequence[Item]) -> list[Entry]:
        """The entries of `response.input`: new ones, and old ones by reference."""
        return [self._given_entry(item, index) for index, item in enumerate(items)]

    def _given_entry(self, item: Item, index: int) -> Entry:
        if item.type == "item_reference":
            found = self._items.find(item.id or "")
            if found is None:
                raise Refused(f"Item with id '{item.id}' not found.", param=f"response.input[{index}].id")
            return found
        check_created(item, f"response.input[{index}]")
        entry = Entry(_settled(item, item.id or self._outbox.ids.new("item")))
        sounds = [part.audio for part in item.parts if part.type == "input_audio"]
        if sounds and not item.text:
            entry.sound = self._user.sound_of(sounds[0] or b"")
            self._user.recognise(entry, quietly=True)
        return entry


def _settled(item: Item, item_id: str) -> Item:
    """An item as the server shows it once it is in the conversation."""
    status = "completed" if item.type in ("message", "function_call") else item.status
    return replace(item, id=item_id, status=status, object=UNSET)


MISSING_FIELD = re.compile(r"missing required field `(\w+)`(?: - at `\$\.?(.*)`)?")
WRONG_TYPE = re.compile(r"Expected `(.+?)`, got `(.+?)`(?: - at `\$\.?(.*)`)?")


def _refusal_of(error: RemoteProtocolError) -> Refused:
    """What to answer to a frame that is no event."""
    if error.type is None:
        return Refused(f"Could not parse the event: {error.reason}.", code="invalid_event")
    missing = MISSING_FIELD.search(error.reason)
    if missing:
        param = ".".join(part for part in (missing[2], missing[1]) if part)
        return Refused(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    wrong = WRONG_TYPE.search(error.reason)
    if wrong:
        message = f"Invalid type for '{wrong[3]}': expected {wrong[1]}, got {wrong[2]}."
        return Refused(message, code="invalid_type", param=wrong[3] or None)
    where = re.search(r"at `\$\.?(.*)`", error.reason)
    return Refused(f"Invalid event: {error.reason}.", param=where[1] if where else None)
