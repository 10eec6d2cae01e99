"""Voice to voice with the local speech server: from the user's last sound to the first of the answer.

By part: the silence that tells the server that the user is done, until its `speech_stopped` is here; then until the
response begins, which is recognition and what to say; until its first sound, which is synthesis; until it is heard,
which is the prebuffer and the loudspeaker's block. Silence is not added to: the recorded line ends with it. Half of the
lines are answered by a tool's result, which is two answers of the server: they are told apart. A voice keeps what it
made, and would say it at once the second time: each time has a server of its own.

Run: python -m benchmarks.voice --times N; prints JSON. The server is started by it, in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from typing import Any

import numpy as np
import trio

from benchmarks.downlink import percentile
from trio_voice import ConnectionOptions, RealtimeSession, events
from trio_voice.channels import EventStream
from trio_voice.config import SessionState
from trio_voice.demo import caller, customer_service
from trio_voice.protocol import ResponseCreated, ResponseOutputAudioDelta, server_events as on
from trio_voice.server.process import local_server
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

CONNECT_TIMEOUT_MS = 60_000
LINES = ("01-order", "03-weather", "07-other-order", "04-count")
RATE_HZ = 24_000
PATIENCE_S, PAUSE_S = 20.0, 0.6
AIM_MS = 700.0
MEANINGS = {
    "silence": "silence, until speech_stopped is here",
    "words": "recognition, and what to say",
    "synthesis": "first sound of the answer",
    "playback": "prebuffer and loudspeaker",
}
PARTS = ("silence", "words", "synthesis", "playback")


def parts_of(ended_at: float, seen: list[events.SessionEvent]) -> dict[str, float] | None:
    """The parts of one exchange, in ms, and whether a tool came between (1 or 0); None if it was not answered."""

    def first(kind: type, after: float) -> float | None:
        for event in seen:
            inner = event.event if isinstance(event, events.ServerEventReceived) else event
            if event.at >= after and isinstance(inner, kind):
                return event.at
        return None

    stopped_at = first(on.InputAudioBufferSpeechStopped, ended_at)
    created_at = first(ResponseCreated, stopped_at or ended_at)
    delta_at = first(ResponseOutputAudioDelta, created_at or ended_at)
    heard_at = first(events.PlaybackStart, delta_at or ended_at)
    if stopped_at is None or created_at is None or delta_at is None or heard_at is None:
        return None
    called_at = first(on.ResponseFunctionCallArgumentsDone, created_at)
    tool = called_at is not None and called_at < delta_at
    steps = (ended_at, stopped_at, created_at, delta_at, heard_at)
    took = [(after - before) * 1000 for before, after in itertools.pairwise(steps)]
    return dict(zip(PARTS, took, strict=True)) | {"whole": (heard_at - ended_at) * 1000, "tool": float(tool)}


async def converse(url: str) -> list[dict[str, float]]:
    microphone, speaker = ScriptedMicrophone("the caller"), RecordingSpeaker("the caller's ear")
    session = RealtimeSession(
        customer_service.AGENT,
        connection=ConnectionOptions(url=url, model=None, connect_timeout_ms=CONNECT_TIMEOUT_MS),
        microphone=microphone,
        speaker=speaker,
    )
    record = session.events(protocol=True)
    seen: list[events.SessionEvent] = []
    exchanges: list[dict[str, float]] = []

    async def keep(stream: EventStream) -> None:
        async for event in stream:
            seen.append(event)  # noqa: PERF401 - it is read meanwhile

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, record)
        stream = session.events()
        async with session:
            await session.start_listening()
            await _until_quiet(stream, session)  # it greets
            for line in LINES:
                samples = caller.recording(line, RATE_HZ)
                seen.clear()
                utterance = await microphone.say(samples.tobytes())
                last = int(np.flatnonzero(np.abs(samples.astype(np.int32)) > caller.VOICED_AMPLITUDE)[-1])
                await _until_quiet(stream, session)
                took = parts_of(utterance.started_at + last / RATE_HZ, seen)
                if took is not None:
                    exchanges.append(took)
        nursery.cancel_scope.cancel()
    return exchanges


async def _until_quiet(stream: EventStream, session: RealtimeSession) -> None:
    """Something was heard, and nothing more is coming."""
    with trio.move_on_after(PATIENCE_S):
        while True:
            await stream.wait_for(events.PlaybackEnd)
            with trio.move_on_after(PAUSE_S):
                await stream.wait_for(events.ResponseStart)
                continue
            if session.state is SessionState.LISTENING:
                return


async def main(times: int) -> list[dict[str, float]]:
    exchanges: list[dict[str, float]] = []
    for _ in range(times):
        async with local_server() as url:
            exchanges += await converse(url)
    return exchanges


def summarise(exchanges: list[dict[str, float]]) -> dict[str, Any]:
    """Medians by part, and the whole's p50 and worst, without those that a tool came into; of these the p50."""
    with_tool = [each["whole"] for each in exchanges if each["tool"]]
    exchanges = [each for each in exchanges if not each["tool"]]
    whole = [each["whole"] for each in exchanges]
    return {
        "exchanges": len(exchanges),
        "p50_ms": percentile(whole, 50),
        "worst_ms": max(whole),
        "with_tool": {"exchanges": len(with_tool), "p50_ms": percentile(with_tool, 50) if with_tool else None},
        "parts_ms": {part: statistics.median(each[part] for each in exchanges) for part in PARTS},
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--core", type=int, help="taken, and not used: speech keeps every core busy")
    print(json.dumps(trio.run(main, options.parse_args().times)))
