"""The local server, with a door to the side: who knocks there has every connection reset, and is told when.

Run: python -m benchmarks.reconnect_server [--core N] [--realtime]; prints its URL and the side door's port,
and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from functools import partial

import trio

from benchmarks.machine import pin, run_first
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain, Step

STORY = "story"
"""An answer of `STORY 30` is 30 s of sound, all sent at once; any other is short."""
STORY_SAMPLE = -1000
"""Every sample of a story; no short answer has it, since marked samples are positive."""
SHORT_MS = 40
LINGER_NOT = struct.pack("ii", 1, 0)
"""Closing a socket resets the connection."""


def answer(request: ResponseRequest) -> Sequence[Step]:
    import numpy as np

    word, _, seconds = request.instructions.partition(" ")
    if word != STORY:
        return [Say("A short answer of eight words, as agents give.", SHORT_MS)]
    samples = np.full(int(seconds) * request.rate_hz, STORY_SAMPLE, np.int16)
    return [Say("A long story.", samples=samples)]


async def main(core: int | None, realtime: bool) -> None:
    pin(core)
    if realtime:
        run_first()
    brain, streams = ScriptedBrain(answer), set[trio.SocketStream]()

    async def converse(stream: trio.SocketStream) -> None:
        streams.add(stream)
        try:
            await serve_stream(stream, brain)
        finally:
            streams.discard(stream)

    async def reset_at_each_knock(door: trio.SocketStream) -> None:
        async for _ in door:
            now_ns = time.perf_counter_ns()
            for stream in list(streams):
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                stream.socket.close()
            await door.send_all(now_ns.to_bytes(8, "little"))

    async with trio.open_nursery() as nursery:
        start = partial(trio.serve_tcp, port=0, host="127.0.0.1")
        ports = [
            (await nursery.start(start, served))[0].socket.getsockname()[1]
            for served in (converse, reset_at_each_knock)
        ]
        print(f"ws://127.0.0.1:{ports[0]}/v1/realtime {ports[1]}", flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as until_it_ends:
            async for _ in until_it_ends:
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--core", type=int)
    options.add_argument("--realtime", action="store_true")
    chosen = options.parse_args()
    trio.run(main, chosen.core, chosen.realtime)
