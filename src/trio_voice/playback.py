"""The playback actor: Play | Interrupt | EndTurn | Hold | Duck → playback buffer → speaker; reports the heard position.

One FIFO channel leads in, so an interruption takes effect exactly where it stands between the pieces of sound. The
actor never waits on the device: it applies each item to a buffer that it alone owns, and the device pulls.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import attrs
import trio

from trio_voice.audio import Frame
from trio_voice.channels import (
    Duck,
    EndTurn,
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
from trio_voice.devices import OpenSpeaker, Pull, Speaker
from trio_voice.echo import PlaybackReference
from trio_voice.frame_filters import FilterLine, FrameFilter
from trio_voice.playback_buffer import BufferStatistics, ItemPosition, PlaybackBuffer

REPORT_INTERVAL_S = 0.02
LONGEST_INTERVAL_S = 0.25
"""How often a turn that is playing is looked at, for the reports of its first and its last sample."""


async def run(
    inbox: trio.MemoryReceiveChannel[PlaybackItem],
    reports: trio.MemorySendChannel[InboxItem],
    *,
    speaker: Speaker,
    config: AudioOutputConfig,
    filters: Sequence[FrameFilter] = (),
    reference: PlaybackReference | None = None,
    task_status: trio.TaskStatus[BufferStatistics] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Play until `inbox` is closed; tell `reference` what the speaker takes, after all `filters`.

    Raises: `DeviceError` if the speaker cannot be opened.
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
    lock = threading.Lock()  # the device pulls from its own thread; each hold is a few microseconds

    def pull_sound(sample_count: int) -> bytes:
        with lock:
            return buffer.pull(sample_count)

    pull: Pull = pull_sound
    if filters:
        pull = _filtered(pull, FilterLine(filters, config.device_format), config)
    if reference is not None:
        pull = _told(pull, reference)

    with reports, inbox:
        async with speaker.open(config.device_format, pull) as device, trio.open_nursery() as nursery:
            if reference is not None:
                reference.unheard_samples = device.unheard_samples
            task_status.started(buffer.statistics)
            voice = _Voice(buffer, lock, device, reports)
            nursery.start_soon(voice.report_progress)
            nursery.start_soon(_raise_failure, device)
            async for item in inbox:
                voice.apply(item)
                for waiting in at_hand(inbox):
                    voice.apply(waiting)
            nursery.cancel_scope.cancel()


def _filtered(pull: Pull, line: FilterLine, config: AudioOutputConfig) -> Pull:
    pulled_samples = 0

    def pull_filtered(sample_count: int) -> bytes:
        nonlocal pulled_samples
        block = Frame(pull(sample_count), pulled_samples / config.device_format.rate_hz)
        pulled_samples += sample_count
        return line.filter(block).pcm

    return pull_filtered


def _told(pull: Pull, reference: PlaybackReference) -> Pull:
    def pull_and_tell(sample_count: int) -> bytes:
        pcm = pull(sample_count)
        reference.push(pcm)
        return pcm

    return pull_and_tell


async def _raise_failure(device: OpenSpeaker) -> None:
    raise await device.wait_failed()


@attrs.define(eq=False)
class _Voice:
    """The buffer, its lock, the device that pulls, and which turn is being reported on."""

    buffer: PlaybackBuffer
    lock: threading.Lock
    device: OpenSpeaker
    reports: trio.MemorySendChannel[InboxItem]
    turns: list[int] = attrs.Factory(list)
    """Turns with sound or an end, not yet reported as played, oldest first."""
    started_turn: int = 0
    changed: trio.Event = attrs.Factory(trio.Event)
    """A turn has come, or gone."""

    def apply(self, item: PlaybackItem) -> None:
        """Synchronous: an item takes effect whole or not at all."""
        match item:
            case Play(turn, item_id, content_index, pcm):
                with self.lock:
                    self.buffer.insert(turn, item_id, content_index, pcm, trio.current_time())
                self._follow(turn)
            case EndTurn(turn):
                with self.lock:
                    self.buffer.end(turn)
                self._follow(turn)
            case Interrupt(turn):
                with self.lock:
                    positions = self._positions(turn)
                    discarded_ms = self.buffer.interrupt(turn)
                    self.buffer.retire(turn)
                self.turns = [followed for followed in self.turns if followed > turn]
                self.changed.set()
                offer(self.reports, Interrupted(turn, positions, discarded_ms))
            case Hold(held):
                with self.lock:
                    self.buffer.held = held
            case Duck(gain, ramp_ms):
                with self.lock:
                    self.buffer.duck(gain, ramp_ms)

    def _follow(self, turn: int) -> None:
        if turn > self.buffer.floor and turn not in self.turns:
            self.turns.append(turn)
            self.changed.set()

    def _positions(self, turn: int) -> tuple[ItemPosition, ...]:
        positions = self.buffer.positions(self.device.unheard_samples())
        return tuple(position for position in positions if position.turn <= turn)

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
        with self.lock:
            positions = self._positions(turn)
            finished = self.buffer.is_finished(turn, self.device.unheard_samples())
            if finished:
                self.buffer.retire(turn)
        if turn > self.started_turn and any(position.heard_ms for position in positions):
            self.started_turn = turn
            offer(self.reports, TurnStarted(turn))
        if finished:
            self.turns.remove(turn)
            offer(self.reports, TurnPlayed(turn, positions))
