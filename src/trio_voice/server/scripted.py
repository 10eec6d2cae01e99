"""A brain that says what it was told to: for tests, benchmarks and trying a client without an engine.

Stands where a speech brain would (`brain.py`). The invariant: with the same script and the same clock it
does the same, sample by sample; and unless told otherwise each sample says which turn it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import attrs
import numpy as np
import trio

from trio_voice.protocol.items import Tool
from trio_voice.protocol.verbatim import words_of
from trio_voice.server.brain import ResponseRequest, ResponseWriter, SpeechDetector
from trio_voice.server.hosted_mcp import HostedCall as HostedCall

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.server.brain import HostingWriter

MS_PER_CHARACTER = 60
"""How long a clause sounds when its duration is not given: a brisk reader."""
MAX_MARKED_TURN = 126
VERBATIM_TURN = MAX_MARKED_TURN
"""What marks samples of words that the client asked for where they use up no reply of a list."""
SILENT = np.zeros(0, np.int16)


@attrs.frozen
class Say:
    """Speak `text` for `duration_ms`: marked samples, a tone of `tone_hz`, or the given `samples`."""

    text: str
    duration_ms: int | None = None
    tone_hz: float | None = None
    samples: Samples | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Call:
    """Call a tool; `arguments` is JSON as text."""

    name: str
    arguments: str = "{}"


@attrs.frozen
class Wait:
    """Think for `ms`."""

    ms: float


@attrs.frozen
class Fail:
    """Break, as an engine might."""

    message: str = "the script says to fail here"


Step: TypeAlias = Say | Call | HostedCall | Wait | Fail
Reply: TypeAlias = Step | Sequence[Step]


def marked_samples(turn: int, count: int, start: int = 0) -> Samples:
    """`count` samples that know their turn (0..126, then around) and position modulo 256; none is zero."""
    pattern = np.arange(start, start + 256) % 256 + (turn % (MAX_MARKED_TURN + 1) + 1) * 256
    marked: Samples = np.resize(pattern.astype(np.int16), count)
    return marked


def turns_in(samples: Samples) -> list[int]:
    """The turns whose marked samples are in `samples`, ascending; silence belongs to none (pcm16 only)."""
    return [int(mark) - 1 for mark in np.unique(samples >> 8) if mark > 0]


def tone(frequency_hz: float, duration_ms: float, rate_hz: int, amplitude: float = 0.3) -> Samples:
    """A sine, for what has to be heard."""
    time_s = np.arange(int(duration_ms * rate_hz / 1000)) / rate_hz
    wave: Samples = (np.sin(2 * np.pi * frequency_hz * time_s) * amplitude * 32767).astype(np.int16)
    return wave


class LoudnessDetector:
    """Takes anything loud for speech: exact and instant, deaf to the difference between voice and noise."""

    def __init__(self, rms_threshold: float = 500.0) -> None:
        self._rms_threshold = rms_threshold

    def probability(self, window: Samples) -> float:
        values = window.astype(np.float64)
        return 1.0 if float(np.sqrt(np.mean(values * values))) >= self._rms_threshold else 0.0

    def reset(self) -> None:
        """Nothing is remembered from window to window."""


class ScriptedBrain:
    """Answers the n-th response with the n-th of `replies`, hears the n-th of `transcripts`.

    `replies` is a sequence of steps (or of step sequences), or a function from the request to steps; asking
    for more replies than there are fails the response. What a client wants said word for word is said, and uses up no
    reply. `transcripts` is a sequence, or a function from the
    utterance and its rate to words; after the last it hears "utterance 7". Recognition that is cancelled, as
    when the speaker goes on, does not use a transcript up. `think_ms` passes before the first step, `hear_ms`
    before each transcript, `chunk_delay_ms` before each clause, all by `trio.sleep`. `mcp_tools`: by the label of a
    hosted MCP server, the names of its tools; others cannot be reached.
    """

    def __init__(
        self,
        replies: Sequence[Reply] | Callable[[ResponseRequest], Sequence[Step]] = (),
        transcripts: Sequence[str] | Callable[[Samples, int], str] = (),
        *,
        think_ms: float = 0,
        hear_ms: float = 100,
        chunk_delay_ms: float = 0,
        detector: Callable[[], SpeechDetector] = LoudnessDetector,
        mcp_tools: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._replies = replies
        self._transcripts = transcripts
        self._think_ms = think_ms
        self._hear_ms = hear_ms
        self._chunk_delay_ms = chunk_delay_ms
        self._detector = detector
        self._mcp_tools = mcp_tools or {}
        self._answered = 0
        self._heard = 0
        self.requests: list[ResponseRequest] = []
        """Every request it was asked to answer, oldest first."""
        self.utterances: list[tuple[Samples, int]] = []
        """Every utterance it recognised to the end, with its rate."""

    @property
    def description(self) -> str:
        return "scripted: no engine, replies as written"

    async def warm_up(self) -> None:
        await trio.lowlevel.checkpoint()

    def new_detector(self) -> SpeechDetector:
        return self._detector()

    async def transcribe(self, audio: Samples, rate_hz: int) -> str:
        await trio.sleep(self._hear_ms / 1000)
        self.utterances.append((audio, rate_hz))
        if callable(self._transcripts):
            return self._transcripts(audio, rate_hz)
        index, self._heard = self._heard, self._heard + 1
        return self._transcripts[index] if index < len(self._transcripts) else f"utterance {index}"

    async def list_mcp_tools(self, server: Tool) -> list[dict[str, Any]] | None:
        await trio.lowlevel.checkpoint()
        names = self._mcp_tools.get(server.server_label or "")
        schema = {"type": "object", "properties": {}}
        return None if names is None else [{"name": name, "input_schema": schema} for name in names]

    async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
        self.requests.append(request)
        words = words_of(request.instructions)
        turn = VERBATIM_TURN
        if words is None or callable(self._replies):
            turn, self._answered = self._answered, self._answered + 1
        await trio.sleep(self._think_ms / 1000)
        position = 0
        for step in self._steps(turn, request) if words is None else (Say(words),):
            match step:
                case Say():
                    position += await self._speak(step, turn, position, request, writer)
                case Call():
                    await writer.call(step.name, step.arguments)
                case HostedCall():
                    await cast("HostingWriter", writer).call_hosted(step)
                case Wait():
                    await trio.sleep(step.ms / 1000)
                case Fail():
                    raise RuntimeError(step.message)

    async def _speak(self, say: Say, turn: int, position: int, request: ResponseRequest, writer: ResponseWriter) -> int:
        """Returns how many samples it took."""
        await trio.sleep(self._chunk_delay_ms / 1000)
        samples = _samples(say, turn, position, request.rate_hz) if request.modalities != ["text"] else SILENT
        await writer.speak(say.text, samples)
        return len(samples)

    def _steps(self, turn: int, request: ResponseRequest) -> Iterator[Step]:
        if callable(self._replies):
            yield from self._replies(request)
            return
        if turn >= len(self._replies):
            raise RuntimeError(f"the script has {len(self._replies)} replies, not {turn + 1}: add one")
        reply = self._replies[turn]
        if isinstance(reply, Sequence):
            yield from reply
        else:
            yield reply


def _samples(say: Say, turn: int, position: int, rate_hz: int) -> Samples:
    if say.samples is not None:
        return say.samples
    duration_ms = len(say.text) * MS_PER_CHARACTER if say.duration_ms is None else say.duration_ms
    if say.tone_hz is not None:
        return tone(say.tone_hz, duration_ms, rate_hz)
    return marked_samples(turn, int(duration_ms * rate_hz / 1000), position)
