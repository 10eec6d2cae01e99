"""A local MCP server as a process: its messages as streams, the end of what it said on stderr, and its end.

Edge. The mcp package brings a transport of its own, which does not tell why a server died, and takes four seconds to
end one that does not end by itself: this takes one.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from trio_voice.mcp_servers import McpServerStdio

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

GRACE_S = 0.3
"""For a server whose stdin was closed, and again after SIGTERM."""
KILLED_S = 0.4
"""For the system to report the end of a process that was killed."""
KEPT_STDERR_BYTES = 1000
LONGEST_MESSAGE_BYTES = 16 * 1024 * 1024


@attrs.define(eq=False)
class ServerProcess:
    """What is known of the process: for errors and for tests."""

    pid: int = 0
    returncode: int | None = None
    _stderr: bytearray = attrs.Factory(bytearray)

    @property
    def said(self) -> str:
        """The end of what it wrote to stderr."""
        return bytes(self._stderr).decode("utf-8", "replace").strip()

    def heard(self, piece: bytes) -> None:
        self._stderr += piece
        del self._stderr[:-KEPT_STDERR_BYTES]


@asynccontextmanager
async def transport(
    server: McpServerStdio, process: ServerProcess, on_end: Callable[[str], None]
) -> AsyncIterator[TransportStreams]:
    """Run the server; its messages. `on_end` is called with the reason when it ends by itself; the first one counts.

    Raises: `OSError` when it cannot be started.
    Cancellation: ends the process, within a second whatever it does.
    """
    import anyio
    from mcp.client.stdio import get_default_environment
    from mcp.shared.message import SessionMessage

    started = await trio.lowlevel.open_process(
        [server.command, *server.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=get_default_environment() | dict(server.env),
        cwd=server.cwd,
        start_new_session=True,  # so that what it starts itself can be ended with it
    )
    process.pid = started.pid
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    stderr_over, ended = trio.Event(), trio.Event()

    async def watch() -> None:
        returncode = await started.wait()
        with trio.move_on_after(GRACE_S):  # what it said last is in the pipe, which a child of its may hold open
            await stderr_over.wait()
        on_end(f"it ended with {_status(returncode)}")
        ended.set()

    async def read() -> None:
        with to_session:  # whose end tells the session that nothing more will come
            await _read(started, to_session)
            with trio.move_on_after(2 * GRACE_S):
                await ended.wait()
            on_end("it closed its stdout, or sent more than a message may have")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(_keep_stderr, started, process, stderr_over)
            nursery.start_soon(read)
            nursery.start_soon(_write, started, from_session)
            yield from_server, to_server
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # bounded: see _end
            await _end(started)
        process.returncode = started.returncode
        for stream in (to_session, from_server, to_server, from_session):
            stream.close()


def _status(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


async def _keep_stderr(started: trio.Process, process: ServerProcess, over: trio.Event) -> None:
    assert started.stderr is not None
    with suppress(trio.BrokenResourceError):
        async for piece in started.stderr:
            process.heard(bytes(piece))
    over.set()


async def _read(started: trio.Process, to_session: Any) -> None:
    """Lines of stdout to messages. What is no message is passed on as the error that it is, and ignored there: servers
    print what they should not."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    assert started.stdout is not None
    waiting = bytearray()
    with suppress(trio.BrokenResourceError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for piece in started.stdout:
            waiting += piece
            if b"\n" in piece:
                *lines, waiting = waiting.split(b"\n")
                for line in lines:
                    if line.strip():
                        try:
                            message = SessionMessage(jsonrpc_message_adapter.validate_json(bytes(line), by_name=False))
                        except ValueError as error:
                            await to_session.send(error)
                        else:
                            await to_session.send(message)
            if len(waiting) > LONGEST_MESSAGE_BYTES:
                return


async def _write(started: trio.Process, from_session: Any) -> None:
    assert started.stdin is not None
    async for outgoing in from_session:
        text = outgoing.message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            await started.stdin.send_all(text.encode() + b"\n")
        except trio.BrokenResourceError:
            return  # its end is about to be noticed


async def _end(started: trio.Process) -> None:
    """Close its stdin, ask it to end, kill it and what it started: until it is gone, a second at most."""
    assert started.stdin is not None
    await trio.aclose_forcefully(started.stdin)
    with trio.move_on_after(GRACE_S):
        await started.wait()
    if started.returncode is None:
        started.terminate()
        with trio.move_on_after(GRACE_S):
            await started.wait()
    _kill_all(started)
    with trio.move_on_after(KILLED_S):
        await started.wait()
    for pipe in (started.stdout, started.stderr):
        assert pipe is not None
        await trio.aclose_forcefully(pipe)


def _kill_all(started: trio.Process) -> None:
    """The process, and what it has started and not ended, where the system knows groups of processes."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pid, signal.SIGKILL)
    elif started.returncode is None:
        started.kill()
