"""What can be said of PortAudio devices without one; the rest is in tests/lab."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trio_voice.devices.portaudio import DeviceInfo, find_device
from trio_voice.errors import DeviceError


def device(index: int, name: str, *, inputs: int = 0, outputs: int = 0, default: bool = False) -> DeviceInfo:
    return DeviceInfo(
        name=name,
        index=index,
        input_channels=inputs,
        output_channels=outputs,
        is_default_input=default and inputs > 0,
        is_default_output=default and outputs > 0,
        default_rate_hz=48_000,
    )


DEVICES = [
    device(0, "Built-in Microphone", inputs=2, default=True),
    device(1, "USB Headset", inputs=1, outputs=2),
    device(2, "USB Headset Pro", outputs=2, default=True),
    device(3, "HDMI", outputs=8),
]


@pytest.mark.parametrize(
    ("wanted", "kind", "index"),
    [
        (None, "input", 0),
        (None, "output", 2),
        (3, "output", 3),
        ("USB Headset", "output", 1),  # the exact name, though another contains it
        ("headset pro", "output", 2),
        ("headset", "input", 1),  # only one of them is a microphone
    ],
)
def test_a_device_is_found_by_number_name_or_part_of_one(wanted: str | int | None, kind: str, index: int) -> None:
    assert find_device(wanted, "input" if kind == "input" else "output", DEVICES).index == index


def test_a_missing_device_error_lists_what_there_is() -> None:
    with pytest.raises(DeviceError) as caught:
        find_device("kazoo", "input", DEVICES)
    assert "no input device 'kazoo'" in str(caught.value)
    assert "0 'Built-in Microphone'; 1 'USB Headset'" in str(caught.value)
    assert "HDMI" not in str(caught.value)
    assert "--mic question.wav --speaker answer.wav" in str(caught.value)


def test_a_loudspeaker_cannot_be_used_as_a_microphone() -> None:
    with pytest.raises(DeviceError, match="no input device 3"):
        find_device(3, "input", DEVICES)


def test_an_ambiguous_name_asks_for_the_number() -> None:
    with pytest.raises(DeviceError, match=r"several output devices \(1 'USB Headset', 2 'USB Headset Pro'\).*number"):
        find_device("usb", "output", DEVICES)


def test_no_devices_at_all_is_said() -> None:
    with pytest.raises(DeviceError, match=r"no default output device.*are: none at all.*--speaker answer.wav"):
        find_device(None, "output", [])


OPEN_IN_A_CHILD = """
import sys
{sabotage}
import trio
from trio_voice.audio import PCM16_24K
from trio_voice.devices.portaudio import PortAudioSpeaker
from trio_voice.errors import DeviceError

async def main():
    async with PortAudioSpeaker().open(PCM16_24K, lambda count: bytes(2 * count)):
        print("opened")

try:
    trio.run(main)
except DeviceError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "sabotage",
    ["import ctypes.util; ctypes.util.find_library = lambda name: None", "sys.modules['sounddevice'] = None"],
    ids=["no library", "no package"],
)
def test_without_portaudio_the_error_says_how_to_get_it(sabotage: str) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPEN_IN_A_CHILD.format(sabotage=sabotage)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "could not be loaded" in run.stdout, run.stderr
    assert "sudo apt-get install libportaudio2" in run.stdout
    assert "pip install sounddevice" in run.stdout
    assert "--mic question.wav" in run.stdout
    assert run.stderr == ""


def test_importing_the_devices_does_not_start_portaudio() -> None:
    code = "import sys, trio_voice.devices.portaudio; print('sounddevice' in sys.modules, 'numpy' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert run.stdout.strip() == "False False"
