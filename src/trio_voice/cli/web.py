"""`trio-voice web`: an agent behind a page, for a browser's microphone and loudspeaker. Each page is a conversation."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from rich.console import Console

from trio_voice import events
from trio_voice.agent import RealtimeAgent
from trio_voice.channels import EventStream
from trio_voice.cli.running import Ending
from trio_voice.cli.talking import load_agent
from trio_voice.config import ConnectionOptions
from trio_voice.errors import TrioVoiceError
from trio_voice.session import RealtimeSession

if TYPE_CHECKING:
    from trio_voice.devices.browser import BrowserCall


async def serve(options: dict[str, Any], console: Console, ending: Ending) -> None:
    """Serve the page until told to end. Raises: `EngineMissing`, `ConfigError`; `TrioVoiceError` when it cannot."""
    from trio_voice.devices.line_server import browser_app, serve as serve_app
    from trio_voice.server.process import LOADING_MS, server_at_hand

    agent, url = load_agent(options["agent"]), options["url"]
    chosen = ConnectionOptions(url=url, model=None, connect_timeout_ms=LOADING_MS) if url else None
    server: AbstractAsyncContextManager[ConnectionOptions] = nullcontext(chosen) if chosen else server_at_hand()
    async with server as connection, trio.open_nursery() as nursery:
        page = browser_app(partial(converse, agent, connection))
        try:
            address = await nursery.start(partial(serve_app, page, host=options["host"], port=options["port"]))
        except OSError as error:
            raise TrioVoiceError(
                f"cannot listen on {options['host']}:{options['port']}: {error.strerror or error}. Is another program "
                "running there? Choose another place: --port 0 takes a free one."
            ) from error
        ending.is_normal = True
        console.print(f"Open {address} in a browser, and click Talk. Ctrl-C ends it.", highlight=False, markup=False)


async def converse(agent: RealtimeAgent, connection: ConnectionOptions, call: BrowserCall) -> None:
    """One page: the browser's devices, a session, and its words shown on the page."""
    session = RealtimeSession(agent, connection=connection, microphone=call.microphone, speaker=call.speaker)
    stream = session.events()
    try:
        async with session, trio.open_nursery() as nursery:
            nursery.start_soon(_show, stream, call)
            await session.start_listening()
            await call.gone.wait()
            nursery.cancel_scope.cancel()
    except TrioVoiceError as error:
        call.hang_up(str(error))


async def _show(stream: EventStream, call: BrowserCall) -> None:
    states = {
        events.Reconnecting: "The connection is lost; trying again …",
        events.Connected: "Connected.",
        events.SpeechStart: "Listening …",
        events.ResponseStart: "Speaking …",
        events.PlaybackEnd: "Connected.",
        events.Interruption: "Listening …",
    }
    async for event in stream:
        if isinstance(event, events.Transcript) and event.text:
            told = {"role": event.role, "item_id": event.item_id, "text": event.text, "truncated": event.truncated}
            call.tell({"transcript": told})
        elif type(event) in states:
            call.tell({"state": states[type(event)]})
