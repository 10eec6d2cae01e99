"""The real downlink, conversation and playback, joined by channels of any capacity, and a server that is a script.

Between the actors stands a relay that waits for room, so that a capacity of nothing at all is only slow; what is
sent, and its order, stay as they are in a session. The server keeps the items of its conversation as the local server
does, and carries out what it is told: what the real one would refuse is refused.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import attrs
import numpy as np
import trio
from trio.testing import wait_all_tasks_blocked

from kit import recovery_of
from trio_voice import AudioOutputConfig, RealtimeAgent, conversation, downlink, playback
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.audio import AudioFormat, samples_of
from trio_voice.channels import (
    CheckText,
    Command,
    EventFanOut,
    InboxItem,
    Interrupted,
    LinkDown,
    LinkUp,
    PlaybackItem,
    Send,
    TurnPlayed,
    UplinkItem,
)
from trio_voice.conversation_view import ConversationView
from trio_voice.errors import WireLost
from trio_voice.protocol import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemTruncate,
    Item,
    ResponseCancel,
    SessionUpdate,
    encode,
    server_events as on,
)
from trio_voice.protocol.history import History
from trio_voice.protocol.responses import Response
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.protocol.turns import TurnNumbers
from trio_voice.server.conversation_items import ConversationItems, Entry, Sound
from trio_voice.server.refusals import Refused
from trio_voice.server.scripted import marked_samples
from trio_voice.testing import RecordingSpeaker
from trio_voice.tool_items import ToolItem
from trio_voice.tracker import ConversationTracker
from trio_voice.utterances import SentAudio
from trio_voice.wire import Wire

T = TypeVar("T")
RATE_HZ = 8_000
FORMAT = AudioFormat("pcm16", RATE_HZ)


@attrs.define(eq=False)
class Answer:
    """A response of the server; its samples carry its number, and their place in it."""

    number: int
    id: str
    epoch: int
    items: int = 0
    sent_samples: int = 0
    taken_samples: int = 0
    """Of these, what the downlink took from the wire."""
    cancelled: bool = False
    done: bool = False

    @property
    def item_id(self) -> str:
        return f"item {self.number}/{self.items}"


@attrs.define(eq=False)
class ScriptedWire:
    """The client's end of one connection. What was not received when it is lost is lost."""

    receiver: trio.MemoryReceiveChannel[tuple[Answer | None, int, str]]
    order: list[int]
    """Answers in the order in which the wire first named them: the turns."""

    async def receive(self) -> str:
        try:
            answer, samples, text = await self.receiver.receive()
        except trio.EndOfChannel:
            raise WireLost("the script says so", retryable=True) from None
        if answer is not None:
            answer.taken_samples += samples
            if answer.number not in self.order:
                self.order.append(answer.number)
        return text


