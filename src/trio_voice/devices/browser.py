"""A browser's microphone and loudspeaker, over one WebSocket to its page (`page/`, served by `line_server.py`).

The page takes the microphone with the browser's own echo cancellation and noise suppression. Sound goes both ways as
`pcm16` in binary messages; everything else is JSON. The page says every 21 ms how much it has played.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import trio

from trio_voice.audio import AudioFormat
from trio_voice.channels import DropOldest
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.devices.remote_line import Line, RemoteMicrophone, RemoteSpeaker
from trio_voice.errors import DeviceError

AHEAD_MS = 60
"""What the page is sent before its time, against the unevenness of the network."""
BLOCK_MS = 10
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


class BrowserCall(Line[bytes | str]):
    """One page that is connected. Give its `microphone` and `speaker` to a session.

    `tell` and `messages` are the application's own words to the page's script, and what the script says.
    """

    def __init__(self, user_agent: str = "") -> None:
        super().__init__()
        self.user_agent = user_agent
        """As the browser names itself."""
        self._from_page = DropOldest[dict[str, Any]](FROM_PAGE_CAPACITY)
        self.messages = self._from_page.receiver
        self._microphone: RemoteMicrophone | None = None
        self._frame_bytes = 0
        self._speaker: RemoteSpeaker | None = None

    @property
    def microphone(self) -> BrowserMicrophone:
        return BrowserMicrophone(self)

    @property
    def speaker(self) -> BrowserSpeaker:
        return BrowserSpeaker(self)

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to the page's script. Never waits."""
        self.send(msgspec.json.encode(message).decode())

    def received(self, message: bytes | str) -> None:
        if isinstance(message, bytes):
            self._heard(message)
            return
        try:
            news = msgspec.json.decode(message, type=_FromPage)
            said = msgspec.json.decode(message, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise DeviceError(f"the page sent what is none of its messages: {error}") from None
        if news.failed is not None:
            self.hang_up(f"the browser has no sound: {news.failed}")
        elif news.progress is None:
            self._from_page.send_nowait(said)
        elif self._speaker is not None:
            self._speaker.progressed(news.progress.run, news.progress.played, news.progress.latency_ms)

    def _heard(self, pcm: bytes) -> None:
        if self._microphone is None:
            return
        if len(pcm) != self._frame_bytes:
            raise DeviceError(f"the page sent a frame of {len(pcm)} bytes; {self._frame_bytes} were asked for")
        self._microphone.heard(pcm)

    def play(self, pcm: bytes, run: int, end_samples: int) -> None:
        self.send(pcm)  # the page counts for itself

    def forget(self, run: int) -> None:
        self.tell({"flush": run})

    def hang_up(self, reason: str) -> None:
        super().hang_up(reason)
        self._from_page.close()


@attrs.frozen
class BrowserMicrophone:
    """What the page hears."""

    call: BrowserCall
    name: str = "the browser's microphone"

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        call = self.call
        call.check_there(self.name)
        call._frame_bytes = audio_format.bytes_of_ms(frame_ms)
        call._microphone = RemoteMicrophone(self.name, call, frame_ms / 1000)
        frame_samples = audio_format.samples_of_ms(frame_ms)
        call.tell({"hear": {"rate_hz": audio_format.rate_hz, "frame_samples": frame_samples}})
        try:
            yield call._microphone
        finally:
            call._microphone = None
            call.tell({"hear": None})


@attrs.frozen
class BrowserSpeaker:
    """What the page plays."""

    call: BrowserCall
    name: str = "the browser's loudspeaker"
    ahead_ms: int = AHEAD_MS

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        call = self.call
        call.check_there(self.name)
        ahead_samples = audio_format.samples_of_ms(self.ahead_ms)
        opened = RemoteSpeaker(self.name, call, audio_format, ahead_samples, BLOCK_MS)
        call._speaker = opened
        call.tell({"play": {"rate_hz": audio_format.rate_hz}})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.feed, pull)
            try:
                yield opened
            finally:
                call._speaker = None
                nursery.cancel_scope.cancel()
