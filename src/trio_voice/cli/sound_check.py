"""`trio-voice devices --test`: a tone on the loudspeaker, a level meter of the microphone, for a few seconds."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, nullcontext
from typing import Any

import attrs
import numpy as np
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from trio_voice.audio import PCM16_24K, AudioFormat
from trio_voice.cli.running import Ending
from trio_voice.cli.talking import chosen_microphone, chosen_speaker
from trio_voice.devices import DeviceCounters, OpenMicrophone
from trio_voice.devices.meter import Meter, MeteredMicrophone

FORMAT: AudioFormat = PCM16_24K
FRAME_MS = 20
TONE_HZ, TONE_MS, CYCLE_MS, EDGE_MS = 440, 500, 1000, 20
AMPLITUDE = 0.1
"""Soft: who tries a headset has it on."""
LOOK_S = 0.1
LINE_EVERY_S = 1.0
"""Where it cannot be drawn over, as in a pipe."""
QUIETEST_DBFS = -60.0
SILENCE_DBFS = -90.0
"""Below this there is not even the hiss of a microphone that is on."""
CELLS = 30


async def check(options: dict[str, Any], console: Console, ending: Ending) -> None:
    """Play and listen for `seconds`, then tell how it went. Raises: `DeviceError` if a device fails."""
    speaker, meter, loudest = chosen_speaker(options["output"]), Meter(), Loudest()
    microphone = MeteredMicrophone(chosen_microphone(options["input"]), meter)
    tone = Tone()
    try:
        async with AsyncExitStack() as stack:
            sounding = await stack.enter_async_context(speaker.open(FORMAT, tone.pull))
            hearing = await stack.enter_async_context(microphone.open(FORMAT, FRAME_MS))
            ending.is_normal = True
            said = f"A tone on {speaker.name}; the microphone is {microphone.name}."
            console.print(said, soft_wrap=True, markup=False)
            failed = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_hear, hearing)
                nursery.start_soon(_show, meter, loudest, console)
                with trio.move_on_after(options["seconds"]):
                    failed = await sounding.wait_failed()
                nursery.cancel_scope.cancel()
            if failed is not None:
                raise failed
            counters: DeviceCounters = getattr(sounding, "counters", None) or DeviceCounters()
    finally:
        if loudest.looks:
            console.print(loudest.verdict, soft_wrap=True)
    if counters.underflows:
        console.print(f"The loudspeaker ran dry {counters.underflows} times.", soft_wrap=True)


@attrs.define(eq=False)
class Tone:
    """Half a second of a sine in each second, with soft edges, for ever."""

    position: int = 0
    cycle: bytes = b""

    def __attrs_post_init__(self) -> None:
        samples, edge = FORMAT.samples_of_ms(TONE_MS), FORMAT.samples_of_ms(EDGE_MS)
        wave = np.sin(2 * np.pi * TONE_HZ * np.arange(samples) / FORMAT.rate_hz) * AMPLITUDE * 32767
        wave[:edge] *= np.linspace(0, 1, edge)
        wave[-edge:] *= np.linspace(1, 0, edge)
        self.cycle = wave.astype("<i2").tobytes().ljust(FORMAT.bytes_of_ms(CYCLE_MS), b"\0")

    def pull(self, sample_count: int) -> bytes:
        begin, size = self.position, 2 * sample_count
        self.position = (begin + size) % len(self.cycle)
        return (self.cycle * (1 + (begin + size) // len(self.cycle)))[begin : begin + size]


@attrs.define(eq=False)
class Loudest:
    """The loudest that the microphone heard."""

    dbfs: float = -math.inf
    looks: int = 0

    def note(self, dbfs: float) -> None:
        self.looks += 1
        self.dbfs = max(self.dbfs, dbfs)

    @property
    def verdict(self) -> str:
        if self.dbfs <= SILENCE_DBFS:
            return "The microphone gave nothing but silence: is it muted, or another one meant (--input)?"
        return f"Loudest at the microphone: {self.dbfs:.0f} dBFS."


async def _hear(hearing: OpenMicrophone) -> None:
    try:
        while True:
            await hearing.receive()
    except trio.EndOfChannel:
        pass


async def _show(meter: Meter, loudest: Loudest, console: Console) -> None:
    began_at = line_at = trio.current_time()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext()
    with live as screen:
        while True:
            await trio.sleep(LOOK_S)
            level, now = meter.level_dbfs(), trio.current_time()
            loudest.note(level)
            if screen is not None:
                screen.update(bar(level, loudest.dbfs), refresh=True)
            elif now - line_at >= LINE_EVERY_S:
                line_at += LINE_EVERY_S
                line = f"{now - began_at:4.0f} s  {level:4.0f} dBFS, loudest {loudest.dbfs:4.0f}"
                console.print(line, soft_wrap=True)


def bar(dbfs: float, loudest_dbfs: float) -> Text:
    """A level as a bar with its figure."""
    level = min(max(dbfs, QUIETEST_DBFS), 0.0)
    filled = round((1 - level / QUIETEST_DBFS) * CELLS)
    colour = "red" if level > -3 else "yellow" if level > -12 else "green"
    cells = ("█" * filled, colour), ("·" * (CELLS - filled), "dim")
    return Text.assemble("microphone  ", *cells, f"  {dbfs:4.0f} dBFS, loudest {loudest_dbfs:4.0f}")
