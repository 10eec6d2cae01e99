"""The command line: `trio-voice demo | talk | serve | devices | doctor`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio
from rich.console import Console

from trio_voice.errors import ConfigError, TrioVoiceError

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent
    from trio_voice.session import RealtimeSession

OPENAI_URL = "wss://api.openai.com/v1/realtime"
OPENAI_MODEL = "gpt-realtime-2.1"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trio-voice")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", show_default=True
)
def main(log_level: str) -> None:
    """Voice agents on Trio.

    With no key and no network, hear one talk:  trio-voice demo

    Talk to one yourself:  trio-voice talk

    Where something is missing, `trio-voice doctor` says what, and how to get it.
    """
    _set_up_logging(log_level)


@main.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--url", help="A server that runs already, in place of one started for the demonstration.")
def demo(out: Path, url: str | None) -> None:
    """Hold a spoken conversation between a recorded caller and the customer-service agent.

    Six lines, spoken and recognised for real: an order is looked up, a callback scheduled, a question out of scope is
    declined, the agent is interrupted while it counts, the caller is transferred. OUT gets conversation.wav,
    timeline.svg, summary.json and journal.jsonl.
    """
    from trio_voice.demo import run

    shown = _run(partial(run.run, out, console=Console(), url=url))
    sys.exit(0 if shown else 1)


@main.command()
@click.option("--url", help="A Realtime server. Default: OpenAI where a key is given, else a local server.")
@click.option("--model", help=f"Default at OpenAI: {OPENAI_MODEL}. At Azure: the deployment.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Also from OPENAI_API_KEY.")
@click.option(
    "--azure", metavar="RESOURCE", help="Azure OpenAI: the name of the resource; needs --model and --api-key."
)
@click.option("--agent", metavar="MODULE:NAME", default="trio_voice.demo.customer_service:AGENT", show_default=True)
@click.option("--mic", metavar="DEVICE|FILE.wav", help="A microphone by name or number, or a file to be heard.")
@click.option("--speaker", metavar="DEVICE|FILE.wav", help="A loudspeaker by name or number, or a file to write.")
@click.option("--text", is_flag=True, help="Type instead of speaking: one message a line.")
@click.option("--seconds", type=float, help="End by itself after this long.")
@click.option("--local", is_flag=True, help="Use the local server although there is a key.")
def talk(**options: Any) -> None:
    """Talk to an agent: your microphone, your loudspeaker, a live transcript.

    With no key and no --url this starts the local server by itself. Speak while the agent speaks: it falls silent.
    Use headphones, or the agent hears itself. Ctrl-C ends the conversation and prints its summary.
    """
    _run(partial(_talk, options, Console()))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8765, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="TRIO_VOICE_API_KEY", help="Clients must show it as a bearer token.")
@click.option("--session-limit", type=float, default=3600, show_default=True, help="Seconds until a session is ended.")
@click.option("--llm", metavar="URL", help="An OpenAI-compatible endpoint (Ollama, llama.cpp, vLLM) that answers.")
@click.option("--llm-model", default="default", show_default=True)
@click.option("--llm-key", envvar="TRIO_VOICE_LLM_KEY")
def serve(**options: Any) -> None:
    """Run the local Realtime server: it hears, answers and speaks on this machine.

    The first line it prints is `listening ws://HOST:PORT/v1/realtime`.
    """
    _run(partial(_serve, options))


@main.command()
@click.option("--rates", is_flag=True, help="Also try which sample rates each device takes.")
def devices(rates: bool) -> None:
    """List microphones and loudspeakers."""
    from rich.table import Table

    from trio_voice.devices.portaudio import list_devices

    table = Table("number", "name", "microphone", "loudspeaker", *(["rates (Hz)"] if rates else []))
    found = _or_exit(lambda: list_devices(probe_rates=rates))
    for device in found:
        marks = [
            _mark(device.input_channels, device.is_default_input),
            _mark(device.output_channels, device.is_default_output),
        ]
        row = [str(device.index), device.name, *marks]
        table.add_row(*row, *([", ".join(map(str, device.rates_hz))] if rates else []))
    console = Console()
    console.print(table)
    if not found:
        console.print("No device. `trio-voice talk --mic FILE.wav --speaker out.wav` works without any.")


@main.command()
def doctor() -> None:
    """Say what is installed, what is missing, and how to get it. Ends with 1 where a conversation could not run."""
    from trio_voice.doctor import checks

    console = Console()
    results = checks()
    for check in results:
        mark = "[green]ok     [/]" if check.ok else "[dim]absent [/]" if check.optional else "[red]missing[/]"
        console.print(f"{mark}  {check.name}: {check.detail}", soft_wrap=True)
        if not check.ok and check.remedy:
            console.print(f"         → {check.remedy}", soft_wrap=True)
    sys.exit(0 if all(check.ok or check.optional for check in results) else 1)


# --- what the commands do ---------------------------------------------------------------------------------------------


async def _talk(options: dict[str, Any], console: Console) -> None:
    from trio_voice.picture import view
    from trio_voice.session import RealtimeSession

    agent = _load_agent(options["agent"])
    async with AsyncExitStack() as stack:
        connection = await _connection(options, stack, console)
        session = RealtimeSession(
            agent,
            connection=connection,
            microphone=None if options["text"] else _microphone(options["mic"]),
            speaker=None if options["text"] and not options["speaker"] else _speaker(options["speaker"]),
        )
        entered = False
        try:
            with trio.move_on_after(options["seconds"] or float("inf")):
                async with session, trio.open_nursery() as screen:
                    entered = True
                    shown = partial(view.show, session, console=console, title=connection.url, levels=None)
                    screen.start_soon(shown)
                    if options["text"]:
                        await _type(session)
                        screen.cancel_scope.cancel()
                    else:
                        await session.start_listening()
                        await trio.sleep_forever()
        finally:
            if entered:
                console.print_json(data=session.summary())


async def _connection(options: dict[str, Any], stack: AsyncExitStack, console: Console) -> Any:
    from trio_voice.config import ConnectionOptions
    from trio_voice.server.process import local_server

    url, key, model = options["url"], options["api_key"], options["model"]
    if options["azure"]:
        if not (key and model):
            raise ConfigError("--azure needs --model (the deployment) and --api-key")
        url = f"wss://{options['azure']}.openai.azure.com/openai/v1/realtime"
        return ConnectionOptions(url=url, model=model, api_key=key, azure=True)
    if url is not None:
        return ConnectionOptions(url=url, model=model, api_key=key)
    if key and not options["local"]:
        return ConnectionOptions(url=OPENAI_URL, model=model or OPENAI_MODEL, api_key=key)
    console.print("No key and no --url: starting the local server. Its engines take about five seconds to load.")
    local_url = await stack.enter_async_context(local_server())
    return ConnectionOptions(url=local_url, model=None, connect_timeout_ms=60_000)


async def _type(session: RealtimeSession) -> None:
    """One message for each line of standard input; at its end, wait for the last answer."""
    from trio_voice.events import PlaybackEnd, ResponseEnd, ResponseStart

    spoken = session.has_speaker
    async for line in trio.wrap_file(sys.stdin):
        if not line.strip():
            continue
        stream = session.events()
        await session.send_text(line)
        await stream.wait_for(PlaybackEnd if spoken else ResponseEnd)
        with trio.move_on_after(0.3):  # a tool's answer follows at once
            await stream.wait_for(ResponseStart)
            await stream.wait_for(PlaybackEnd if spoken else ResponseEnd)


async def _serve(options: dict[str, Any]) -> None:
    from trio_voice.server.listen import serve
    from trio_voice.server.speech.brain import SpeechBrain

    dialogue = None
    if options["llm"]:
        from trio_voice.server.speech.llm import LlmDialogue

        dialogue = LlmDialogue(options["llm"], options["llm_model"], options["llm_key"])
    brain = SpeechBrain(llm=dialogue)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            partial(
                serve,
                brain,
                host=options["host"],
                port=options["port"],
                api_key=options["api_key"],
                session_limit_s=options["session_limit"],
            )
        )
        print(f"listening {listening.url}", flush=True)
        print(
            f"{brain.description}. The engines are loading; who connects is answered when they are there.", flush=True
        )


def _load_agent(reference: str) -> RealtimeAgent:
    from trio_voice.agent import RealtimeAgent

    module_name, _, name = reference.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        agent = getattr(importlib.import_module(module_name), name or "AGENT")
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--agent {reference}: {error}; write it as MODULE:NAME") from error
    if not isinstance(agent, RealtimeAgent):
        raise ConfigError(f"--agent {reference}: a {type(agent).__name__}, not a RealtimeAgent")
    return agent


def _microphone(chosen: str | None) -> Any:
    if chosen is not None and chosen.endswith(".wav"):
        from trio_voice.devices.wav import WavMicrophone

        return WavMicrophone(chosen)
    from trio_voice.devices.portaudio import PortAudioMicrophone

    return PortAudioMicrophone(_device(chosen))


def _speaker(chosen: str | None) -> Any:
    if chosen is not None and chosen.endswith(".wav"):
        from trio_voice.devices.wav import WavSpeaker

        return WavSpeaker(chosen)
    from trio_voice.devices.portaudio import PortAudioSpeaker

    return PortAudioSpeaker(_device(chosen))


def _device(chosen: str | None) -> str | int | None:
    return int(chosen) if chosen is not None and chosen.isdigit() else chosen


def _mark(channels: int, is_default: bool) -> str:
    return "" if not channels else "default" if is_default else "yes"


# --- running ----------------------------------------------------------------------------------------------------------


def _run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run until done or Ctrl-C; errors of ours become one line and exit status 1."""

    async def interruptible() -> Any:
        result = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
            result = await main()
            nursery.cancel_scope.cancel()
        return result

    return _or_exit(lambda: trio.run(interruptible))


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _or_exit(call: Callable[[], Any]) -> Any:
    errors: list[BaseException] = []
    try:
        return call()
    except* (TrioVoiceError, OSError) as group:
        errors.extend(group.exceptions)
    error = errors[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    Console(stderr=True).print(f"[red]trio-voice:[/] {error}", soft_wrap=True)
    sys.exit(1)


def _set_up_logging(level: str) -> None:
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
