"""The vendor's own client against the server, over TCP: it connects, talks, and its types take every event."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from openai import AsyncOpenAI
from websockets.exceptions import InvalidStatus

from server.realtime_client import base64_of, checked, loud, quiet
from trio_voice.server.brain import Brain
from trio_voice.server.listen import Listening, serve
from trio_voice.server.scripted import Call, Say, ScriptedBrain

KEY = "local-key"


@contextmanager
def serving(brain: Brain) -> Iterator[str]:
    """A server in a thread of its own, as the client runs on asyncio; the URL for its `websocket_base_url`."""
    started = threading.Event()
    found: list[Any] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            where: Listening = await nursery.start(
                lambda task_status: serve(brain, api_key=KEY, task_status=task_status)
            )
            found.extend([where, trio.lowlevel.current_trio_token(), nursery.cancel_scope])
            started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert started.wait(10)
    where, token, scope = found
    try:
        yield where.url.removesuffix("/realtime")
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()


@asynccontextmanager
async def connection(url: str, key: str = KEY) -> AsyncIterator[Any]:
    async with (
        AsyncOpenAI(api_key=key, websocket_base_url=url) as client,
        client.realtime.connect(model="gpt-realtime") as connected,
    ):
        yield connected


async def until(connected: Any, type_: str) -> list[Any]:
    """Events up to the next of `type_`, each read as the client does and strictly as its types say."""
    events = []
    async with asyncio.timeout(20):
        while True:
            raw = await connected.recv_bytes()
            checked(raw)
            events.append(connected.parse_event(raw))
            if events[-1].type == type_:
                return events


def test_a_written_turn_and_a_tool() -> None:
    async def talk(url: str) -> None:
        async with connection(url) as connected:
            await until(connected, "session.created")
            await connected.session.update(session={"type": "realtime", "output_modalities": ["text"]})
            await until(connected, "session.updated")
            await connected.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
            )
            await connected.response.create()
            events = await until(connected, "response.done")
            assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello to you."
            assert events[-1].response.status == "completed"
            await connected.response.create()
            call = (await until(connected, "response.done"))[-1].response.output[0]
            assert (call.name, call.arguments) == ("weather", '{"city": "Oslo"}')

    with serving(ScriptedBrain([Say("Hello to you."), Call("weather", '{"city": "Oslo"}')])) as url:
        asyncio.run(talk(url))


def test_a_spoken_turn_and_a_truncation() -> None:
    async def talk(url: str) -> None:
        async with connection(url) as connected:
            session: Any = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
            await connected.session.update(session=session)
            for pcm in (quiet(400), loud(600), quiet(800)):
                await connected.input_audio_buffer.append(audio=base64_of(pcm))
            events = await until(connected, "response.done")
            transcript = [e.transcript for e in events if e.type.endswith("transcription.completed")]
            assert transcript == ["What is it?"]
            pcm = b"".join(base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta")
            assert len(pcm) == 48 * 1500
            item_id = events[-1].response.output[0].id
            await connected.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=700)
            truncated = (await until(connected, "conversation.item.truncated"))[-1]
            assert truncated.audio_end_ms == 700

    with serving(ScriptedBrain([Say("It is a test.", 1500)], ["What is it?"])) as url:
        asyncio.run(talk(url))


def test_a_wrong_key_is_refused_before_the_upgrade() -> None:
    async def talk(url: str) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            async with connection(url, key="wrong"):
                pass
        assert refusal.value.response.status_code == 401

    with serving(ScriptedBrain()) as url:
        asyncio.run(talk(url))
