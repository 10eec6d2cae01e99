"""The server that is interrupted, in a process of its own: a burst of sound, then the user speaks, over and over.

What it says when the user speaks carries the time at which it was said, in `audio_start_ms`: microseconds of
`perf_counter`. Sound is one value throughout an answer, its number.

Run: python -m benchmarks.barge_in_server [--core N] [--realtime] --times N; prints its port, and serves until its
standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from functools import partial
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from benchmarks.machine import pin, run_first

BURST = 60
"""Pieces of an answer, 100 ms each, that are sent at once."""
LATE = 5
"""Pieces that still come after the user has begun to speak."""
NEXT = 10
"""Pieces of the answer that follows, which is not interrupted."""
PIECE_SAMPLES = 2400
PIECE_BYTES = 2 * PIECE_SAMPLES
SPEAKS_AFTER_S = 0.15
REST_S = 0.3


def piece(answer: int) -> bytes:
    return answer.to_bytes(2, "little") * PIECE_SAMPLES


async def _converse(times: int, socket: ServerConnection) -> None:
    async def say(kind: str, **fields: Any) -> None:
        await socket.send(json.dumps({"type": kind, "event_id": "event", **fields}))

    async def speak(answer: int, pieces: int) -> None:
        of = {"response_id": f"r{answer}", "item_id": f"i{answer}", "output_index": 0, "content_index": 0}
        for _ in range(pieces):
            await say("response.output_audio.delta", **of, delta=base64.b64encode(piece(answer)).decode())

    def response(answer: int, status: str) -> dict[str, Any]:
        return {"id": f"r{answer}", "object": "realtime.response", "status": status, "conversation_id": "c"}

    await say("session.created", session={"type": "realtime"})
    async for message in socket:
        if json.loads(message)["type"] == "session.update":
            break
    await say("session.updated", session={"type": "realtime", "id": "sess"})
    await asyncio.sleep(REST_S)
    for number in range(times):
        first, second = 2 * number + 1, 2 * number + 2
        await say("response.created", response=response(first, "in_progress"))
        await speak(first, BURST)
        await asyncio.sleep(SPEAKS_AFTER_S)
        stamp_us = time.perf_counter_ns() // 1000
        await say("input_audio_buffer.speech_started", audio_start_ms=stamp_us, item_id=f"u{number}")
        await speak(first, LATE)
        await say("response.done", response=response(first, "cancelled"))
        await say("input_audio_buffer.speech_stopped", audio_end_ms=stamp_us + 1, item_id=f"u{number}")
        await say("response.created", response=response(second, "in_progress"))
        await speak(second, NEXT)
        await say("response.done", response=response(second, "completed"))
        # The answer is heard to its end: the next one must not be taken for part of it.
        await asyncio.sleep(NEXT * 0.1 + REST_S)
    await socket.wait_closed()


async def _main(times: int, core: int | None, realtime: bool) -> None:
    pin(core)
    if realtime:
        run_first()
    async with serve(partial(_converse, times), "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--times", type=int, required=True)
    options.add_argument("--core", type=int)
    options.add_argument("--realtime", action="store_true")
    chosen = options.parse_args()
    asyncio.run(_main(chosen.times, chosen.core, chosen.realtime))
