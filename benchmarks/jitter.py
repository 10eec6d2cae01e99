"""How evenly things come: stalls of the event loop, frames from the microphone to the server, pulls of a loudspeaker.

One session that speaks and listens, with the loop idle, and with an application that computes for 5 ms in every 20. The
loudspeaker pulls 10 ms from a thread of its own, as a sound card does; what counts is how long a pull takes.

Run: python -m benchmarks.jitter VARIANT URL --seconds S --work-ms W [--core N]; prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from benchmarks import processes
from benchmarks.downlink import percentile
from benchmarks.load_client import FRAME_S, stamped_frame
from benchmarks.machine import pin

PROBE_S = 0.005
PULL_S = 0.010
EVERY_S = 0.020
WARM_UP_S = 1.0
VARIANTS = ("floor", "session")
WORK_MS = (0, 5)
PERCENTS = (50, 99, 99.9)


def compute(work_s: float) -> None:
    until = time.perf_counter() + work_s
    while time.perf_counter() < until:
        pass


async def floor(url: str, seconds: float, work_s: float) -> dict[str, list[float]]:
    """asyncio and websockets; there is no loudspeaker to pull."""
    import base64

    import orjson

    from benchmarks.floor import open_session

    loop, socket = asyncio.get_running_loop(), await open_session(url)
    stalls_us: list[float] = []

    async def listen() -> None:
        while True:
            event = orjson.loads(await socket.recv(decode=False))
            if event["type"] == "response.output_audio.delta":
                base64.b64decode(event["delta"])

    async def speak() -> None:
        due = loop.time()
        while True:
            due += FRAME_S
            await asyncio.sleep(due - loop.time())
            audio = base64.b64encode(stamped_frame()).decode()
            await socket.send(orjson.dumps({"type": "input_audio_buffer.append", "audio": audio}).decode())

    async def probe() -> None:
        due = loop.time() + WARM_UP_S
        while True:
            due = max(due + PROBE_S, loop.time())
            await asyncio.sleep(due - loop.time())
            stalls_us.append((loop.time() - due) * 1e6)

    async def work() -> None:
        while True:
            await asyncio.sleep(EVERY_S - work_s)
            compute(work_s)

    tasks = [asyncio.create_task(each()) for each in (listen, speak, probe, *([work] if work_s else []))]
    await asyncio.sleep(WARM_UP_S + seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await socket.close()
    return {"stalls_us": stalls_us, "pulls_us": []}


@attrs.define(eq=False)
class PulledFromAThread:
    """A loudspeaker that pulls as a sound card does; notes how long each pull took."""

    name: str = "pulled from a thread"
    pulls_us: list[float] = attrs.Factory(list)

    @asynccontextmanager
    async def open(self, audio_format: Any, pull: Callable[[int], bytes]) -> AsyncIterator[Any]:
        stop = threading.Event()
        block_samples = audio_format.samples_of_ms(PULL_S * 1000)

        def play() -> None:
            due = time.perf_counter()
            while not stop.is_set():
                began_ns = time.perf_counter_ns()
                pull(block_samples)
                self.pulls_us.append((time.perf_counter_ns() - began_ns) / 1000)
                due += PULL_S
                time.sleep(max(0.0, due - time.perf_counter()))

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def unheard_samples(self) -> int:
        return 0

    async def wait_failed(self) -> Any:
        import trio

        await trio.sleep_forever()


def session(url: str, seconds: float, work_s: float) -> dict[str, list[float]]:
    import trio

    from benchmarks.load_runtime import StampedMicrophone
    from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession

    speaker, stalls_us = PulledFromAThread(), []

    async def probe() -> None:
        due = trio.current_time() + WARM_UP_S
        while True:
            due = max(due + PROBE_S, trio.current_time())
            await trio.sleep_until(due)
            stalls_us.append((trio.current_time() - due) * 1e6)

    async def work() -> None:
        while True:
            await trio.sleep(EVERY_S - work_s)
            compute(work_s)

    async def main() -> None:
        opened = RealtimeSession(
            RealtimeAgent("benchmark"),
            connection=ConnectionOptions(url=url, model=None),
            microphone=StampedMicrophone(),
            speaker=speaker,
        )
        async with opened, trio.open_nursery() as nursery:
            await opened.start_listening()
            nursery.start_soon(probe)
            if work_s:
                nursery.start_soon(work)
            await trio.sleep(WARM_UP_S + seconds)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return {"stalls_us": stalls_us, "pulls_us": speaker.pulls_us[int(WARM_UP_S / PULL_S) :]}


def measure(seconds: float, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """By variant and work: the percentiles of each kind of lateness, in microseconds."""
    found = []
    with processes.load_server() as server:
        for work_ms in WORK_MS:
            for variant in VARIANTS:
                progress(f"jitter: {variant}, {work_ms} ms of work")
                url = f"{server.base}?down_ms=100&frames=1"
                arguments = (variant, url, "--seconds", str(seconds), "--work-ms", str(work_ms))
                measured = processes.run("benchmarks.jitter", *arguments, timeout_s=seconds + 60)
                measured["frames_us"] = server.said()["latencies_us"][int(WARM_UP_S / FRAME_S) :]
                rows = {
                    name: [percentile(values, percent) for percent in PERCENTS] if values else None
                    for name, values in measured.items()
                }
                found.append({"variant": variant, "work_ms": work_ms, **rows})
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("variant", choices=VARIANTS)
    options.add_argument("url")
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--work-ms", type=float, default=0.0)
    options.add_argument("--core", type=int)
    chosen = options.parse_args()
    pin(chosen.core)
    if chosen.variant == "floor":
        print(json.dumps(asyncio.run(floor(chosen.url, chosen.seconds, chosen.work_ms / 1000))))
    else:
        print(json.dumps(session(chosen.url, chosen.seconds, chosen.work_ms / 1000)))
