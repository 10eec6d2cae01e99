"""The local server with a scripted brain, in a process of its own that may be killed, stopped and told to misbehave.

Run: python tests/real_server.py [--port N] [--burst X]. It writes one JSON object per line: where it listens, and what
each response was asked to answer. Its standard input takes `reset` (RST on every connection), `close 1012` (a Close
frame on every connection) and `count`; when that ends, so does the server.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from functools import partial

import trio

from trio_voice.server.brain import ResponseRequest
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Call, Say, ScriptedBrain, Step, marked_samples
from trio_voice.server.server_settings import ServerSettings

TELL = "Tell me a story."
GO_ON = "Go on."
USE_TOOL = "Order a pizza."
STORY = [f"word{number}" for number in range(40)]
WORD_MS = 200
GOES_ON = "And so it goes on."
GOES_ON_MS = 600
TOOL = "order_pizza"
CLOSE_FRAME = b"\x88\x02"


def reply(request: ResponseRequest) -> Sequence[Step]:
    """Tell a story, call the tool, or go on. The sound is marked: the story 0, the rest 1."""
    items = request.items
    report("asked", [[item.type, item.role or "", item.text or item.output or item.name or ""] for item in items])
    last = next(item for item in reversed(items) if item.role != "system")
    if last.text == USE_TOOL:
        return [Call(TOOL)]
    telling = last.text == TELL and request.instructions != GO_ON
    mark, words, word_ms = (0, STORY, WORD_MS) if telling else (1, [GOES_ON], GOES_ON_MS)
    count = word_ms * request.rate_hz // 1000
    return [Say(word, samples=marked_samples(mark, count, place * count)) for place, word in enumerate(words)]


def report(name: str, value: object) -> None:
    print(json.dumps({name: value}), flush=True)


def obey(command: str, streams: set[trio.SocketStream]) -> None:
    """Do what is asked to every connection at once."""
    word, _, code = command.partition(" ")
    for stream in list(streams):
        if word == "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        elif word == "close":
            os.write(stream.socket.fileno(), CLOSE_FRAME + int(code).to_bytes(2, "big"))
    if word == "count":
        report("count", len(streams))


async def main(port: int, burst: float) -> None:
    brain, settings = ScriptedBrain(reply), ServerSettings(burst=burst)
    streams: set[trio.SocketStream] = set()

    async def answer(stream: trio.SocketStream) -> None:
        streams.add(stream)
        try:
            await serve_stream(stream, brain, settings)
        finally:
            streams.discard(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, port, host="127.0.0.1"))
        report("listening", listeners[0].socket.getsockname()[1])
        pending = b""
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as commands:
            async for received in commands:
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    obey(line.decode(), streams)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--burst", type=float, default=8.0)
    chosen = options.parse_args()
    trio.run(main, chosen.port, chosen.burst)
