"""openai-agents by its public API: `RealtimeRunner`, `send_audio`, and the events of its session."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.load_client import FRAME_S, Account, count_beside, stamped_frame

CONFIGURED = "RealtimeRunner(RealtimeAgent), model_config url and api_key, tracing disabled; else its defaults"


async def sessions(url: str, count: int, account: Account, microphone: bool) -> None:
    from agents import set_tracing_disabled
    from agents.realtime import RealtimeAgent, RealtimeRunner

    set_tracing_disabled(True)

    async def listen(session: Any) -> None:
        async for event in session:
            if event.type == "audio":
                account.take(event.audio.data)

    async def speak(session: Any, number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + FRAME_S * number / count
        while True:
            due += FRAME_S
            await asyncio.sleep(due - loop.time())
            await session.send_audio(stamped_frame())

    async def connected() -> Any:
        runner = RealtimeRunner(RealtimeAgent(name="benchmark", instructions="Speak."))
        return await runner.run(model_config={"url": url, "api_key": "none"})

    async with await connected():
        pass  # what is imported late is nobody's memory
    account.begin()
    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            session = await stack.enter_async_context(await connected())
            tasks.append(asyncio.create_task(listen(session)))
            if microphone:
                tasks.append(asyncio.create_task(speak(session, number)))
        await count_beside(tasks, account)
