"""A microphone and a loudspeaker at the far end of a line, whatever the line speaks: `browser.py`, `telephone.py`.

The loudspeaker is fed a little ahead of what the far end says it has played. Sound sent before a flush belongs to
another *run* than sound sent after it: the far end says of which run it has played how much, so what it said before
the flush reached it is not believed.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import trio

from trio_voice.audio import AudioFormat, Frame
from trio_voice.channels import DropOldest
from trio_voice.devices import Pull
from trio_voice.errors import DeviceError

T = TypeVar("T")

GUESS_S = 0.05
"""For no longer than this after its last word is the far end taken to have played on."""
OUTBOUND_CAPACITY = 256
"""Messages. When full the far end is given up: it reads nothing."""
CAPTURED_CAPACITY = 25
"""Frames that wait for the session."""


class Line(Generic[T]):
    """What leads to the far end: messages of the kind `T` in `outbound`, and whether anybody is there.

    Whoever holds the socket sends what comes out of `outbound`, gives `received` what arrives, and calls `hang_up`.
    """

    def __init__(self) -> None:
        self._send, self.outbound = trio.open_memory_channel[T](OUTBOUND_CAPACITY)
        self.gone = trio.Event()
        self.reason = ""

    def send(self, message: T) -> None:
        """Never waits; nothing is said to a far end that is gone."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            self.hang_up("the far end reads nothing any more")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever holds the line is told by `gone`

    def received(self, message: T) -> None:
        """What the far end has sent. Raises: `DeviceError` for what no far end of this kind sends."""
        raise NotImplementedError

    def hang_up(self, reason: str) -> None:
        """It is over. The first reason stands."""
        if not self.gone.is_set():
            self.reason = reason
            self.gone.set()
            self._send.close()

    def check_there(self, device: str) -> None:
        """Raises: `DeviceError` when there is nobody any more."""
        if self.gone.is_set():
            raise DeviceError(f"{device} cannot be opened: {self.reason}")

    def play(self, pcm: bytes, run: int, end_samples: int) -> None:
        """Send a block of `pcm16`, which ends at `end_samples` of its run."""
        raise NotImplementedError

    def forget(self, run: int) -> None:
        """Have all that was sent forgotten: what follows is of `run`."""
        raise NotImplementedError


@attrs.define(eq=False)
class RemoteMicrophone:
    """An open microphone, given its frames by the line."""

    name: str
    line: Line[bytes] | Line[str] | Line[bytes | str]
    frame_s: float
    _frames: DropOldest[Frame] = attrs.Factory(lambda: DropOldest[Frame](CAPTURED_CAPACITY))

    def heard(self, pcm: bytes) -> None:
        """A frame has arrived."""
        self._frames.send_nowait(Frame(pcm, trio.current_time() - self.frame_s))

    async def receive(self) -> Frame:
        frame: Frame | None = None
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                await self.line.gone.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            frame = await self._frames.receiver.receive()
            nursery.cancel_scope.cancel()
        if frame is None:
            raise DeviceError(f"{self.name} is lost: {self.line.reason}")
        return frame

    @property
    def dropped_frames(self) -> int:
        return self._frames.dropped


@attrs.define(eq=False)
class RemoteSpeaker:
    """An open loudspeaker; can be flushed."""

    name: str
    line: Line[bytes] | Line[str] | Line[bytes | str]
    audio_format: AudioFormat
    ahead_samples: int
    block_ms: int
    run: int = 0
    sent_samples: int = 0
    """Of this run; as are the next two."""
    played_samples: int = 0
    """By the far end's last word."""
    told_at: float = 0.0
    latency_samples: int = 0
    """From there to the air."""

    async def feed(self, pull: Pull) -> None:
        """Keep the far end a little ahead. Silence is not sent while it has nothing to play: it makes its own."""
        block_samples = self.audio_format.samples_of_ms(self.block_ms)
        due_at = trio.current_time()
        while not self.line.gone.is_set():
            while self._queued_samples() < self.ahead_samples:
                pcm = pull(block_samples)
                if not self._queued_samples() and not pcm.strip(b"\0"):
                    break
                self.sent_samples += block_samples
                self.line.play(pcm, self.run, self.sent_samples)
            due_at = max(due_at + self.block_ms / 1000, trio.current_time())
            await trio.sleep_until(due_at)

    def progressed(self, run: int, played_samples: int, latency_ms: float = 0.0) -> None:
        """The far end has played so much of that run."""
        if run == self.run:
            self.played_samples = max(self.played_samples, min(played_samples, self.sent_samples))
            self.told_at = trio.current_time()
            self.latency_samples = self.audio_format.samples_of_ms(max(0.0, min(latency_ms, 1000.0)))

    def flush(self) -> None:
        """Everything sent and not yet played is forgotten, here and at the far end."""
        self.run += 1
        self.sent_samples = self.played_samples = 0
        self.line.forget(self.run)

    def unheard_samples(self) -> int:
        queued = self._queued_samples()
        return queued + min(self.latency_samples, self.sent_samples - queued)

    def _queued_samples(self) -> int:
        """Sent and not yet played, as far as can be told: the far end's last word, and time since."""
        if self.played_samples == self.sent_samples:
            return 0
        since_s = min(GUESS_S, trio.current_time() - self.told_at) if self.played_samples else 0.0
        played = min(self.sent_samples, self.played_samples + int(since_s * self.audio_format.rate_hz))
        return self.sent_samples - played

    async def wait_failed(self) -> DeviceError:
        await self.line.gone.wait()
        return DeviceError(f"{self.name} is lost: {self.line.reason}")