@attrs.define(eq=False)
class Stage:
    """What a script can do, and what came of it."""

    nursery: trio.Nursery
    speaker: RecordingSpeaker
    to_conversation: trio.MemorySendChannel[InboxItem]
    to_playback: trio.MemorySendChannel[PlaybackItem]
    fan_out: EventFanOut
    turns: TurnNumbers = attrs.Factory(TurnNumbers)
    order: list[int] = attrs.Factory(list)
    answers: list[Answer] = attrs.Factory(list)
    epoch: int = 0
    configured: int = 0
    """The newest connection whose server has been told the settings; before that it says nothing."""
    ids: int = 0
    """Answers of this connection: the next one uses the same ids."""
    items: ConversationItems = attrs.Factory(ConversationItems)
    refused: list[str] = attrs.Factory(list)
    reports: list[tuple[int, InboxItem]] = attrs.Factory(list)
    """What playback has reported, with the number of samples pulled by then."""
    to_wire: trio.MemorySendChannel[tuple[Answer | None, int, str]] | None = None
    connection: trio.CancelScope = attrs.Factory(trio.CancelScope)

    # --- the connection ---------------------------------------------------------------------------

    def connect(self) -> None:
        """A new connection: its server knows no items, and begins its ids anew."""
        self.epoch += 1
        self.items, self.ids = ConversationItems(), 0
        self.to_wire, receiver = trio.open_memory_channel[tuple[Answer | None, int, str]](math.inf)
        to_server, control = trio.open_memory_channel[UplinkItem](math.inf)
        self.to_conversation.send_nowait(LinkUp(self.epoch, to_server, SentAudio(AudioFormat(), 0)))
        self.connection = trio.CancelScope()
        self.nursery.start_soon(self._downlink, self.connection, self.epoch, ScriptedWire(receiver, self.order))
        self.nursery.start_soon(self._server, control, self.items, self.to_wire, self.epoch)

    def reconnect(self) -> None:
        self.connection.cancel()
        for answer in self.answers:
            answer.done, answer.cancelled = True, False
        self.to_conversation.send_nowait(LinkDown(self.epoch, "the script says so", 1))
        self.connect()

    async def _downlink(self, scope: trio.CancelScope, epoch: int, wire: ScriptedWire) -> None:
        with scope:
            await downlink.run(
                cast(Wire, wire), epoch, self.to_conversation.clone(), self.to_playback.clone(),
                turns=self.turns, fan_out=self.fan_out, configuration=downlink.Configuration(),
            )  # fmt: skip

    async def _server(
        self,
        control: trio.MemoryReceiveChannel[UplinkItem],
        items: ConversationItems,
        to_wire: trio.MemorySendChannel[tuple[Answer | None, int, str]],
        epoch: int,
    ) -> None:
        async for sent in control:
            if isinstance(sent, Send):
                try:
                    self._carry_out(sent.event, items, to_wire, epoch)
                except Refused as refusal:
                    self.refused.append(f"{sent.event}: {refusal}")

    def _carry_out(self, event: object, items: ConversationItems, to_wire: Any, epoch: int) -> None:
        match event:
            case ConversationItemTruncate(item_id=item_id, content_index=index, audio_end_ms=ms):
                items.truncate(item_id, index, ms)
            case ConversationItemDelete(item_id=item_id):
                items.delete(item_id)
            case ConversationItemCreate(item=item):
                items.add(Entry(item))
            case ResponseCancel():
                self.cancel()
            case _:
                session = SessionConfig(type="realtime", id=f"session {epoch}")
                if isinstance(event, SessionUpdate):
                    self.configured = epoch
                    to_wire.send_nowait((None, 0, encode(on.SessionUpdated(session=session))))

    # --- what the server says ---------------------------------------------------------------------

    @property
    def answer(self) -> Answer | None:
        """The one that is being made."""
        return self.answers[-1] if self.answers and not self.answers[-1].done else None

    def respond(self) -> None:
        """Begin an answer, if none is being made."""
        if self.answer is None and self.configured == self.epoch:
            self.ids += 1
            answer = Answer(len(self.answers), f"r{self.ids}", self.epoch)
            self.answers.append(answer)
            response = Response(id=answer.id, status="in_progress", conversation_id="conv")
            self._say(on.ResponseCreated(response=response), answer)
            self.next_item()

    def next_item(self) -> None:
        answer = self.answer
        if answer is not None:
            if answer.items:
                self._item_done(answer)
            answer.items += 1
            item = Item(id=answer.item_id, type="message", role="assistant", status="in_progress", content=[])
            self.items.add(Entry(item, Sound(FORMAT)))
            self._say(on.ResponseOutputItemAdded(response_id=answer.id, item=item), answer)

    def _item_done(self, answer: Answer) -> None:
        self._say(on.ResponseOutputAudioDone(response_id=answer.id, item_id=answer.item_id), answer)
        item = Item(id=answer.item_id, type="message", role="assistant", status="completed", content=[])
        self._say(on.ResponseOutputItemDone(response_id=answer.id, item=item), answer)

    def speak(self, answer: Answer | None, samples: int) -> None:
        """A piece of sound. Late, of an answer that was cancelled: then it is in nobody's record."""
        if answer is None:
            return
        pcm = marked_samples(answer.number, samples, answer.sent_samples).astype("<i2").tobytes()
        answer.sent_samples += samples
        entry = self.items.find(answer.item_id)
        if entry is not None and entry.sound is not None and not answer.done:
            entry.sound.pcm.extend(pcm)
        self._say(
            on.ResponseOutputAudioDelta(response_id=answer.id, item_id=answer.item_id, delta=pcm), answer, samples
        )

    def finish(self, status: str = "completed") -> None:
        answer = self.answer
        if answer is not None:
            answer.done = True
            self._item_done(answer)
            response = Response(id=answer.id, status=status, conversation_id="conv")
            self._say(on.ResponseDone(response=response), answer)

    def cancel(self) -> None:
        if self.answer is not None:
            self.answer.cancelled = True
            self.finish("cancelled")

    def user_speaks(self) -> None:
        """As a server with turn detection has it: its own answer is cancelled."""
        if self.configured == self.epoch:
            self._say(on.InputAudioBufferSpeechStarted(item_id="user"), None)
            self.cancel()
            self._say(on.InputAudioBufferSpeechStopped(item_id="user"), None)

    def _say(self, event: on.ServerEvent, answer: Answer | None, samples: int = 0) -> None:
        if self.to_wire is not None:
            self.to_wire.send_nowait((answer, samples, encode(event)))

    # --- what came of it --------------------------------------------------------------------------

    def check(self) -> None:
        assert self.refused == [], "every truncation was acceptable"
        marks = samples_of(bytes(self.speaker.pcm))
        turn_of = {number: turn for turn, number in enumerate(self.order, 1)}
        played = {report.turn for _, report in self.reports if isinstance(report, TurnPlayed)}
        floor = max((report.turn for _, report in self.reports if isinstance(report, Interrupted)), default=0)
        for pulled, report in self.reports:
            if isinstance(report, Interrupted):
                stale = set(np.unique(marks[pulled:] >> 8).tolist()) - {0}
                assert all(turn_of[mark - 1] > report.turn for mark in stale), "an interrupted turn sounded"
        self._check_record(floor)
        for answer in self.answers:
            places = (marks[marks >> 8 == answer.number + 1] & 255).tolist()
            assert places == [place % 256 for place in range(len(places))], "each sample once, in order"
            turn = turn_of.get(answer.number, 0)
            if turn and (turn in played or turn > floor):
                assert len(places) == answer.taken_samples, f"turn {turn} was not played whole"

    def _check_record(self, floor: int) -> None:
        """The server's record holds what was heard, all of it, and of interrupted turns nothing else."""
        heard_ms: dict[str, float] = {}
        for _, report in self.reports:
            if isinstance(report, Interrupted | TurnPlayed):
                for position in report.positions:
                    assert 0 <= position.heard_ms <= position.received_ms
                    heard_ms[position.item_id] = position.heard_ms
        interrupted = {self.order[turn - 1] for turn in range(1, min(floor, len(self.order)) + 1)}
        for answer in self.answers:
            if answer.epoch == self.epoch:
                for number in range(1, answer.items + 1):
                    item_id = f"item {answer.number}/{number}"
                    entry, heard = self.items.find(item_id), heard_ms.get(item_id, 0.0)
                    kept_ms = entry.sound.duration_ms if entry is not None and entry.sound is not None else 0.0
                    assert heard - kept_ms < 1, f"{item_id} was heard, and is not remembered"
                    assert answer.number not in interrupted or kept_ms <= heard, f"{item_id} was not heard"


