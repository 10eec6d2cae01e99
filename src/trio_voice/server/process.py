"""The local server in a process of its own: its engines keep every core busy, and a conversation must not wait.

Edge, beside the command line and the demonstration. The invariant: the server does not outlive this process, however
it ends: its standard input is a pipe that we hold, and it ends when that pipe does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_voice.config import ConnectionOptions
from trio_voice.errors import TrioVoiceError

START_TIMEOUT_S = 60.0
LOADING_MS = 60_000
"""A local server listens at once, and answers when its engines are loaded."""
STOP_TIMEOUT_S = 0.5
"""It keeps nothing that a kill could lose; and while its engines load it cannot stop by itself."""
LAST_WORDS_S = 0.5
MOST_KEPT_BYTES = 20_000


@asynccontextmanager
async def local_server(arguments: Sequence[str] = ()) -> AsyncIterator[str]:
    """Run `trio-voice serve` with `arguments` on a free port of 127.0.0.1; gives its URL.

    Raises: `TrioVoiceError` with what the server said, if it ends before it listens, or while it is in use.
    Closes: the process, within a second.
    """
    command = [sys.executable, "-m", "trio_voice", "serve", "--port", "0", "--until-stdin-ends", *arguments]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # a Ctrl-C at the terminal is for the conversation, which then ends the server
    )
    words = _Words()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(words.collect, process)
            url = await _listening_at(process, words)
            nursery.start_soon(_raise_at_end, process, words)
            yield url
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _cause(group) from None
    finally:
        await _stop(process)


@asynccontextmanager
async def server_at_hand() -> AsyncIterator[ConnectionOptions]:
    """Some server, for a program that takes any: the one named in `TRIO_VOICE_URL`, OpenAI where `OPENAI_API_KEY` is
    set, else a local one for as long as the block lasts.

    Raises: `ConfigError` for an address that is none; `TrioVoiceError` when the local server does not start.
    """
    url, key = os.environ.get("TRIO_VOICE_URL"), os.environ.get("OPENAI_API_KEY")
    if url:
        yield ConnectionOptions(url=url, model=None, connect_timeout_ms=LOADING_MS)
    elif key:
        yield ConnectionOptions(api_key=key)
    else:
        async with local_server() as local_url:
            yield ConnectionOptions(url=local_url, model=None, connect_timeout_ms=LOADING_MS)


@attrs.define(eq=False)
class _Words:
    """What the process says on stderr, read so that the pipe never fills."""

    said: bytearray = attrs.Factory(bytearray)
    over: trio.Event = attrs.Factory(trio.Event)

    async def collect(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for received in process.stderr:
            self.said += received
            del self.said[:-MOST_KEPT_BYTES]
        self.over.set()

    async def last(self) -> str:
        """All of it, once the process has ended."""
        with trio.move_on_after(LAST_WORDS_S):
            await self.over.wait()
        text = self.said.decode(errors="replace").strip()
        return text.removeprefix("trio-voice: ") or "it said nothing"


async def _listening_at(process: trio.Process, words: _Words) -> str:
    assert process.stdout is not None
    line = bytearray()
    with trio.move_on_after(START_TIMEOUT_S):
        while not line.endswith(b"\n"):
            received = await process.stdout.receive_some(1)
            if not received:
                break
            line += received
    word, _, url = line.decode(errors="replace").strip().partition(" ")
    if word != "listening":
        raise TrioVoiceError(f"the local server did not start: {await words.last()}")
    return url


async def _raise_at_end(process: trio.Process, words: _Words) -> None:
    status = await process.wait()
    raise TrioVoiceError(f"the local server ended (status {status}): {await words.last()}")


async def _stop(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(STOP_TIMEOUT_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                await pipe.aclose()


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The server's end, where that is among the errors: all others come of it. Else the one error there is."""
    ended = group.subgroup(lambda error: type(error) is TrioVoiceError)
    error: BaseException = ended or group
    while isinstance(error, BaseExceptionGroup) and (ended or len(error.exceptions) == 1):
        error = error.exceptions[0]
    return error
