"""`trio-voice serve`: the local server as a program. Its first line on stdout is for other programs to read."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio

from trio_voice.cli.running import Ending, tell
from trio_voice.errors import ConfigError, TrioVoiceError

LINGER_S = 1.0
"""Connections are closed in this time. Engines that are still loading cannot be stopped, and are not waited for."""
LLM_PATIENCE_S = 3.0


async def serve(options: dict[str, Any], ending: Ending) -> None:
    """Serve until told to end. Raises: `EngineMissing`; `TrioVoiceError` when it cannot listen."""
    from trio_voice.server.listen import LOOPBACK_HOSTS, serve
    from trio_voice.server.server_settings import ServerSettings
    from trio_voice.server.speech.brain import SpeechBrain

    dialogue = None
    if options["llm"]:
        from trio_voice.server.speech.llm import LlmDialogue

        dialogue = LlmDialogue(options["llm"], options["llm_model"], options["llm_key"])
    brain = SpeechBrain(llm=dialogue)
    host, port, key = options["host"], options["port"], options["api_key"]
    if options["beta"] and options["dialect"]:
        raise ConfigError("--beta is --dialect trio-voice-beta; leave out one of them")
    dialect = "trio-voice-beta" if options["beta"] else options["dialect"] or "trio-voice"
    settings = ServerSettings(api_key=key, session_limit_s=options["session_limit"], dialect=dialect)
    listen = partial(serve, brain, host=host, port=port, settings=settings)
    async with trio.open_nursery() as nursery:
        try:
            listening = await nursery.start(listen)
        except OSError as error:
            raise TrioVoiceError(
                f"cannot listen on {host}:{port}: {error.strerror or error}. Is another server running there? "
                "Choose another place: --port 0 takes a free one."
            ) from error
        ending.is_normal = True
        print(f"listening {listening.url}", flush=True)
        print(f"{brain.description}. Engines are loading; who connects is answered when they are there.", flush=True)
        if host not in LOOPBACK_HOSTS and not key:
            tell(f"anyone who reaches {host} may use this server; --api-key KEY keeps it to those who have the key")
        if options["until_stdin_ends"]:
            nursery.start_soon(_end_with_stdin, ending)
        if dialogue is not None:
            nursery.start_soon(_look_for_llm, dialogue.url)


async def _end_with_stdin(ending: Ending) -> None:
    """Whoever started us holds the other end of stdin, and has ended when it closes."""
    while await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), 4096, abandon_on_cancel=True):
        pass
    ending.begin()


async def _look_for_llm(url: str) -> None:
    """Say at once what the first caller would otherwise find out."""
    parts = urlsplit(url)
    why = f"no connection within {LLM_PATIENCE_S:g} s"
    with trio.move_on_after(LLM_PATIENCE_S):
        try:
            stream = await trio.open_tcp_stream(
                parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
            )
            await stream.aclose()
        except OSError as error:
            why = str(error)
        else:
            return
    tell(
        f"no model server answers at {url} ({why}): start it (for Ollama: `ollama serve`) or correct --llm. "
        "Until then every answer fails."
    )
