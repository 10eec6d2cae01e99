"""The uplink actor: control first, then frames → wire. The only sender on a connection.

Nothing here is enclosed by a scope narrower than the connection: a send that is cancelled half way leaves the
stream broken without a word, so a barge-in never touches this task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from trio_voice.audio import AudioFormat, Frame
from trio_voice.channels import EventFanOut, Send, SetMicrophone, UplinkItem
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
    frames: trio.MemoryReceiveChannel[Frame] | None,
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
    Closes: its receiving ends.
    """
    gate = _Gate()
    line = _Line(wire, sent, dialect)
    async with trio.open_nursery() as nursery:
        if frames is not None:
            nursery.start_soon(_send_frames, line, frames, gate, input_format, statistics, fan_out)
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

    async def send(self, event: ClientEvent) -> None:
        # Noted first: what is cut off half way may have arrived, and must not be missing when it is given again.
        if isinstance(event, InputAudioBufferAppend):
            self.sent.append(event.audio)
        elif isinstance(event, InputAudioBufferCommit):
            self.sent.commit()
        await self.wire.send(self.dialect.frame(event))


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


async def _send_frames(
    line: _Line,
    frames: trio.MemoryReceiveChannel[Frame],
    gate: _Gate,
    input_format: AudioFormat,
    statistics: UplinkStatistics,
    fan_out: EventFanOut | None,
) -> None:
    with frames:
        await gate.is_set.wait()
        statistics.stale_frames += _drain(frames)
        async for frame in frames:
            pcm = frame.pcm
            frame_ms = input_format.ms_of_bytes(len(pcm))
            if gate.setting.gate == "muted":
                pcm = bytes(len(pcm))
            elif gate.setting.gate == "closed":
                # The frame that is under way when an utterance is committed still belongs to it.
                if gate.tail_ms > 0:
                    gate.tail_ms -= frame_ms
                    pcm = bytes(len(pcm))
                elif not gate.commit_due:
                    continue
            await line.send(InputAudioBufferAppend(audio=pcm))
            statistics.sent_audio_ms += frame_ms
            if fan_out is not None and fan_out.wants_sound:
                fan_out.emit(AudioSent(at=trio.current_time(), captured_at=frame.captured_at, pcm=pcm))
            if gate.tail_ms <= 0:
                await _commit_if_due(line, gate)
    gate.frames_over = True
    await _commit_if_due(line, gate)


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
