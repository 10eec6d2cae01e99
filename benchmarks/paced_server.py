"""The server that is measured against, in a process of its own: answers `session.update`, then speaks at a pace.

The URL says how: `?warm_up=40&count=200&interval_ms=20`. It does as little as it can between the stamp and the
socket, so that its own cost hides nothing of the clients': the frame's constant parts are made in advance, and
its bytes go straight to the transport.

Run: python -m benchmarks.paced_server [--core N]; prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve

from benchmarks.machine import pin, run_first
from benchmarks.stamps import stamped_base64

RESPONSE_ID = "resp_benchmark"
ITEM_ID = "item_benchmark"

_CREATED: dict[str, object] = {
    "type": "response.created",
    "event_id": "event_created",
    "response": {
        "id": RESPONSE_ID,
        "object": "realtime.response",
        "status": "in_progress",
        "conversation_id": "conv_benchmark",
        "output": [],
    },
}
_ITEM_ADDED: dict[str, object] = {
    "type": "response.output_item.added",
    "event_id": "event_item",
    "response_id": RESPONSE_ID,
    "output_index": 0,
    "item": {"id": ITEM_ID, "type": "message", "role": "assistant", "status": "in_progress", "content": []},
}
_DELTA_HEAD = (
    f'{{"type":"response.output_audio.delta","event_id":"event_delta","response_id":"{RESPONSE_ID}",'
    f'"item_id":"{ITEM_ID}","output_index":0,"content_index":0,"delta":"'
).encode()
_DELTA_TAIL = b'"}'


def delta_frame(pieces: int = 1) -> bytes:
    """A whole WebSocket frame: FIN and text, no mask, a 16 bit length, which is enough for ten pieces."""
    payload = _DELTA_HEAD + stamped_base64(pieces) + _DELTA_TAIL
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


def opening_events() -> tuple[dict[str, object], ...]:
    """What comes before the first sound of a response."""
    return _CREATED, _ITEM_ADDED


async def _converse(socket: ServerConnection) -> None:
    assert socket.request is not None
    asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
    await socket.send(json.dumps({"type": "session.created", "event_id": "event_0", "session": {"type": "realtime"}}))
    async for message in socket:
        if json.loads(message)["type"] == "session.update":
            break
    updated = {"type": "session.updated", "event_id": "event_1", "session": {"type": "realtime", "id": "sess"}}
    await socket.send(json.dumps(updated))
    if asked.get("realtime"):
        run_first()
    if asked["count"]:
        await _speak(socket, asked["warm_up"] + asked["count"], asked["interval_ms"] / 1000)
    await socket.wait_closed()


async def _speak(socket: ServerConnection, deltas: int, interval_s: float) -> None:
    await asyncio.sleep(0.1)
    await socket.send(json.dumps(_CREATED))
    await socket.send(json.dumps(_ITEM_ADDED))
    for _ in range(deltas):
        await asyncio.sleep(interval_s)
        socket.transport.write(delta_frame())


async def _main(core: int | None) -> None:
    pin(core)
    async with serve(_converse, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--core", type=int)
    asyncio.run(_main(options.parse_args().core))
