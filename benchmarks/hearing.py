"""What the capture path costs for each frame, and how much of an echo is left: `python -m benchmarks.hearing`.

The echo is that of `trio_voice.testing.EchoingRoom`, with recorded speech in the loudspeaker and nobody in the room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from trio_voice.audio import PCM16_24K, Frame, samples_of
from trio_voice.config import AudioInputConfig
from trio_voice.devices.silero import SileroVoiceDetector
from trio_voice.devices.wav import read_wav
from trio_voice.devices.webrtc import WebRtcFilter
from trio_voice.echo import EchoGate, PlaybackReference
from trio_voice.errors import ConfigError
from trio_voice.testing import EchoingRoom
from trio_voice.voice_activity import EnergyDetector

FRAME_SAMPLES = 480


def main() -> None:
    speech = read_wav(Path(str(files("trio_voice.demo") / "caller" / "01-order.wav")), PCM16_24K.rate_hz)
    played = np.tile(speech, 3)
    played = played[: len(played) // FRAME_SAMPLES * FRAME_SAMPLES]
    room = EchoingRoom()
    room.build(PCM16_24K)
    room.sound(played.tobytes(), 0)
    echoes = [room.echo(start, FRAME_SAMPLES) for start in range(0, len(played), FRAME_SAMPLES)]
    heard = [np.clip(echo, -32768, 32767).astype("<i2").tobytes() for echo in echoes]
    print("microseconds for a frame of 20 ms (p50, p99), and what is left of the echo")
    for name, make in STEPS.items():
        try:
            step = make(played.tobytes())
        except ConfigError as error:
            print(f"{name:<32} {error}")
            continue
        measure(name, step, heard)


def measure(name: str, step: Callable[[Frame], Any], heard: list[bytes]) -> None:
    spent, before, after = [], [], []
    for number, pcm in enumerate(heard):
        frame = Frame(pcm, number * FRAME_SAMPLES / PCM16_24K.rate_hz)
        began_ns = time.perf_counter_ns()
        result = step(frame)
        spent.append((time.perf_counter_ns() - began_ns) / 1000)
        if isinstance(result, Frame) and number >= 100:  # two seconds to learn the room
            before.append(pcm)
            after.append(result.pcm)
    p50, p99 = np.percentile(spent, [50, 99])
    left = f"{power_db(b''.join(after)) - power_db(b''.join(before)):+.0f} dB" if after else ""
    print(f"{name:<32} {p50:8.0f} {p99:8.0f}   {left}")


def power_db(pcm: bytes) -> float:
    samples = samples_of(pcm).astype(np.float64)
    return float(10 * np.log10(np.mean(samples * samples) + 1e-3))


def reference_of(played: bytes) -> PlaybackReference:
    reference = PlaybackReference(PCM16_24K, lambda: 0.0)
    fed = iter(range(0, len(played), FRAME_SAMPLES * 2))

    def clock() -> float:  # the loudspeaker takes a block just before each look
        start = next(fed)
        reference.push(played[start : start + FRAME_SAMPLES * 2])
        return (start // 2 + FRAME_SAMPLES) / PCM16_24K.rate_hz

    reference.clock = clock
    return reference


def webrtc(config: AudioInputConfig) -> Callable[[bytes], Callable[[Frame], Any]]:
    def make(played: bytes) -> Callable[[Frame], Any]:
        line = WebRtcFilter(config, reference_of(played))
        line.start(PCM16_24K)
        return line.filter

    return make


STEPS: dict[str, Callable[[bytes], Callable[[Frame], Any]]] = {
    "echo='gate'": lambda played: EchoGate(reference_of(played), 250).filter,
    "echo='aec'": webrtc(AudioInputConfig(echo="aec")),
    "echo='aec', noise_suppression": webrtc(AudioInputConfig(echo="aec", noise_suppression=True)),
    "noise_suppression": webrtc(AudioInputConfig(noise_suppression=True)),
    "auto_gain": webrtc(AudioInputConfig(auto_gain=True)),
    "detector='energy'": lambda played: EnergyDetector().is_voice,
    "detector='silero'": lambda played: SileroVoiceDetector().is_voice,
}


if __name__ == "__main__":
    main()
