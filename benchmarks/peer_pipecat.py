"""pipecat by its public API: a pipeline of a source, `OpenAIRealtimeLLMService` and a sink."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from benchmarks.load_client import FRAME_S, WARM_UP_S, Account, stamped_frame

CONFIGURED = (
    "WorkerRunner, PipelineWorker(Pipeline([source, OpenAIRealtimeLLMService(base_url, api_key), sink])), source and "
    "sink of the benchmark's and in direct mode, 24 kHz, enable_rtvi=False, enable_turn_tracking=False, "
    "idle_timeout_secs=None, logging from WARNING on; else its defaults"
)
RATE = 24_000


async def sessions(url: str, count: int, account: Account, microphone: bool) -> None:
    from loguru import logger
    from pipecat.frames.frames import InputAudioRawFrame, StartFrame, TTSAudioRawFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
    from pipecat.workers.runner import WorkerRunner

    logger.remove()
    logger.add(sys.stderr, level="WARNING")

    class Microphone(FrameProcessor):  # type: ignore[misc]  # its base is known only where pipecat is installed
        def __init__(self, phase_s: float | None) -> None:
            super().__init__(enable_direct_mode=True)
            self.phase_s = phase_s
            self.speaking: asyncio.Task[None] | None = None

        async def process_frame(self, frame: Any, direction: Any) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)
            if isinstance(frame, StartFrame) and self.phase_s is not None:
                self.speaking = self.create_task(self.speak(self.phase_s))

        async def cleanup(self) -> None:
            if self.speaking is not None:
                await self.cancel_task(self.speaking)
            await super().cleanup()

        async def speak(self, phase_s: float) -> None:
            loop = asyncio.get_running_loop()
            due = loop.time() + phase_s
            while True:
                due += FRAME_S
                await asyncio.sleep(due - loop.time())
                await self.push_frame(InputAudioRawFrame(audio=stamped_frame(), sample_rate=RATE, num_channels=1))

    class Loudspeaker(FrameProcessor):  # type: ignore[misc]  # as above
        async def process_frame(self, frame: Any, direction: Any) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TTSAudioRawFrame):
                account.take(frame.audio)
            else:
                await self.push_frame(frame, direction)

    runner = WorkerRunner(handle_sigint=False)

    async def started(phase_s: float | None) -> Any:
        # The model is put behind a question mark of its own, whatever the address has already.
        service = OpenAIRealtimeLLMService(api_key="none", base_url=f"{url}&")
        worker = PipelineWorker(
            Pipeline([Microphone(phase_s), service, Loudspeaker(enable_direct_mode=True)]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )
        begun = asyncio.Event()

        @worker.event_handler("on_pipeline_started")  # type: ignore[untyped-decorator]  # the package is not in this environment
        async def _(*_: object) -> None:
            begun.set()

        await runner.add_workers(worker)
        await begun.wait()
        return worker

    running = asyncio.create_task(runner.run(auto_end=False))
    await (await started(None)).cancel()  # what is imported late is nobody's memory
    account.begin()
    for number in range(count):
        await started(FRAME_S * number / count if microphone else None)
    await asyncio.sleep(WARM_UP_S)
    account.count()
    await asyncio.sleep(account.seconds)
    account.finish()
    await runner.cancel()
    await running
