"""What stands behind the local server: a *brain* hears, thinks and speaks; the server does the protocol.

The server (`server/connection.py`) owns the input buffer, turn detection, the conversation's items and the
order of events. A brain never sees an event: it is asked whether there is speech in a window, what was said
in an utterance, and what to answer, and it answers into a `ResponseWriter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from trio_voice.audio import Samples
    from trio_voice.protocol import Item, Tool
    from trio_voice.server.hosted_mcp import HostedCall

VAD_RATE_HZ = 16_000
VAD_WINDOW_SAMPLES = 512
"""A detector is given 32 ms at 16 kHz at a time, as silero was trained on."""


class SpeechDetector(Protocol):
    """Tells speech from the rest, window by window. One per connection: it remembers what came before."""

    def probability(self, window: Samples) -> float:
        """How likely `window` (512 samples, 16 kHz, int16) holds speech, 0..1. Must take well under 1 ms."""

    def reset(self) -> None:
        """Forget what came before."""


@attrs.frozen
class ResponseRequest:
    """What a brain is asked to answer."""

    items: Sequence[Item]
    """The conversation so far, oldest first: messages, function calls and their outputs. Assistant messages that
    were truncated hold only what was heard. A user's spoken message holds its transcript."""
    instructions: str
    tools: Sequence[Tool]
    modalities: Sequence[str]
    """`["audio"]` or `["text"]`."""
    rate_hz: int
    """Of the audio to be written."""
    voice: str
    speed: float = 1.0
    tool_choice: Any = "auto"
    metadata: Mapping[str, str] | None = None


class ResponseWriter(Protocol):
    """Where a brain puts its answer, part by part, as soon as each part is ready."""

    async def speak(self, text: str, audio: Samples) -> None:
        """Append a spoken clause: its words and its samples (int16, at the request's `rate_hz`).

        Waits while the client is behind. Spaces between clauses are added where they are missing. Short clauses
        are the better ones: where the user interrupts, the words heard are estimated within the clause.

        In a text-only response the samples are ignored (pass an empty array).
        """

    async def call(self, name: str, arguments: str) -> None:
        """Append a function call; `arguments` is a JSON object as text."""


class HostingWriter(ResponseWriter, Protocol):
    """The writer of a server that also plays MCP servers."""

    async def call_hosted(self, call: HostedCall) -> None:
        """Append a call of an MCP server's tool, or the question whether to make it."""


class Brain(Protocol):
    """One per server; its methods may run for several connections at once.

    Cancellation: `respond` is cancelled when the response is (by the client, or because the user began to
    speak); what it wrote until then stands, and what it writes after that is dropped.
    """

    @property
    def description(self) -> str:
        """The engines it runs, in one line, for the banner."""

    async def warm_up(self) -> None:
        """Load what is slow to load. Called once, before the first connection is answered."""

    def new_detector(self) -> SpeechDetector:
        """A speech detector for one connection."""

    async def transcribe(self, audio: Samples, rate_hz: int) -> str:
        """The words of one utterance (int16 mono), or an empty string when there were none.

        Asked for already when the user pauses, and cancelled when the pause was none: it has to be worth
        cancelling, and calls may overlap (two at a time for one connection).
        """

    async def respond(self, request: ResponseRequest, writer: ResponseWriter) -> None:
        """Answer. Returning ends the response as completed; raising ends it as failed."""


@runtime_checkable
class ForesightedBrain(Protocol):
    """A brain that can make the beginning of an answer before it is known that the user is done."""

    async def foresee(self, request: ResponseRequest) -> None:
        """Have at hand what a `respond` to the same request would write first. Nothing of it is seen outside.

        Asked for when the words of a pause are known, and cancelled when the user goes on: it has to be worth
        cancelling, and must call no tool and cost nobody money. What it raises is logged.
        """