async def _relay(source: trio.MemoryReceiveChannel[T], sink: trio.MemorySendChannel[T]) -> None:
    with sink:
        async for item in source:
            await sink.send(item)


@asynccontextmanager
async def stage(
    capacity: int, *, block_ms: int = 20, latency_ms: int = 0, prebuffer_ms: int = 40
) -> AsyncIterator[Stage]:
    """The three actors, configured and connected once."""
    speaker = RecordingSpeaker(block_ms=block_ms, latency_ms=latency_ms)
    output = AudioOutputConfig(sample_rate_hz=RATE_HZ, prebuffer_ms=prebuffer_ms, fade_ms=0)
    agent, history = RealtimeAgent(), History()
    view = ConversationView(history, ConversationTracker(history, started_at=trio.current_time()))
    to_conversation, waiting_for_conversation = trio.open_memory_channel[InboxItem](math.inf)
    to_inbox, inbox = trio.open_memory_channel[InboxItem](capacity)
    to_playback, waiting_for_playback = trio.open_memory_channel[PlaybackItem](math.inf)
    to_items, playback_items = trio.open_memory_channel[PlaybackItem](capacity)
    to_reports, reports = trio.open_memory_channel[InboxItem](math.inf)
    to_checks, _checks = trio.open_memory_channel[CheckText](math.inf)
    to_tools, _tool_items = trio.open_memory_channel[ToolItem](math.inf)
    fan_out = EventFanOut()
    async with trio.open_nursery() as nursery:
        standing = Stage(nursery, speaker, to_conversation, to_playback, fan_out)

        async def note_reports() -> None:
            async for report in reports:
                standing.reports.append((len(speaker.pcm) // 2, report))
                to_conversation.send_nowait(report)

        play = partial(playback.run, playback_items, to_reports, speaker=speaker, config=output)
        await nursery.start(partial(play, recovery=recovery_of("speaker")))
        nursery.start_soon(_relay, waiting_for_conversation, to_inbox)
        nursery.start_soon(_relay, waiting_for_playback, to_items)
        nursery.start_soon(note_reports)
        conduct = partial(
            conversation.run, inbox, playback=to_playback.clone(), tool_calls=to_tools, checks=to_checks,
            fan_out=fan_out, view=view, in_charge=AgentInCharge(agent, audio_output=output),
        )  # fmt: skip
        nursery.start_soon(conduct)
        standing.connect()
        await wait_all_tasks_blocked()
        yield standing
        nursery.cancel_scope.cancel()


def interruption() -> Command:
    return Command("interrupt")
