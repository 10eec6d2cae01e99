"""The caller's recordings of the demonstration, as values."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import trio_voice.demo as demo
from trio_voice.audio import samples_of

if TYPE_CHECKING:
    from trio_voice.audio import Samples

CALLER = Path(demo.__file__).parent / "caller"


@attrs.frozen
class Line:
    """A line of the caller: its sound at 24 kHz, and phrases that a recogniser must find in it."""

    text: str
    samples: Samples = attrs.field(eq=False)
    heard: tuple[str, ...]


def caller_lines() -> Mapping[str, Line]:
    """The lines by name."""
    lines = {}
    for line in json.loads((CALLER / "lines.json").read_text(encoding="utf-8"))["lines"]:
        with wave.open(str(CALLER / f"{line['name']}.wav")) as recording:
            assert (recording.getnchannels(), recording.getsampwidth(), recording.getframerate()) == (1, 2, 24_000)
            samples = samples_of(recording.readframes(recording.getnframes()))
            lines[line["name"]] = Line(line["text"], samples, tuple(line["heard"]))
    return lines


def telling(text: str) -> str:
    """`text` without what a recogniser is free to choose: capitals, punctuation, spaces, "one two" or "12"."""
    names = "zero one two three four five six seven eight nine"
    figures = {name: str(value) for value, name in enumerate(names.split())}
    plain = "".join(character if character.isalnum() else " " for character in text.lower())
    return "".join(figures.get(word, word) for word in plain.split())
