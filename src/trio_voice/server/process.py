"""The local server in a process of its own: its engines keep every core busy, and a conversation must not wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from trio_voice.errors import TrioVoiceError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 2.0


@asynccontextmanager
async def local_server(arguments: Sequence[str] = ()) -> AsyncIterator[str]:
    """Run `trio-voice serve` with `arguments` on a free port of 127.0.0.1; gives its URL.

    Raises: `TrioVoiceError` with what the server said, if it ends before it listens.
    Closes: the process, within two seconds.
    """
    command = [sys.executable, "-m", "trio_voice", "serve", "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        async with trio.open_nursery() as nursery:
            said = bytearray()
            nursery.start_soon(_collect, process, said)
            yield await _listening_at(process, said)
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.move_on_after(STOP_TIMEOUT_S, shield=True) as stopping:
            await process.wait()
        if stopping.cancelled_caught:
            process.kill()


async def _listening_at(process: trio.Process, said: bytearray) -> str:
    assert process.stdout is not None
    line = bytearray()
    with trio.move_on_after(START_TIMEOUT_S):
        while not line.endswith(b"\n"):
            received = await process.stdout.receive_some(1)
            if not received:
                break
            line += received
    word, _, url = line.decode().strip().partition(" ")
    if word != "listening":
        await trio.sleep(0.1)  # its last words
        reason = said.decode(errors="replace").strip() or line.decode(errors="replace").strip() or "it said nothing"
        raise TrioVoiceError(f"the local server did not start: {reason}")
    return url


async def _collect(process: trio.Process, said: bytearray) -> None:
    """Keep what it says on stderr, so that its pipe never fills."""
    assert process.stderr is not None
    async for received in process.stderr:
        said += received
        del said[:-20_000]
