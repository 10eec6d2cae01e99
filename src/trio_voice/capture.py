"""The capture actor: microphone → filters → frames; drop-oldest; the uplink is never waited for.

While the microphone is away it gives silence in its place: the server has to hear the end of an utterance to answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from trio_voice.audio import Frame
from trio_voice.channels import DropOldest, InboxItem, VoiceHeard, offer
from trio_voice.config import AudioInputConfig
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.devices import Microphone
from trio_voice.errors import DeviceError
from trio_voice.frame_filters import FilterLine, FrameFilter
from trio_voice.voice_activity import VoiceMeter


async def run(
    frames: DropOldest[Frame],
    *,
    microphone: Microphone,
    config: AudioInputConfig,
    recovery: DeviceRecovery,
    filters: Sequence[FrameFilter] = (),
    voice: VoiceMeter | None = None,
    reports: trio.MemorySendChannel[InboxItem] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand on frames, filtered, until the source ends; report to `reports` what `voice` makes of them. A microphone
    that fails is opened again.

    Raises: `DeviceError` if the microphone cannot be opened at the start; whatever a filter raises.
    Closes: `frames`, `reports`, and the microphone.
    """
    line = FilterLine(filters, config.format)

    def hand_on(captured: Frame) -> None:
        frame = line.filter(captured)
        change = voice.frame(frame) if voice is not None else None
        if change is not None and reports is not None:
            offer(reports, VoiceHeard(change))
        frames.send_nowait(frame)

    async def listen() -> DeviceError | None:
        async with microphone.open(config.format, config.chunk_ms) as opened:
            recovery.opened(opened)
            while True:
                try:
                    frame = await opened.receive()
                except trio.EndOfChannel:
                    return None
                except DeviceError as failed:
                    return failed
                recovery.works()
                hand_on(frame)
                del frame  # no sound is kept while the next is waited for

    try:
        async with trio.open_nursery() as nursery:
            fill = partial(nursery.start_soon, _fill_with_silence, hand_on, recovery, config)
            await recovery.keep_open(listen, when_lost=fill, task_status=task_status)
            nursery.cancel_scope.cancel()
    finally:
        frames.close()
        if reports is not None:
            reports.close()


async def _fill_with_silence(
    hand_on: Callable[[Frame], None], recovery: DeviceRecovery, config: AudioInputConfig
) -> None:
    """One outage long."""
    frame_s = config.chunk_ms / 1000
    silence, captured_at = bytes(config.format.bytes_of_ms(config.chunk_ms)), trio.current_time()
    outage = recovery.failures
    while recovery.away and recovery.failures == outage:
        await trio.sleep_until(captured_at + frame_s)
        if recovery.away:
            hand_on(Frame(silence, captured_at))
        captured_at += frame_s
