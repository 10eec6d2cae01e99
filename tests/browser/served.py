"""A page served from a thread of its own, and a real Chromium that opens it."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from playwright.sync_api import Page, sync_playwright

from trio_voice.audio import Samples
from trio_voice.devices.line_server import BrowserHandler, browser_app, serve
from trio_voice.devices.wav import write_wav

FAKE_MICROPHONE_HZ = 48_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-gpu",
    "--disable-dev-shm-usage",
]


@contextmanager
def served(handle: BrowserHandler) -> Iterator[str]:
    """The page's address. What a handler lets through fails the test; whatever is left running is noticed."""
    address: queue.Queue[str | BaseException] = queue.Queue()
    stop: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            stop.append((trio.lowlevel.current_trio_token(), scope))
            async with trio.open_nursery() as nursery:
                address.put(await nursery.start(serve, browser_app(handle)))

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            address.put(error)

    thread = threading.Thread(target=run, name="page server")
    thread.start()
    found = address.get(timeout=20)
    if isinstance(found, BaseException):
        raise found
    try:
        yield found
    finally:
        token, scope = stop[0]
        trio.from_thread.run_sync(scope.cancel, trio_token=token)
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"
    if not address.empty():
        raise AssertionError("the server failed") from address.get()  # type: ignore[misc]


@contextmanager
def chromium(spoken: Samples, folder: Path) -> Iterator[Page]:
    """A page in a browser whose microphone hears `spoken` (48 kHz), once. The first moments of the file are lost, and
    its last sample is held for ever: hence the silence around it."""
    path = folder / "spoken.wav"
    before, after = np.zeros(FAKE_MICROPHONE_HZ // 2, np.int16), np.zeros(20 * FAKE_MICROPHONE_HZ, np.int16)
    write_wav(path, FAKE_MICROPHONE_HZ, np.concatenate([before, spoken, after]))
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={path}%noloop"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            page = browser.new_page()
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            yield page
            assert problems == []
        finally:
            browser.close()


def rewind(page: Page) -> list[Any]:
    """What the page's loudspeaker rendered, in order: arrays of samples, and the number of each flush."""
    tape = page.evaluate(
        """() => new Promise((resolve) => {
            line.onTape = (tape) => resolve(tape.map((part) => part.samples ? Array.from(part.samples) : part.flush));
            line.playback.port.postMessage({ rewind: true });
        })"""
    )
    return [part if isinstance(part, int) else np.round(np.array(part) * 32768).astype(np.int16) for part in tape]


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
