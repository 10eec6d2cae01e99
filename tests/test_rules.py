"""Rules that hold for all the code, whichever actor it is: what is sent is sent whole, every channel has a bound, time
and chance come from outside."""

from __future__ import annotations

import ast
import gc
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio._channel import MemoryChannelState  # there is no public way to ask which channels exist
from trio.testing import MockClock, memory_stream_pair

import trio_voice
from kit import SPEECH, URL, call
from trio_voice import RealtimeAgent, RealtimeSession
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

ROOT = Path(trio_voice.__file__).parent
SESSION_MODULES = (
    "session", "supervisor", "conversation", "barge_in", "outbox", "channels", "wire", "uplink", "downlink", "playback",
    "playback_buffer", "capture", "tools", "tool_ledger", "restart_policy", "tracker", "agent", "audio",
    "protocol/codec", "protocol/history", "protocol/turns", "protocol/truncation", "protocol/resume",
)  # fmt: skip
"""What a conversation runs on. Server, devices, demonstration and command line live in real time."""


@attrs.define(eq=False)
class SlowLink(trio.abc.Stream):
    """A connection that takes its time for everything it is given to send."""

    inner: trio.abc.Stream
    cut_short: int = 0
    sent: int = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await trio.sleep(0.4)
            await self.inner.send_all(data)
        except trio.Cancelled:
            self.cut_short += 1
            raise
        self.sent += 1

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_a_send_takes_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    """Whatever the user does meanwhile, nothing but the end of the connection ends a send that has begun."""
    links: list[SlowLink] = []
    brain = ScriptedBrain([Say("One two three four.", 3000)] * 9, ["Yes."] * 9)

    async def open_stream() -> trio.abc.Stream:
        client_end, server_end = memory_stream_pair()
        nursery.start_soon(serve_stream, server_end, brain)
        links.append(SlowLink(client_end))
        return links[-1]

    microphone = ScriptedMicrophone()
    session = RealtimeSession(
        RealtimeAgent(), connection=URL, open_stream=open_stream, microphone=microphone, speaker=RecordingSpeaker()
    )
    async with trio.open_nursery() as nursery:
        async with session:
            await session.start_listening()
            for _ in range(3):
                await microphone.say(SPEECH)
                await trio.sleep(1)
                await session.send_text("And now in writing.")
                await trio.sleep(2)
                await session.interrupt()
                await session.mute()
                await trio.sleep(0.3)
                await session.unmute()
            (link,) = links
            assert link.sent > 20
            assert link.cut_short == 0
        nursery.cancel_scope.cancel()


async def test_every_channel_of_a_session_has_a_bound(autojump_clock: MockClock) -> None:
    """Found where they live, in memory, so that one nobody wrote into the table counts as well."""
    gc.collect()
    before = {id(state) for state in _channel_states()}
    async with call(ScriptedBrain([Say("Hello.", 200)])) as on:
        await on.speak(300)
        await on.session.send_text("Hello?")
        found = [state for state in _channel_states() if id(state) not in before]
        assert len(found) >= 6
        # trio opens some of capacity 0 or infinity for itself: memory streams, for one. Ours hold items of ours.
        assert [state.max_buffer_size for state in found if state.max_buffer_size > 10_000] == []
        on.events.close()
    assert on.events._capacity <= 10_000


def _channel_states() -> list[Any]:
    return [found for found in gc.get_objects() if isinstance(found, MemoryChannelState)]


FORBIDDEN = {
    ("time", "time"), ("time", "monotonic"), ("time", "perf_counter"), ("time", "sleep"), ("datetime", "now"),
    ("random", "random"), ("random", "uniform"), ("random", "choice"), ("random", "randint"), ("random", "shuffle"),
    ("uuid", "uuid4"), ("secrets", "token_hex"), ("os", "urandom"),
}  # fmt: skip


def clocks_and_dice(source: str) -> list[str]:
    """Where `source` asks the machine for the time, or for chance."""
    modules = {module for module, _ in FORBIDDEN}
    found = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            # A call: as the default of an argument a clock may be named, since a test passes another.
            if (node.func.value.id, node.func.attr) in FORBIDDEN:
                found.append(f"line {node.lineno}: {node.func.value.id}.{node.func.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in modules and node.module != "datetime":
            found.append(f"line {node.lineno}: from {node.module} import ...")
    return found


@pytest.mark.parametrize("module", SESSION_MODULES)
def test_time_and_chance_come_from_outside(module: str) -> None:
    assert clocks_and_dice((ROOT / f"{module}.py").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source", ["import time\ntime.time()", "import random\nx = random.uniform(0, 1)"])
def test_a_clock_of_ones_own_is_noticed(source: str) -> None:
    assert clocks_and_dice(source)
