"""The command line: `trio-voice demo | talk | replay | serve | devices | doctor`. Options here, the work beside it.

running.py   from a command to an exit status: signals, errors
talking.py   talk      writing.py   talk --text
serving.py   serve     sound_check.py   devices --test
replaying.py replay
"""

from __future__ import annotations

import io
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from trio_voice.cli import running
from trio_voice.cli.talking import OPENAI_MODEL, talk as talk_to_agent

LOG_LEVELS = ["debug", "info", "warning", "error"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trio-voice")
@click.option(
    "--log-level", type=click.Choice(LOG_LEVELS), default="error", show_default=True, help="What is logged to stderr."
)
def main(log_level: str) -> None:
    """Voice agents on Trio: talk to one, serve one, and see what this machine lacks.

    \b
    Examples:
      trio-voice demo               hear two parties talk; needs no key, no network, no sound card
      trio-voice talk               talk to an agent yourself, in your own voice
      trio-voice talk --text        ... in writing
      trio-voice replay FILE        a conversation again, from its journal
      trio-voice devices --test     whether microphone and loudspeaker work
      trio-voice doctor             what is missing here, and how to get it

    Exit status: 0 done; 1 it failed, and one line on stderr says why; 2 wrong options; 130 cut short by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a letter that the terminal lacks ends no conversation
    _set_up_logging(log_level)


@main.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="A folder.",
)
@click.option("--url", help="A server that runs already, in place of one started for the demonstration.")
def demo(out: Path, url: str | None) -> None:
    """Hold a spoken conversation between a recorded caller and the customer-service agent.

    It takes a minute and a quarter, and is spoken and recognised for real: an order is looked up, a callback
    scheduled, a question out of scope declined, the agent interrupted while it counts, the caller transferred. The
    folder gets conversation.wav, timeline.svg, summary.json and journal.jsonl.

    \b
    Examples:
      trio-voice demo
      trio-voice demo --out /tmp/demo
    """
    from trio_voice.demo import run

    async def show(_: running.Ending) -> int:
        return 0 if await run.run(out, console=Console(), url=url) else 1

    running.run(show)


@main.command()
@click.option("--url", help="A Realtime server. Default: OpenAI where there is a key, else a local server.")
@click.option("--model", help=f"Default at OpenAI: {OPENAI_MODEL}. At Azure: the name of the deployment.")
@click.option("--api-key", envvar="OPENAI_API_KEY", show_envvar=True, help="The server's key.")
@click.option(
    "--azure", metavar="RESOURCE", help="Azure OpenAI: the name of the resource. Needs --model and --api-key."
)
@click.option("--dialect", metavar="NAME", help="What kind of server it is: openai, xai, qwen … (docs: dialects).")
@click.option("--local", is_flag=True, help="Start the local server although there is a key.")
@click.option("--agent", metavar="MODULE:NAME", default="trio_voice.demo.customer_service:AGENT", show_default=True)
@click.option("--mic", metavar="DEVICE|FILE.wav", help="A microphone by name or number, or a file to be heard.")
@click.option("--speaker", metavar="DEVICE|FILE.wav", help="A loudspeaker by name or number, or a file to be written.")
@click.option(
    "--echo",
    type=click.Choice(["off", "gate", "aec"]),
    default="off",
    show_default=True,
    help="What to do about the agent's voice in the microphone: cancel it (aec), or hear nothing meanwhile (gate).",
)
@click.option(
    "--min-speech-ms", type=click.IntRange(0, 2000), help="How long you have to speak to interrupt; 300 spares coughs."
)
@click.option("--text", is_flag=True, help="Write in place of speaking: a line is a message. Ends with the input.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End by itself after this long.")
@click.option("--summary", type=click.Path(dir_okay=False, path_type=Path), help="A file for the summary, as JSON.")
@click.option(
    "--journal", type=click.Path(dir_okay=False, path_type=Path), help="A file for every event; `replay` shows it."
)
@click.option("--journal-sound", is_flag=True, help="Keep the sound in the journal too: yours and the agent's.")
@click.pass_context
def talk(context: click.Context, /, **options: Any) -> None:
    """Talk to an agent: your microphone, your loudspeaker, a live transcript.

    With no key and no --url this starts the local server by itself, and ends it again. Speak while the agent speaks:
    it falls silent. Wear headphones, or give --echo aec, or the agent hears itself. Ctrl-C ends the conversation; a
    second one, at once.

    \b
    Examples:
      trio-voice talk                                  this computer's devices
      trio-voice talk --mic headset --speaker 3        others; `trio-voice devices` lists them
      trio-voice talk --mic question.wav --speaker answer.wav --seconds 20
      trio-voice talk --echo aec --min-speech-ms 300   through a loudspeaker, sparing coughs
      trio-voice talk --text                           in writing
      trio-voice talk --text < questions.txt           each line is answered
      trio-voice talk --agent mine:AGENT               AGENT in mine.py, in this folder
      trio-voice talk --url ws://127.0.0.1:8765/v1/realtime
      trio-voice talk --azure RESOURCE --model DEPLOYMENT --api-key KEY
      trio-voice talk --dialect xai --api-key KEY
    """
    if options["journal_sound"] and options["journal"] is None:
        raise click.UsageError("--journal-sound says what --journal FILE is to keep; give the file.")
    if options["text"] and options["mic"]:
        raise click.UsageError("--text is without a microphone; leave out one of --text and --mic.")
    source = context.get_parameter_source("api_key")
    options["key_from_environment"] = source is click.core.ParameterSource.ENVIRONMENT
    running.run(partial(talk_to_agent, options, Console()))


@main.command()
@click.argument("journal", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="A folder for the picture and the sound.")
@click.option("--play", is_flag=True, help="Play both sides, in real time. Needs a journal with sound.")
@click.option("--speaker", metavar="DEVICE|FILE.wav", help="With --play: where. Default: the default one.")
def replay(journal: Path, **options: Any) -> None:
    """Show a conversation again from its journal: who said what and when, what was heard of it, what the tools did.

    The journal is what `talk --journal FILE`, `demo` and `trio_voice.journal.write` leave. With --out the folder gets
    timeline.svg, and conversation.wav where the journal has sound.

    \b
    Examples:
      trio-voice replay demo-out/journal.jsonl
      trio-voice replay talk.jsonl --out talk
      trio-voice replay talk.jsonl --play
    """
    if options["speaker"] is not None and not options["play"]:
        raise click.UsageError("--speaker says where --play is to be heard; add --play.")
    from trio_voice.cli import replaying

    running.run(partial(replaying.replay, journal, options, Console()))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; give an --api-key with others.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="TRIO_VOICE_API_KEY", show_envvar=True, help="Clients must show it as bearer token.")
@click.option(
    "--session-limit", type=click.FloatRange(min=1), default=3600, show_default=True, help="Seconds; then it is ended."
)
@click.option("--llm", metavar="URL", help="Who answers, in place of rules: an OpenAI-compatible chat endpoint.")
@click.option("--llm-model", default="default", show_default=True, help="The model's name there.")
@click.option("--llm-key", envvar="TRIO_VOICE_LLM_KEY", show_envvar=True, help="The key there, if it wants one.")
@click.option("--beta", is_flag=True, help="Speak the protocol's beta shape, as older servers do.")
@click.option("--dialect", metavar="NAME", help="Play another server: qwen, xai, speaches … (docs: dialects).")
@click.option("--until-stdin-ends", is_flag=True, hidden=True)
def serve(**options: Any) -> None:
    """Run the local Realtime server: it hears, answers and speaks on this machine, with no key and no network.

    The first line it prints is `listening ws://HOST:PORT/v1/realtime`, the second says which engines it has. Any
    client of the OpenAI Realtime protocol can connect. Ctrl-C ends it.

    \b
    Examples:
      trio-voice serve
      trio-voice serve --port 0 --api-key secret
      trio-voice serve --beta                         the same conversation in the beta's shape
      trio-voice serve --llm http://localhost:11434/v1 --llm-model qwen3      a model in Ollama answers
    """
    from trio_voice.cli import serving

    running.run(partial(serving.serve, options), linger_s=serving.LINGER_S)


@main.command()
@click.option("--url", help="A Realtime server. Default: OpenAI where OPENAI_API_KEY is set, else a local server.")
@click.option("--agent", metavar="MODULE:NAME", default="trio_voice.demo.customer_service:AGENT", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the page is.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
def web(**options: Any) -> None:
    """Talk to an agent in a browser: its microphone and loudspeaker, with its echo cancellation.

    Each page that is opened is a conversation of its own. Browsers give the microphone only to pages of this computer,
    or of an https address. Ctrl-C ends it. Needs the extra [browser].

    \b
    Examples:
      trio-voice web
      trio-voice web --agent mine:AGENT --port 0
      trio-voice web --url ws://127.0.0.1:8765/v1/realtime
    """
    from trio_voice.cli import web as page

    running.run(partial(page.serve, options, Console()))


@main.command()
@click.option("--rates", is_flag=True, help="Also try which sample rates each device takes; that takes a while.")
@click.option("--test", is_flag=True, help="Play a tone, and show how loud it is at the microphone.")
@click.option("--output", metavar="DEVICE|FILE.wav", help="With --test: the loudspeaker. Default: the default one.")
@click.option("--input", metavar="DEVICE|FILE.wav", help="With --test: the microphone. Default: the default one.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=600, min_open=True),
    default=5,
    show_default=True,
    help="With --test: how long.",
)
def devices(rates: bool, test: bool, **options: Any) -> None:
    """List microphones and loudspeakers: what --mic and --speaker of `talk` take, by number or name.

    With --test, hear and see whether one of each works: a soft tone is played, half a second in each second, and the
    level at the microphone is shown. Speak: the level must rise. Ctrl-C ends it early.

    \b
    Examples:
      trio-voice devices
      trio-voice devices --rates
      trio-voice devices --test
      trio-voice devices --test --output 3 --input headset --seconds 20
    """
    if test and rates:
        raise click.UsageError("--test does not list; leave out one of --test and --rates.")
    if not test and (options["output"] is not None or options["input"] is not None):
        raise click.UsageError("--output and --input say what --test is to try; add --test.")
    if test:
        from trio_voice.cli import sound_check

        running.run(partial(sound_check.check, options, Console(highlight=False)))
    sys.exit(running.status_of(partial(_list_devices, rates)))


@main.command()
def doctor() -> None:
    """Say what is installed, what is missing, and how to get it.

    Changes nothing and sends nothing. Ends with 1 where something is missing that `trio-voice talk` needs.
    """
    from trio_voice.doctor import checks, engine_checks

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    results = [*checks(), *engine_checks()]
    width = max(len(check.name) for check in results)
    for check in results:
        mark, style = ("ok", "green") if check.ok else ("absent", "dim") if check.optional else ("missing", "red")
        console.print(f"{mark:<8}", style=style, end="")
        console.print(f"{check.name:<{width}}  {check.detail}")
        if not check.ok and check.remedy:
            console.print(f"{'':<8}-> {check.remedy}")
    sys.exit(0 if all(check.ok or check.optional for check in results) else 1)


def _list_devices(rates: bool) -> int:
    from rich.table import Table
    from rich.text import Text

    from trio_voice.devices.portaudio import list_devices

    found = list_devices(probe_rates=rates)
    console = Console(highlight=False)
    if not found:
        console.print("No device. Without any: trio-voice talk --mic question.wav --speaker answer.wav", soft_wrap=True)
        console.print("What might be missing: trio-voice doctor", soft_wrap=True)
        return 0
    table = Table("number", "name", "microphone", "loudspeaker", *(["rates (Hz)"] if rates else []))
    for device in found:
        row = [str(device.index), device.name]
        row += [
            _mark(device.input_channels, device.is_default_input),
            _mark(device.output_channels, device.is_default_output),
        ]
        row += [", ".join(map(str, device.rates_hz))] if rates else []
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    return 0


def _mark(channels: int, is_default: bool) -> str:
    return "" if not channels else "default" if is_default else "yes"


class _Stderr:
    """Standard error as it is at this moment: a live view puts itself in its place for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _set_up_logging(level: str) -> None:
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),  # type: ignore[arg-type]  # writes like a file
    )
