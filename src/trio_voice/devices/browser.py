"""A browser's microphone and loudspeaker, over one WebSocket to its page (`page/`, served by `browser_page.py`).

The page takes the microphone with the browser's own echo cancellation and noise suppression. Sound goes both ways as
`pcm16` in binary messages; everything else is JSON. The loudspeaker is fed a little ahead of what the page says it has
played, and `flush` makes it forget that. Sound sent before a flush belongs to another *run* than sound sent after it:
the page says of which run it has played how much, so what it said before the flush reached it is not believed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import trio

from trio_voice.audio import AudioFormat, Frame
from trio_voice.channels import DropOldest
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.errors import DeviceError

AHEAD_MS = 60
"""What the page is sent before its time, against the unevenness of the network."""
BLOCK_MS = 10
REPORT_GAP_S = 0.05
"""The page says every 21 ms how far it is; for longer than this it is not taken to have gone on in the meantime."""
CAPTURED_CAPACITY = 25
"""Frames of the microphone that wait for the session."""
TO_PAGE_CAPACITY = 256
"""Messages. When full the page is given up: it reads nothing."""
FROM_PAGE_CAPACITY = 64
"""The page's own messages to the application. When full the oldest is dropped."""
MAX_FRAME_BYTES = 96_000


class _Progress(msgspec.Struct, forbid_unknown_fields=True):
    """The page has played so many samples of that run. `latency_ms`: from there to the air, as the browser says."""

    run: int
    played: int
    latency_ms: float = 0.0


class _FromPage(msgspec.Struct):
    progress: _Progress | None = None
    failed: str | None = None


