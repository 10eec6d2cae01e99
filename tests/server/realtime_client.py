"""A client for the tests: the real WebSocket code over memory streams, each event checked by the openai package."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

import numpy as np
import trio
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from trio_voice.server.brain import Brain
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import marked_samples
from trio_voice.server.server_settings import ServerSettings

Event = dict[str, Any]

MODELS = {
    get_args(model.model_fields["type"].annotation)[0]: TypeAdapter(model)
    for model in get_args(get_args(RealtimeServerEvent)[0])
}

LOUD_TURN = 100
"""What the user's voice is marked with, so that it is told from the agent's."""


def checked(frame: str | bytes) -> Event:
    """The event of a frame that openai's types accept strictly."""
    event: Event = json.loads(frame)
    MODELS[event["type"]].validate_json(frame, strict=True)
    return event


def loud(duration_ms: float, rate_hz: int = 24_000) -> bytes:
    return marked_samples(LOUD_TURN, int(duration_ms * rate_hz / 1000)).tobytes()


def quiet(duration_ms: float, rate_hz: int = 24_000) -> bytes:
    return bytes(2 * int(duration_ms * rate_hz / 1000))


def base64_of(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


def samples_of_deltas(events: list[Event]) -> Any:
    """All the sound in `events`, as samples."""
    pcm = b"".join(base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta")
    return np.frombuffer(pcm, dtype="<i2")


class RealtimeClient:
    """Sends events, and keeps all that came back."""

    def __init__(self, socket: WebSocketConnection, *, strict: bool = True) -> None:
        self.socket = socket
        self._strict = strict
        self.events: list[Event] = []
        self._read = 0
        self._news = trio.Event()
        self.closed = trio.Event()

    async def read(self) -> None:
        try:
            while True:
                frame = await self.socket.get_message()
                self.events.append(checked(frame) if self._strict else json.loads(frame))
                self._news.set()
        except ConnectionClosed:
            self.closed.set()
            self._news.set()

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send_message(json.dumps({"type": type_, **fields}))

    async def next(self, type_: str) -> Event:
        """The next event of this type that was not given before; what comes before it counts as read."""
        with trio.fail_after(60):
            while True:
                while self._read < len(self.events):
                    event = self.events[self._read]
                    self._read += 1
                    if event["type"] == type_:
                        return event
                assert not self.closed.is_set(), f"closed before {type_}: {self.types()}"
                self._news = trio.Event()
                await self._news.wait()

    async def quiesce(self) -> None:
        """Until nothing happens any more, in virtual time."""
        await trio.sleep(5)

    async def append(self, pcm: bytes, chunk_ms: int = 20, rate_hz: int = 24_000) -> None:
        """Send sound as a microphone would: in real time."""
        size = 2 * rate_hz * chunk_ms // 1000
        for start in range(0, len(pcm), size):
            chunk = pcm[start : start + size]
            await self.send("input_audio_buffer.append", audio=base64_of(chunk))
            await trio.sleep(len(chunk) / 2 / rate_hz)

    async def update(self, **session: Any) -> Event:
        await self.send("session.update", session={"type": "realtime", **session})
        return await self.next("session.updated")

    async def write(self, text: str, **fields: Any) -> Event:
        """Create a user's message; the event that says it is done."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send("conversation.item.create", item={**item, **fields})
        return await self.next("conversation.item.done")

    async def ask(self, text: str = "hello", **response: Any) -> Event:
        """A whole written turn; its `response.done`."""
        await self.write(text)
        await self.send("response.create", **({"response": response} if response else {}))
        return await self.next("response.done")

    async def refused(self, type_: str, **fields: Any) -> Event:
        """Send what the server must refuse; the error it answers."""
        await self.send(type_, event_id="evt_mine", **fields)
        error: Event = (await self.next("error"))["error"]
        assert error["event_id"] == "evt_mine"
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        return error

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, type_: str) -> list[Event]:
        return [event for event in self.events if event["type"] == type_]


async def upgraded(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    path: str = "/v1/realtime",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
) -> WebSocketConnection:
    """A client's WebSocket on any stream; its tasks run in `nursery`."""
    return await wrap_client_stream(
        nursery,
        stream,  # type: ignore[arg-type]  # any stream works; the annotation is narrower than the code
        "test",
        path,
        extra_headers=list(headers),
        subprotocols=list(subprotocols),
    )


@asynccontextmanager
async def connected(
    brain: Brain,
    settings: ServerSettings | None = None,
    *,
    path: str = "/v1/realtime?model=test",
    strict: bool = True,
) -> AsyncIterator[RealtimeClient]:
    """A client of a server with `brain`, after `session.created`; afterwards the server must be gone too."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        served = trio.Event()

        async def run_server() -> None:
            await serve_stream(theirs, brain, settings)
            served.set()

        nursery.start_soon(run_server)
        socket = await upgraded(nursery, ours, path)
        client = RealtimeClient(socket, strict=strict)
        nursery.start_soon(client.read)
        await client.next("session.created")
        yield client
        await socket.aclose()
        with trio.fail_after(2):
            await served.wait()
        nursery.cancel_scope.cancel()
