"""A private PulseAudio with null sinks, so that real PortAudio runs where there is no sound card.

Null sinks consume sound in real time and offer it again on a monitor, so a test hears exactly what a device
played, and a device records exactly what a test played. The one invariant: everything lives in a private
folder and ends with it; no other PulseAudio, ALSA configuration or process of the user is touched.

    with audio_lab() as lab:
        PortAudioSpeaker(lab.speaker) ...
        async with lab.listen("speaker") as heard: ...
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import attrs
import trio

RATE_HZ = 24_000
READY_LIMIT_S = 10.0
_LAYOUT = ["--raw", "--format=s16le", f"--rate={RATE_HZ}", "--channels=1"]

_PCM = """\
pcm.{name} {{
  type pulse
  server "unix:{socket}"
  device "{device}"
  hint {{ show on description "{name}" }}
}}
"""


class LabUnavailable(Exception):
    """This machine cannot run the audio lab; the message names what is missing."""


def missing_parts() -> str | None:
    """What the lab would need, or None when it can start."""
    programs = [name for name in ("pulseaudio", "pactl", "parec", "paplay") if shutil.which(name) is None]
    if programs:
        return f"{', '.join(programs)} not installed (apt-get install pulseaudio pulseaudio-utils)"
    import ctypes.util

    if ctypes.util.find_library("portaudio") is None:
        return "libportaudio2 not installed (apt-get install libportaudio2)"
    folders = ("/usr/lib", "/usr/lib64")
    if not any(list(Path(f).glob("**/alsa-lib/libasound_module_pcm_pulse.so")) for f in folders if Path(f).exists()):
        return "the pulse plugin of ALSA is not installed (apt-get install libasound2-plugins)"
    return None


@attrs.define
class Heard:
    """What has come out of a sink so far."""

    pcm: bytearray = attrs.field(factory=bytearray)
    _grew: trio.Event = attrs.field(factory=trio.Event)

    def add(self, chunk: bytes) -> None:
        self.pcm += chunk
        self._grew.set()
        self._grew = trio.Event()

    async def until(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Wait until what was heard satisfies `wanted`, and give all of it."""
        while not wanted(bytes(self.pcm)):
            await self._grew.wait()
        return bytes(self.pcm)

    async def until_longer_by(self, duration_ms: int) -> bytes:
        """Wait for this much more sound: in a lab, the clock is the sink."""
        size = len(self.pcm) + duration_ms * RATE_HZ // 1000 * 2
        return await self.until(lambda pcm: len(pcm) >= size)


class SoundServer:
    """One PulseAudio with two null sinks, `speaker` and `micfeed`, and a microphone `mic` that hears `micfeed`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.socket = folder / "pulse.sock"
        self.environ = {
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{self.socket}",
            "PULSE_COOKIE": str(folder / "cookie"),
        }
        self._log = folder / "pulseaudio.log"
        self.answers_at = 0.0
        """When it first answered a question since its last start, by the performance counter."""
        self._ends = contextlib.ExitStack()

    @property
    def child_environ(self) -> dict[str, str]:
        return {**os.environ, **self.environ}

    def start(self) -> None:
        """Returns once the server answers and sound flows through it."""
        sink = f"module-null-sink rate={RATE_HZ} channels=1 format=s16le sink_name="
        modules = [sink + "speaker", sink + "micfeed", "module-remap-source source_name=mic master=micfeed.monitor"]
        # Last, as in the usual configuration: who is answered finds the devices. (A stream to one that is not there yet
        # fails at its first poll, where PortAudio 19.6 may spin for ever.)
        modules += [f"module-native-protocol-unix socket={self.socket} auth-anonymous=1"]
        flags = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        flags += ["--realtime=no", "--high-priority=no"]
        command = ["pulseaudio", *flags, *(part for module in modules for part in ("-L", module))]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=self.child_environ, stdout=log, stderr=log)
        self._ends.callback(_end, self.process)
        self._wait_until_it_answers()
        self.answers_at = time.perf_counter()
        # A null sink that nobody hears sleeps for up to 2 s at a time. With its monitor held open, and awake,
        # the first callback of a device comes within 30 ms.
        for awake in [self._hold("speaker"), self._hold("micfeed")]:
            if not awake.wait(READY_LIMIT_S):
                raise LabUnavailable("a null sink gives no sound; is this machine overloaded?")

    def end(self) -> None:
        self._ends.close()

    def crash(self) -> None:
        self.process.kill()
        self.end()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + READY_LIMIT_S
        question = ["pactl", "set-default-source", "mic"]
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run = subprocess.run(question, env=self.child_environ, capture_output=True, timeout=2)
                if run.returncode == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-2000:]
                raise LabUnavailable(f"PulseAudio does not answer:\n{log}")
            time.sleep(0.02)  # between two questions, not instead of one

    def _hold(self, sink: str) -> threading.Event:
        """Record a sink's monitor into nothing; the event is set once there was sound."""
        process = subprocess.Popen(_parec(sink), env=self.child_environ, stdout=subprocess.PIPE)
        stdout, awake = process.stdout, threading.Event()
        assert stdout is not None

        def discard() -> None:
            while stdout.read(480):
                awake.set()

        thread = threading.Thread(target=discard, name=f"audio-lab {sink}")
        thread.start()
        self._ends.callback(stdout.close)
        self._ends.callback(thread.join)
        self._ends.callback(_end, process)
        return awake


