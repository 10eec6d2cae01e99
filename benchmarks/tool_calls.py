"""From the server's function call to the tool's first line, trio-voice beside the floor.

The server makes the next call as soon as it is asked for a response, which each tool's result brings about.

Run: python -m benchmarks.tool_calls VARIANT URL --count N [--core N]; prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import processes
from benchmarks.downlink import percentile
from benchmarks.machine import pin

VARIANTS = ("floor", "session")
WARM_UP = 10


async def floor(url: str, count: int) -> list[float]:
    import orjson

    from benchmarks.floor import open_session

    socket = await open_session(url)
    took_us: list[float] = []
    ask = orjson.dumps({"type": "response.create"}).decode()
    await socket.send(ask)
    while len(took_us) < count + WARM_UP:
        event = orjson.loads(await socket.recv(decode=False))
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "function_call":
            item = event["item"]
            took_us.append((time.perf_counter_ns() - orjson.loads(item["arguments"])["sent_ns"]) / 1000)
            output = {"type": "function_call_output", "call_id": item["call_id"], "output": "done"}
            await socket.send(orjson.dumps({"type": "conversation.item.create", "item": output}).decode())
            await socket.send(ask)
    await socket.close()
    return took_us[WARM_UP:]


def session(url: str, count: int) -> list[float]:
    import trio

    from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, tool

    took_us: list[float] = []
    enough = trio.Event()

    @tool
    async def look(sent_ns: int) -> str:
        """Look at the clock."""
        took_us.append((time.perf_counter_ns() - sent_ns) / 1000)
        if len(took_us) >= count + WARM_UP:
            enough.set()
        return "done"

    async def main() -> None:
        agent = RealtimeAgent("benchmark", tools=[look])
        async with RealtimeSession(agent, connection=ConnectionOptions(url=url, model=None)) as opened:
            await opened.respond()
            await enough.wait()

    trio.run(main)
    return took_us[WARM_UP : WARM_UP + count]


def measure(rounds: int, count: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Median and p99 of each variant, and the ratio of the medians, by round."""
    took: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    with processes.load_server() as server:
        for number in range(rounds):
            for variant in VARIANTS if number % 2 == 0 else VARIANTS[::-1]:
                progress(f"tools: round {number + 1} of {rounds}, {variant}")
                arguments = (variant, f"{server.base}?tool=1", "--count", str(count))
                took[variant].append(processes.run("benchmarks.tool_calls", *arguments, timeout_s=60))
    ratios = [percentile(ours, 50) / percentile(base, 50) for ours, base in zip(took["session"], took["floor"])]  # noqa: B905 - as many
    return {
        "variants": {
            variant: {
                "p50_us": percentile([each for one in measured for each in one], 50),
                "p99_us": percentile([each for one in measured for each in one], 99),
            }
            for variant, measured in took.items()
        },
        "p50_ratio": statistics.median(ratios),
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("variant", choices=VARIANTS)
    options.add_argument("url")
    options.add_argument("--count", type=int, required=True)
    options.add_argument("--core", type=int)
    chosen = options.parse_args()
    pin(chosen.core)
    if chosen.variant == "floor":
        print(json.dumps(asyncio.run(floor(chosen.url, chosen.count))))
    else:
        print(json.dumps(session(chosen.url, chosen.count)))
