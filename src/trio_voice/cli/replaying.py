"""`trio-voice replay`: a conversation from its journal, as words on the terminal, as a picture, as sound."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Console

from trio_voice.audio import AudioFormat, Samples
from trio_voice.cli.running import Ending, tell
from trio_voice.cli.talking import chosen_speaker
from trio_voice.devices.wav import write_wav
from trio_voice.errors import DeviceError
from trio_voice.journal import read
from trio_voice.picture.replay import Replayed, replayed
from trio_voice.picture.sounds import Sounds
from trio_voice.picture.timeline import draw_timeline, key_figures
from trio_voice.picture.wording import Wording

AFTER_MS = 300
"""A device is given this long to play what it has taken."""


async def replay(path: Path, options: dict[str, Any], console: Console, _: Ending) -> None:
    """Show it; with `out` write the picture and the sound into that folder, with `play` play the sound.

    Raises: `JournalError`, `DeviceError`.
    """
    shown = replayed(read(path))
    _tell(shown, console)
    if options["out"] is not None:
        for written, what in _written(shown, options["out"], path.name):
            console.print(f"  {written}  [dim]{what}[/]", soft_wrap=True, highlight=False)
    if options["play"]:
        if shown.sounds is None:
            raise DeviceError(f"{path} holds no sound; `trio-voice talk --journal FILE --journal-sound` keeps it")
        await _play(shown.sounds, options["speaker"])


def _tell(shown: Replayed, console: Console) -> None:
    header, journal = shown.journal.header, shown.journal
    say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    wording = Wording(console)
    say(f"{wording.safe(header.agent)}, {header.began}, {wording.safe(header.url)}", style="dim")
    for entry in shown.entries:
        say(wording.plain_line(entry, entry.at - shown.started_at))
    say(f"{key_figures(shown.recording)}.")
    if journal.is_torn:
        tell("the last line is not whole: what wrote this journal died; all before it is here")
    if journal.is_cut:
        tell("the journal was full before the conversation was over")
    if journal.unknown:
        tell(f"{journal.unknown} lines are of kinds that this version does not know, and were passed over")


def _written(shown: Replayed, out: Path, title: str) -> list[tuple[Path, str]]:
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "timeline.svg"
    picture.write_text(draw_timeline(shown.recording, title=title), encoding="utf-8")
    written = [(picture, "see it")]
    if shown.sounds is not None:
        sound = out / "conversation.wav"
        write_wav(sound, shown.sounds.rate_hz, shown.sounds.caller, shown.sounds.agent)
        written.append((sound, "hear it: caller left, agent right"))
    return written


async def _play(sounds: Sounds, speaker: str | None) -> None:
    """Both sides together, in real time."""
    mixed = _mixed(sounds).tobytes()
    position, over = 0, False

    def pull(sample_count: int) -> bytes:
        nonlocal position, over
        block = mixed[position : position + 2 * sample_count]
        position += 2 * sample_count
        over = position >= len(mixed)
        return block.ljust(2 * sample_count, b"\0")

    played_format = AudioFormat("pcm16", sounds.rate_hz)
    async with chosen_speaker(speaker).open(played_format, pull) as device, trio.open_nursery() as nursery:

        async def fails() -> None:
            raise await device.wait_failed()

        nursery.start_soon(fails)
        while not over:  # noqa: ASYNC110 - it is counted in the device's own thread
            await trio.sleep(0.02)
        await trio.sleep(AFTER_MS / 1000)
        nursery.cancel_scope.cancel()


def _mixed(sounds: Sounds) -> Samples:
    import numpy as np

    both = sounds.caller.astype(np.int32) + sounds.agent
    mixed: Samples = np.clip(both, -32768, 32767).astype(np.int16)
    return mixed
