"""The microphone and the loudspeaker of this computer, through PortAudio.

PortAudio calls back on a thread of its own. The invariant here: that thread touches nothing of Trio. It
appends to a bounded queue or fills a block from `pull`, and writes one byte to a non-blocking socket pair
that a Trio task waits for. (Of the ways to wake Trio this had the cheapest callback under load: the wake
took 174 µs p50, against 341 µs for `run_sync_soon`, which besides fails in the audio thread once the run
is over. A socket pair rather than a pipe, as Windows can wait for sockets alone.)

Opening and closing run in a worker thread, since both may wait for a sound server. Closing is bounded: a
frozen PulseAudio keeps `abort()` waiting for as long as it is frozen (measured), so after `CLOSE_LIMIT_S`
the thread is left to finish alone.
"""

from __future__ import annotations

import atexit
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Self, TypeAlias

import trio

from trio_voice.audio import BYTES_PER_SAMPLE, AudioFormat, Frame
from trio_voice.devices import DeviceCounters, Pull
from trio_voice.devices.capture_queue import CaptureQueue
from trio_voice.devices.sound_system import (
    NO_SOUND,
    DeviceInfo as DeviceInfo,
    Kind,
    find_device as find_device,
    list_devices as list_devices,
    listed,
    load_sounddevice,
    look_anew,
    open_streams,
    opening,
)
from trio_voice.errors import DeviceError
from trio_voice.logs import log

Latency: TypeAlias = Literal["low", "high"] | float

CLOSE_LIMIT_S = 1.0
STALL_LIMIT_S = 2.0
"""A running device that has not called back for this long has failed: a suspended one reports nothing. Blocks are
20 ms apart; a sound server that moves a stream to another device takes up to about a second."""
START_LIMIT_S = 5.0
"""For the first callback: a sleeping null sink takes 2 s, a wireless headset as long."""
LOOKS = 4
"""In a row, evenly over the limit, at which nothing must have come: so a process that was itself stopped, or whose
event loop was blocked, does not take that for the device's silence."""
USED_STACKS = 5


STOPPED = "stopped by itself: unplugged, or its sound server has gone"
PRIMING = 4
"""Callbacks at the start that come as quickly as they are answered, to fill the device."""

_ADVICE = {
    -9997: "The device does not do {rate_hz} Hz. Choose one that converts (`default` or `pulse` on Linux)",
    -9998: "The device does not do mono. Choose one that converts (`default` or `pulse` on Linux)",
    -9996: "The device has gone, or was never there. Plug it in and start again",
    -9985: "Another program holds the device. End that program, or choose the device of the sound server",
    -9993: "The device has gone, or the sound server does not answer. Plug it in, or `pulseaudio --start`",
    -9999: "The sound system refused. Is the sound server running, and may this user use it (group `audio`)?",
}
"""What PortAudio's error codes mean here, and what to do."""


@contextlib.contextmanager
def _stacks_taken() -> Iterator[None]:
    """Meanwhile a new thread gets a stack of zeros.

    Where a device gives nothing at first, PortAudio 19.6 on ALSA reads a variable that its audio thread has never set,
    and spins for ever, if that is not 0. glibc reuses the stacks of ended threads, with what is in them: up to 40 MB of
    them, five of the usual size. In the lab's tests of recovery it came in three runs of
    three, and with new stacks in none of three.
    """
    release = threading.Event()
    takers = [threading.Thread(target=release.wait, name="stack taker", daemon=True) for _ in range(USED_STACKS + 1)]
    for taker in takers:
        taker.start()
    try:
        yield
    finally:
        release.set()
        for taker in takers:
            taker.join()


