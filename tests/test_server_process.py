"""The local server as a process: it starts, tells why when it does not, and never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from program import HANG_GUARD_S
from trio_voice.errors import ConfigError, TrioVoiceError
from trio_voice.server import process
from trio_voice.server.process import local_server

STAND_IN = """
import os, sys
print("listening ws://127.0.0.1:1/" + str(os.getpid()), flush=True)
{then}
"""
"""In place of the server: its URL tells its process."""


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, then: str) -> None:
    """Have `local_server` start a program that says where it listens and goes on as `then` says."""
    script = folder / "stand_in.py"
    script.write_text(STAND_IN.format(then=then))
    launcher = folder / "python"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(launcher))


def number_in(url: str) -> int:
    return int(url.rpartition("/")[2])


def is_there(number: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(number, 0)
        return True
    return False


@pytest.mark.parametrize(
    "then",
    [
        "sys.stdin.read()",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()",
    ],
    ids=["obedient", "stubborn"],
)
async def test_it_is_gone_when_the_block_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str) -> None:
    stand_in(monkeypatch, tmp_path, then)
    with trio.fail_after(HANG_GUARD_S):
        async with local_server() as url:
            assert is_there(number_in(url))
    assert not is_there(number_in(url))


async def test_it_is_gone_after_an_error_and_the_error_is_the_body_s_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "sys.stdin.read()")
    with pytest.raises(ConfigError, match="mine"):
        async with local_server() as url:
            raise ConfigError("mine")
    assert not is_there(number_in(url))


async def test_cancelled_while_it_starts_it_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe = tmp_path / "started"
    os.mkfifo(pipe)
    stand_in(monkeypatch, tmp_path, "")
    (tmp_path / "stand_in.py").write_text(
        f"import os, sys\nwith open({str(pipe)!r}, 'w') as pipe: pipe.write(str(os.getpid()))\nsys.stdin.read()"
    )
    started: list[int] = []

    async def cancel_when_started(scope: trio.CancelScope) -> None:
        started.append(int(await trio.Path(pipe).read_text()))
        scope.cancel()

    with trio.fail_after(HANG_GUARD_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_started, nursery.cancel_scope)
            async with local_server():
                raise AssertionError("it never said where it listens")
    assert not is_there(started[0])


async def test_a_server_that_does_not_start_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "")
    (tmp_path / "stand_in.py").write_text("import sys; sys.exit('trio-voice: no voice is installed')")
    with pytest.raises(TrioVoiceError, match=r"^the local server did not start: no voice is installed$"):
        async with local_server():
            raise AssertionError("it never said where it listens")


async def test_a_server_that_ends_in_use_ends_the_body_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "sys.exit('trio-voice: out of memory')")
    with trio.fail_after(HANG_GUARD_S), pytest.raises(TrioVoiceError, match=r"ended \(status 1\): out of memory"):
        async with local_server():
            await trio.sleep_forever()


async def test_much_on_stderr_does_not_stop_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, "sys.stderr.write('x' * 1_000_000); sys.exit('the end')")
    with trio.fail_after(HANG_GUARD_S), pytest.raises(TrioVoiceError, match="the end") as failed:
        async with local_server():
            await trio.sleep_forever()
    assert len(str(failed.value)) < process.MOST_KEPT_BYTES + 100


@pytest.mark.speech
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_real_server_does_not_outlive_a_parent_that_was_killed() -> None:
    pytest.importorskip("moonshine_voice")
    source = (
        "import glob, trio\nfrom trio_voice.server.process import local_server\n"
        "async def main():\n    async with local_server():\n"
        "        print(*(open(path).read() for path in glob.glob('/proc/self/task/*/children')), flush=True)\n"
        "        await trio.sleep_forever()\ntrio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    watched = os.pidfd_open(server) if is_there(server) else None
    if watched is not None:
        import select

        assert select.select([watched], [], [], HANG_GUARD_S)[0], "the server is still there"
        os.close(watched)
