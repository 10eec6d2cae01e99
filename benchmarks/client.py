"""One variant, one round, one process: nothing that another variant imported, allocated or warmed up is in it.

Run: python -m benchmarks.client VARIANT URL --warm-up N --count N [--core N]; prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import time

from benchmarks.machine import pin, run_first
from benchmarks.stamps import Arrivals

VARIANTS = {
    "floor": "benchmarks.floor:listen",
    "websocket": "benchmarks.runtime:bare_websocket",
    "callback": "benchmarks.runtime:callback",
    "events": "benchmarks.runtime:event_stream",
    "speaker": "benchmarks.runtime:speaker",
}


def measure(variant: str, url: str, warm_up: int, count: int, *, realtime: bool) -> dict[str, object]:
    module, function = VARIANTS[variant].split(":")
    listen = getattr(importlib.import_module(module), function)
    arrivals = Arrivals(warm_up, count, when_warm=run_first) if realtime else Arrivals(warm_up, count)
    if variant == "floor":
        asyncio.run(listen(url, arrivals.take))
    else:
        import trio

        trio.run(listen, url, arrivals.take)
    return {"latencies_us": arrivals.latencies_us, "cpu_us_per_event": arrivals.cpu_us_per_event}


def connect(variant: str, url: str, count: int) -> dict[str, object]:
    """How long it takes until the server has taken the configuration; the first one imports what it needs late."""
    return {
        "connect_ms": asyncio.run(_connect_floor(url, count)) if variant == "floor" else _connect_session(url, count)
    }


async def _connect_floor(url: str, count: int) -> list[float]:
    from benchmarks.floor import open_session

    took_ms = []
    for _ in range(count):
        began = time.perf_counter()
        socket = await open_session(url)
        took_ms.append((time.perf_counter() - began) * 1000)
        await socket.close()
    return took_ms


def _connect_session(url: str, count: int) -> list[float]:
    import trio

    from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession  # not runtime.py: it imports the wire

    async def main() -> list[float]:
        took_ms = []
        for _ in range(count):
            began = time.perf_counter()
            async with RealtimeSession(RealtimeAgent(), connection=ConnectionOptions(url=url, model=None)):
                took_ms.append((time.perf_counter() - began) * 1000)
        return took_ms

    return trio.run(main)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("variant", choices=VARIANTS)
    options.add_argument("url")
    options.add_argument("--warm-up", type=int, default=0)
    options.add_argument("--count", type=int, required=True)
    options.add_argument("--core", type=int)
    options.add_argument("--connect", action="store_true")
    options.add_argument("--realtime", action="store_true")
    chosen = options.parse_args()
    pin(chosen.core)
    if chosen.connect:
        print(json.dumps(connect(chosen.variant, chosen.url, chosen.count)))
    else:
        measured = measure(chosen.variant, chosen.url, chosen.warm_up, chosen.count, realtime=chosen.realtime)
        print(json.dumps(measured))
