"""The capture actor: microphone → filters → frames; drop-oldest; the uplink is never waited for."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from trio_voice.audio import Frame
from trio_voice.channels import DropOldest, InboxItem, VoiceHeard, offer
from trio_voice.config import AudioInputConfig
from trio_voice.devices import Microphone
from trio_voice.frame_filters import FilterLine, FrameFilter
from trio_voice.voice_activity import VoiceMeter


async def run(
    frames: DropOldest[Frame],
    *,
    microphone: Microphone,
    config: AudioInputConfig,
    filters: Sequence[FrameFilter] = (),
    voice: VoiceMeter | None = None,
    reports: trio.MemorySendChannel[InboxItem] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand on frames, filtered, until the source ends; report to `reports` what `voice` makes of them.

    Raises: `DeviceError` if the microphone cannot be opened, or fails; whatever a filter raises.
    Closes: `frames`, `reports`, and the microphone.
    """
    line = FilterLine(filters, config.format)

    def hand_on(captured: Frame) -> None:
        frame = line.filter(captured)
        change = voice.frame(frame) if voice is not None else None
        if change is not None and reports is not None:
            offer(reports, VoiceHeard(change))
        frames.send_nowait(frame)

    try:
        async with microphone.open(config.format, config.chunk_ms) as opened:
            task_status.started()
            while True:
                try:
                    frame = await opened.receive()
                except trio.EndOfChannel:
                    return
                hand_on(frame)
    finally:
        frames.close()
        if reports is not None:
            reports.close()
