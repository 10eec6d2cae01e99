"""A telephone call as microphone and loudspeaker: the media streams that telephone providers open to your server.

JSON over a WebSocket that the provider opens: `start`, then `media` with G.711 in base64 (8 kHz, 20 ms each), `dtmf`,
`stop`; to it go `media`, `mark` and `clear`. Twilio's form, which others have taken over. A `mark` behind each block
comes back when the block has been played, which is how far the caller has heard; after a `clear` all marks come back
at once, and those are of an older run.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import attrs
import msgspec
import trio

from trio_voice.audio import AudioFormat, StreamResampler, decode_g711, encode_g711
from trio_voice.channels import DropOldest
from trio_voice.devices import OpenMicrophone, OpenSpeaker, Pull
from trio_voice.devices.remote_line import Line, RemoteMicrophone, RemoteSpeaker
from trio_voice.errors import DeviceError

RATE_HZ = 8_000
BLOCK_MS = 20
AHEAD_MS = 100
"""What the provider is sent before its time, against the unevenness of the network."""
KEYS_CAPACITY = 64
"""When full the oldest is dropped."""
ENCODINGS: dict[str, Literal["pcmu", "pcma"]] = {"audio/x-mulaw": "pcmu", "audio/x-alaw": "pcma"}


class _MediaFormat(msgspec.Struct, rename="camel"):
    encoding: str = "audio/x-mulaw"
    sample_rate: int = RATE_HZ


class _Start(msgspec.Struct, rename="camel"):
    stream_sid: str = ""
    call_sid: str = ""
    media_format: _MediaFormat = msgspec.field(default_factory=_MediaFormat)
    custom_parameters: dict[str, Any] = {}


class _Media(msgspec.Struct):
    payload: str
    track: str = "inbound"


class _Mark(msgspec.Struct):
    name: str = ""


class _Key(msgspec.Struct):
    digit: str = ""


class _FromProvider(msgspec.Struct, rename="camel"):
    event: str
    stream_sid: str = ""
    start: _Start | None = None
    media: _Media | None = None
    mark: _Mark | None = None
    dtmf: _Key | None = None


class TelephoneCall(Line[str]):
    """One call. Give its `microphone` and `speaker` to a session once it has `started`.

    Give the session `AudioOutputConfig(device_rate_hz=8000)`: a telephone has no other rate. `keys` has what the caller
    presses; when full the oldest key is dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started = trio.Event()
        """The provider has said what the call is."""
        self.stream_id = self.call_id = ""
        self.parameters: dict[str, Any] = {}
        """What the application gave the provider for this call."""
        self.encoding: Literal["pcmu", "pcma"] = "pcmu"
        self._keys = DropOldest[str](KEYS_CAPACITY)
        self.keys = self._keys.receiver
        self._microphone: _Reframed | None = None
        self._speaker: RemoteSpeaker | None = None

    @property
    def microphone(self) -> TelephoneMicrophone:
        return TelephoneMicrophone(self)

    @property
    def speaker(self) -> TelephoneSpeaker:
        return TelephoneSpeaker(self)

    def received(self, message: str) -> None:
        try:
            news = msgspec.json.decode(message, type=_FromProvider)
        except msgspec.MsgspecError as error:
            raise DeviceError(f"the provider sent what is no event of a media stream: {error}") from None
        match news.event:
            case "start" if news.start is not None:
                self._begin(news.start, news.stream_sid)
            case "media" if news.media is not None and news.media.track == "inbound":
                self._heard(news.media.payload)
            case "mark" if news.mark is not None and self._speaker is not None:
                run, _, samples = news.mark.name.partition(":")
                if run.isdecimal() and samples.isdecimal():  # or else it is a mark of the application's own
                    self._speaker.progressed(int(run), int(samples))
            case "dtmf" if news.dtmf is not None:
                self._keys.send_nowait(news.dtmf.digit)
            case "stop":
                self.hang_up("the call has ended")

    def play(self, pcm: bytes, run: int, end_samples: int) -> None:
        payload = base64.b64encode(encode_g711(pcm, self.encoding)).decode()
        self._tell("media", media={"payload": payload})
        self._tell("mark", mark={"name": f"{run}:{end_samples}"})

    def forget(self, run: int) -> None:
        self._tell("clear")

    def hang_up(self, reason: str) -> None:
        super().hang_up(reason)
        self._keys.close()

    def _begin(self, start: _Start, stream_id: str) -> None:
        heard = start.media_format
        if heard.encoding not in ENCODINGS or heard.sample_rate != RATE_HZ:
            raise DeviceError(
                f"the provider sends {heard.encoding} at {heard.sample_rate} Hz; G.711 at {RATE_HZ} Hz is understood: "
                f"{' or '.join(ENCODINGS)}"
            )
        self.encoding = ENCODINGS[heard.encoding]
        self.stream_id, self.call_id = start.stream_sid or stream_id, start.call_sid
        self.parameters = start.custom_parameters
        self.started.set()

    def _heard(self, payload: str) -> None:
        if self._microphone is None:
            return
        try:
            companded = base64.b64decode(payload, validate=True)
        except ValueError as error:
            raise DeviceError(f"the provider sent sound that is no base64: {error}") from None
        self._microphone.take(decode_g711(companded, self.encoding))

    def _tell(self, event: str, **fields: Any) -> None:
        self.send(msgspec.json.encode({"event": event, "streamSid": self.stream_id, **fields}).decode())


@attrs.define(eq=False)
class _Reframed:
    """The telephone's sound, at the session's rate and in its frames."""

    opened: RemoteMicrophone
    frame_bytes: int
    resampler: StreamResampler
    rest: bytes = b""

    def take(self, pcm: bytes) -> None:
        sound = self.rest + self.resampler.convert(pcm)
        whole = len(sound) - len(sound) % self.frame_bytes
        for start in range(0, whole, self.frame_bytes):
            self.opened.heard(sound[start : start + self.frame_bytes])
        self.rest = sound[whole:]


@attrs.frozen
class TelephoneMicrophone:
    """What the caller says, at any rate."""

    call: TelephoneCall
    name: str = "the caller's telephone"

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, frame_ms: int) -> AsyncIterator[OpenMicrophone]:
        self.call.check_there(self.name)
        opened = RemoteMicrophone(self.name, self.call, frame_ms / 1000)
        resampler = StreamResampler(RATE_HZ, audio_format.rate_hz)
        self.call._microphone = _Reframed(opened, audio_format.bytes_of_ms(frame_ms), resampler)
        try:
            yield opened
        finally:
            self.call._microphone = None


@attrs.frozen
class TelephoneSpeaker:
    """What the caller hears, at 8 kHz."""

    call: TelephoneCall
    name: str = "the caller's telephone"
    ahead_ms: int = AHEAD_MS

    @asynccontextmanager
    async def open(self, audio_format: AudioFormat, pull: Pull) -> AsyncIterator[OpenSpeaker]:
        if audio_format.rate_hz != RATE_HZ:
            raise DeviceError(
                f"{self.name} takes {RATE_HZ} Hz, not {audio_format.rate_hz}: give the session "
                f"AudioOutputConfig(device_rate_hz={RATE_HZ})"
            )
        self.call.check_there(self.name)
        ahead_samples = audio_format.samples_of_ms(self.ahead_ms)
        opened = self.call._speaker = RemoteSpeaker(self.name, self.call, audio_format, ahead_samples, BLOCK_MS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.feed, pull)
            try:
                yield opened
            finally:
                self.call._speaker = None
                nursery.cancel_scope.cancel()
