"""Many clients on Trio in one process: whole sessions, and the bare WebSocket libraries beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket

from benchmarks.load_client import FRAME_S, WARM_UP_S, Account, stamped_frame
from trio_voice import AudioInputConfig, ConnectionOptions, RealtimeAgent, RealtimeSession
from trio_voice.audio import AudioFormat, Frame
from trio_voice.devices import OpenMicrophone
from trio_voice.events import ResponseAudio
from trio_voice.protocol import (
    InputAudioBufferAppend,
    ResponseOutputAudioDelta,
    SessionUpdate,
    SessionUpdated,
    decode_server_event,
    encode,
)
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.wire_stream import MESSAGE_QUEUE, RECEIVE_BYTES


@attrs.define(eq=False)
class StampedMicrophone:
    """Gives a frame every 20 ms that says when it was given."""

    phase_s: float = 0.0
    name: str = "stamped microphone"
    dropped_frames: int = 0
    due_at: float = 0.0

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        self.due_at = trio.current_time() + self.phase_s
        yield self

    async def receive(self) -> Frame:
        self.due_at += FRAME_S
        await trio.sleep_until(self.due_at)
        return Frame(stamped_frame(), self.due_at)


async def sessions(url: str, count: int, account: Account, microphone: bool) -> None:
    """As an application makes them, without a loudspeaker, and without the memory of what the user said."""

    def on_audio(event: ResponseAudio) -> None:
        account.take(event.pcm)

    async with RealtimeSession(
        RealtimeAgent("warm-up"), connection=ConnectionOptions(url=f"{url}&down_ms=0", model=None)
    ):
        pass  # what is imported late is nobody's memory
    account.begin()
    async with AsyncExitStack() as stack:
        for number in range(count):
            session = RealtimeSession(
                RealtimeAgent("benchmark"),
                connection=ConnectionOptions(url=url, model=None),
                microphone=StampedMicrophone(FRAME_S * number / count) if microphone else None,
                audio_input=AudioInputConfig(utterance_capacity_ms=0),
            )
            session.on("audio", on_audio)
            await stack.enter_async_context(session)
            if microphone:
                await session.start_listening()
        await _wait(account)


async def _wait(account: Account) -> None:
    await trio.sleep(WARM_UP_S)
    account.count()
    await trio.sleep(account.seconds)
    account.finish()


async def pacing(url: str, count: int, account: Account, microphone: bool) -> None:
    """The timers of Trio alone, which stand for microphones: a wake-up for each frame, and nothing done with it."""

    async def wake(number: int) -> None:
        due_at = trio.current_time() + FRAME_S * number / count
        while True:
            due_at += FRAME_S
            await trio.sleep_until(due_at)

    account.begin()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(wake, number)
        await _wait(account)
        nursery.cancel_scope.cancel()


async def bare_websocket(url: str, count: int, account: Account, microphone: bool) -> None:
    """trio-websocket and the codec, as a client without a runtime would use them."""
    parts = urlsplit(url)

    async def client(number: int, pump: trio.Nursery) -> None:
        stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
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
        if microphone:
            pump.start_soon(partial(_speak, socket.send_message, FRAME_S * number / count))
        pump.start_soon(_listen, socket.get_message, account)

    account.begin()
    async with trio.open_nursery() as pump:
        for number in range(count):
            await client(number, pump)
        await _wait(account)
        pump.cancel_scope.cancel()


async def websockets_trio(url: str, count: int, account: Account, microphone: bool) -> None:
    """The client for Trio that `websockets` has had since version 17."""
    from websockets.trio.client import connect

    async def client(number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with connect(url, compression=None, max_size=None) as socket, trio.open_nursery() as both:
            await socket.send(encode(SessionUpdate(session=SessionConfig())))
            while not isinstance(decode_server_event(await socket.recv()), SessionUpdated):
                pass
            task_status.started()
            if microphone:
                both.start_soon(partial(_speak, socket.send, FRAME_S * number / count))
            await _listen(socket.recv, account)

    account.begin()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            await nursery.start(client, number)
        await _wait(account)
        nursery.cancel_scope.cancel()


async def _speak(send: object, phase_s: float) -> None:
    due_at = trio.current_time() + phase_s
    while True:
        due_at += FRAME_S
        await trio.sleep_until(due_at)
        await send(encode(InputAudioBufferAppend(audio=stamped_frame())))  # type: ignore[operator]


async def _listen(receive: object, account: Account) -> None:
    while True:
        event = decode_server_event(await receive())  # type: ignore[operator]  # whatever client it is
        if isinstance(event, ResponseOutputAudioDelta):
            account.take(event.delta)
