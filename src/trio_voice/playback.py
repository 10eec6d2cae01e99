"""The playback actor: Play | Interrupt | EndTurn | Hold | Duck → playback buffer → speaker; reports the heard position.

One FIFO channel leads in, so an interruption takes effect exactly where it stands between the pieces of sound. The
actor never waits on the device: it applies each item to a buffer that it alone owns, and the device pulls.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import trio
from msgspec import Struct, field

from trio_voice.audio import BYTES_PER_SAMPLE, Frame
from trio_voice.channels import (
    Duck,
    EndTurn,
    EventFanOut,
    Hold,
    InboxItem,
    Interrupt,
    Interrupted,
    Play,
    PlaybackItem,
    TurnPlayed,
    TurnStarted,
    at_hand,
    offer,
)
from trio_voice.config import AudioOutputConfig
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.devices import FlushableSpeaker, OpenSpeaker, Pull, Speaker
from trio_voice.echo import PlaybackReference
from trio_voice.errors import DeviceError
from trio_voice.events import AudioPlayed
from trio_voice.frame_filters import FilterLine, FrameFilter
from trio_voice.playback_buffer import BufferStatistics, ItemPosition, PlaybackBuffer
from trio_voice.tape import Tape

PROOF_MS = 250
"""A device that was opened again works when it has pulled this much. One that is suspended takes three blocks of 20 ms
before it stops (PulseAudio, measured), and plays none of them."""
REPORT_INTERVAL_S = 0.02
TAPE_INTERVAL_S = 0.2
LONGEST_INTERVAL_S = 0.25
"""How often a turn that is playing is looked at, for the reports of its first and its last sample."""


async def run(
    inbox: trio.MemoryReceiveChannel[PlaybackItem],
    reports: trio.MemorySendChannel[InboxItem],
    *,
    speaker: Speaker,
    config: AudioOutputConfig,
    recovery: DeviceRecovery,
    filters: Sequence[FrameFilter] = (),
    reference: PlaybackReference | None = None,
    fan_out: EventFanOut | None = None,
    task_status: trio.TaskStatus[BufferStatistics] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Play until `inbox` is closed; tell `reference` what the speaker takes, after all `filters`, and by `fan_out`
    whoever asks for the sound. While the speaker is away the buffer keeps what is unheard.

    Raises: `DeviceError` if the speaker cannot be opened at the start.
    Closes: `reports`, and the speaker.
    """
    buffer = PlaybackBuffer(
        config.format,
        device_rate_hz=config.device_rate_hz,
        prebuffer_ms=config.prebuffer_ms,
        prebuffer_bounds_ms=(config.shortest_prebuffer_ms, config.longest_prebuffer_ms),
        capacity_ms=config.capacity_ms,
        fade_ms=config.fade_ms,
    )
    line = _Line(buffer, config.device_format.samples_of_ms(PROOF_MS))
    filter_line = FilterLine(filters, config.device_format) if filters else None

    async def sound() -> DeviceError | None:
        try:
            pull = line.connect()
            if filter_line is not None:
                pull = _filtered(pull, filter_line, config.device_format.rate_hz)
            if reference is not None:
                pull = _told(pull, reference)
            tape = Tape(config.device_format.rate_hz, trio.lowlevel.current_clock().current_time)
            if fan_out is not None:
                pull = _taped(pull, tape, fan_out)
            async with speaker.open(config.device_format, pull) as device, trio.open_nursery() as nursery:
                line.device = device
                if reference is not None:
                    reference.unheard_samples = device.unheard_samples
                recovery.opened(device)
                nursery.start_soon(_notice_that_it_works, line, recovery)
                if fan_out is not None:
                    nursery.start_soon(_tell_what_sounds, tape, device, fan_out)
                failed = await device.wait_failed()
                line.disconnect()
                nursery.cancel_scope.cancel()
            return failed
        finally:
            line.disconnect()

    with reports, inbox:
        async with trio.open_nursery() as nursery:
            await nursery.start(recovery.keep_open, sound)
            task_status.started(buffer.statistics)
            voice = _Voice(buffer, line, reports)
            nursery.start_soon(voice.report_progress)
            async for item in inbox:
                voice.apply(item)
                for waiting in at_hand(inbox):
                    voice.apply(waiting)
            nursery.cancel_scope.cancel()


def _filtered(pull: Pull, line: FilterLine, rate_hz: int) -> Pull:
    pulled_samples = 0

    def pull_filtered(sample_count: int) -> bytes:
        nonlocal pulled_samples
        block = Frame(pull(sample_count), pulled_samples / rate_hz)
        pulled_samples += sample_count
        return line.filter(block).pcm

    return pull_filtered


def _told(pull: Pull, reference: PlaybackReference) -> Pull:
    def pull_and_tell(sample_count: int) -> bytes:
        pcm = pull(sample_count)
        reference.push(pcm)
        return pcm

    return pull_and_tell


def _taped(pull: Pull, tape: Tape, fan_out: EventFanOut) -> Pull:
    def pull_and_tape(sample_count: int) -> bytes:
        pcm = pull(sample_count)
        tape.record(pcm, wanted=fan_out.wants_sound)
        return pcm

    return pull_and_tape


async def _tell_what_sounds(tape: Tape, device: OpenSpeaker, fan_out: EventFanOut) -> None:
    """In Trio's thread, now and then, and at the end."""
    try:
        while True:
            await trio.sleep(TAPE_INTERVAL_S)
            _emit_tape(tape, device, fan_out)
    finally:
        _emit_tape(tape, device, fan_out)


