"""The uplink actor: control first, then frames → wire. The only sender on a connection.

Nothing here is enclosed by a scope narrower than the connection: a send that is cancelled half way leaves the
stream broken without a word, so a barge-in never touches this task.

An ordinary frame of an open microphone is put on the wire in capture's own step: fifty times a second in each session
a turn of a second task would cost as much as all that is done with the frame.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from trio_voice.audio import AudioFormat, Frame
from trio_voice.channels import DropOldest, EventFanOut, Send, SetMicrophone, UplinkItem
from trio_voice.dialects import DIALECTS, Dialect
from trio_voice.errors import WireLost
from trio_voice.events import AudioSent
from trio_voice.protocol import ClientEvent, InputAudioBufferAppend, InputAudioBufferCommit
from trio_voice.utterances import SentAudio

if TYPE_CHECKING:
    from trio_voice.wire import Wire


class UplinkStatistics(Struct, eq=False):
    """Of all connections of a session."""

    sent_audio_ms: float = 0.0
    stale_frames: int = 0
    """Captured while there was no connection, and never sent."""


async def run(
    wire: Wire,
    control: trio.MemoryReceiveChannel[UplinkItem],
    frames: DropOldest[Frame] | None,
    *,
    sent: SentAudio,
    input_format: AudioFormat,
    statistics: UplinkStatistics,
    dialect: Dialect = DIALECTS["trio-voice"],
    fan_out: EventFanOut | None = None,
) -> None:
    """Send until the connection is cancelled. Frames are left alone until the conversation first sets the microphone;
    those that have waited until then are stale, and dropped. Who listens to the sound itself gets it by `fan_out`.

    Raises: `WireLost`, also when the conversation has given the connection up.
    Closes: its receiving ends, of `frames` one of its own.
    """
    gate = _Gate()
    line = _Line(wire, sent, dialect)
    async with trio.open_nursery() as nursery:
        if frames is not None:
            nursery.start_soon(_Frames(line, gate, input_format, statistics, fan_out).send, frames)
        await _send_control(line, control, gate)


class _Gate(Struct, eq=False):
    """What is done with the next frame. Written by the control loop, read by the frame loop."""

    setting: SetMicrophone = field(default_factory=lambda: SetMicrophone("closed"))
    is_set: trio.Event = field(default_factory=trio.Event)
    tail_ms: float = 0.0
    commit_due: bool = False
    frames_over: bool = False
    """The microphone has ended, as a file does: nobody waits for one more frame."""

    def apply(self, setting: SetMicrophone) -> None:
        # A closing silence or a commit that is due stays due when the gate is set again before the next frame.
        self.tail_ms = max(setting.tail_ms, self.tail_ms) if setting.gate == "closed" else 0.0
        self.commit_due = self.commit_due or setting.commit
        self.setting = setting
        self.is_set.set()


class _Line(Struct, eq=False):
    """The way to the server; what the user said is noted as it goes by."""

    wire: Wire
    sent: SentAudio
    dialect: Dialect

    def put(self, event: ClientEvent) -> bool:
        """False: there was no room; it is kept, and the next has to wait. Raises: `WireLost`."""
        # Noted first: what is cut off half way may have arrived, and must not be missing when it is given again.
        if isinstance(event, InputAudioBufferAppend):
            self.sent.append(event.audio)
        elif isinstance(event, InputAudioBufferCommit):
            self.sent.commit()
        return self.wire.put(self.dialect.frame(event))

    async def send(self, event: ClientEvent) -> None:
        if not self.put(event):
            await self.wire.flushed()


async def _send_control(line: _Line, control: trio.MemoryReceiveChannel[UplinkItem], gate: _Gate) -> None:
    with control:
        async for item in control:
            match item:
                case Send(event, following):
                    for each in (event, *following):
                        await line.send(each)
                case SetMicrophone():
                    gate.apply(item)
                    if gate.frames_over:
                        await _commit_if_due(line, gate)
    raise WireLost("more was to be sent than the connection could take", retryable=True)


class _Frames(Struct, eq=False):
    """The microphone's frames on their way out."""

    line: _Line
    gate: _Gate
    input_format: AudioFormat
    statistics: UplinkStatistics
    fan_out: EventFanOut | None
    _waits: bool = False
    """The task has dealt with all frames so far, and the channel is empty."""

    async def send(self, frames: DropOldest[Frame]) -> None:
        with frames.receiver.clone() as waiting:
            await self.gate.is_set.wait()
            self.statistics.stale_frames += _drain(waiting)
            frames.taker = self.take
            try:
                while True:
                    self._waits = True
                    frame = await waiting.receive()
                    self._waits = False
                    await self._send(frame)
            except trio.EndOfChannel:
                self.gate.frames_over = True
                await _commit_if_due(self.line, self.gate)
            finally:
                if frames.taker == self.take:
                    frames.taker = None

    def take(self, frame: Frame) -> bool:
        """In the sender's step, if it is an ordinary frame and none is before it. A lost wire is the task's to find."""
        is_ordinary = self.gate.setting.gate == "open" and not self.gate.commit_due
        self._waits = self._waits and is_ordinary and self.line.wire.has_room
        if self._waits:
            with suppress(WireLost):
                self.line.put(InputAudioBufferAppend(audio=frame.pcm))
                self._count(frame, frame.pcm)
        return self._waits

    async def _send(self, frame: Frame) -> None:
        gate, pcm = self.gate, frame.pcm
        if gate.setting.gate == "muted":
            pcm = bytes(len(pcm))
        elif gate.setting.gate == "closed":
            # The frame that is under way when an utterance is committed still belongs to it.
            if gate.tail_ms > 0:
                gate.tail_ms -= self.input_format.ms_of_bytes(len(pcm))
                pcm = bytes(len(pcm))
            elif not gate.commit_due:
                return
        await self.line.send(InputAudioBufferAppend(audio=pcm))
        self._count(frame, pcm)
        if gate.tail_ms <= 0:
            await _commit_if_due(self.line, gate)

    def _count(self, frame: Frame, pcm: bytes) -> None:
        self.statistics.sent_audio_ms += self.input_format.ms_of_bytes(len(pcm))
        if self.fan_out is not None and self.fan_out.wants_sound:
            self.fan_out.emit(AudioSent(at=trio.current_time(), captured_at=frame.captured_at, pcm=pcm))


def _drain(frames: trio.MemoryReceiveChannel[Frame]) -> int:
    drained = 0
    while True:
        try:
            frames.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return drained
        drained += 1


async def _commit_if_due(line: _Line, gate: _Gate) -> None:
    if gate.commit_due:
        gate.commit_due = False
        await line.send(InputAudioBufferCommit())
