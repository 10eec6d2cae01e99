"""A loudspeaker and a microphone in one room: without a policy the agent interrupts itself."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from kit import RATE_HZ, URL
from trio_voice import AudioInputConfig, ConfigError, InterruptionPolicy, RealtimeAgent, RealtimeSession, events
from trio_voice.audio import PCM16_24K, Frame, Samples, samples_of
from trio_voice.channels import EventStream
from trio_voice.config import EchoPolicy
from trio_voice.devices.meter import Meter
from trio_voice.devices.wav import read_wav
from trio_voice.echo import KEPT_MS, REFERENCE_BLOCKS, EchoGate, PlaybackReference
from trio_voice.server.scripted import Say, ScriptedBrain, tone
from trio_voice.testing import EchoingRoom, RecordingSpeaker, ScriptedMicrophone, memory_server

CALLER = Path(str(files("trio_voice.demo") / "caller"))
SPEECH_RMS = 500


def recorded(name: str) -> Samples:
    return read_wav(CALLER / f"{name}.wav", RATE_HZ)


def onset(samples: Samples) -> int:
    """The first sample of what is loud enough to be noticed at all."""
    window = RATE_HZ // 100
    count = len(samples) // window
    loudness = np.sqrt((samples[: count * window].reshape(count, window).astype(float) ** 2).mean(axis=1))
    return int(np.argmax(loudness >= SPEECH_RMS)) * window


AGENT_SAYS = np.concatenate([recorded("01-order"), recorded("02-callback")])
USER_SAYS = recorded("03-weather")[: 2 * RATE_HZ]
USER_SAYS = USER_SAYS[onset(USER_SAYS) :]


@attrs.define(eq=False)
class InARoom:
    room: EchoingRoom
    session: RealtimeSession
    events: EventStream

    async def next(self, kind: type[Any]) -> Any:
        with trio.fail_after(60):
            return await self.events.wait_for(kind)


@asynccontextmanager
async def in_a_room(
    echo: EchoPolicy, agent: RealtimeAgent | None = None, *, latency_ms: int = 0, **hearing: Any
) -> AsyncIterator[InARoom]:
    room = EchoingRoom(delay_ms=40)
    room.speaker.recording.latency_ms = latency_ms
    brain = ScriptedBrain([Say("A long answer.", samples=AGENT_SAYS)] + [Say("Yes.", 300)] * 20)
    async with memory_server(brain) as server:
        session = RealtimeSession(
            agent or RealtimeAgent(),
            connection=URL,
            microphone=room.microphone,
            speaker=room.speaker,
            open_stream=server.open_stream,
            audio_input=AudioInputConfig(echo=echo, **hearing),
        )
        stream = session.events()
        async with session:
            await session.start_listening()
            await session.respond()
            yield InARoom(room, session, stream)


AGENT_MS = len(AGENT_SAYS) * 1000 / RATE_HZ


async def test_without_a_policy_the_agent_interrupts_itself(autojump_clock: MockClock) -> None:
    async with in_a_room("off") as on:
        interruption = await on.next(events.Interruption)
        assert interruption.cause == "speech"
        assert interruption.heard_ms < AGENT_MS / 2


@pytest.mark.parametrize("latency_ms", [0, 60, 200])
@pytest.mark.parametrize("echo", ["gate", "aec"])
async def test_with_a_policy_it_is_heard_to_the_end(
    echo: EchoPolicy, latency_ms: int, autojump_clock: MockClock
) -> None:
    if echo == "aec":
        pytest.importorskip("pywebrtc_audio", reason="the extra [aec]")
    async with in_a_room(echo, latency_ms=latency_ms) as on:
        await on.next(events.PlaybackEnd)
        await trio.sleep(2)
        assert on.session.metrics.interruption_count == 0
        assert on.session.metrics.audio_duration_ms == pytest.approx(AGENT_MS, abs=1)
        assert on.session.metrics.turn_count == 1, "and it does not answer itself"


@pytest.mark.parametrize("by", ["server", "local"])
async def test_with_cancellation_the_user_is_noticed_within_150_ms(by: Any, autojump_clock: MockClock) -> None:
    pytest.importorskip("pywebrtc_audio", reason="the extra [aec]")
    agent = RealtimeAgent(interruption=InterruptionPolicy(by=by))
    async with in_a_room("aec", agent, latency_ms=60) as on, trio.open_nursery() as nursery:
        await on.next(events.PlaybackStart)
        await trio.sleep(4)
        began_at = trio.current_time()
        nursery.start_soon(on.room.say, USER_SAYS.tobytes())
        interruption = await on.next(events.Interruption)
        print("noticed after", (interruption.at - began_at) * 1000)
        assert interruption.at - began_at <= 0.150
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.interruption_count == 1
