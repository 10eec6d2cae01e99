"""From a command's coroutine to an exit status: signals, expected errors, an end that is bounded in time.

Around every command that runs Trio. The invariant: whatever happens, the process ends soon after it was told to, the
terminal is usable, and an expected error is one line on stderr. What is unexpected keeps its traceback.

The signals are taken by plain handlers and not by `trio.open_signal_receiver`: a second Ctrl-C must work even where
the event loop is what hangs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import attrs
import trio
from rich.console import Console

from trio_voice.errors import TrioVoiceError, WireLost

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]  # asked for before each use

LINGER_S = 3.0
"""An orderly end has this long: closing a WebSocket whose peer does not answer, and a frozen device, take 1 s each."""
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SHOW_CURSOR = b"\x1b[?25h\r\n"


@attrs.define(eq=False)
class Ending:
    """How the command ends when it is told to."""

    linger_s: float = LINGER_S
    is_normal: bool = False
    """The command is at a point where being told is how it ends, as a server is: the exit status is then 0."""
    signal_number: int | None = None
    """The first signal that told it."""
    keyboard: list[Any] | None = None
    """How the terminal is to be left, while it is set otherwise."""
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    token: trio.lowlevel.TrioToken | None = None

    @property
    def status(self) -> int:
        return 0 if self.is_normal or self.signal_number is None else 128 + self.signal_number

    def begin(self) -> None:
        """In the Trio thread: end in order, and without it when `linger_s` are over."""
        if self.scope.cancel_called:
            return
        self.scope.cancel()
        timer = threading.Timer(self.linger_s, lambda: self.leave(self.status))
        timer.daemon = True
        timer.start()

    def told(self, signal_number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self.signal_number is not None:
            self.leave(128 + signal_number)
        self.signal_number = signal_number
        if self.token is not None:
            try:
                self.token.run_sync_soon(self.begin)
            except trio.RunFinishedError:
                pass

    def leave(self, status: int) -> NoReturn:
        """End now, whatever the other threads do; only the terminal is put right."""
        if sys.__stdout__ is not None and sys.__stdout__.isatty():
            os.write(1, SHOW_CURSOR)
        self._restore_keyboard()
        os._exit(status)

    @contextmanager
    def keys_unseen(self) -> Iterator[None]:
        """Typed keys, and the `^C` of a Ctrl-C, do not show: they would tear a live view apart."""
        if termios is None or not _is_at_keyboard():
            yield
            return
        self.keyboard = termios.tcgetattr(0)
        unseen = termios.tcgetattr(0)
        unseen[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSADRAIN, unseen)
        try:
            yield
        finally:
            self._restore_keyboard()

    def _restore_keyboard(self) -> None:
        if self.keyboard is not None and termios is not None and _is_at_keyboard():
            termios.tcsetattr(0, termios.TCSAFLUSH, self.keyboard)
        self.keyboard = None


def _is_at_keyboard() -> bool:
    """A process in the background that touches the terminal's settings is stopped."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def run(command: Callable[[Ending], Awaitable[int | None]], *, linger_s: float = LINGER_S) -> NoReturn:
    """Run `command` until it is done or told to end, then exit with its status.

    Exit status: what `command` gives, or 0; 1 after an expected error; 130 and so on (128 + signal) when a signal cut
    it short. A second signal ends the process at once.
    """
    ending = Ending(linger_s)

    async def until_told() -> int | None:
        ending.token = trio.lowlevel.current_trio_token()
        if ending.signal_number is not None:
            ending.begin()
        with ending.scope:
            return await command(ending)
        return None

    with _signals_taken(ending.told):
        status = status_of(lambda: trio.run(until_told), quiet=lambda: ending.scope.cancel_called)
    sys.exit(ending.status if ending.signal_number is not None else status)


def status_of(call: Callable[[], int | None], *, quiet: Callable[[], bool] = bool) -> int:
    """The exit status of `call`: its own, or 1 with one line on stderr where an expected error ended it.

    `quiet`: errors are not told, as they are only what being told to end looks like.
    Raises: what is not expected.
    """
    try:
        return call() or 0
    except (Exception, SystemExit, BaseExceptionGroup) as error:
        leaves = _leaves(error)
        if not all(isinstance(leaf, (TrioVoiceError, OSError, SystemExit)) for leaf in leaves):
            raise
    gone = next((leaf for leaf in leaves if isinstance(leaf, (BrokenPipeError, SystemExit))), None)
    if gone is not None:  # who read our output has left, as `head` does: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    if not quiet():
        tell(str(min(leaves, key=_rank)))
    return 1


def tell(message: str) -> None:
    """One line on stderr, exactly as it is."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print("trio-voice:", style="bold red" if console.is_terminal else None, end=" ")
    console.print(message, soft_wrap=True)


def _rank(error: BaseException) -> int:
    """Of several errors the cause is told: a lost connection may be what another one looks like from here."""
    return 0 if isinstance(error, TrioVoiceError) and not isinstance(error, WireLost) else 1


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


@contextmanager
def _signals_taken(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
