"""The capture actor: microphone → frames; drop-oldest; the uplink is never waited for.

While the microphone is away it gives silence in its place: the server has to hear the end of an utterance to answer it.
"""

from __future__ import annotations

import trio

from trio_voice.audio import Frame
from trio_voice.channels import DropOldest
from trio_voice.config import AudioInputConfig
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.devices import Microphone
from trio_voice.errors import DeviceError


async def run(
    frames: DropOldest[Frame],
    *,
    microphone: Microphone,
    config: AudioInputConfig,
    recovery: DeviceRecovery,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand on frames until the source ends. A microphone that fails is opened again.

    Raises: `DeviceError` if the microphone cannot be opened at the start.
    Closes: `frames`, and the microphone.
    """

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
                frames.send_nowait(frame)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fill_with_silence, frames, recovery, config)
            await recovery.keep_open(listen, task_status=task_status)
            nursery.cancel_scope.cancel()
    finally:
        frames.close()


async def _fill_with_silence(frames: DropOldest[Frame], recovery: DeviceRecovery, config: AudioInputConfig) -> None:
    silence, frame_s = bytes(config.format.bytes_of_ms(config.chunk_ms)), config.chunk_ms / 1000
    while True:
        await recovery.lost.wait()
        captured_at = trio.current_time()
        while recovery.away:
            await trio.sleep_until(captured_at + frame_s)
            if recovery.away:
                frames.send_nowait(Frame(silence, captured_at))
            captured_at += frame_s
