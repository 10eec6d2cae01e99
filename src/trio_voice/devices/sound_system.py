"""Which microphones and loudspeakers there are, by PortAudio: the only import of sounddevice.

PortAudio looks for devices only when it starts. So whenever a device is opened and no other of ours is open, it is
ended and started first: what was plugged in, or became the default, is found. The invariant: that happens to no open
stream, since ending PortAudio would close it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any, Literal, TypeAlias

import attrs

from trio_voice.errors import DeviceError

Kind: TypeAlias = Literal["input", "output"]

USUAL_RATES_HZ = (8_000, 16_000, 24_000, 44_100, 48_000)
LIST_IS_FRESH_S = 0.1
"""PortAudio looks for devices only when it starts, which takes 60 ms (40 of CPU): both directions share one look."""

NO_SOUND = "Or do without: --mic question.wav --speaker answer.wav use files in place of devices."
_MISSING = (
    "PortAudio, the library behind microphone and loudspeaker, could not be loaded: {reason}. Install it: "
    "`sudo apt-get install libportaudio2` (Debian, Ubuntu), `sudo dnf install portaudio` (Fedora), "
    "`sudo pacman -S portaudio` (Arch); on macOS and Windows it comes with `pip install sounddevice`. " + NO_SOUND
)

opening = threading.Lock()
"""PortAudio's own open, close, start and end must not run at the same time in two threads."""
open_streams: set[Any] = set()
"""Streams of this process, also those whose closing was abandoned: ending PortAudio would close them, or hang."""
_looked_at = float("-inf")
"""When PortAudio last looked for devices, on the monotonic clock."""


@attrs.frozen
class DeviceInfo:
    """A device that PortAudio found when it last looked."""

    name: str
    index: int
    input_channels: int
    output_channels: int
    is_default_input: bool
    is_default_output: bool
    default_rate_hz: int
    rates_hz: tuple[int, ...] = ()
    """Which of `USUAL_RATES_HZ` it takes, one way at least; empty unless asked for."""


def load_sounddevice() -> Any:
    """Import sounddevice, which starts PortAudio. Blocks for up to a second the first time.

    Raises: `DeviceError` that says how to get what is missing.
    """
    global _looked_at
    is_first = "sounddevice" not in sys.modules
    try:
        import sounddevice
    except Exception as error:  # OSError: no library; ImportError: no package; PortAudioError: it cannot start
        message = _MISSING.format(reason=str(error) or type(error).__name__)
        raise DeviceError(message, retryable=not isinstance(error, OSError | ImportError)) from error
    if is_first:
        _looked_at = time.monotonic()
    return sounddevice


def look_anew(sounddevice: Any) -> None:
    """Have PortAudio look for devices, unless it has just done so, or a stream is open that would not survive it.

    Only under the lock `opening`. Raises: `PortAudioError`.
    """
    global _looked_at
    if open_streams or time.monotonic() - _looked_at < LIST_IS_FRESH_S:
        return
    if sounddevice._initialized:  # not so when it could not start the last time
        sounddevice._terminate()
    sounddevice._initialize()
    _looked_at = time.monotonic()


def list_devices(*, probe_rates: bool = False) -> list[DeviceInfo]:
    """Every device, in PortAudio's order. `probe_rates` opens each one for a moment, which takes a while.

    Raises: `DeviceError` when PortAudio is missing.
    """
    sounddevice = load_sounddevice()
    with opening:
        return listed(sounddevice, probe_rates)


def listed(sounddevice: Any, probe_rates: bool = False) -> list[DeviceInfo]:
    default_input, default_output = (
        _default_index("input", sounddevice),
        _default_index("output", sounddevice),
    )
    devices = []
    for index, found in enumerate(sounddevice.query_devices()):
        device = DeviceInfo(
            name=found["name"],
            index=index,
            input_channels=found["max_input_channels"],
            output_channels=found["max_output_channels"],
            is_default_input=index == default_input,
            is_default_output=index == default_output,
            default_rate_hz=int(found["default_samplerate"]),
        )
        devices.append(attrs.evolve(device, rates_hz=_rates_of(device, sounddevice)) if probe_rates else device)
    return devices


def _default_index(kind: Kind, sounddevice: Any) -> int:
    """The number of the default device; -1 when there is none."""
    found = [api[f"default_{kind}_device"] for api in sounddevice.query_hostapis()]
    return next((index for index in found if index >= 0), -1)


def _rates_of(device: DeviceInfo, sounddevice: Any) -> tuple[int, ...]:
    checks = [sounddevice.check_input_settings] if device.input_channels else []
    checks += [sounddevice.check_output_settings] if device.output_channels else []
    rates_hz = set()
    for rate_hz in USUAL_RATES_HZ:
        for check in checks:  # ALSA calls many a loudspeaker a microphone too; it shows only here
            with contextlib.suppress(sounddevice.PortAudioError):
                check(device=device.index, channels=1, dtype="int16", samplerate=rate_hz)
                rates_hz.add(rate_hz)
    return tuple(sorted(rates_hz))


def find_device(wanted: str | int | None, kind: Kind, devices: list[DeviceInfo]) -> DeviceInfo:
    """The device with this number or name, or the only one whose name contains `wanted`; None is the default.

    Raises: `DeviceError` that lists the devices there are.
    """
    usable = [device for device in devices if (device.input_channels if kind == "input" else device.output_channels)]
    there_are = "; ".join(f"{device.index} {device.name!r}" for device in usable) or "none at all"
    advice = f"The {kind} devices are: {there_are}. {NO_SOUND}"
    if wanted is None:
        for device in usable:
            if device.is_default_input if kind == "input" else device.is_default_output:
                return device
        raise DeviceError(f"There is no default {kind} device. {advice}")
    matches = [device for device in usable if wanted in (device.index, device.name)]
    if not matches and isinstance(wanted, str):
        matches = [device for device in usable if wanted.lower() in device.name.lower()]
    if not matches:
        raise DeviceError(f"There is no {kind} device {wanted!r}. {advice}")
    if len(matches) > 1:
        several = ", ".join(f"{device.index} {device.name!r}" for device in matches)
        raise DeviceError(f"{wanted!r} is the name of several {kind} devices ({several}): give the number of one.")
    return matches[0]