@attrs.define
class AudioLab:
    """A running lab: the names of its devices, and hands to play, listen, unplug and freeze.

    The loose devices are those of a second server, which a test may crash.
    """

    _server: SoundServer
    _loose_server: SoundServer

    speaker: str = "lab_speaker"
    microphone: str = "lab_microphone"
    loose_speaker: str = "lab_loose_speaker"
    loose_microphone: str = "lab_loose_microphone"

    async def play(self, pcm: bytes) -> None:
        """Play `pcm16` at 24 kHz to the microphone; returns when all of it has sounded."""
        command = ["paplay", *_LAYOUT, "--device=micfeed"]
        await trio.run_process(command, stdin=pcm, env=self._server.child_environ)

    @contextlib.asynccontextmanager
    async def listen(self, sink: str = "speaker", *, loose: bool = False) -> AsyncIterator[Heard]:
        """Hear what a sink plays, from before entering until leaving; of the second server if `loose`."""
        heard, server = Heard(), self._loose_server if loose else self._server
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process(_parec(sink), stdout=subprocess.PIPE, env=server.child_environ)
            assert process.stdout is not None

            async def collect(stdout: trio.abc.ReceiveStream) -> None:
                async with stdout:
                    async for chunk in stdout:
                        heard.add(bytes(chunk))

            nursery.start_soon(collect, process.stdout)
            try:
                await heard.until(lambda pcm: len(pcm) > 0)
                yield heard
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """Take the loose devices away for a while.

        Their server crashes. (Taking a sink alone away does not do: PulseAudio moves its streams to another.)
        """
        self._loose_server.crash()
        try:
            yield
        finally:
            self._loose_server.start()

    @contextlib.asynccontextmanager
    async def crashed(self) -> AsyncIterator[SoundServer]:
        """As `unplugged`, while other tasks go on: `answers_at` of what it gives is when the server was back."""
        self._loose_server.crash()
        try:
            yield self._loose_server
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._loose_server.start)

    async def suspend(self, sink: str, suspended: bool) -> None:
        """Have a sink of the first server take no sound, without a word to who plays to it; or wake it."""
        command = ["pactl", "suspend-sink", sink, str(int(suspended))]
        await trio.run_process(command, env=self._server.child_environ)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the sound server in its tracks for a while: it neither answers nor hangs up."""
        self._server.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def audio_lab() -> Iterator[AudioLab]:
    """Start the lab, point this process's environment at it, and end exactly what was started.

    Raises: `LabUnavailable` when something is not installed or PulseAudio does not come up.
    """
    missing = missing_parts()
    if missing:
        raise LabUnavailable(missing)
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="audio-lab-")))
        server, loose_server = SoundServer(folder / "main"), SoundServer(folder / "loose")
        for each in (server, loose_server):
            ends.callback(each.end)
            each.start()
        config = folder / "alsa.conf"
        config.write_text(
            # Redefining pcm.pulse, which the included file has, breaks the whole configuration.
            "</usr/share/alsa/alsa.conf>\npcm.!default { type pulse }\nctl.!default { type pulse }\n"
            + _PCM.format(name="lab_speaker", socket=server.socket, device="speaker")
            + _PCM.format(name="lab_microphone", socket=server.socket, device="mic")
            + _PCM.format(name="lab_loose_speaker", socket=loose_server.socket, device="speaker")
            + _PCM.format(name="lab_loose_microphone", socket=loose_server.socket, device="mic")
        )
        ends.enter_context(_environment({**server.environ, "ALSA_CONFIG_PATH": str(config)}))
        yield AudioLab(server, loose_server)


def _parec(sink: str) -> list[str]:
    return ["parec", *_LAYOUT, "--latency-msec=10", f"--device={sink}.monitor"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables in this process for a while, and have a PortAudio that is already running read them."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    _restart_portaudio()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _restart_portaudio()


def _restart_portaudio() -> None:
    from trio_voice.devices import sound_system

    sounddevice = sys.modules.get("sounddevice")
    if sounddevice is not None and not sound_system.open_streams:  # one that cannot be closed would be waited for
        sounddevice._terminate()
        sounddevice._initialize()
