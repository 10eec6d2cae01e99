"""Many sessions in one process, each hearing and speaking all the time: one variant, one round, one process.

Every session sends a frame of 20 ms fifty times a second, with the time at which the microphone gave it in its first
bytes, and takes the server's sound out of an ordinary callback. Garbage is collected as usual.

Run: python -m benchmarks.load_client VARIANT URL --sessions N --seconds S [--core N] [--no-microphone]; prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import importlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.machine import pin, run_first

FRAME_S = 0.020
FRAME_BYTES = 960
WARM_UP_S = 1.0
VARIANTS = {
    "floor": "benchmarks.load_client:floor",
    "floor pacing": "benchmarks.load_client:floor_pacing",
    "session": "benchmarks.load_runtime:sessions",
    "session pacing": "benchmarks.load_runtime:pacing",
    "bare": "benchmarks.load_runtime:bare_websocket",
    "websockets.trio": "benchmarks.load_runtime:websockets_trio",
    "openai-agents": "benchmarks.peer_agents:sessions",
    "livekit": "benchmarks.peer_livekit:sessions",
    "pipecat": "benchmarks.peer_pipecat:sessions",
    "raw": "benchmarks.peer_raw:sessions",
}
ON_ASYNCIO = {"floor", "floor pacing", "openai-agents", "livekit", "pipecat", "raw"}
_REST = bytes(range(1, 239)) * 4


def stamped_frame() -> bytes:
    """A frame of sound that says when it was made."""
    return time.perf_counter_ns().to_bytes(8, "little") + _REST


def memory_mb() -> float:
    """Resident, of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


class Account:
    """What all sessions of this process took, from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.latencies_us: list[float] = []
        self.stalls_us: list[float] = []
        self.counting = False
        self.memory_before_mb = self.memory_mb = self.cpu_s = 0.0

    def take(self, pcm: bytes) -> None:
        """A piece of sound is in the application's hands."""
        if self.counting:
            self.latencies_us.append((time.perf_counter_ns() - int.from_bytes(pcm[:8], "little")) / 1000)

    def begin(self) -> None:
        gc.collect()
        self.memory_before_mb = memory_mb()

    def count(self) -> None:
        self.counting = True
        self.began_s, self.cpu_began_s = time.perf_counter(), time.process_time()

    def finish(self) -> None:
        self.counting = False
        self.cpu_s = time.process_time() - self.cpu_began_s
        self.took_s = time.perf_counter() - self.began_s
        self.memory_mb = memory_mb()


async def count_beside(tasks: Sequence[asyncio.Task[None]], account: Account) -> None:
    """Let `tasks` run until the account is made, and end them."""
    await asyncio.sleep(WARM_UP_S)
    account.count()
    await asyncio.sleep(account.seconds)
    account.finish()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def floor(url: str, sessions: int, account: Account, microphone: bool) -> None:
    """asyncio, websockets, orjson, base64."""
    import orjson

    from benchmarks.floor import open_session

    await (await open_session(f"{url}&down_ms=0")).close()  # what is imported late is nobody's memory
    account.begin()
    sockets = [await open_session(url) for _ in range(sessions)]

    async def listen(socket: object) -> None:
        while True:
            event = orjson.loads(await socket.recv(decode=False))  # type: ignore[attr-defined]
            if event["type"] == "response.output_audio.delta":
                account.take(base64.b64decode(event["delta"]))

    async def speak(socket: object, number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + FRAME_S * number / sessions
        while True:
            due += FRAME_S
            await asyncio.sleep(due - loop.time())
            audio = base64.b64encode(stamped_frame()).decode()
            await socket.send(  # type: ignore[attr-defined]  # the same connection
                orjson.dumps({"type": "input_audio_buffer.append", "audio": audio}).decode()
            )

    tasks = [asyncio.create_task(listen(socket)) for socket in sockets]
    if microphone:
        tasks += [asyncio.create_task(speak(socket, number)) for number, socket in enumerate(sockets)]
    await count_beside(tasks, account)
    await asyncio.gather(*(socket.close() for socket in sockets))


async def floor_pacing(url: str, sessions: int, account: Account, microphone: bool) -> None:
    """The floor's timers alone, which stand for microphones: a wake-up for each frame, and nothing done with it."""

    async def wake(number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + FRAME_S * number / sessions
        while True:
            due += FRAME_S
            await asyncio.sleep(due - loop.time())

    account.begin()
    tasks = [asyncio.create_task(wake(number)) for number in range(sessions)]
    await count_beside(tasks, account)


def measure(
    variant: str, url: str, sessions: int, seconds: float, *, microphone: bool, realtime: bool
) -> dict[str, object]:
    module, function = VARIANTS[variant].split(":")
    run: Callable[..., object] = getattr(importlib.import_module(module), function)
    account = Account(seconds)
    if realtime:
        run_first()
    if variant in ON_ASYNCIO:
        asyncio.run(run(url, sessions, account, microphone))  # type: ignore[arg-type]  # one of two signatures
    else:
        import trio

        trio.run(run, url, sessions, account, microphone)  # type: ignore[arg-type]  # one of two signatures
    return {
        "latencies_us": account.latencies_us,
        "cpu_s_per_session_minute": account.cpu_s / sessions / account.took_s * 60,
        "memory_mb_per_session": (account.memory_mb - account.memory_before_mb) / sessions,
        "busy_percent": 100 * account.cpu_s / account.took_s,
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("variant", choices=VARIANTS)
    options.add_argument("url")
    options.add_argument("--sessions", type=int, default=1)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--core", type=int)
    options.add_argument("--no-microphone", action="store_true")
    options.add_argument("--realtime", action="store_true")
    chosen = options.parse_args()
    pin(chosen.core)
    measured = measure(
        chosen.variant,
        chosen.url,
        chosen.sessions,
        chosen.seconds,
        microphone=not chosen.no_microphone,
        realtime=chosen.realtime,
    )
    print(json.dumps(measured))
