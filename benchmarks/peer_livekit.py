"""livekit-agents by its public API: `AgentSession` on `openai.realtime.RealtimeModel`, without a room.

The application's ends are an `AudioInput` and an `AudioOutput` of its own, as livekit's console has them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.load_client import FRAME_BYTES, FRAME_S, WARM_UP_S, Account, stamped_frame

CONFIGURED = (
    "AgentSession(llm=RealtimeModel(base_url, api_key)), no room, AudioInput and AudioOutput of the benchmark's, "
    "turn_detection='realtime_llm', vad=None, aec_warmup_duration=None, record=False; else its defaults"
)
RATE = 24_000


async def sessions(url: str, count: int, account: Account, microphone: bool) -> None:
    from livekit import rtc
    from livekit.agents import Agent, AgentSession, io
    from livekit.plugins.openai.realtime import RealtimeModel

    class Microphone(io.AudioInput):  # type: ignore[misc]  # its base is known only where livekit is installed
        def __init__(self, phase_s: float) -> None:
            super().__init__(label="microphone")
            self.due = asyncio.get_running_loop().time() + phase_s

        async def __anext__(self) -> Any:
            self.due += FRAME_S
            await asyncio.sleep(self.due - asyncio.get_running_loop().time())
            return rtc.AudioFrame(stamped_frame(), RATE, 1, FRAME_BYTES // 2)

    class Loudspeaker(io.AudioOutput):  # type: ignore[misc]  # as above
        """Has played at once what it is given; the session's end waits for being told so."""

        def __init__(self) -> None:
            super().__init__(label="loudspeaker", capabilities=io.AudioOutputCapabilities(pause=False))
            self.is_playing = False

        async def capture_frame(self, frame: Any) -> None:
            account.take(frame.data.cast("B"))
            await super().capture_frame(frame)
            if not self.is_playing:
                self.is_playing = True
                self.on_playback_started(created_at=time.time())

        def flush(self) -> None:
            super().flush()

        def clear_buffer(self) -> None:
            if self.is_playing:
                self.is_playing = False
                self.on_playback_finished(playback_position=0.0, interrupted=True)

    async def started(stack: AsyncExitStack, phase_s: float | None) -> None:
        model = await stack.enter_async_context(RealtimeModel(base_url=url, api_key="none"))
        turns = {"turn_detection": "realtime_llm"}
        session = AgentSession(llm=model, vad=None, turn_handling=turns, aec_warmup_duration=None)
        await stack.enter_async_context(session)
        session.output.audio = Loudspeaker()
        if phase_s is not None:
            session.input.audio = Microphone(phase_s)
        await session.start(Agent(instructions="Speak."), record=False)

    async with AsyncExitStack() as stack:
        await started(stack, None)  # what is imported late is nobody's memory
    account.begin()
    async with AsyncExitStack() as stack:
        for number in range(count):
            await started(stack, FRAME_S * number / count if microphone else None)
        await asyncio.sleep(WARM_UP_S)
        account.count()
        await asyncio.sleep(account.seconds)
        account.finish()