@attrs.define(eq=False)
class BrowserCall:
    """One page that is connected. Give its `microphone` and `speaker` to a session.

    `to_page` is what has to be sent to it, bytes or text; whoever holds the socket sends it, and gives `received` what
    comes. `tell` and `messages` are the application's own words to the page's script and back.
    """

    agent_header: str = ""
    """The browser's `User-Agent`."""
    to_page: trio.MemoryReceiveChannel[bytes | str] = attrs.field(init=False)
    messages: trio.MemoryReceiveChannel[dict[str, Any]] = attrs.field(init=False)
    gone: trio.Event = attrs.Factory(trio.Event)
    """The page has closed, or was given up."""
    reason: str = "the page was closed"
    _outbound: trio.MemorySendChannel[bytes | str] = attrs.field(init=False)
    _inbound: DropOldest[dict[str, Any]] = attrs.field(init=False)
    _microphone: _OpenBrowserMicrophone | None = None
    _speaker: _OpenBrowserSpeaker | None = None

    def __attrs_post_init__(self) -> None:
        self._outbound, self.to_page = trio.open_memory_channel[bytes | str](TO_PAGE_CAPACITY)
        self._inbound = DropOldest[dict[str, Any]](FROM_PAGE_CAPACITY)
        self.messages = self._inbound.receiver

    @property
    def microphone(self) -> BrowserMicrophone:
        return BrowserMicrophone(self)

    @property
    def speaker(self) -> BrowserSpeaker:
        return BrowserSpeaker(self)

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to the page's script. Never waits; nothing is said to a page that is gone."""
        self.send(msgspec.json.encode(message).decode())

    def received(self, message: bytes | str) -> None:
        """What the page has sent. Raises: `DeviceError` for what no page of ours sends."""
        if isinstance(message, bytes):
            if self._microphone is not None:
                self._microphone.heard(message)
            return
        try:
            news = msgspec.json.decode(message, type=_FromPage)
            said = msgspec.json.decode(message, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise DeviceError(f"the page sent what is none of its messages: {error}") from None
        if news.failed is not None:
            self.hang_up(f"the browser has no sound: {news.failed}")
        elif news.progress is None:
            self._inbound.send_nowait(said)
        elif self._speaker is not None:
            self._speaker.progressed(news.progress)

    def hang_up(self, reason: str) -> None:
        """It is over. Once; the first reason stands."""
        if not self.gone.is_set():
            self.reason = reason
            self.gone.set()
            self._outbound.close()
            self._inbound.close()

    def send(self, message: bytes | str) -> None:
        try:
            self._outbound.send_nowait(message)
        except trio.WouldBlock:
            self.hang_up("the page reads nothing any more")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is gone; whoever holds the call is told by `gone`


@attrs.frozen
class BrowserMicrophone:
    """What the page hears."""

    call: BrowserCall
    name: str = "the browser's microphone"

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        call = self.call
        if call.gone.is_set():
            raise DeviceError(f"{self.name} cannot be opened: {call.reason}")
        opened = _OpenBrowserMicrophone(call, audio_format.bytes_of_ms(frame_ms), frame_ms / 1000)
        call._microphone = opened
        frame_samples = audio_format.samples_of_ms(frame_ms)
        call.tell({"hear": {"rate_hz": audio_format.rate_hz, "frame_samples": frame_samples}})
        try:
            yield opened
        finally:
            call._microphone = None
            call.tell({"hear": None})


@attrs.define(eq=False)
class _OpenBrowserMicrophone:
    call: BrowserCall
    frame_bytes: int
    frame_s: float
    _frames: DropOldest[Frame] = attrs.Factory(lambda: DropOldest[Frame](CAPTURED_CAPACITY))

    def heard(self, pcm: bytes) -> None:
        if len(pcm) != self.frame_bytes:
            raise DeviceError(f"the page sent a frame of {len(pcm)} bytes; {self.frame_bytes} were asked for")
        self._frames.send_nowait(Frame(pcm, trio.current_time() - self.frame_s))

    async def receive(self) -> Frame:
        frame: Frame | None = None
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                await self.call.gone.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            frame = await self._frames.receiver.receive()
            nursery.cancel_scope.cancel()
        if frame is None:
            raise DeviceError(f"the browser's microphone is lost: {self.call.reason}")
        return frame

    @property
    def dropped_frames(self) -> int:
        return self._frames.dropped


@attrs.frozen
class BrowserSpeaker:
    """What the page plays."""

    call: BrowserCall
    name: str = "the browser's loudspeaker"
    ahead_ms: int = AHEAD_MS

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        call = self.call
        if call.gone.is_set():
            raise DeviceError(f"{self.name} cannot be opened: {call.reason}")
        opened = _OpenBrowserSpeaker(call, audio_format, audio_format.samples_of_ms(self.ahead_ms))
        call._speaker = opened
        call.tell({"play": {"rate_hz": audio_format.rate_hz}})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.feed, pull)
            try:
                yield opened
            finally:
                call._speaker = None
                nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class _OpenBrowserSpeaker:
    call: BrowserCall
    audio_format: AudioFormat
    ahead_samples: int
    run: int = 0
    """Sound since the last flush."""
    sent_samples: int = 0
    """Of this run."""
    played_samples: int = 0
    """Of this run, by the page's last word."""
    told_at: float = 0.0
    latency_samples: int = 0

    async def feed(self, pull: Pull) -> None:
        """Keep the page a little ahead. Silence is not sent while it has nothing to play: it makes its own."""
        block_samples = self.audio_format.samples_of_ms(BLOCK_MS)
        due_at = trio.current_time()
        while not self.call.gone.is_set():
            while self._queued_samples() < self.ahead_samples:
                pcm = pull(block_samples)
                if not self._queued_samples() and not pcm.strip(b"\0"):
                    break
                self.call.send(pcm)
                self.sent_samples += block_samples
            due_at = max(due_at + BLOCK_MS / 1000, trio.current_time())
            await trio.sleep_until(due_at)

    def progressed(self, news: _Progress) -> None:
        if news.run == self.run:
            self.played_samples = max(self.played_samples, min(news.played, self.sent_samples))
            self.told_at = trio.current_time()
            self.latency_samples = self.audio_format.samples_of_ms(max(0.0, min(news.latency_ms, 1000.0)))

    def flush(self) -> None:
        """Everything sent and not yet played is forgotten, here and in the page."""
        self.run += 1
        self.sent_samples = self.played_samples = 0
        self.call.tell({"flush": self.run})

    def unheard_samples(self) -> int:
        queued = self._queued_samples()
        return queued + (min(self.latency_samples, self.sent_samples - queued) if self.sent_samples else 0)

    def _queued_samples(self) -> int:
        """Sent and not yet played, as far as can be told: the page's last word, and time since."""
        if self.played_samples == self.sent_samples:
            return 0
        since_s = min(REPORT_GAP_S, trio.current_time() - self.told_at) if self.played_samples else 0.0
        played = min(self.sent_samples, self.played_samples + int(since_s * self.audio_format.rate_hz))
        return self.sent_samples - played

    async def wait_failed(self) -> DeviceError:
        await self.call.gone.wait()
        return DeviceError(f"the browser's loudspeaker is lost: {self.call.reason}")
