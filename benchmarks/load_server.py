"""The server of the benchmarks with many sessions, and of the uplink: as little work as can be, on a socket of its own.

It shakes hands, says that the session is configured, and then, as the URL asks, speaks: `?down_ms=100` is a piece of
100 ms of sound that often (`&pieces=10`: a second's), each with the time at which it was sent in it; `?frames=1` has
each frame of the user's taken apart, and the time in its sound compared with the clock. `?tool=1` answers what the
user says with a function call that says when it was made. What a connection's frames took is printed, as a line of
JSON, when it ends.

No WebSocket library, since one would be the slower side: masks are undone only where something is read.

Run: python -m benchmarks.load_server [--core N]; prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import re
import sys
import time
from urllib.parse import parse_qs, urlsplit

from benchmarks.load_client import FRAME_BYTES
from benchmarks.machine import pin
from benchmarks.paced_server import delta_frame, opening_events

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_AUDIO = re.compile(rb'"audio": ?"')
_STAMP_CHARS = 12
"""Of base64: the first nine bytes, of which eight are the time."""
_FRAME_CHARS = FRAME_BYTES * 4 // 3
FIRST_PIECE_S = 0.1


def text_frame(event: dict[str, object]) -> bytes:
    payload = json.dumps(event).encode()
    length = len(payload)
    head = bytes((0x81, length)) if length < 126 else b"\x81\x7e" + length.to_bytes(2, "big")
    return head + payload


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.asked: dict[str, int] = {}
        self.is_open = False
        self.is_configured = False
        self.latencies_us: list[float] = []
        self.sizes: dict[int, int] = {}
        """How often how many characters of sound came in one event."""
        self.calls = 0
        self.speaking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now_ns = time.perf_counter_ns()
        if self.is_configured and not (self.asked.get("frames") or self.asked.get("tool")):
            if data[0] == 0x88:
                self.transport.close()
            return
        self.received += data
        if not self.is_open:
            self._shake_hands()
        while self.is_open and self._take_frame(now_ns):
            pass

    def _shake_hands(self) -> None:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.received[:end])
        del self.received[: end + 4]
        target = head.split(b" ", 2)[1].decode()
        query = parse_qs(urlsplit(target).query)
        self.asked = {name: int(values[-1]) for name, values in query.items() if values[-1].isdecimal()}
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.is_open = True
        self._say({"type": "session.created", "event_id": "e0", "session": {"type": "realtime", "id": "sess"}})

    def _take_frame(self, now_ns: int) -> bool:
        received = self.received
        if len(received) < 2:
            return False
        length, at = received[1] & 0x7F, 2
        if length >= 126:
            at += 2 if length == 126 else 8
            length = int.from_bytes(received[2:at], "big")
        end = at + 4 + length
        if len(received) < end:
            return False
        first, mask, payload = received[0], bytes(received[at : at + 4]), bytes(received[at + 4 : end])
        del received[:end]
        if first == 0x88:
            self.transport.write(b"\x88\x02\x03\xe8")
            self.transport.close()
            return False
        if first == 0x89:
            self.transport.write(bytes((0x8A, length)) + _unmasked(payload, mask))
        elif first == 0x81:
            self._take_text(payload, mask, now_ns)
        return True

    def _take_text(self, payload: bytes, mask: bytes, now_ns: int) -> None:
        text = _unmasked(payload, mask)
        audio = _AUDIO.search(text)
        if self.is_configured and audio is not None:
            chars = text.find(b'"', audio.end()) - audio.end()
            self.sizes[chars] = self.sizes.get(chars, 0) + 1
            for at in range(audio.end(), audio.end() + chars, _FRAME_CHARS):  # more than one, where they were gathered
                sent_ns = int.from_bytes(base64.b64decode(text[at : at + _STAMP_CHARS])[:8], "little")
                if sent_ns:  # silence is not stamped
                    self.latencies_us.append((now_ns - sent_ns) / 1000)
        elif not self.is_configured and b"session.update" in text:
            self.is_configured = True
            self._say({"type": "session.updated", "event_id": "e1", "session": {"type": "realtime", "id": "sess"}})
            if self.asked.get("down_ms"):
                for event in opening_events():
                    self._say(event)
                loop = asyncio.get_running_loop()
                # Spread over the interval: sessions do not all speak at the same moment.
                first_s = FIRST_PIECE_S + (id(self) // 64 % 97) / 97 * self.asked["down_ms"] / 1000
                self.due = loop.time() + first_s
                self.speaking = loop.call_at(self.due, self._speak)
        elif self.asked.get("tool") and b"response.create" in text:
            self._call_tool()

    def _say(self, event: dict[str, object]) -> None:
        self.transport.write(text_frame(event))

    def _speak(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(delta_frame(self.asked.get("pieces", 1)))
        self.due += self.asked["down_ms"] / 1000
        self.speaking = asyncio.get_running_loop().call_at(self.due, self._speak)

    def _call_tool(self) -> None:
        self.calls += 1
        number = self.calls
        response = {"id": f"r{number}", "object": "realtime.response", "status": "in_progress", "conversation_id": "c"}
        item = {
            "id": f"i{number}", "type": "function_call", "status": "completed", "call_id": f"c{number}", "name": "look",
            "arguments": json.dumps({"sent_ns": time.perf_counter_ns()}),
        }  # fmt: skip
        self._say({"type": "response.created", "event_id": "e", "response": response})
        self._say({
            "type": "response.function_call_arguments.done", "event_id": "e", "response_id": f"r{number}",
            "item_id": f"i{number}", "output_index": 0, "call_id": f"c{number}", "name": "look",
            "arguments": item["arguments"],
        })  # fmt: skip
        done = {"type": "response.output_item.done", "event_id": "e", "response_id": f"r{number}", "output_index": 0}
        self._say({**done, "item": item})
        self._say(
            {
                "type": "response.done",
                "event_id": "e",
                "response": {**response, "status": "completed", "output": [item]},
            }
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if self.speaking is not None:
            self.speaking.cancel()
        if self.asked.get("frames"):
            print(json.dumps({"latencies_us": self.latencies_us, "sizes": self.sizes}), flush=True)


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


async def _main(core: int | None) -> None:
    pin(core)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--core", type=int)
    asyncio.run(_main(options.parse_args().core))
