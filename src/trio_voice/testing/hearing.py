"""What a simulation hears with, at both ends: the ear that keeps what was played, and the server's, made cheap.

Between the devices and the rules (`checks.py`). The invariant: for scripted people, who are loud or mute, and marked
samples it is as exact as the real thing.
"""

from __future__ import annotations

import binascii
import itertools
from typing import Any

import attrs
import numpy as np

from trio_voice.server.scripted import LoudnessDetector


@attrs.define(eq=False)
class Ear:
    """A place for what a speaker plays: silence is counted, sound is kept with its position."""

    position: int = 0
    _at: list[int] = attrs.Factory(list)
    _pcm: list[bytes] = attrs.Factory(list)
    _silence: bytes = b""

    def write(self, pcm: bytes) -> None:
        if len(self._silence) != len(pcm):
            self._silence = bytes(len(pcm))
        if pcm != self._silence:
            self._at.append(self.position)
            self._pcm.append(pcm)
        self.position += len(pcm) // 2

    def runs(self) -> list[Run]:
        """The samples that were no silence, in the order in which they were played."""
        if not self._pcm:
            return []
        samples = np.frombuffer(b"".join(self._pcm), "<i2")
        marks, places = samples >> 8, samples.view(np.uint8)[::2]
        starts: dict[int, int] = {}
        """Where sound began after silence: its place among all samples, and when that was."""
        place = heard_until = 0
        for at, pcm in zip(self._at, self._pcm, strict=True):
            if at != heard_until or not starts:
                starts[place] = at
            place, heard_until = place + len(pcm) // 2, at + len(pcm) // 2
        edges = sorted({*starts, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(samples)})
        runs: list[Run] = []
        offset = 0
        for first, end in itertools.pairwise(edges):
            offset = starts[first] - first if first in starts else offset
            if mark := int(marks[first]):
                runs.append(Run(mark, first + offset, places[first:end]))
            elif places[first:end].any():  # no silence either: silence is zero
                runs.append(Run(0, first + offset, places[first:end][places[first:end] != 0]))
        return runs


@attrs.frozen(eq=False)
class Run:
    """Samples of one answer, one after the other."""

    mark: int
    at: int
    """Where the first of them was played."""
    places: np.ndarray[Any, np.dtype[np.uint8]]
    """In the answer, modulo 256."""


PLACES = np.resize(np.arange(256, dtype=np.uint8), 1 << 16)


def in_order(runs: list[Run]) -> bool:
    """Whether these are the first samples of an answer, none missing and none twice."""
    position = 0
    for run in runs:
        for start in range(0, len(run.places), len(PLACES) - 256):
            piece = run.places[start : start + len(PLACES) - 256]
            first = position % 256
            if not np.array_equal(piece, PLACES[first : first + len(piece)]):
                return False
            position += len(piece)
    return True


def mark_of(audio: str) -> int:
    """The mark in a delta's first sample."""
    return binascii.a2b_base64(audio[:4])[1]


class CheapDetector(LoudnessDetector):
    """As exact as its parent for scripted people, who are either loud or mute, and much cheaper."""

    def probability(self, window: np.ndarray[Any, np.dtype[np.int16]]) -> float:
        return 1.0 if max(window[len(window) // 2 :: 29].tolist()) > 500 else 0.0


SILENCE = bytes(1 << 16)


class CheapResampler:
    """In place of the filter before the detector: of three samples at 24 kHz it keeps two. Silence stays silence."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        assert 2 * from_hz == 3 * to_hz, "it does nothing else"
        self._rest = b""

    def convert(self, pcm: bytes) -> bytes:
        """The next chunk at the other rate, but for what is less than three samples."""
        whole = self._rest + pcm if self._rest else pcm
        triples = len(whole) // 6
        self._rest = whole[6 * triples :]
        if whole == SILENCE[: len(whole)]:
            return bytes(4 * triples)
        return np.frombuffer(whole, "<i2", 3 * triples).reshape(triples, 3)[:, :2].tobytes()
