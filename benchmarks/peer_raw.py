"""The openai package alone: `AsyncOpenAI().realtime.connect`, no framework. Runs where that is installed."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from benchmarks.load_client import FRAME_S, Account, count_beside, stamped_frame

CONFIGURED = (
    "AsyncOpenAI().realtime.connect, session.update, then async for and input_audio_buffer.append; its defaults"
)


async def sessions(url: str, count: int, account: Account, microphone: bool) -> None:
    from openai import AsyncOpenAI

    parts = urlsplit(url)
    client = AsyncOpenAI(api_key="none", websocket_base_url=f"{parts.scheme}://{parts.netloc}/v1")
    query = dict(parse_qsl(parts.query))

    async def listen(connection: Any) -> None:
        async for event in connection:
            if event.type == "response.output_audio.delta":
                account.take(base64.b64decode(event.delta))

    async def speak(connection: Any, number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + FRAME_S * number / count
        while True:
            due += FRAME_S
            await asyncio.sleep(due - loop.time())
            await connection.input_audio_buffer.append(audio=base64.b64encode(stamped_frame()).decode())

    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:

        async def connected() -> Any:
            opened = await stack.enter_async_context(client.realtime.connect(model="benchmark", extra_query=query))
            await opened.session.update(session={"type": "realtime"})
            return opened

        await connected()  # what is imported late is nobody's memory; it hears, and nobody listens
        account.begin()
        for number in range(count):
            connection = await connected()
            tasks.append(asyncio.create_task(listen(connection)))
            if microphone:
                tasks.append(asyncio.create_task(speak(connection, number)))
        await count_beside(tasks, account)
