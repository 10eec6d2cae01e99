"""A telephone call as devices: a provider that plays in real time, echoes marks, and clears when told to."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_client_stream

from kit import URL
from trio_voice import AudioFormat, AudioOutputConfig, RealtimeAgent, RealtimeSession, events
from trio_voice.audio import Samples, decode_g711, encode_g711, samples_of
from trio_voice.devices.line_server import serve, telephone_app
from trio_voice.devices.telephone import AHEAD_MS, TelephoneCall
from trio_voice.errors import DeviceError
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Say, ScriptedBrain, tone

PHONE = AudioOutputConfig(device_rate_hz=8000, fade_ms=0)
FRAME_S = 0.02
SILENT_FRAME = encode_g711(bytes(320), "pcmu")


def start(encoding: str = "audio/x-mulaw", rate: int = 8000) -> str:
    media = {"encoding": encoding, "sampleRate": rate, "channels": 1}
    details = {"streamSid": "MZ1", "callSid": "CA1", "mediaFormat": media, "customParameters": {"customer": "C-7"}}
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": details})


@attrs.define(eq=False)
class Provider:
    """The other end of the line: the telephone of a caller."""

    call: TelephoneCall
    encoding: Any = "pcmu"
    speech: list[bytes] = attrs.Factory(list)
    heard: list[bytes] = attrs.Factory(list)
    """What came out of the caller's earpiece, frame by frame."""
    cleared: int = 0
    _buffer: list[dict[str, Any]] = attrs.Factory(list)

    def say(self, samples: Samples) -> None:
        sound = encode_g711(samples.tobytes(), self.encoding)
        self.speech += [sound[start : start + 160].ljust(160, self.silence[:1]) for start in range(0, len(sound), 160)]

    @property
    def silence(self) -> bytes:
        return encode_g711(bytes(320), self.encoding)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take)
            due_at = trio.current_time()
            while not self.call.gone.is_set():
                frame = self.speech.pop(0) if self.speech else self.silence
                payload = base64.b64encode(frame).decode()
                self.call.received(json.dumps({"event": "media", "media": {"track": "inbound", "payload": payload}}))
                self._play_one()
                due_at += FRAME_S
                await trio.sleep_until(due_at)
            nursery.cancel_scope.cancel()

    async def _take(self) -> None:
        async for message in self.call.outbound:
            item = json.loads(message)
            assert item["streamSid"] == "MZ1"
            if item["event"] == "clear":
                self.cleared += 1
                marks = [waiting for waiting in self._buffer if waiting["event"] == "mark"]
                self._buffer.clear()
                for mark in marks:
                    self._echo(mark)
            else:
                self._buffer.append(item)

    def _play_one(self) -> None:
        if self._buffer:
            self.heard.append(base64.b64decode(self._buffer.pop(0)["media"]["payload"]))
        while self._buffer and self._buffer[0]["event"] == "mark":
            self._echo(self._buffer.pop(0))

    def _echo(self, mark: dict[str, Any]) -> None:
        self.call.received(json.dumps({"event": "mark", "streamSid": "MZ1", "mark": mark["mark"]}))

    def sound(self) -> Samples:
        return samples_of(b"".join(decode_g711(frame, self.encoding) for frame in self.heard))


def loud_ms(samples: Samples) -> float:
    return float(np.count_nonzero(np.abs(samples.astype(np.int32)) > 500)) / 8


