from __future__ import annotations

from typing import Any

import pytest

from trio_voice.devices.portaudio import DeviceInfo
from trio_voice.doctor import Check, checks
from trio_voice.errors import DeviceError

REQUIREMENTS = [
    "attrs<27,>=24.2",
    "trio<0.36,>=0.31",
    "moonshine-voice==0.0.49; extra == 'local'",
    "onnxruntime<2,>=1.20; extra == 'local'",
    'pocketsphinx<6,>=5.1.1; extra == "fallback"',
    "pywebrtc-audio==0.2.0; extra == 'aec'",
]
INSTALLED = {
    "attrs": "26.1.0",
    "trio": "0.35.0",
    "moonshine-voice": "0.0.49",
    "onnxruntime": "1.22",
    "pocketsphinx": "5.1.1",
    "pywebrtc-audio": "0.2.0",
}
BOTH = DeviceInfo(
    name="Headset",
    index=0,
    input_channels=1,
    output_channels=2,
    is_default_input=True,
    is_default_output=True,
    default_rate_hz=48_000,
)


def look(**changed: Any) -> dict[str, Check]:
    """The checks of a machine on which all is well, but for what is `changed`."""
    well: dict[str, Any] = {
        "environ": {"OPENAI_API_KEY": "sk-abc"},
        "python": (3, 11, 7),
        "requirements": lambda: REQUIREMENTS,
        "version_of": INSTALLED.get,
        "list_devices": lambda: [BOTH],
        "loopback": lambda: None,
    }
    return {check.name: check for check in checks(**{**well, **changed})}


def raising(error: Exception) -> Any:
    def raise_it() -> None:
        raise error

    return raise_it


def test_a_machine_on_which_all_is_well_needs_no_remedy() -> None:
    found = look()
    assert all(check.ok and not check.remedy for check in found.values())
    assert list(found) == [
        "python",
        "packages",
        "portaudio",
        "microphone",
        "loudspeaker",
        "echo",
        "extra [local]",
        "extra [fallback]",
        "extra [aec]",
        "OPENAI_API_KEY",
        "loopback",
    ]
    assert "moonshine-voice 0.0.49, onnxruntime 1.22" in found["extra [local]"].detail


@pytest.mark.parametrize(
    ("changed", "name", "detail", "remedy"),
    [
        ({"python": (3, 10, 4)}, "python", "3.10.4", "3.11 or newer"),
        ({"version_of": {"attrs": "26"}.get}, "packages", "trio missing", "pip install 'trio-voice'"),
        ({"version_of": {"attrs": "26"}.get}, "extra [local]", "onnxruntime missing", "'trio-voice[local]'"),
        ({"list_devices": raising(DeviceError("get libportaudio2"))}, "portaudio", "not there", "get libportaudio2"),
        ({"list_devices": raising(RuntimeError("odd"))}, "portaudio", "RuntimeError('odd')", "pulseaudio --start"),
        ({"list_devices": list}, "microphone", "none", "--mic question.wav"),
        ({"list_devices": list}, "loudspeaker", "none", "--speaker answer.wav"),
        ({"environ": {}}, "OPENAI_API_KEY", "not set", "trio-voice serve"),
        ({"environ": {"OPENAI_API_KEY": "sk-abc\n"}}, "OPENAI_API_KEY", "white space", "Remove"),
        ({"loopback": raising(OSError("no lo"))}, "loopback", "no lo", "127.0.0.1"),
    ],
)
def test_what_is_amiss_is_named_with_its_remedy(changed: Any, name: str, detail: str, remedy: str) -> None:
    check = look(**changed)[name]
    assert not check.ok
    assert detail in check.detail
    assert remedy in check.remedy


def test_without_a_default_the_devices_are_still_named() -> None:
    import attrs

    check = look(list_devices=lambda: [attrs.evolve(BOTH, is_default_input=False)])["microphone"]
    assert not check.ok
    assert "Headset" in check.detail


def test_only_extras_and_the_key_are_optional() -> None:
    optional = {name for name, check in look().items() if check.optional}
    assert optional == {"echo", "extra [local]", "extra [fallback]", "extra [aec]", "OPENAI_API_KEY"}


@pytest.mark.parametrize(
    ("name", "installed", "advice", "is_ok"),
    [
        ("USB Headset", False, "--echo off", True),
        ("AirPods Pro", False, "--echo off", True),
        ("Echo-Cancel Source", False, "--echo off", True),
        ("Rear Analog Stereo", True, "--echo aec", True),
        ("Rear Analog Stereo", False, "--echo gate", False),
    ],
)
def test_the_echo_policy_that_fits_is_named(name: str, installed: bool, advice: str, is_ok: bool) -> None:
    import attrs

    packages = INSTALLED if installed else {}
    check = look(list_devices=lambda: [attrs.evolve(BOTH, name=name)], version_of=packages.get)["echo"]
    assert advice in check.detail
    assert check.ok is is_ok
    assert is_ok or "pip install 'trio-voice[aec]'" in check.remedy


@pytest.mark.parametrize("list_devices", [list, raising(DeviceError("none"))])
def test_without_devices_the_echo_is_still_spoken_of(list_devices: Any) -> None:
    assert "--echo aec" in look(list_devices=list_devices)["echo"].detail


@pytest.mark.parametrize("key", ["sk-very-secret", " sk-very-secret"])
def test_the_key_is_never_shown(key: str) -> None:
    assert "secret" not in repr(list(look(environ={"OPENAI_API_KEY": key}).values()))


def test_the_real_machine_can_be_looked_at() -> None:
    found = {check.name: check for check in checks(list_devices=lambda: [BOTH])}
    assert found["python"].ok
    assert found["loopback"].ok