def _emit_tape(tape: Tape, device: OpenSpeaker, fan_out: EventFanOut) -> None:
    if not tape.is_timed:
        tape.latency_samples = device.unheard_samples()
    for heard_at, pcm in tape.take():
        fan_out.emit(AudioPlayed(at=trio.current_time(), heard_at=heard_at, pcm=pcm))


async def _notice_that_it_works(line: _Line, recovery: DeviceRecovery) -> None:
    while not line.is_proven:  # noqa: ASYNC110 - it is counted in the device's own thread
        await trio.sleep(REPORT_INTERVAL_S)
    recovery.works()


class _Line(Struct, eq=False):
    """Between the buffer and the device that pulls, which may be another one after a failure."""

    buffer: PlaybackBuffer
    proof_samples: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    """The device pulls from its own thread; each hold is a few microseconds."""
    device: OpenSpeaker | None = None
    openings: int = 0
    is_connected: bool = False
    pulled_samples: int = 0
    """By the device that is connected."""

    @property
    def is_proven(self) -> bool:
        return self.pulled_samples >= self.proof_samples

    def connect(self) -> Pull:
        """What the next device is to pull from. Once it is disconnected it gets silence, as it may take a while to
        die: a frozen sound server lets go of a stream when it thaws."""
        self.openings += 1
        self.is_connected, self.pulled_samples = True, 0
        opening = self.openings

        def pull(sample_count: int) -> bytes:
            with self.lock:
                if opening != self.openings or not self.is_connected:
                    return bytes(sample_count * BYTES_PER_SAMPLE)
                self.pulled_samples += sample_count
                return self.buffer.pull(sample_count)

        return pull

    def disconnect(self) -> None:
        """What the device had not brought to the air goes back into the buffer."""
        with self.lock:
            if self.is_connected:
                self.buffer.take_back(self.unheard_samples())
            self.is_connected, self.device = False, None

    def flush(self) -> None:
        """A device that can forget what it holds does: what it had not played goes back into the buffer."""
        if isinstance(self.device, FlushableSpeaker):
            self.buffer.take_back(self.unheard_samples())
            self.device.flush()

    def unheard_samples(self) -> int:
        """Of a device that was opened again nothing counts as heard before it is proven to work."""
        if self.device is None or (self.openings > 1 and not self.is_proven):
            return self.pulled_samples
        return self.device.unheard_samples()


class _Voice(Struct, eq=False):
    """The buffer, its line to the device, and which turn is being reported on."""

    buffer: PlaybackBuffer
    line: _Line
    reports: trio.MemorySendChannel[InboxItem]
    turns: list[int] = field(default_factory=list)
    """Turns with sound or an end, not yet reported as played, oldest first."""
    started_turn: int = 0
    told_underruns: int = 0
    changed: trio.Event = field(default_factory=trio.Event)
    """A turn has come, or gone."""

    def apply(self, item: PlaybackItem) -> None:
        """Synchronous: an item takes effect whole or not at all."""
        match item:
            case Play(turn, item_id, content_index, pcm):
                with self.line.lock:
                    self.buffer.insert(turn, item_id, content_index, pcm, trio.current_time())
                self._follow(turn)
            case EndTurn(turn):
                with self.line.lock:
                    self.buffer.end(turn)
                self._follow(turn)
            case Interrupt(turn):
                with self.line.lock:
                    self.line.flush()
                    positions = self._positions(turn)
                    discarded_ms = self.buffer.interrupt(turn)
                    self.buffer.retire(turn)
                self.turns = [followed for followed in self.turns if followed > turn]
                self.changed.set()
                offer(self.reports, Interrupted(turn, positions, discarded_ms, self._underruns()))
            case Hold(held):
                with self.line.lock:
                    self.buffer.held = held
            case Duck(gain, ramp_ms):
                with self.line.lock:
                    self.buffer.duck(gain, ramp_ms)

    def _follow(self, turn: int) -> None:
        if turn > self.buffer.floor and turn not in self.turns:
            self.turns.append(turn)
            self.changed.set()

    def _positions(self, turn: int) -> tuple[ItemPosition, ...]:
        positions = self.buffer.positions(self.line.unheard_samples())
        return tuple(position for position in positions if position.turn <= turn)

    def _underruns(self) -> int:
        """Since this was last asked."""
        before, self.told_underruns = self.told_underruns, self.buffer.statistics.underruns
        return self.told_underruns - before

    async def report_progress(self) -> None:
        while True:
            await self.changed.wait()
            while self.turns:
                self.changed = trio.Event()
                self._report(self.turns[0])
                with trio.move_on_after(self._until_next_look_s()):
                    await self.changed.wait()
            self.changed = trio.Event()

    def _until_next_look_s(self) -> float:
        """Often before the first sample and near the last; in between there is nothing to tell."""
        if not self.turns or self.started_turn < self.turns[0]:
            return REPORT_INTERVAL_S
        return min(LONGEST_INTERVAL_S, max(REPORT_INTERVAL_S, self.buffer.queued_ms / 1000))

    def _report(self, turn: int) -> None:
        with self.line.lock:
            positions = self._positions(turn)
            finished = self.buffer.is_finished(turn, self.line.unheard_samples())
            if finished:
                self.buffer.retire(turn)
        if turn > self.started_turn and any(position.heard_ms for position in positions):
            self.started_turn = turn
            offer(self.reports, TurnStarted(turn))
        if finished:
            self.turns.remove(turn)
            offer(self.reports, TurnPlayed(turn, positions, self._underruns()))
