"""One HTTP/1.1 message at a time over a Trio stream: what h11 leaves to the caller.

Edge: for ephemeral keys, on both sides.
"""

from __future__ import annotations

from typing import Any

import h11
import trio.abc

RECEIVE_BYTES = 65_536


async def next_event(peer: h11.Connection, stream: trio.abc.Stream) -> Any:
    """The next event of the other side: a part of its message, or its end.

    Raises: `h11.RemoteProtocolError` for what is no HTTP; what the stream raises.
    """
    while (event := peer.next_event()) is h11.NEED_DATA:
        peer.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
    return event


async def send(peer: h11.Connection, stream: trio.abc.Stream, *events: Any) -> None:
    """Send the events of a message together."""
    await stream.send_all(b"".join(peer.send(event) or b"" for event in events))
