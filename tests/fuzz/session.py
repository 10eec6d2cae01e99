"""A whole session against a server that sends whatever the dice say, in whatever order.

What must hold: the session ends with nothing but `WireLost` or `ConfigError`, is left within a second, leaves no task,
holds no more than the bounds below allow, and runs a tool at most once for each call.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from typing import Any

import attrs
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_server_stream

from fuzz.frames import EVENT_CLASSES, Frame, any_frame, encoded, example
from trio_voice import (
    AudioOutputConfig,
    ConfigError,
    ConnectionOptions,
    RealtimeAgent,
    RealtimeSession,
    SessionEnded,
    WireLost,
    tool,
)
from trio_voice.testing import RecordingSpeaker

LEAVING_S = 1.1
FRAMES_PER_SESSION = 60
CONFIGURED = '{"type": "session.updated", "session": {"id": "s1", "type": "realtime"}}'
CONVERSATION = (
    '{"type": "response.created", "response": {"id": "%s", "conversation_id": "conv"}}',
    '{"type": "response.output_item.added", "response_id": "%s", "item": {"id": "i%s", "type": "message"}}',
    '{"type": "response.output_audio.delta", "response_id": "%s", "item_id": "i%s", "delta": "' + "AAAA" * 400 + '"}',
    '{"type": "response.output_audio.delta", "response_id": "%s", "item_id": "i%s", "delta": "AAA="}',
    '{"type": "response.output_audio_transcript.delta", "response_id": "%s", "item_id": "i%s", "delta": "word "}',
    '{"type": "input_audio_buffer.speech_started", "audio_start_ms": 5, "item_id": "%s"}',
    '{"type": "input_audio_buffer.speech_stopped", "audio_end_ms": -5, "item_id": "%s"}',
    '{"type": "response.output_item.done", "response_id": "%s", "item": {"id": "f%s", "type": "function_call", '
    '"call_id": "%s", "name": "order", "arguments": "{}", "status": "completed"}}',
    '{"type": "response.done", "response": {"id": "%s", "status": "completed", "conversation_id": "conv"}}',
    CONFIGURED,
    '{"type": "error", "error": {"code": "conversation_already_has_active_response", "message": "%s"}}',
)


@attrs.define(eq=False)
class Outcome:
    sent: int = 0
    ended: str = "left"
    orders: int = 0
    sizes: dict[str, int] = attrs.Factory(dict)


def hostile(rng: random.Random) -> Frame:
    """A line of a real conversation, of some response or other; an event out of order; or a broken one."""
    roll = rng.random()
    if roll < 0.5:
        return rng.choice(CONVERSATION).replace("%s", rng.choice(("r1", "r2", "r3", "r4", "")))
    return encoded(example(rng.choice(EVENT_CLASSES), rng)) if roll < 0.75 else any_frame(rng)


async def converse(frames: list[Frame], rng: random.Random, *, pauses: float = 0.2) -> Outcome:
    """One session that is sent `frames`; meanwhile its application does things too."""
    outcome, over = Outcome(), trio.Event()
    alive = trio.lowlevel.current_statistics().tasks_living

    @tool
    async def order() -> str:
        """Order it."""
        outcome.orders += 1
        await trio.sleep(0.05)
        return "ordered"

    async def serve(server_end: trio.abc.Stream) -> None:
        async with trio.open_nursery() as pump:
            socket = await (await wrap_server_stream(pump, server_end)).accept()
            try:
                await socket.get_message()
                await socket.send_message(CONFIGURED)
                pump.start_soon(listen, socket)
                while outcome.sent < len(frames):
                    outcome.sent += 1
                    await socket.send_message(frames[outcome.sent - 1])
                    if rng.random() < pauses:
                        await trio.sleep(rng.choice((0.0, 0.01, 0.3)))
                await trio.sleep(0.5)
            except ConnectionClosed:
                pass
            over.set()
            await trio.sleep_forever()

    async def listen(socket: Any) -> None:
        try:
            while True:
                json.loads(await socket.get_message())  # whatever the session says is JSON
        except ConnectionClosed:
            return

    async def open_stream() -> trio.abc.Stream:
        client_end, server_end = memory_stream_pair()
        world.start_soon(serve, server_end)
        return client_end

    session = RealtimeSession(
        RealtimeAgent(tools=[order]),
        connection=ConnectionOptions(url="ws://memory/", model=None, auto_reconnect=rng.random() < 0.3),
        speaker=RecordingSpeaker(block_ms=60),
        audio_output=AudioOutputConfig(capacity_ms=60_000),
        open_stream=open_stream,
    )
    leaving_at = left_at = 0.0
    async with trio.open_nursery() as world:
        try:
            async with session:
                async with trio.open_nursery() as application:
                    application.start_soon(_do_things, session, rng)
                    await over.wait()
                    application.cancel_scope.cancel()
                outcome.sizes = sizes_of(session)
                leaving_at = trio.current_time()
            left_at = trio.current_time()
        except* (WireLost, ConfigError) as group:
            outcome.ended = type(group.exceptions[0]).__name__
        world.cancel_scope.cancel()
    assert left_at - leaving_at <= LEAVING_S, f"leaving took {left_at - leaving_at:.2f} s"
    assert trio.lowlevel.current_statistics().tasks_living == alive
    return outcome


async def _do_things(session: RealtimeSession, rng: random.Random) -> None:
    try:
        while True:
            await trio.sleep(rng.choice((0.05, 0.2)))
            match rng.randrange(5):
                case 0:
                    await session.interrupt()
                case 1:
                    await session.send_text("What?")
                case 2:
                    await session.respond()
                case 3:
                    await session.pause()
                case _:
                    await session.resume()
            json.dumps(session.summary())
    except SessionEnded:
        return


def sizes_of(session: RealtimeSession) -> dict[str, int]:
    """How much a session holds, in things."""
    tracker = session.tracker
    return {
        "items": len(tracker._history),
        "deleted items": len(tracker._history._gone),
        "turns": len(tracker._turns),
        "items of turns": len(tracker._turn_of_item),
    }


def run_session(number: int, seed: int, frames: list[Frame] | None = None, *, pauses: float = 0.2) -> Outcome:
    rng = random.Random(seed * 1_000_003 + number)
    given = frames if frames is not None else [hostile(rng) for _ in range(rng.randrange(FRAMES_PER_SESSION))]

    async def main() -> Outcome:
        return await converse(given, rng, pauses=pauses)

    try:
        outcome = trio.run(main, clock=MockClock(autojump_threshold=0))
        for name, size in outcome.sizes.items():  # a few of each for each frame, whatever is in it
            assert size <= 64 + 3 * outcome.sent, f"{size} {name} after {outcome.sent} frames"
        calls = sum("function_call" in str(frame) for frame in given)
        assert outcome.orders <= calls, "a tool ran more often than it was called"
    except BaseException as error:
        error.add_note(f"session {number} of seed {seed}, {len(given)} frames")
        raise
    return outcome


def run(sessions: int, seed: int) -> Counter[str]:
    """Raises: what no session may raise. Counts how the sessions ended, and frames sent."""
    seen = Counter[str]()
    for number in range(sessions):
        outcome = run_session(number, seed)
        seen[outcome.ended] += 1
        seen["frames"] += outcome.sent
    return seen


def peak_bytes(frames: list[Frame]) -> int:
    """What Python's memory peaks at while a session takes `frames`, over what it was before."""
    run_session(0, 0, frames[:5])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run_session(0, 0, frames, pauses=0.05)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before
