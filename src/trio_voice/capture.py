"""The capture actor: microphone → frames; drop-oldest; the uplink is never waited for."""

from __future__ import annotations

import trio

from trio_voice.audio import Frame
from trio_voice.channels import DropOldest
from trio_voice.config import AudioInputConfig
from trio_voice.devices import Microphone


async def run(
    frames: DropOldest[Frame],
    *,
    microphone: Microphone,
    config: AudioInputConfig,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand on frames until the source ends.

    Raises: `DeviceError` if the microphone cannot be opened, or fails.
    Closes: `frames`, and the microphone.
    """
    try:
        async with microphone.open(config.format, config.chunk_ms) as opened:
            task_status.started()
            while True:
                try:
                    frame = await opened.receive()
                except trio.EndOfChannel:
                    return
                frames.send_nowait(frame)
    finally:
        frames.close()
