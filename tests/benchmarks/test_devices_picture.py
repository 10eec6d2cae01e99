"""The picture of the devices' benchmark shows its figures."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # `benchmarks` is no part of what gets installed

from benchmarks import devices_picture

SVG = "{http://www.w3.org/2000/svg}"


def test_each_size_of_block_has_a_bar_as_long_as_its_figure() -> None:
    rows = [
        {"block_samples": block, "silent_p50_ms": p50, "silent_p99_ms": 2 * p50}
        for block, p50 in ((128, 10.0), (240, 20.0), (480, 40.0))
    ]
    root = ElementTree.fromstring(devices_picture.drawn(rows))
    bars = [float(rect.attrib["width"]) for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(bars) == 3
    assert abs(bars[1] - 2 * bars[0]) < 0.3
    assert abs(bars[2] - 4 * bars[0]) < 0.5
    words = " ".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert "480 samples" in words
    assert "40 / 80 ms" in words
