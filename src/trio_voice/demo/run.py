"""The demonstration: a caller and the customer-service agent talk over a real WebSocket; sound and pictures remain."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio
from rich.console import Console

from trio_voice import journal
from trio_voice.audio import PCM16_24K, Samples, level_dbfs, samples_of
from trio_voice.channels import EventStream
from trio_voice.config import ConnectionOptions
from trio_voice.demo import caller, customer_service
from trio_voice.devices.wav import write_wav
from trio_voice.events import PlaybackStart, SessionEvent
from trio_voice.picture import view
from trio_voice.picture.record import recording_of
from trio_voice.picture.timeline import draw_timeline
from trio_voice.server.process import local_server
from trio_voice.session import RealtimeSession
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone

CONNECT_TIMEOUT_MS = 60_000
"""The local server listens at once and answers when its engines are loaded."""
METER_BYTES = PCM16_24K.bytes_of_ms(100)


@attrs.define(eq=False)
class Conversation:
    """What was said, heard and done. Times on Trio's clock; sound at 24 kHz from `started_at` on."""

    events: list[SessionEvent] = attrs.Factory(list)
    caller_lines: list[caller.SpokenLine] = attrs.Factory(list)
    summary: dict[str, Any] = attrs.Factory(dict)
    started_at: float = 0.0
    ended_at: float = 0.0
    caller_sound: Samples = attrs.Factory(lambda: np.zeros(0, np.int16))
    agent_sound: Samples = attrs.Factory(lambda: np.zeros(0, np.int16))

    def voice_to_voice_ms(self) -> list[float]:
        """For each line of the caller that was answered: its last audible sample to the first sample heard."""
        starts = [event.at for event in self.events if isinstance(event, PlaybackStart)]
        ends = [line.started_at for line in self.caller_lines[1:]] + [self.ended_at]
        answers = (
            (line, next((at for at in starts if line.ended_at < at < end), None))
            for line, end in zip(self.caller_lines, ends, strict=True)
        )
        return [(at - line.ended_at) * 1000 for line, at in answers if at is not None]

    def shortcomings(self) -> list[str]:
        """What the demonstration should show and this one did not; empty when all is well."""
        used = {call["tool"] for call in self.summary["tool_calls"] if not call["failed"]}
        missing = [f"{tool.name} was not called" for tool in customer_service.AGENT.tools if tool.name not in used]
        if not self.summary["interruption_count"]:
            missing.append("nobody was interrupted")
        if len(self.voice_to_voice_ms()) < len(caller.SCRIPT):
            missing.append("a line of the caller was not answered")
        return missing


async def run(out: Path, *, console: Console, url: str | None = None, server_arguments: tuple[str, ...] = ()) -> bool:
    """Hold the conversation and fill the folder `out`. Returns whether everything was shown that should be.

    `url`: a server that runs already, in place of one of our own.
    Raises: `TrioVoiceError` if the server does not start or the conversation breaks.
    """
    await trio.Path(out).mkdir(parents=True, exist_ok=True)
    if url is not None:
        conversation = await _converse(url, out, console)
    else:
        console.print("Starting the local server. Its engines load while you read this: about five seconds.")
        async with local_server(server_arguments) as local_url:
            conversation = await _converse(local_url, out, console)
    _write(conversation, out)
    shortcomings = conversation.shortcomings()
    _tell(conversation, shortcomings, out, console)
    return not shortcomings


async def _converse(url: str, out: Path, console: Console) -> Conversation:
    conversation = Conversation()
    microphone, speaker = ScriptedMicrophone("the caller"), RecordingSpeaker("the caller's ear")
    session = RealtimeSession(
        customer_service.AGENT,
        connection=ConnectionOptions(url=url, model=None, connect_timeout_ms=CONNECT_TIMEOUT_MS),
        microphone=microphone,
        speaker=speaker,
        metadata={"channel": "demonstration", "server": url},
    )
    record = session.events()  # it ends with the session, as the journal does
    async with trio.open_nursery() as writers:
        await writers.start(partial(journal.write, session, out / "journal.jsonl", sound=True))
        writers.start_soon(_keep, record, conversation.events)
        async with session, trio.open_nursery() as screen:
            conversation.started_at = session.tracker.started_at
            levels = partial(_levels, microphone, speaker)
            screen.start_soon(
                partial(view.show, session, console=console, title=f"demonstration · {url}", levels=levels)
            )
            await caller.converse(session, microphone, conversation.caller_lines)
            screen.cancel_scope.cancel()
    conversation.ended_at = trio.current_time()
    conversation.summary = session.summary()
    conversation.agent_sound = _from(conversation.started_at, speaker.started_at, samples_of(bytes(speaker.pcm)))
    conversation.caller_sound = _joined(conversation)
    return conversation


