"""What the offline speech stack costs on this machine: disk, memory, cold start, latency, stalls of the loop.

Run: python benchmarks/speech_stack.py   (about 20 s; needs trio-voice[local], nothing else should be running)

"Stall" is how late a Trio task that sleeps 1 ms wakes up while the engine works in its thread: what the
engines do to everything else on the loop, by holding the interpreter's lock or the cores.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import statistics
import time
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import trio_voice.demo as demo
from trio_voice.audio import resample, samples_of
from trio_voice.protocol import Item
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.speech.brain import SpeechBrain
from trio_voice.server.speech.detector import SileroDetector
from trio_voice.server.speech.engines import engines

if TYPE_CHECKING:
    from trio_voice.audio import Samples


class Discard:
    """A writer that keeps when each part came, and how much sound it held."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.samples = 0

    async def speak(self, text: str, audio: Samples) -> None:
        self.times.append(time.perf_counter())
        self.samples += len(audio)

    async def call(self, name: str, arguments: str) -> None:
        self.times.append(time.perf_counter())


def asked(text: str) -> ResponseRequest:
    return ResponseRequest(
        items=[Item.user_text(text)],
        instructions="",
        tools=[],
        modalities=["audio"],
        rate_hz=24_000,
        voice="-",
    )


async def stalls(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """The 99th percentile and the worst lateness, in ms, of a 1 ms sleep while `work` runs."""
    late: list[float] = []

    async def sleeper() -> None:
        while True:
            before = time.perf_counter()
            await trio.sleep(0.001)
            late.append((time.perf_counter() - before) * 1000 - 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper)
        await work()
        nursery.cancel_scope.cancel()
    late.sort()
    return late[int(len(late) * 0.99)], late[-1]


def recordings() -> list[Samples]:
    sounds = []
    for path in sorted((Path(demo.__file__).parent / "caller").glob("*.wav")):
        with wave.open(str(path)) as recording:
            sounds.append(samples_of(recording.readframes(recording.getnframes())))
    return sounds


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def disk_mb(package: str) -> float:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return 0.0
    root = Path(spec.origin).parent
    beside = root.with_name(root.name + ".libs")
    files = [path for place in (root, beside) for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6


def report(what: str, value: str) -> None:
    print(f"{what:<42}{value}")


async def main() -> None:
    report("machine", f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    report("load average before", f"{os.getloadavg()[0]:.2f}")
    packages = {package for status in engines() if status.engine.extra == "local" for package in status.engine.packages}
    sizes = {package: disk_mb(package) for package in sorted(packages)}
    report("disk, MB", ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()))
    report("disk in all, MB", f"{sum(sizes.values()):.0f}")
    before_mb = memory_mb()

    began = time.perf_counter()
    brain = SpeechBrain()
    p99, worst = await stalls(brain.warm_up)
    report("cold start, s", f"{time.perf_counter() - began:.2f}")
    report("  stall of the loop meanwhile, ms", f"p99 {p99:.0f}, worst {worst:.0f}")
    report("memory, MB", f"{memory_mb():.0f} (interpreter and numpy before: {before_mb:.0f})")

    detector = brain.new_detector()
    sounds = recordings()
    at_16k = resample(sounds[0], 24_000, 16_000)
    windows = [at_16k[start : start + 512] for start in range(0, len(at_16k) - 511, 512)]
    began = time.perf_counter()
    for window in windows:
        detector.probability(window)
    report("detector, µs a window of 32 ms", f"{(time.perf_counter() - began) / len(windows) * 1e6:.0f}")
    began = time.perf_counter()
    SileroDetector()
    report("  a detector beyond the pool, ms", f"{(time.perf_counter() - began) * 1000:.0f}")

    took: list[tuple[float, float]] = []

    async def hear_all() -> None:
        for sound in sounds:
            began = time.perf_counter()
            await brain.transcribe(sound, 24_000)
            took.append(((time.perf_counter() - began) * 1000, len(sound) / 24))

    p99, worst = await stalls(hear_all)
    each = ", ".join(f"{ms:.0f} of {audio_ms / 1000:.1f} s" for ms, audio_ms in took)
    report("recognition, ms", each)
    report("  stall of the loop meanwhile, ms", f"p99 {p99:.1f}, worst {worst:.1f}")

    first: list[float] = []
    factors: list[float] = []

    async def say_all() -> None:
        for number in range(5):
            writer = Discard()
            began = time.perf_counter()
            # A number in it, so that no clause comes from the cache.
            await brain.respond(asked(f"Count from {number + 20} to {number + 30}."), writer)
            first.append((writer.times[0] - began) * 1000)
            factors.append((time.perf_counter() - began) / (writer.samples / 24_000))

    p99, worst = await stalls(say_all)
    report("first clause, ms", f"median {statistics.median(first):.0f}, worst {max(first):.0f}")
    report("real-time factor of a whole answer", f"{statistics.median(factors):.3f}")
    report("  stall of the loop meanwhile, ms", f"p99 {p99:.1f}, worst {worst:.1f}")

    left: list[float] = []
    for number in range(8):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(brain.respond, asked(f"Count from {number + 50} to {number + 60}."), Discard())
                await trio.sleep(0.02 + 0.02 * number)
                began = time.perf_counter()
                scope.cancel()
        left.append((time.perf_counter() - began) * 1000)
    report(
        "cancelled while speaking, ms to be idle",
        f"median {statistics.median(left):.0f}, worst {max(left):.0f}",
    )
    report("memory at the end, MB", f"{memory_mb():.0f}")


if __name__ == "__main__":
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    trio.run(main)
