"""`trio-voice talk`: an agent, a server, the devices that were chosen, and a screen, put together."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import trio
from rich.console import Console

from trio_voice import journal
from trio_voice.agent import RealtimeAgent
from trio_voice.cli import writing
from trio_voice.cli.running import Ending
from trio_voice.config import AgentCapability, AudioInputConfig, ConnectionOptions, url_shown
from trio_voice.devices.meter import Meter, MeteredMicrophone, MeteredSpeaker
from trio_voice.errors import ConfigError, DeviceError
from trio_voice.session import RealtimeSession

if TYPE_CHECKING:
    from trio_voice.devices import Microphone, Speaker

OPENAI_URL = "wss://api.openai.com/v1/realtime"
OPENAI_MODEL = "gpt-realtime-2.1"
LOCAL_CONNECT_TIMEOUT_MS = 60_000
"""The local server listens at once and answers when its engines are loaded."""


async def talk(options: dict[str, Any], console: Console, ending: Ending) -> None:
    """Hold a conversation until told to end, after `seconds`, or in writing until the input ends."""
    from trio_voice.picture import view

    agent = load_agent(options["agent"])
    if options["min_speech_ms"] is not None:
        patient = attrs.evolve(agent.interruption, min_speech_ms=options["min_speech_ms"])
        agent = attrs.evolve(agent, interruption=patient)
    hearing = AudioInputConfig(echo=options["echo"])
    in_writing: bool = options["text"]
    if in_writing:
        agent = _writing(agent, speaks=options["speaker"] is not None)
    remote = _remote_connection(options)
    await trio.to_thread.run_sync(_check_devices, options, agent, abandon_on_cancel=True)
    if hearing.processes and not in_writing:
        from trio_voice.devices.webrtc import WebRtcFilter

        WebRtcFilter(hearing, None)  # what is missing is told before a server is started
    mouth, ear = Meter(), Meter()
    microphone = None if in_writing else MeteredMicrophone(chosen_microphone(options["mic"]), mouth)
    speaker = None if in_writing and not options["speaker"] else MeteredSpeaker(chosen_speaker(options["speaker"]), ear)

    def levels() -> tuple[float, float]:
        return mouth.level_dbfs(), ear.level_dbfs()

    async with AsyncExitStack() as stack:
        connection = remote or await _local_connection(options, stack, console)
        session = RealtimeSession(
            agent, connection=connection, microphone=microphone, speaker=speaker, audio_input=hearing
        )
        page = session.events(protocol=True, audio=True) if in_writing else None
        entered = False
        try:
            async with trio.open_nursery() as beside:
                if options["journal"] is not None:
                    await beside.start(_keep_journal_to_the_end, session, options)
                async with session:
                    entered = ending.is_normal = True
                    with trio.move_on_after(options["seconds"] or float("inf")):
                        if page is not None:
                            _say_connected(connection, console)
                            await writing.converse(session, page, console)
                        else:
                            title = url_shown(connection.url)
                            show = partial(view.show, session, console=console, title=title, levels=levels)
                            await beside.start(_show_to_the_end, show, ending)
                            await session.start_listening()
                            if not console.is_terminal:  # there the view says so
                                _say_connected(connection, console)
                            await trio.sleep_forever()
        finally:
            if entered:
                _tell(session.summary(), options["summary"], console)


def _say_connected(connection: ConnectionOptions, console: Console) -> None:
    console.print(
        f"Connected to {url_shown(connection.url)}", soft_wrap=True, highlight=False, markup=False, style="dim"
    )


async def _show_to_the_end(show: Any, ending: Ending, *, task_status: trio.TaskStatus[None]) -> None:
    """Shielded, as the last words come when the session ends; with it `show` ends by itself."""
    with trio.CancelScope(shield=True), ending.keys_unseen():
        await show(task_status=task_status)


async def _keep_journal_to_the_end(
    session: RealtimeSession, options: dict[str, Any], *, task_status: trio.TaskStatus[None]
) -> None:
    """Shielded likewise."""
    path: Path = options["journal"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with trio.CancelScope(shield=True):
        await journal.write(session, path, sound=options["journal_sound"], task_status=task_status)


async def _local_connection(options: dict[str, Any], stack: AsyncExitStack, console: Console) -> ConnectionOptions:
    """Start the local server; it ends with `stack`. Raises: `TrioVoiceError` where it does not start."""
    from trio_voice.server.process import local_server

    why = "" if options["local"] else "No key and no --url. "
    console.print(f"{why}Starting the local server; its engines take about five seconds to load.", soft_wrap=True)
    url = await stack.enter_async_context(local_server())
    return ConnectionOptions(url=url, model=None, connect_timeout_ms=LOCAL_CONNECT_TIMEOUT_MS)


def _remote_connection(options: dict[str, Any]) -> ConnectionOptions | None:
    """The server that the options name, or None for a local one.

    Raises: `ConfigError` where they contradict each other, or a key would travel in the clear.
    """
    url, key, model, azure = options["url"], options["api_key"], options["model"], options["azure"]
    dialect = options["dialect"]
    named = [flag for flag, given in (("--url", url), ("--azure", azure), ("--local", options["local"])) if given]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} each name a server; give one of them")
    if dialect and (azure or options["local"]):
        raise ConfigError(f"{named[0]} says which dialect it is; leave out --dialect")
    if azure:
        if not (key and model):
            raise ConfigError("--azure needs --model (the name of the deployment) and --api-key, or OPENAI_API_KEY")
        host = azure if "." in azure else f"{azure}.openai.azure.com"
        return ConnectionOptions(url=f"wss://{host}/openai/v1/realtime", model=model, api_key=key, dialect="azure")
    if url:
        if key and options["key_from_environment"] and _in_the_clear(url):
            raise ConfigError(
                f"OPENAI_API_KEY would go to {urlsplit(url).hostname} unencrypted: use wss://, "
                "or name the key for this server with --api-key"
            )
        return ConnectionOptions(url=url, model=model, api_key=key, dialect=dialect)
    if dialect:
        key = key if not options["key_from_environment"] or dialect == "openai" else None  # it is OpenAI's key
        chosen = {} if model is None else {"model": model}
        return ConnectionOptions(dialect=dialect, api_key=key, **chosen)
    if key and not options["local"]:
        return ConnectionOptions(url=OPENAI_URL, model=model or OPENAI_MODEL, api_key=key)
    return None


def _in_the_clear(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "ws" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def load_agent(reference: str) -> RealtimeAgent:
    """The agent called `MODULE:NAME`; a module in the working directory will do.

    Raises: `ConfigError` saying where in the module it failed, or which agents it has.
    """
    module_name, _, name = reference.partition(":")
    if module_name.endswith(".py"):
        module = module_name.removesuffix(".py").replace(os.sep, ".")
        raise ConfigError(f"--agent {reference}: give the module, not the file: --agent {module}:{name or 'AGENT'}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module_found = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(f"--agent {reference}: {_import_failure(module_name, error)}") from error
    agent = getattr(module_found, name or "AGENT", None)
    if not isinstance(agent, RealtimeAgent):
        agents = [key for key, found in vars(module_found).items() if isinstance(found, RealtimeAgent)]
        there_are = f"it has: {', '.join(agents)}" if agents else "it has none; AGENT = RealtimeAgent(...) makes one"
        raise ConfigError(
            f"--agent {reference}: {module_name} has no RealtimeAgent called {name or 'AGENT'!r}; {there_are}"
        )
    return agent


def _import_failure(module_name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == module_name:
        return f"there is no module {module_name!r}, neither installed nor in {os.getcwd()}; write it as MODULE:NAME"
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({Path(at.filename).name}, line {at.lineno})"
    return f"importing {module_name} failed: {type(error).__name__}: {error}{where}"


def _writing(agent: RealtimeAgent, *, speaks: bool) -> RealtimeAgent:
    """`agent` as it is in writing: it takes and gives text, and speaks only where there is a loudspeaker."""
    without = {AgentCapability.VOICE_INPUT} | (set() if speaks else {AgentCapability.VOICE_OUTPUT})
    able = (agent.capabilities - without) | {AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT}
    return attrs.evolve(agent, capabilities=able)


# --- devices ----------------------------------------------------------------------------------------------------------


def chosen_microphone(chosen: str | None) -> Microphone:
    """What `--mic` names: a device, or a file that is heard."""
    if _is_file(chosen):
        from trio_voice.devices.wav import WavMicrophone

        return WavMicrophone(Path(chosen or ""))
    from trio_voice.devices.portaudio import PortAudioMicrophone

    return PortAudioMicrophone(_device(chosen))


def chosen_speaker(chosen: str | None) -> Speaker:
    """What `--speaker` names: a device, or a file that is written."""
    if _is_file(chosen):
        from trio_voice.devices.wav import WavSpeaker

        return WavSpeaker(Path(chosen or ""))
    from trio_voice.devices.portaudio import PortAudioSpeaker

    return PortAudioSpeaker(_device(chosen))


def _is_file(chosen: str | None) -> bool:
    return chosen is not None and chosen.lower().endswith(".wav")


def _device(chosen: str | None) -> str | int | None:
    return int(chosen) if chosen is not None and chosen.isdigit() else chosen


def _check_devices(options: dict[str, Any], agent: RealtimeAgent) -> None:
    """Find out before a server is started. Blocks while PortAudio looks. Raises: `DeviceError`."""
    from trio_voice.devices.portaudio import find_device, list_devices

    mic, speaker = options["mic"], options["speaker"]
    if _is_file(mic) and not Path(mic).exists():
        raise DeviceError(f"--mic {mic}: there is no such file")
    if _is_file(speaker):
        folder = Path(speaker).absolute().parent
        if folder.exists() and not os.access(folder, os.W_OK):
            raise DeviceError(f"--speaker {speaker}: {folder} cannot be written to")
    try:
        if agent.can(AgentCapability.VOICE_INPUT) and not _is_file(mic):
            find_device(_device(mic), "input", list_devices())
        if agent.can(AgentCapability.VOICE_OUTPUT) and not _is_file(speaker):
            find_device(_device(speaker), "output", list_devices())
    except DeviceError as error:
        raise DeviceError(f"{error} Or talk in writing: --text.") from error


# --- the account ------------------------------------------------------------------------------------------------------


def _tell(summary: dict[str, Any], path: Path | None, console: Console) -> None:
    """What was, in two lines, and in full as JSON where a file was named."""
    counts = [
        _counted(summary["turn_count"], "turn"),
        _counted(len(summary["tool_calls"]), "tool call"),
        _counted(summary["interruption_count"], "interruption"),
    ]
    line = f"{summary['duration_seconds']:.0f} s: {', '.join(counts)}"
    if summary["average_latency_ms"] is not None:
        line += f", mean latency {summary['average_latency_ms']:.0f} ms"
    console.print(f"{line}.", highlight=False, soft_wrap=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"The whole of it: {path}", highlight=False, soft_wrap=True, markup=False)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
