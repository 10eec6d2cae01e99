"""The ways in which trio-voice hands over sound, each measured on its own; and the WebSocket library below it.

Each function gives every piece of sound to `take` until it has had enough.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
import trio_websocket

from benchmarks.stamps import Take
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, playback
from trio_voice.audio import AudioFormat
from trio_voice.devices import OpenSpeaker, Pull, Speaker
from trio_voice.errors import DeviceError
from trio_voice.events import ResponseAudio
from trio_voice.playback_buffer import Insertion, PlaybackBuffer
from trio_voice.protocol import ResponseOutputAudioDelta, SessionUpdate, SessionUpdated, decode_server_event, encode
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.wire_stream import MESSAGE_QUEUE, RECEIVE_BYTES


def new_session(url: str, speaker: Speaker | None = None) -> RealtimeSession:
    """As an application makes it, without a microphone."""
    return RealtimeSession(
        RealtimeAgent("benchmark"), connection=ConnectionOptions(url=url, model=None), speaker=speaker
    )


async def bare_websocket(url: str, take: Take) -> None:
    """trio-websocket and the codec, nothing of the runtime: the step between the floor and a session."""
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
    async with trio.open_nursery() as pump:
        socket = await trio_websocket.wrap_client_stream(
            pump,
            stream,
            parts.netloc,
            f"{parts.path}?{parts.query}",
            message_queue_size=MESSAGE_QUEUE,
            receive_buffer_size=RECEIVE_BYTES,
        )
        await socket.send_message(encode(SessionUpdate(session=SessionConfig())))
        while not isinstance(decode_server_event(await socket.get_message()), SessionUpdated):
            pass
        while True:
            event = decode_server_event(await socket.get_message())
            if isinstance(event, ResponseOutputAudioDelta) and take(event.delta):
                break
        pump.cancel_scope.cancel()


async def callback(url: str, take: Take) -> None:
    """`session.on("audio", plain_function)`."""
    session = new_session(url)
    enough = trio.Event()

    def on_audio(event: ResponseAudio) -> None:
        if take(event.pcm):
            enough.set()

    session.on("audio", on_audio)
    async with session:
        await enough.wait()


async def event_stream(url: str, take: Take) -> None:
    """`async for event in session.events(audio=True)`."""
    session = new_session(url)
    stream = session.events(audio=True)
    async with session:
        async for event in stream:
            if isinstance(event, ResponseAudio) and take(event.pcm):
                break


async def speaker(url: str, take: Take) -> None:
    """Until the sound is in the playback buffer, from where the next pull of a device takes it."""
    enough = trio.Event()

    class TimedBuffer(PlaybackBuffer):
        def insert(self, turn: int, item_id: str, content_index: int, pcm: bytes, arrived_at: float) -> Insertion:
            insertion = super().insert(turn, item_id, content_index, pcm, arrived_at)
            if take(pcm):
                enough.set()
            return insertion

    vars(playback)["PlaybackBuffer"] = TimedBuffer  # there is no other place to look from
    async with new_session(url, _PullsNothing()):
        await enough.wait()


class _PullsNothing:
    """A speaker whose device never comes to pull: the measurement ends at the buffer."""

    name = "pulls nothing"

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        yield self

    def unheard_samples(self) -> int:
        return 0

    async def wait_failed(self) -> DeviceError:
        await trio.sleep_forever()
        raise AssertionError("unreachable")
