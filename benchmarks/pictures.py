"""Pictures of what was measured, with matplotlib where there is one (the extra `[plot]`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BLUE, GREY = "#2563eb", "#9ca3af"


def draw(results: dict[str, Any], out: Path) -> list[Path]:
    """Draw into `out` what there is; returns the files. None without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("svg")
    from matplotlib import pyplot as plt

    written = []
    if "downlink" in results:
        variants = results["downlink"]["variants"]
        figure, axes = plt.subplots(figsize=(7, 3))
        names = list(variants)
        axes.barh(names, [variants[name]["p50_ratio"] for name in names], color=BLUE)
        axes.axvline(1, color=GREY)
        axes.set_xlabel("server's send → PCM in hand, p50 as multiple of the floor")
        axes.invert_yaxis()
        written.append(_saved(figure, out / "downlink.svg"))
    if "capacity" in results:
        sessions = results["capacity"]["sessions"]
        counts = [int(count) for count in sessions]
        figure, (late, cpu) = plt.subplots(1, 2, figsize=(9, 3.2))
        for place, (name, color) in enumerate((("floor", GREY), ("trio-voice", BLUE))):
            rows = [sessions[str(count)][place] for count in counts]
            late.plot(counts, [row["p99_us"] / 1000 for row in rows], "o-", color=color, label=name)
            cpu.plot(counts, [row["cpu_s"] for row in rows], "o-", color=color, label=name)
        late.axhline(20, color="red", linewidth=0.5)
        late.set(xscale="log", yscale="log", xlabel="sessions in one process", ylabel="p99 of the downlink, ms")
        cpu.set(xscale="log", xlabel="sessions in one process", ylabel="CPU seconds per session and minute", ylim=0)
        late.legend()
        written.append(_saved(figure, out / "capacity.svg"))
    if "voice" in results:
        parts = results["voice"]["parts_ms"]
        figure, axes = plt.subplots(figsize=(8, 1.6))
        left = 0.0
        for number, (part, took_ms) in enumerate(parts.items()):
            axes.barh([""], [took_ms], left=left, color=BLUE, alpha=1 - 0.2 * number, label=f"{part} {took_ms:.0f}")
            left += took_ms
        axes.set_xlabel("ms from the user's last sample to the first one heard, medians by part")
        axes.legend(ncols=len(parts), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.4))
        written.append(_saved(figure, out / "voice.svg"))
    return written


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
