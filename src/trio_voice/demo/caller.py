"""The caller of the demonstration: recorded lines, said at the right moments, like a person on the telephone."""

from __future__ import annotations

from importlib import resources

import attrs
import msgspec
import numpy as np
import trio

from trio_voice import events
from trio_voice.audio import Samples
from trio_voice.channels import EventStream
from trio_voice.config import SessionState
from trio_voice.devices.wav import read_wav
from trio_voice.session import RealtimeSession
from trio_voice.testing import ScriptedMicrophone, Utterance

PATIENCE_S = 30.0
"""How long the caller waits for an answer before going on."""
PAUSE_S = 0.6
"""Between the agent's last word and the caller's first."""
BARGE_IN_AFTER_S = 3.5
"""How long the caller listens to the counting before breaking in."""
VOICED_AMPLITUDE = 400


@attrs.frozen
class Line:
    """A recorded sentence. `barge_in`: said in the middle of the agent's answer to the line before. `wants`: the tool
    that it is about; a caller who was misheard says it once more."""

    name: str
    barge_in: bool = False
    wants: str | None = None


SCRIPT = (
    Line("01-order", wants="lookup_order"),
    Line("02-callback", wants="schedule_callback"),
    Line("03-weather"),
    Line("04-count"),
    Line("05-transfer", barge_in=True, wants="transfer_to_department"),
    Line("06-goodbye"),
)
ATTEMPTS = 3


@attrs.frozen
class SpokenLine:
    """A line as it was said: `started_at` and `ended_at` are of its first and last audible sample."""

    text: str
    started_at: float
    ended_at: float
    recorded_from: float
    """When the first sample of `samples` was captured."""
    samples: Samples = attrs.field(repr=False, eq=False)


def texts() -> dict[str, str]:
    """The words of each recording."""
    listing = (resources.files(__package__) / "caller" / "lines.json").read_bytes()
    return {line["name"]: line["text"] for line in msgspec.json.decode(listing)["lines"]}


async def converse(
    session: RealtimeSession,
    microphone: ScriptedMicrophone,
    spoken: list[SpokenLine],
    script: tuple[Line, ...] = SCRIPT,
) -> None:
    """Say every line of `script` at its moment; returns when the last answer has been heard. Fills `spoken`."""
    words = texts()
    rate_hz = session.audio_input.sample_rate_hz
    recordings = {line.name: recording(line.name, rate_hz) for line in script}
    stream = session.events()
    await session.start_listening()
    await _until_answered(session, stream)
    for line, following in zip(script, (*script[1:], None), strict=True):
        for _ in range(ATTEMPTS):
            utterance = await microphone.say(recordings[line.name].tobytes())
            spoken.append(_as_spoken(words[line.name], utterance, recordings[line.name], rate_hz))
            if following is not None and following.barge_in:
                with trio.move_on_after(PATIENCE_S):
                    await stream.wait_for(events.PlaybackStart)
                await trio.sleep(BARGE_IN_AFTER_S)
                break
            await _until_answered(session, stream)
            if line.wants is None or _was_used(session, line.wants):
                break


def _was_used(session: RealtimeSession, tool: str) -> bool:
    return any(use.tool == tool and not use.failed for turn in session.turns() for use in turn.tool_calls)


async def _until_answered(session: RealtimeSession, stream: EventStream) -> None:
    """Wait for the agent to finish: something was heard, and nothing more is coming."""
    with trio.move_on_after(PATIENCE_S):
        while True:
            await stream.wait_for(events.PlaybackEnd)
            with trio.move_on_after(PAUSE_S):
                await stream.wait_for(events.ResponseStart)
                continue
            if session.state is SessionState.LISTENING:
                return


def recording(name: str, rate_hz: int) -> Samples:
    """One of the recorded lines."""
    with resources.as_file(resources.files(__package__) / "caller" / f"{name}.wav") as path:
        return read_wav(path, rate_hz)


def _as_spoken(text: str, utterance: Utterance, samples: Samples, rate_hz: int) -> SpokenLine:
    voiced = np.flatnonzero(np.abs(samples.astype(np.int32)) > VOICED_AMPLITUDE)
    first, last = (int(voiced[0]), int(voiced[-1])) if len(voiced) else (0, len(samples))
    begin = utterance.started_at
    return SpokenLine(text, begin + first / rate_hz, begin + last / rate_hz, begin, samples)
