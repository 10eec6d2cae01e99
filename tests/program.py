"""`trio-voice` as its users run it: a process of its own, in a pipe or on a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from trio_voice.server.brain import Brain
from trio_voice.server.listen import Listening, serve

HANG_GUARD_S = 20.0
KEYS = ("OPENAI_API_KEY", "TRIO_VOICE_API_KEY", "TRIO_VOICE_LLM_KEY")


def without_keys() -> dict[str, str]:
    """This process's environment as it is now, so that nobody's key is used."""
    return {name: value for name, value in os.environ.items() if name not in KEYS}


@attrs.define(eq=False)
class Program:
    """A running `trio-voice`, and what it has written so far."""

    process: trio.Process
    output: int
    """The descriptor that its stdout is read from."""
    said: str = ""
    complaints: str = ""

    async def until(self, words: str) -> str:
        """Read stdout until it holds `words`; gives all of it."""
        with trio.fail_after(HANG_GUARD_S):
            while words not in self.said:
                if not await self._read():
                    raise AssertionError(f"ended without {words!r}: {self.said}\n{await self.complained()}")
        return self.said

    async def ended(self, within_s: float = HANG_GUARD_S) -> int:
        """Read all there is and wait for the end; gives the exit status."""
        with trio.fail_after(within_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_all)
                status = await self.process.wait()
                nursery.cancel_scope.cancel()
        while self._read_now():
            pass
        return status

    async def _read_all(self) -> None:
        while await self._read():
            pass

    async def complained(self) -> str:
        """What it wrote to stderr until its end."""
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.complaints += chunk.decode()
        return self.complaints

    async def write(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def _read(self) -> bool:
        await trio.lowlevel.wait_readable(self.output)
        return self._read_now()

    def _read_now(self) -> bool:
        """Read what is there; False at the end, or where there is nothing."""
        try:
            chunk = os.read(self.output, 65_536)
        except OSError:  # nothing now, or a terminal whose last user has gone
            return False
        self.said += chunk.decode()
        return bool(chunk)


@asynccontextmanager
async def program(*arguments: str, cwd: str | None = None) -> AsyncIterator[Program]:
    """Run `trio-voice` in pipes; killed, should it still be there in the end."""
    process = await trio.lowlevel.open_process(
        command(*arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_keys(),
        cwd=cwd,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield Program(process, process.stdout.fileno())  # type: ignore[attr-defined]
    finally:
        await _end(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                await pipe.aclose()


@asynccontextmanager
async def program_at_terminal(*arguments: str) -> AsyncIterator[tuple[Program, int, int]]:
    """Run `trio-voice` on a terminal of its own; gives both ends of that, the person's first."""
    import fcntl
    import pty
    import termios

    person, terminal = pty.openpty()
    os.set_blocking(person, False)
    process = await trio.lowlevel.open_process(
        command(*arguments),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**without_keys(), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that \x03 is a Ctrl-C
    )
    try:
        yield Program(process, person), person, terminal
    finally:
        await _end(process)
        os.close(person)
        os.close(terminal)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trio_voice", *arguments]


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    with trio.CancelScope(shield=True):
        await process.wait()


@asynccontextmanager
async def serving(brain: Brain, *, api_key: str | None = None) -> AsyncIterator[str]:
    """A server in this process; gives its URL."""
    async with trio.open_nursery() as nursery:
        listening: Listening = await nursery.start(partial(serve, brain, api_key=api_key))
        yield listening.url
        nursery.cancel_scope.cancel()