@pytest.mark.parametrize(("media", "encoding"), [("audio/x-mulaw", "pcmu"), ("audio/x-alaw", "pcma")])
async def test_a_call_is_answered_interrupted_and_cut_where_the_caller_stopped_hearing(
    media: str, encoding: str, autojump_clock: MockClock
) -> None:
    story = Say("Once upon a time.", samples=np.full(6 * 24_000, 8000, np.int16))
    answer = Say("Yes?", samples=np.full(24_000 // 2, 8000, np.int16))
    brain = ScriptedBrain([story, answer])
    call = TelephoneCall()
    call.received(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
    call.received(start(media))
    assert (call.call_id, call.parameters) == ("CA1", {"customer": "C-7"})
    provider = Provider(call, encoding)
    async with trio.open_nursery() as nursery:

        async def open_stream() -> Any:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(serve_stream, theirs, brain)
            await trio.lowlevel.checkpoint()
            return ours

        session = RealtimeSession(
            RealtimeAgent(),
            connection=URL,
            microphone=call.microphone,
            speaker=call.speaker,
            open_stream=open_stream,
            audio_output=PHONE,
        )
        stream = session.events()
        async with session:
            nursery.start_soon(provider.run)
            await session.start_listening()
            provider.say(tone(440, 800, 8000))
            await stream.wait_for(events.PlaybackStart)
            await trio.sleep(2)
            provider.say(tone(440, 800, 8000))
            interruption = await stream.wait_for(events.Interruption)
            heard_before_ms = loud_ms(provider.sound())
            await stream.wait_for(events.PlaybackEnd)
            await trio.sleep(1)
        assert provider.cleared == 1
        assert abs(interruption.heard_ms - heard_before_ms) <= 40
        assert abs(loud_ms(provider.sound()) - heard_before_ms - 500) <= 40, "the story is gone, the answer is whole"
        call.hang_up("the test is over")
        nursery.cancel_scope.cancel()


async def test_marks_of_before_a_clear_are_not_believed(autojump_clock: MockClock) -> None:
    call = TelephoneCall()
    call.received(start())
    async with call.speaker.open(AudioFormat("pcm16", 8000), lambda count: b"\1\1" * count) as opened:
        await trio.sleep(0.001)
        assert opened.unheard_samples() == AHEAD_MS * 8
        call.received(json.dumps({"event": "mark", "mark": {"name": "0:160"}}))
        assert opened.unheard_samples() == AHEAD_MS * 8 - 160
        opened.flush()  # type: ignore[attr-defined]  # this kind can be flushed
        call.received(json.dumps({"event": "mark", "mark": {"name": "0:800"}}))
        await trio.sleep(0.021)
        assert opened.unheard_samples() == AHEAD_MS * 8
        call.received(json.dumps({"event": "mark", "mark": {"name": "the application's own"}}))


async def test_a_telephone_has_one_rate(autojump_clock: MockClock) -> None:
    call = TelephoneCall()
    with pytest.raises(DeviceError, match="device_rate_hz=8000"):
        async with call.speaker.open(AudioFormat("pcm16", 24_000), bytes):
            pass


async def test_what_the_caller_says_comes_in_the_session_s_rate_and_frames(autojump_clock: MockClock) -> None:
    call = TelephoneCall()
    call.received(start())
    spoken = tone(440, 1000, 8000)
    async with call.microphone.open(AudioFormat("pcm16", 24_000), 20) as opened:
        heard = b""
        for place in range(0, 8000, 160):
            payload = base64.b64encode(encode_g711(spoken[place : place + 160].tobytes(), "pcmu")).decode()
            call.received(json.dumps({"event": "media", "media": {"track": "inbound", "payload": payload}}))
            call.received(json.dumps({"event": "media", "media": {"track": "outbound", "payload": payload}}))
            with trio.move_on_after(0.001):
                while True:
                    frame = await opened.receive()
                    assert len(frame.pcm) == 960
                    heard += frame.pcm
        call.received(json.dumps({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "5"}}))
        assert await call.keys.receive() == "5"
        call.received(json.dumps({"event": "stop"}))
        with pytest.raises(DeviceError, match="the call has ended"):
            await drain(opened)
    samples = samples_of(heard)
    assert 900 * 24 <= len(samples) <= 1000 * 24
    spectrum = np.abs(np.fft.rfft(samples[4800:]))
    assert abs(np.argmax(spectrum) * 24_000 / len(samples[4800:]) - 440) < 3


async def drain(microphone: Any) -> None:
    while True:
        await microphone.receive()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("hello", "no event of a media stream"),
        ("{}", "no event of a media stream"),
        (start("audio/opus"), "audio/opus at 8000 Hz"),
        (start(rate=16_000), "16000 Hz"),
    ],
)
def test_what_is_no_media_stream_is_refused(message: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        TelephoneCall().received(message)


async def test_sound_that_is_no_base64_is_refused(autojump_clock: MockClock) -> None:
    call = TelephoneCall()
    async with call.microphone.open(AudioFormat("pcm16", 8000), 20):
        with pytest.raises(DeviceError, match="no base64"):
            call.received(json.dumps({"event": "media", "media": {"payload": "§"}}))


async def test_a_real_socket_is_handled_from_its_start_to_its_stop() -> None:
    handled: list[str] = []
    cancelled = trio.Event()

    async def handle(call: TelephoneCall) -> None:
        handled.append(call.call_id)
        try:
            async with call.microphone.open(AudioFormat("pcm16", 8000), 20) as opened:
                handled.append(str(len((await opened.receive()).pcm)))
                await trio.sleep_forever()
        finally:
            cancelled.set()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve, telephone_app(handle)))
        host, _, port = address.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            socket = await wrap_client_stream(nursery, stream, f"{host}:{port}", "/call")
            await socket.send_message(start())
            payload = base64.b64encode(SILENT_FRAME).decode()
            with trio.fail_after(20):
                while len(handled) < 2:
                    await socket.send_message(json.dumps({"event": "media", "media": {"payload": payload}}))
                    await trio.sleep(FRAME_S)
                await socket.send_message(json.dumps({"event": "stop"}))
                await cancelled.wait()
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.get_message()
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (1000, "the call has ended")
        nursery.cancel_scope.cancel()
    assert handled == ["CA1", "320"]
