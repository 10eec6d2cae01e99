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
SINKS = ("speaker", "micfeed", "loose_speaker", "loose_micfeed")
"""`loose_…` are there to be unplugged by a test."""

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
    if not any(
        list(Path(f).glob("**/alsa-lib/libasound_module_pcm_pulse.so")) for f in folders if Path(f).exists()
    ):
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


@attrs.define
class AudioLab:
    """A running lab: the ALSA names of its devices, and hands to play, listen, unplug, stall and kill."""

    folder: Path
    environ: Mapping[str, str]
    daemon: subprocess.Popen[bytes]

    speaker: str = "lab_speaker"
    microphone: str = "lab_microphone"
    loose_speaker: str = "lab_loose_speaker"
    loose_microphone: str = "lab_loose_microphone"

    def pactl(self, *arguments: str) -> str:
        run = subprocess.run(
            ["pactl", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=READY_LIMIT_S,
            check=True,
        )
        return run.stdout

    async def play(self, pcm: bytes, sink: str = "micfeed") -> None:
        """Play `pcm16` at 24 kHz into a sink; returns when all of it has sounded."""
        command = [
            "paplay",
            "--raw",
            "--format=s16le",
            f"--rate={RATE_HZ}",
            "--channels=1",
            f"--device={sink}",
        ]
        await trio.run_process(command, stdin=pcm, env=self.environ)

    @contextlib.asynccontextmanager
    async def listen(self, sink: str = "speaker") -> AsyncIterator[Heard]:
        """Hear what a sink plays, from the first sample after entering until leaving."""
        heard = Heard()
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process(
                _parec(f"{sink}.monitor"), stdout=subprocess.PIPE, env=self.environ
            )
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

    def unplug(self, sink: str) -> None:
        """Take a sink away, as when a headset is pulled out. `plug` brings it back."""
        for line in self.pactl("list", "short", "modules").splitlines():
            number, name, arguments = [*line.split("\t"), "", ""][:3]
            if name == "module-null-sink" and f"sink_name={sink} " in arguments + " ":
                self.pactl("unload-module", number)

    def plug(self, sink: str) -> None:
        self.pactl("load-module", *_null_sink(sink))


def _null_sink(name: str) -> list[str]:
    return ["module-null-sink", f"sink_name={name}", f"rate={RATE_HZ}", "channels=1", "format=s16le"]


def _parec(source: str) -> list[str]:
    layout = ["--raw", "--format=s16le", f"--rate={RATE_HZ}", "--channels=1"]
    return ["parec", *layout, "--latency-msec=10", f"--device={source}"]


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
        own = _private_settings(folder)
        environ = {**os.environ, **own}
        log = ends.enter_context((folder / "pulseaudio.log").open("wb"))
        daemon = subprocess.Popen(_pulseaudio(folder), env=environ, stdout=log, stderr=log)
        ends.callback(_end, daemon)
        lab = AudioLab(folder, environ, daemon)
        _wait_until_ready(lab)
        # A null sink that nobody hears sleeps for up to 2 s at a time. With its monitor held open, and awake,
        # the first callback of a device comes within 30 ms.
        awake = [_hold(ends, sink, environ) for sink in SINKS]
        for heard in awake:
            if not heard.wait(READY_LIMIT_S):
                raise LabUnavailable("a null sink gives no sound; is this machine overloaded?")
        ends.enter_context(_environment(own))
        yield lab


def _private_settings(folder: Path) -> dict[str, str]:
    socket = folder / "pulse.sock"
    pcms = {f"lab_{sink}": sink for sink in SINKS if "speaker" in sink}
    pcms |= {"lab_microphone": "mic", "lab_loose_microphone": "loose_micfeed.monitor"}
    config = folder / "alsa.conf"
    config.write_text(
        # Redefining pcm.pulse, which the included file has, breaks the whole configuration.
        "</usr/share/alsa/alsa.conf>\npcm.!default { type pulse }\nctl.!default { type pulse }\n"
        + "".join(_PCM.format(name=name, socket=socket, device=device) for name, device in pcms.items())
    )
    return {
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_COOKIE": str(folder / "cookie"),
        "ALSA_CONFIG_PATH": str(config),
    }


def _pulseaudio(folder: Path) -> list[str]:
    modules = [["module-native-protocol-unix", f"socket={folder / 'pulse.sock'}", "auth-anonymous=1"]]
    modules += [_null_sink(sink) for sink in SINKS]
    modules += [["module-remap-source", "source_name=mic", "master=micfeed.monitor"]]
    quiet = [
        "-n",
        "--daemonize=no",
        "--exit-idle-time=-1",
        "--use-pid-file=no",
        "--realtime=no",
        "--high-priority=no",
    ]
    return ["pulseaudio", *quiet, *(part for module in modules for part in ("-L", " ".join(module)))]


def _wait_until_ready(lab: AudioLab) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            lab.pactl("set-default-sink", "speaker")
            lab.pactl("set-default-source", "mic")
            return
        except subprocess.CalledProcessError as error:
            if lab.daemon.poll() is not None or time.monotonic() > deadline:
                log = (lab.folder / "pulseaudio.log").read_text(errors="replace")[-2000:]
                raise LabUnavailable(f"PulseAudio does not answer: {error.stderr.strip()}\n{log}") from error
            time.sleep(0.02)  # between two questions, not instead of one


def _hold(ends: contextlib.ExitStack, sink: str, environ: Mapping[str, str]) -> threading.Event:
    """Record a sink's monitor into nothing; the event is set once it has sounded."""
    process = subprocess.Popen(_parec(f"{sink}.monitor"), env=environ, stdout=subprocess.PIPE)
    stdout, awake = process.stdout, threading.Event()
    assert stdout is not None

    def discard() -> None:
        while stdout.read(480):
            awake.set()

    thread = threading.Thread(target=discard, name=f"audio-lab hold {sink}")
    thread.start()
    ends.callback(stdout.close)
    ends.callback(thread.join)
    ends.callback(_end, process)
    return awake


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
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
    sounddevice = sys.modules.get("sounddevice")
    if sounddevice is not None:
        sounddevice._terminate()
        sounddevice._initialize()
