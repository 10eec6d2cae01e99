"""What session tests share: a session and a server joined by memory streams, the real WebSocket code between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from trio_voice import AudioOutputConfig, ConnectionOptions, RealtimeAgent, RealtimeSession, events
from trio_voice.audio import samples_of
from trio_voice.channels import EventStream, InboxItem
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.events import DeviceKind
from trio_voice.protocol import ClientEvent
from trio_voice.server.brain import Brain
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import ScriptedBrain, tone, turns_in
from trio_voice.server.server_settings import ServerSettings
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

URL = ConnectionOptions(url="ws://memory/v1/realtime", model=None)
ONE_CONNECTION = ConnectionOptions(url="ws://memory/v1/realtime", model=None, auto_reconnect=False)
RATE_HZ = 24_000
SPEECH = tone(440, 800, RATE_HZ).tobytes()
"""What the loudness detector of the scripted brain takes for a person speaking."""
NO_FADE = AudioOutputConfig(fade_ms=0)
"""So that every sample played is one that was sent, or silence."""


def recovery_of(kind: DeviceKind, *, wait_for_device: bool = False) -> DeviceRecovery:
    """Of a device whose news nobody reads."""
    reports, _ = trio.open_memory_channel[InboxItem](100)
    return DeviceRecovery(kind, "a device", reports, wait_for_device)


@attrs.define(eq=False)
class Call:
    """A session in a call, and what is at its ends."""

    session: RealtimeSession
    microphone: ScriptedMicrophone
    speaker: RecordingSpeaker
    events: EventStream
    links: list[trio.StapledStream[Any, Any]] = attrs.Factory(list)
    """The client's end of each connection so far."""
    sent: list[ClientEvent] = attrs.Factory(list)
    """What the server was told, where the protocol is listened to."""

    async def drop(self) -> None:
        """Cut the newest connection, as a network does."""
        await trio.aclose_forcefully(self.links[-1])

    @property
    def heard(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        return samples_of(bytes(self.speaker.pcm))

    def turns_heard(self) -> list[int]:
        return turns_in(self.heard)

    async def next(self, kind: type[Any]) -> Any:
        """The next event of `kind`; fails the test after a virtual minute."""
        with trio.fail_after(60):
            return await self.events.wait_for(kind)

    async def speak(self, milliseconds: int = 800) -> None:
        await self.microphone.say(tone(440, milliseconds, RATE_HZ).tobytes())

    def errors(self) -> list[str]:
        """Errors reported and not yet looked at."""
        return [event.message for event in self.events._queue if isinstance(event, events.ErrorReported)]


@asynccontextmanager
async def call(
    brain: Brain | ScriptedBrain,
    agent: RealtimeAgent | None = None,
    *,
    speaker: RecordingSpeaker | None = None,
    settings: ServerSettings | None = None,
    listening: bool = True,
    audio: bool = False,
    protocol: bool = False,
    beforehand: Callable[[RealtimeSession], Awaitable[object]] | None = None,
    **options: Any,
) -> AsyncIterator[Call]:
    """Connect a session to a local server with `brain`; each reconnection is a new session of that server.

    `beforehand` sees the session before it is entered.
    """
    microphone, speaker = ScriptedMicrophone(), speaker or RecordingSpeaker()
    links: list[trio.StapledStream[Any, Any]] = []
    async with trio.open_nursery() as nursery:

        async def open_stream() -> trio.abc.Stream:
            client_end, server_end = memory_stream_pair()
            nursery.start_soon(serve_stream, server_end, brain, settings or ServerSettings())
            links.append(client_end)
            await trio.lowlevel.checkpoint()
            return client_end

        session = RealtimeSession(
            agent or RealtimeAgent(),
            connection=options.pop("connection", URL),
            microphone=microphone,
            speaker=speaker,
            open_stream=open_stream,
            audio_output=options.pop("audio_output", NO_FADE),
            **options,
        )
        stream = session.events(audio=audio, protocol=protocol)
        if beforehand is not None:
            await beforehand(session)
        sent: list[ClientEvent] = []
        if protocol:
            session.on("client_event", lambda told: sent.append(told.event))
        async with session:
            if listening:
                await session.start_listening()
            yield Call(session, microphone, speaker, stream, links, sent)
        nursery.cancel_scope.cancel()


Handler = Callable[["Peer"], Awaitable[None]]


@attrs.define(eq=False)
class Peer:
    """The server's end of a WebSocket, for tests that say exactly what goes over it."""

    socket: WebSocketConnection
    target: str = "/"
    """Path and query of its handshake."""
    received: list[dict[str, Any]] = attrs.Factory(list)

    async def send(self, *messages: dict[str, Any] | str) -> None:
        for message in messages:
            await self.socket.send_message(message if isinstance(message, str) else json.dumps(message))

    async def receive(self, wanted: str) -> dict[str, Any]:
        """The next client event of type `wanted`; the others are kept in `received` too."""
        while True:
            event: dict[str, Any] = json.loads(await self.socket.get_message())
            self.received.append(event)
            if event["type"] == wanted:
                return event

    async def configure(self) -> None:
        await self.receive("session.update")
        await self.send({"type": "session.updated", "session": {"type": "realtime", "id": "sess_1"}})

    async def drain(self) -> None:
        """Take in whatever comes until the client goes away."""
        try:
            while True:
                self.received.append(json.loads(await self.socket.get_message()))
        except ConnectionClosed:
            return

    def types(self) -> list[str]:
        return [event["type"] for event in self.received if event["type"] != "input_audio_buffer.append"]


@asynccontextmanager
async def call_peer(
    handler: Handler,
    agent: RealtimeAgent | None = None,
    *,
    speaker: RecordingSpeaker | None = None,
    protocol: bool = False,
    connection: ConnectionOptions = ONE_CONNECTION,
    **options: Any,
) -> AsyncIterator[Call]:
    """Connect a session to `handler`, which plays the server word by word; no microphone."""
    speaker = speaker or RecordingSpeaker()

    async def open_stream() -> trio.abc.Stream:
        client_end, server_end = memory_stream_pair()
        nursery.start_soon(serve, server_end)
        await trio.lowlevel.checkpoint()
        return client_end

    async def serve(server_end: trio.abc.Stream) -> None:
        async with trio.open_nursery() as pump:
            request = await wrap_server_stream(pump, server_end)
            await handler(Peer(await request.accept(), request.path))

    async with trio.open_nursery() as nursery:
        session = RealtimeSession(
            agent or RealtimeAgent(),
            connection=connection,
            speaker=speaker if connection.call_id is None else None,
            open_stream=open_stream,
            audio_output=options.pop("audio_output", NO_FADE),
            **options,
        )
        stream = session.events(protocol=protocol)
        async with session:
            yield Call(session, ScriptedMicrophone(), speaker, stream)
        nursery.cancel_scope.cancel()