class _Stream:
    """What both directions share: opening, failing, closing, and the byte that wakes Trio."""

    _kind: Kind

    def __init__(self, wanted: str | int | None, latency: Latency, rate_hz: int, block_samples: int) -> None:
        self._wanted = wanted
        self._latency = latency
        self._rate_hz = rate_hz
        self._block_samples = block_samples
        self._stream: Any = None
        self._leaving = False
        self._finished = False
        self._stalled = False
        self._callbacks = 0
        self._called_back_at = 0.0
        self.counters = DeviceCounters()
        self._handover = threading.Lock()
        """Held to pass a stream from a worker thread to Trio, and to close the audio thread's socket."""
        self.name = "?"

    # --- in a worker thread ---

    def _start(self) -> None:
        """Open and start the device. If nobody waits for it any more, close it again."""
        sounddevice = load_sounddevice()
        stream = None
        try:
            with opening:
                look_anew(sounddevice)
                device = find_device(self._wanted, self._kind, listed(sounddevice))
                self.name = device.name
                open_stream = sounddevice.RawInputStream if self._kind == "input" else sounddevice.RawOutputStream
                stream = open_stream(
                    samplerate=self._rate_hz,
                    blocksize=self._block_samples,
                    device=device.index,
                    channels=1,
                    dtype="int16",
                    latency=self._latency,
                    callback=self._called_back,
                    finished_callback=self._finished_called_back,
                )
                open_streams.add(stream)
            with _stacks_taken():
                stream.start()
        except sounddevice.PortAudioError as error:
            if stream is not None:
                self._stop(stream)
            raise self._refused(error) from error
        with self._handover:
            if not self._leaving:
                self._stream = stream
                return
        self._stop(stream)

    @staticmethod
    def _stop(stream: Any) -> None:
        """End a stream and lose what was not yet played: PortAudio's `stop()` would wait for it."""
        stream.abort()
        with opening:
            stream.close()
            open_streams.discard(stream)

    def _refused(self, error: Exception) -> DeviceError:
        code = error.args[1] if len(error.args) > 1 else None
        advice = "Choose another device: `trio-voice devices` lists them"
        if isinstance(code, int):
            advice = _ADVICE.get(code, advice).format(rate_hz=self._rate_hz)
        return DeviceError(f"The {self._kind} device {self.name!r} cannot be opened: {error}. {advice}. {NO_SOUND}")

    # --- in the audio thread ---

    def _called_back(self, block: Any, frames: int, times: Any, status: Any) -> None:
        now = times.currentTime
        if self._callbacks > PRIMING and now - self._called_back_at > 2 * frames / self._rate_hz:
            self.counters.late_callbacks += 1
        self._called_back_at = now
        self._callbacks += 1
        if status.output_underflow or status.input_overflow:
            self.counters.underflows += 1

    def _finished_called_back(self) -> None:
        self._finished = True
        self._wake()

    def _wake(self) -> None:
        with self._handover:
            try:
                self._wake_send.send(b"\0")
            except OSError:  # full: there are bytes enough to wake Trio; closed: nobody waits any more
                pass

    # --- in the Trio thread ---

    async def _woken(self) -> None:
        await trio.lowlevel.wait_readable(self._wake_receive)
        with contextlib.suppress(BlockingIOError):
            self._wake_receive.recv(4096)

    async def _woken_or_stalled(self) -> None:
        """Wait until the audio thread has something to say, or has not called back for too long: `_stalled`."""
        quiet_looks, seen = 0, self._callbacks
        while quiet_looks < LOOKS:
            with trio.move_on_after(self._limit_s / LOOKS) as scope:
                await self._woken()
            if not scope.cancelled_caught:
                return
            quiet_looks = quiet_looks + 1 if self._callbacks == seen else 0
            seen = self._callbacks
        self._stalled = True

    @property
    def _limit_s(self) -> float:
        return STALL_LIMIT_S if self._callbacks else START_LIMIT_S

    def _failed(self, how: str) -> DeviceError:
        return DeviceError(
            f"The {self._kind} device {self.name!r} {how}. "
            f"Plug it in, or choose another: `trio-voice devices` lists them. {NO_SOUND}"
        )

    def _stream_time(self) -> float | None:
        """PortAudio's clock; None once the stream is gone."""
        try:
            return float(self._stream.time)
        except Exception:  # PortAudioError of a dead stream, AttributeError of none
            return None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Cancellation: an opening is abandoned at once; its thread closes the device when it comes back."""
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        try:
            await trio.to_thread.run_sync(self._start, abandon_on_cancel=True)
            log.debug("device.opened", device=self.name, kind=self._kind)
            yield self
        finally:
            await self._close()

    async def _close(self) -> None:
        with self._handover:
            self._leaving = True
            stream, self._stream = self._stream, None
        if stream is not None:
            with trio.move_on_after(CLOSE_LIMIT_S, shield=True) as scope:
                await trio.to_thread.run_sync(self._stop, stream, abandon_on_cancel=True)
            if scope.cancelled_caught:
                # At exit sounddevice would abort this stream again and wait for ever: PortAudio 19.6 spins in a
                # stream whose sound server died before the first callback (reproduced, about 1 in 8).
                atexit.unregister(load_sounddevice()._exit_handler)
                log.warning("device.close_abandoned", device=self.name, kind=self._kind, after_s=CLOSE_LIMIT_S)
        trio.lowlevel.notify_closing(self._wake_receive)
        self._wake_receive.close()
        with self._handover:
            self._wake_send.close()


class _OpenMicrophone(_Stream):
    _kind = "input"

    def __init__(
        self, wanted: str | int | None, latency: Latency, rate_hz: int, block_samples: int, frame_samples: int
    ) -> None:
        super().__init__(wanted, latency, rate_hz, block_samples)
        self._queue = CaptureQueue(rate_hz, frame_samples)
        self._clock_offset = 0.0

    @property
    def dropped_frames(self) -> int:
        return self._queue.dropped_frames

    def _called_back(self, block: Any, frames: int, times: Any, status: Any) -> None:
        super()._called_back(block, frames, times, status)
        arrived = times.currentTime
        # Some host APIs leave the ADC time at 0.
        adc_time = times.inputBufferAdcTime or arrived - frames / self._rate_hz
        self._queue.push(bytes(block), adc_time, arrived)
        self._wake()

    async def receive(self) -> Frame:
        await trio.lowlevel.checkpoint()
        while True:
            taken = self._queue.take_frame()
            if taken is not None:
                pcm, adc_time = taken
                now = self._stream_time()
                if now is not None:  # measured anew each time, 3 µs: PortAudio's clock on Linux is the wall clock
                    self._clock_offset = trio.current_time() - now
                return Frame(pcm, captured_at=adc_time + self._clock_offset)
            if self._finished:
                raise self._failed(STOPPED)
            await self._woken_or_stalled()
            if self._stalled:
                raise self._failed(f"has given no sound for {self._limit_s:g} s")


class _OpenSpeaker(_Stream):
    _kind = "output"

    def __init__(
        self, wanted: str | int | None, latency: Latency, rate_hz: int, block_samples: int, pull: Pull
    ) -> None:
        super().__init__(wanted, latency, rate_hz, block_samples)
        self._pull = pull
        self._pulled_samples = 0
        self._last_block: tuple[float, float, int] | None = None
        self._fault: Exception | None = None

    def _called_back(self, block: Any, frames: int, times: Any, status: Any) -> None:
        super()._called_back(block, frames, times, status)
        size = frames * BYTES_PER_SAMPLE
        try:
            pcm = self._pull(frames)
            if len(pcm) != size:
                raise ValueError(f"pull({frames}) gave {len(pcm)} bytes instead of {size}")
        except Exception as error:
            pcm = bytes(size)
            if self._fault is None:
                self._fault = error
                self._wake()
        block[:] = pcm
        self._pulled_samples += frames
        dac_end = (times.outputBufferDacTime or times.currentTime) + frames / self._rate_hz
        self._last_block = (
            dac_end,
            times.currentTime,
            self._pulled_samples,
        )  # one store: the reader sees all or none

    def unheard_samples(self) -> int:
        if self._last_block is None:
            return 0
        dac_end, called_back_at, pulled_samples = self._last_block
        now = None if self._finished or self._stalled else self._stream_time()
        # What a dead device had not played when it was last heard of, it will not play.
        unheard = round((dac_end - (now or called_back_at)) * self._rate_hz)
        return min(max(unheard, 0), pulled_samples)

    async def wait_failed(self) -> DeviceError:
        while True:
            if self._fault is not None:
                failed = self._failed(f"was given silence, because what feeds it raised {self._fault!r}")
                failed.__cause__, failed.retryable = self._fault, False
                return failed
            if self._finished:
                return self._failed(STOPPED)
            if self._stalled:
                return self._failed(f"has asked for no sound for {self._limit_s:g} s")
            await self._woken_or_stalled()


class PortAudioMicrophone:
    """A microphone of this computer, by number, by name or part of one, or the default."""

    def __init__(
        self, device: str | int | None = None, latency: Latency = "low", block_samples: int | None = None
    ) -> None:
        """PortAudio is asked to call back with `block_samples`: a frame unless said, 0 for what it likes."""
        self._device = device
        self._latency: Latency = latency
        self._block_samples = block_samples

    @property
    def name(self) -> str:
        return "default microphone" if self._device is None else str(self._device)

    def open(self, audio_format: AudioFormat, frame_ms: int) -> AbstractAsyncContextManager[_OpenMicrophone]:
        _require_pcm16(audio_format)
        frame_samples = audio_format.samples_of_ms(frame_ms)
        block_samples = frame_samples if self._block_samples is None else self._block_samples
        opened = _OpenMicrophone(self._device, self._latency, audio_format.rate_hz, block_samples, frame_samples)
        return opened.running()


class PortAudioSpeaker:
    """A loudspeaker of this computer, by number, by name or part of one, or the default."""

    def __init__(self, device: str | int | None = None, latency: Latency = "low", block_samples: int = 480) -> None:
        """The device asks for `block_samples` at a time: fewer fall silent sooner, and wake us oftener.

        From clearing the buffer to silence on a PulseAudio sink at 24 kHz: 480 samples (20 ms, a frame)
        59 ms, 240 samples 32 ms, 128 samples 14 ms. 480 is well inside the 100 ms aimed at, and gives an
        audio thread that competes for the interpreter's lock 20 ms to get it, instead of 5.
        """
        self._device = device
        self._latency: Latency = latency
        self._block_samples = block_samples

    @property
    def name(self) -> str:
        return "default loudspeaker" if self._device is None else str(self._device)

    def open(self, audio_format: AudioFormat, pull: Pull) -> AbstractAsyncContextManager[_OpenSpeaker]:
        _require_pcm16(audio_format)
        opened = _OpenSpeaker(self._device, self._latency, audio_format.rate_hz, self._block_samples, pull)
        return opened.running()


def _require_pcm16(audio_format: AudioFormat) -> None:
    if audio_format.encoding != "pcm16":
        reason = f"A sound card takes pcm16, not {audio_format.encoding}: G.711 is for telephony."
        raise DeviceError(reason, retryable=False)