async def _keep(stream: EventStream, events: list[SessionEvent]) -> None:
    async for event in stream:
        events.append(event)  # noqa: PERF401 - a comprehension would keep them to itself until the end


def _levels(microphone: ScriptedMicrophone, speaker: RecordingSpeaker) -> tuple[float, float]:
    """What the caller's mouth and ear have right now, in dBFS."""
    spoken = b""
    if microphone.said:
        line = microphone.said[-1]
        position = PCM16_24K.bytes_of_ms((trio.current_time() - line.started_at) * 1000)
        spoken = line.pcm[max(0, position - METER_BYTES) : position]
    return level_dbfs(spoken), level_dbfs(bytes(speaker.pcm[-METER_BYTES:]))


def _from(started_at: float, recorded_from: float, samples: Samples) -> Samples:
    """`samples`, which began at `recorded_from`, as they are from `started_at` on."""
    return samples[max(0, PCM16_24K.samples_of_ms((started_at - recorded_from) * 1000)) :]


def _joined(conversation: Conversation) -> Samples:
    """The caller's lines, each where it was said."""
    sound = np.zeros(PCM16_24K.samples_of_ms((conversation.ended_at - conversation.started_at) * 1000), np.int16)
    for line in conversation.caller_lines:
        start = PCM16_24K.samples_of_ms((line.recorded_from - conversation.started_at) * 1000)
        part = line.samples[: max(0, len(sound) - start)]
        sound[start : start + len(part)] = part
    return sound


def _write(conversation: Conversation, out: Path) -> None:
    write_wav(out / "conversation.wav", PCM16_24K.rate_hz, conversation.caller_sound, conversation.agent_sound)
    recording = recording_of(
        conversation.events,
        started_at=conversation.started_at,
        ended_at=conversation.ended_at,
        caller_pcm=conversation.caller_sound,
        agent_pcm=conversation.agent_sound,
        rate_hz=PCM16_24K.rate_hz,
        caller_lines=[
            (line.started_at - conversation.started_at, line.ended_at - conversation.started_at, line.text)
            for line in conversation.caller_lines
        ],
    )
    (out / "timeline.svg").write_text(draw_timeline(recording), encoding="utf-8")
    latencies = [round(latency_ms) for latency_ms in conversation.voice_to_voice_ms()]
    summary = conversation.summary | {"voice_to_voice_ms": latencies}
    (out / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tell(conversation: Conversation, shortcomings: list[str], out: Path, console: Console) -> None:
    summary, latencies = conversation.summary, sorted(conversation.voice_to_voice_ms())
    console.print(
        f"\n[bold]{summary['turn_count']} turns[/], {len(summary['tool_calls'])} tool calls, "
        f"{summary['interruption_count']} interruption, {summary['duration_seconds']:.0f} s."
    )
    if latencies:
        console.print(
            f"Voice to voice: median {latencies[len(latencies) // 2]:.0f} ms, longest {latencies[-1]:.0f} ms."
        )
    for name, what in (
        ("conversation.wav", "hear it: caller left, agent as heard right"),
        ("timeline.svg", "see it"),
        ("summary.json", "the session's own account"),
        ("journal.jsonl", "every event with its time, and the sound: trio-voice replay"),
    ):
        console.print(f"  {out / name}  [dim]{what}[/]", soft_wrap=True)
    for shortcoming in shortcomings:
        console.print(f"[red]Not shown:[/] {shortcoming}")
