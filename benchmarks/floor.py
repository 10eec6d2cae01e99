"""The floor: what the bare loop costs that anyone could write with asyncio, websockets, orjson and base64.

No turns, no playback, no interruption, no reconnection. Nothing that does those things can be quicker by much.
"""

from __future__ import annotations

import base64

import orjson
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.stamps import Take


async def open_session(url: str) -> ClientConnection:
    """Connected, and the server has taken the configuration."""
    socket = await connect(url, compression=None, max_size=None)
    await socket.send(orjson.dumps({"type": "session.update", "session": {"type": "realtime"}}).decode())
    while orjson.loads(await socket.recv(decode=False))["type"] != "session.updated":
        pass
    return socket


async def listen(url: str, take: Take) -> None:
    """Give every piece of sound to `take` until it has had enough."""
    socket = await open_session(url)
    while True:
        event = orjson.loads(await socket.recv(decode=False))  # bytes: decoding them to str first is slower
        if event["type"] == "response.output_audio.delta" and take(base64.b64decode(event["delta"])):
            break
    await socket.close()
