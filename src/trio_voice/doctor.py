"""What works on this machine and what to do about the rest: the checks behind `trio-voice doctor`.

An edge, off the signal path. The one invariant: a check looks and reports; it changes nothing, sends nothing off
this machine, prints no secret and never raises. The questions asked of the machine are arguments, so tests answer.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

import attrs

from trio_voice.devices import portaudio
from trio_voice.devices.portaudio import DeviceInfo
from trio_voice.errors import DeviceError
from trio_voice.server.speech.engines import EngineStatus, engines

OLDEST_PYTHON = (3, 11)
EXTRAS = {
    "local": "the offline speech stack of the local server",
    "fallback": "a small stand-in for it, where [local] has no wheel",
    "aec": "echo cancellation, noise suppression and automatic gain for the microphone",
    "otel": "spans and metrics for OpenTelemetry",
    "plot": "pictures of timelines",
}
"""The extras of the distribution, and what each is for."""

PARTS = ("detector", "recogniser", "voice")
"""Of the local server's speech stack."""

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)")
_ON_THE_HEAD = re.compile(r"head(set|phone)|ear(phone|bud|piece)|airpod", re.IGNORECASE)
_ECHO_CANCELLED = re.compile(r"echo.?cancel", re.IGNORECASE)
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@attrs.frozen
class Check:
    """One thing looked at. `remedy` is what to do; empty when there is nothing to do."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    optional: bool = False
    """Not ok is then no fault: some users want it, some never will."""


def checks(
    *,
    environ: Mapping[str, str] = os.environ,
    python: Sequence[int] = sys.version_info[:3],
    requirements: Callable[[], Sequence[str]] | None = None,
    version_of: Callable[[str], str | None] | None = None,
    list_devices: Callable[[], list[DeviceInfo]] = portaudio.list_devices,
    loopback: Callable[[], None] | None = None,
) -> list[Check]:
    """Every check, in the order in which a person would want to put things right.

    Blocks for up to a second, as PortAudio looks for devices. Raises: nothing.
    """
    version_of = version_of or _installed_version
    needed, extras = _requirements_by_extra((requirements or _own_requirements)())
    return [
        _check_python(python),
        _check_packages("packages", needed, version_of),
        *_check_devices(list_devices),
        _check_echo(list_devices, version_of),
        *(
            _check_packages(f"extra [{extra}]", extras[extra], version_of, extra=extra)
            for extra in EXTRAS
            if extra in extras
        ),
        _check_key(environ),
        _check_loopback(loopback or _echo_on_loopback),
    ]


def engine_checks(find: Callable[[], Sequence[EngineStatus]] = engines) -> list[Check]:
    """What the local server would hear and speak with: for each part the engine it takes, and the others there are.

    None is needed where the server is another one. Raises: nothing.
    """
    found = find()
    return [_check_part(part, found) for part in PARTS]


def _check_part(part: str, found: Sequence[EngineStatus]) -> Check:
    candidates = [status for status in found if status.engine.part == part]
    taken = next((status.engine.name for status in candidates if status.installed), None)
    best_is_taken = bool(candidates) and taken == candidates[0].engine.name
    states = {True: "installed", False: "missing"}
    detail = ", ".join(
        f"{status.engine.name} {'in use' if status.engine.name == taken else states[status.installed]}"
        for status in candidates
    )
    return Check(
        f"local {part}",
        best_is_taken,
        detail,
        "" if best_is_taken else "; or ".join(status.remedy for status in candidates if not status.installed),
        optional=True,
    )


def _check_python(python: Sequence[int]) -> Check:
    running = ".".join(str(part) for part in python)
    oldest = ".".join(str(part) for part in OLDEST_PYTHON)
    ok = tuple(python[:2]) >= OLDEST_PYTHON
    return Check("python", ok, running, "" if ok else f"Use Python {oldest} or newer.")


def _check_packages(
    name: str, distributions: Sequence[str], version_of: Callable[[str], str | None], *, extra: str = ""
) -> Check:
    versions = {distribution: version_of(distribution) for distribution in distributions}
    missing = [distribution for distribution, version in versions.items() if version is None]
    detail = ", ".join(f"{each} {version or 'missing'}" for each, version in versions.items()) or "none are known"
    if extra:
        detail = f"{EXTRAS[extra]}: {detail}"
    wanted = f"trio-voice[{extra}]" if extra else "trio-voice"
    remedy = f"pip install '{wanted}'" if missing else ""
    return Check(name, not missing, detail, remedy, optional=bool(extra))


def _check_devices(list_devices: Callable[[], list[DeviceInfo]]) -> list[Check]:
    try:
        devices = list_devices()
    except DeviceError as error:
        return [Check("portaudio", False, "not there", str(error))]
    except Exception as error:
        remedy = "Restart the sound server (`pulseaudio --kill; pulseaudio --start`), then look again."
        return [Check("portaudio", False, f"failed: {error!r}", remedy)]
    inputs = [(device.name, device.is_default_input) for device in devices if device.input_channels]
    outputs = [(device.name, device.is_default_output) for device in devices if device.output_channels]
    return [
        Check("portaudio", True, f"loaded, {len(devices)} devices"),
        _check_direction("microphone", inputs, "--mic question.wav"),
        _check_direction("loudspeaker", outputs, "--speaker answer.wav"),
    ]


def _check_direction(name: str, devices: list[tuple[str, bool]], flag: str) -> Check:
    if not devices:
        remedy = f"Plug one in, or start the sound server (`pulseaudio --start`), or use a file: {flag}"
        return Check(name, False, "none", remedy)
    detail = ", ".join(f"{device} (default)" if default else device for device, default in devices)
    if not any(default for _, default in devices):
        return Check(
            name, False, f"no default among: {detail}", f"Name one, as `trio-voice devices` lists them, or {flag}"
        )
    return Check(name, True, detail)


def _check_echo(list_devices: Callable[[], list[DeviceInfo]], version_of: Callable[[str], str | None]) -> Check:
    """Which echo policy fits, as far as names tell: whether somebody wears headphones is not to be known."""
    try:
        devices = list_devices()
    except Exception:  # told by the check of the devices
        devices = []
    sounding = next((device.name for device in devices if device.is_default_output), "")
    hearing = next((device.name for device in devices if device.is_default_input), "")
    if _ECHO_CANCELLED.search(hearing):
        return Check("echo", True, f"the microphone {hearing!r} cancels it by its name: --echo off", optional=True)
    if _ON_THE_HEAD.search(sounding):
        return Check("echo", True, f"{sounding!r} is worn, by its name: --echo off", optional=True)
    where = f"{sounding!r} may be a loudspeaker" if sounding else "there is no default loudspeaker to go by"
    if version_of("pywebrtc-audio") is not None:
        return Check("echo", True, f"{where}: --echo aec; with headphones --echo off", optional=True)
    remedy = "pip install 'trio-voice[aec]', then --echo aec. Headphones need neither."
    return Check("echo", False, f"{where}: --echo gate, in which nobody can interrupt by voice", remedy, optional=True)


def _check_key(environ: Mapping[str, str]) -> Check:
    key = environ.get("OPENAI_API_KEY", "")
    if not key.strip():
        remedy = "To talk to OpenAI: export OPENAI_API_KEY=… The local server needs none: `trio-voice serve`"
        return Check("OPENAI_API_KEY", False, "not set", remedy, optional=True)
    if key != key.strip():
        remedy = "Remove the white space around it: a header with it in is refused."
        return Check("OPENAI_API_KEY", False, "set, with white space around it", remedy, optional=True)
    return Check("OPENAI_API_KEY", True, "set", optional=True)


def _check_loopback(echo: Callable[[], None]) -> Check:
    try:
        echo()
    except OSError as error:
        remedy = "The local server listens on 127.0.0.1: is the loopback interface up, and not behind a firewall?"
        return Check("loopback", False, str(error), remedy)
    return Check("loopback", True, "a byte went round 127.0.0.1")


def _echo_on_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(2)
        with socket.create_connection(listener.getsockname(), timeout=2) as here:
            there, _ = listener.accept()
            with there:
                there.settimeout(2)
                here.sendall(b"?")
                if there.recv(1) != b"?":
                    raise OSError("a byte sent over 127.0.0.1 did not arrive")


def _own_requirements() -> Sequence[str]:
    try:
        return importlib.metadata.requires("trio-voice") or ()
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return ()


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements_by_extra(requirements: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Names of what is always needed, and of what each extra adds, from `Requires-Dist` lines."""
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        name, extra = _REQUIREMENT.match(requirement), _EXTRA.search(requirement)
        if name is None:
            continue
        (extras.setdefault(extra[1], []) if extra else needed).append(name[1])
    return needed, extras
