"""The command line, as it is used: options and help in this process, conversations in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from click.testing import CliRunner, Result

from program import HANG_GUARD_S, command, program, program_at_terminal, serving, without_keys
from trio_voice.agent import RealtimeAgent
from trio_voice.audio import level_dbfs
from trio_voice.cli import main, running
from trio_voice.demo.caller import __file__ as caller_file
from trio_voice.devices.wav import read_wav, write_wav
from trio_voice.errors import ConfigError, TrioVoiceError, WireLost
from trio_voice.server.scripted import Call, Fail, Say, ScriptedBrain

QUESTION = Path(caller_file).parent / "caller" / "01-order.wav"
AGENT = """
from trio_voice import RealtimeAgent, tool

@tool
def capital_of(country: str) -> str:
    '''The capital of a country.'''
    return "Paris [1]"

AGENT = RealtimeAgent(name="Geographer", tools=(capital_of,))
"""
"""One that does not greet; `[1]` would be markup to a careless print."""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """The folder that has `geographer.py`."""
    (tmp_path / "geographer.py").write_text(AGENT)
    return tmp_path


def invoke(*arguments: str, **environ: str) -> Result:
    keyless = {"OPENAI_API_KEY": None, "TRIO_VOICE_API_KEY": None, "TRIO_VOICE_LLM_KEY": None}
    return CliRunner().invoke(main, arguments, env={**keyless, **environ}, catch_exceptions=False)


# --- help and options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "demo", "talk", "serve", "devices"])
def test_help_teaches_by_example(name: str) -> None:
    shown = invoke(*name.split(), "--help")
    assert shown.exit_code == 0
    assert "Examples:" in shown.output
    assert f"trio-voice {name}".strip() in shown.output.split("Examples:")[1]


def test_what_only_programs_use_is_not_in_the_help() -> None:
    assert "--until-stdin-ends" not in invoke("serve", "--help").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["talk", "--text", "--mic", "question.wav"], "leave out one of --text and --mic"),
        (["talk", "--seconds", "0"], "--seconds"),
        (["serve", "--port", "70000"], "--port"),
        (["devices", "--input", "3"], "add --test"),
        (["devices", "--test", "--rates"], "leave out one of --test and --rates"),
        (["devices", "--test", "--seconds", "601"], "--seconds"),
        (["--log-level", "loud", "talk"], "--log-level"),
    ],
)
def test_options_that_make_no_sense_end_with_2(arguments: list[str], said: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("talk --text --azure acme", "--azure needs --model"),
        ("talk --text --azure acme --url ws://127.0.0.1:1/", "--url and --azure each name a server"),
        ("talk --text --local --url ws://127.0.0.1:1/", "--url and --local each name a server"),
        ("talk --text --url http://127.0.0.1/", "must begin with ws://"),
        ("talk --text --dialect grok", "known are: openai, azure"),
        ("talk --text --dialect qwen", "needs a model"),
        ("talk --text --dialect xai --azure acme", "leave out --dialect"),
        ("talk --text --dialect xai --local", "leave out --dialect"),
        ("serve --beta --dialect qwen", "leave out one of them"),
        ("serve --dialect grok", "known are: openai, azure"),
        ("talk --mic gone.wav --speaker out.wav", "gone.wav: there is no such file"),
        ("talk --text --agent nowhere:AGENT", "there is no module 'nowhere'"),
        ("talk --text --agent agents.py:AGENT", "--agent agents:AGENT"),
        ("talk --text --agent trio_voice.demo.customer_service:BOB", "no RealtimeAgent called 'BOB'; it has: AGENT"),
        ("talk --text --agent json", "makes one"),
    ],
)
def test_settings_that_cannot_work_are_one_line_on_stderr(arguments: str, said: str) -> None:
    result = invoke(*arguments.split())
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_an_agent_that_fails_to_import_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_agent.py").write_text("x = 1\ny = zz\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    said = invoke("talk", "--text", "--agent", "broken_agent:A").stderr
    assert "NameError: name 'zz' is not defined (broken_agent.py, line 2)" in said


def test_a_key_of_the_environment_does_not_leave_the_machine_in_the_clear() -> None:
    result = invoke("talk", "--text", "--url", "ws://example.com/v1/realtime", OPENAI_API_KEY="sk-secret")
    assert result.exit_code == 1
    assert "example.com unencrypted" in result.stderr
    assert "sk-secret" not in result.stderr


def test_without_a_device_every_way_round_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_voice.devices.portaudio.list_devices", list)
    result = invoke("talk")
    assert result.exit_code == 1
    for flag in ("--mic", "--speaker", "--text"):
        assert flag in result.stderr
    assert "Traceback" not in result.stderr


def test_without_portaudio_talk_and_devices_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for name in ("talk", "devices"):
        result = invoke(name)
        assert result.exit_code == 1
        assert "libportaudio2" in result.stderr


def test_devices_without_any_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_voice.devices.portaudio.list_devices", lambda probe_rates: [])
    result = invoke("devices")
    assert result.exit_code == 0
    assert "--mic question.wav" in result.stdout


def test_devices_are_tried_with_a_tone_and_a_level_in_plain_lines(tmp_path: Path) -> None:
    loud = np.full(24_000 * 3, 3277, "<i2")
    write_wav(tmp_path / "in.wav", 24_000, loud)
    result = invoke(
        "devices",
        "--test",
        "--input",
        str(tmp_path / "in.wav"),
        "--output",
        str(tmp_path / "out.wav"),
        "--seconds",
        "1.5",
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert "out.wav" in lines[0]
    assert "in.wav" in lines[0]
    assert "1 s   -20 dBFS, loudest  -20" in lines[1]
    assert lines[2] == "Loudest at the microphone: -20 dBFS."
    played = read_wav(tmp_path / "out.wav", 24_000)
    assert abs(played[:12_000]).max() == pytest.approx(3277, abs=2)
    assert not played[12_000:24_000].any()
    assert played[24_000:].any(), "again in the next second"


def test_a_microphone_that_gives_silence_is_named_as_such(tmp_path: Path) -> None:
    write_wav(tmp_path / "in.wav", 24_000, np.zeros(24_000, "<i2"))
    where = ["--input", str(tmp_path / "in.wav"), "--output", str(tmp_path / "out.wav")]
    assert "is it muted" in invoke("devices", "--test", *where, "--seconds", "0.3").stdout


def test_a_device_to_be_tried_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = invoke("devices", "--test", "--output", str(tmp_path / "out.wav"), "--input", str(tmp_path / "gone.wav"))
    assert result.exit_code == 1
    assert "there is no such file" in result.stderr
    assert result.stderr.count("\n") == 1


def test_doctor_names_engines_and_extras_as_they_are_written() -> None:
    said = invoke("doctor").stdout
    for name in ("extra [local]", "local recogniser", "moonshine-tiny", "local voice", "local detector"):
        assert name in said


# --- exit status ------------------------------------------------------------------------------------------------------


def test_of_several_errors_the_cause_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        lost = WireLost("the connection is closed", retryable=True)
        raise BaseExceptionGroup("", [ExceptionGroup("", [lost, ConfigError("the server refused [this]")])])

    assert running.status_of(fail) == 1
    assert capsys.readouterr().err == "trio-voice: the server refused [this]\n"


def test_what_is_not_expected_keeps_its_traceback() -> None:
    def fail() -> int:
        raise ExceptionGroup("", [TrioVoiceError("expected"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup):
        running.status_of(fail)


@pytest.mark.parametrize(("is_normal", "status"), [(True, 0), (False, 128 + signal.SIGTERM)])
def test_a_signal_ends_a_command_with_the_status_of_where_it_was(is_normal: bool, status: int) -> None:
    wait = f"    ending.is_normal = {is_normal}\n    print('up', flush=True)\n    await trio.sleep_forever()"
    with commanded(wait) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_GUARD_S) == status


def test_a_second_signal_ends_even_what_hangs() -> None:
    with commanded("    print('up', flush=True)\n    time.sleep(60)") as process:  # not even the loop runs
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # two of the same kind might be merged into one
        assert process.wait(HANG_GUARD_S) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_an_orderly_end_that_hangs_is_cut_short() -> None:
    hang = (
        "    with trio.CancelScope(shield=True):\n        print('up', flush=True)\n        await trio.sleep_forever()"
    )
    with commanded(hang) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG_GUARD_S) == 130


@contextmanager
def commanded(body: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in which `running.run` runs a command with this body, up to where it prints."""
    source = (
        "import time, trio\nfrom trio_voice.cli import running\n"
        f"async def command(ending):\n{body}\nrunning.run(command, linger_s=0.2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


# --- in writing -------------------------------------------------------------------------------------------------------


async def test_each_line_of_a_pipe_is_answered_tools_included(agent: Path) -> None:
    brain = ScriptedBrain([Call("capital_of", '{"country": "France"}'), Say("It is Paris."), Say("Goodbye.")])
    async with serving(brain) as url:
        arguments = ["talk", "--text", "--url", url, "--agent", "geographer:AGENT", "--summary", str(agent / "s.json")]
        async with program(*arguments, cwd=str(agent)) as talk:
            await talk.write("What is the capital of France?\n\n  \nThank you.")  # blank lines say nothing
            assert talk.process.stdin is not None
            await talk.process.stdin.aclose()
            assert await talk.ended() == 0
    lines = talk.said.splitlines()
    assert lines[1:6] == [
        "you    What is the capital of France?",
        "tool   capital_of  Paris [1]",
        "agent  It is Paris.",
        "you    Thank you.",
        "agent  Goodbye.",
    ]
    assert "2 turns" in lines[6] or "1 tool call" in lines[6]
    summary = json.loads((agent / "s.json").read_text())
    assert [call["tool"] for call in summary["tool_calls"]] == ["capital_of"]


async def test_an_answer_that_fails_is_told_and_the_next_line_is_answered(agent: Path) -> None:
    async with (
        serving(ScriptedBrain([Fail("no model today"), Say("Here I am.")])) as url,
        program("talk", "--text", "--url", url, "--agent", "geographer", cwd=str(agent)) as talk,
    ):
        await talk.write("Hello?\nHello?\n")
        await talk.until("agent  Here I am.")
    assert "error  " in talk.said


async def test_who_reads_no_further_gets_no_traceback(agent: Path) -> None:
    async with (
        serving(ScriptedBrain([Say("One."), Say("Two.")])) as url,
        program("talk", "--text", "--url", url, "--agent", "geographer", cwd=str(agent)) as talk,
    ):
        await talk.until("Connected")
        assert talk.process.stdout is not None
        await talk.process.stdout.aclose()
        await talk.write("1\n2\n")
        with trio.fail_after(HANG_GUARD_S):
            assert await talk.process.wait() == 1
        assert "Traceback" not in await talk.complained()


async def test_at_a_terminal_it_prompts_answers_and_ctrl_c_ends_it() -> None:
    import termios

    async with (
        serving(ScriptedBrain([Say("Welcome."), Say("I am well.")])) as url,
        program_at_terminal("talk", "--text", "--url", url) as (talk, person, terminal),
    ):
        before = termios.tcgetattr(terminal)
        said = await talk.until("you    ")
        assert "Welcome." in said
        os.write(person, b"How are you?\n")
        await talk.until("I am well.")
        os.write(person, b"half a li\x03")
        assert await talk.ended(within_s=5) == 0
        assert "0 interruptions" in talk.said
        assert termios.tcgetattr(terminal) == before


async def test_the_live_view_hides_keys_and_gives_the_terminal_back(tmp_path: Path) -> None:
    import termios

    files = ["--mic", str(QUESTION), "--speaker", str(tmp_path / "out.wav")]
    async with (
        serving(ScriptedBrain([Say("Word upon word.", duration_ms=60_000)] * 9)) as url,
        program_at_terminal("talk", *files, "--url", url) as (talk, person, terminal),
    ):
        before = termios.tcgetattr(terminal)
        await talk.until("dBFS")
        assert termios.tcgetattr(terminal)[3] & termios.ECHO == 0
        os.write(person, b"\x03")
        assert await talk.ended(within_s=5) == 0
        assert termios.tcgetattr(terminal) == before
        assert talk.said.rindex("\x1b[?25h") > talk.said.rindex("\x1b[?25l")  # the cursor is back


# --- servers that are not as hoped ------------------------------------------------------------------------------------


async def test_a_wrong_key_is_told_at_once() -> None:
    async with (
        serving(ScriptedBrain([]), api_key="right") as url,
        program("talk", "--text", "--url", url, "--api-key", "wrong") as talk,
    ):
        assert await talk.ended() == 1
        said = await talk.complained()
    assert "401" in said
    assert "Traceback" not in said


async def test_ctrl_c_while_connecting_ends_with_130() -> None:
    """To a server that listens and never says a word."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/v1/realtime"
        async with program("talk", "--text", "--url", url) as talk:
            with trio.fail_after(HANG_GUARD_S):
                connected = await listener.accept()
            async with connected:
                talk.process.send_signal(signal.SIGINT)
                assert await talk.ended(within_s=5) == 130
                assert await talk.complained() == ""


async def test_seconds_end_a_conversation_of_files(tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    async with serving(ScriptedBrain([Say("A tone.", duration_ms=2000, tone_hz=440)] * 9)) as url:
        arguments = ["--mic", str(QUESTION), "--speaker", str(out), "--seconds", "1"]
        async with program("talk", *arguments, "--url", url) as talk:
            assert await talk.ended() == 0
    assert talk.said.splitlines()[-1].startswith("1 s: ")
    assert level_dbfs(read_wav(out, 24_000).tobytes()) > -40


def test_who_may_interrupt_and_what_is_done_about_echo_can_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def refuse(agent: RealtimeAgent, **options: Any) -> None:
        told.update(options, agent=agent)
        raise ConfigError("enough")

    monkeypatch.setattr("trio_voice.cli.talking.RealtimeSession", refuse)
    files = ["--mic", str(QUESTION), "--speaker", str(tmp_path / "out.wav")]
    invoke("talk", *files, "--url", "ws://127.0.0.1:1/", "--echo", "gate", "--min-speech-ms", "250")
    assert told["audio_input"].echo == "gate"
    assert told["agent"].interruption.min_speech_ms == 250


def test_what_cancels_echo_is_asked_for_before_a_server_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    result = invoke("talk", "--echo", "aec", "--mic", str(QUESTION), "--speaker", str(tmp_path / "out.wav"))
    assert result.exit_code == 1
    assert "pip install 'trio-voice[aec]'" in result.stderr
    assert "Starting the local server" not in result.stdout


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.mark.speech
async def test_serve_says_where_it_listens_then_which_engines_it_has() -> None:
    pytest.importorskip("moonshine_voice")
    async with program("serve", "--port", "0") as server:
        first, second = (await server.until("rules answer")).splitlines()[:2]
        assert first.startswith("listening ws://127.0.0.1:")
        assert first.endswith("/v1/realtime")
        assert "moonshine-tiny hears" in second
        server.process.send_signal(signal.SIGTERM)  # its engines are loading
        assert await server.ended(within_s=5) == 0


@pytest.mark.speech
async def test_a_port_in_use_and_an_llm_that_is_not_there_are_told() -> None:
    pytest.importorskip("moonshine_voice")
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = str(listener.socket.getsockname()[1])
        async with program("serve", "--port", port) as server:
            assert await server.ended() == 1
            assert "--port 0 takes a free one" in await server.complained()
    async with program("serve", "--port", "0", "--llm", f"http://127.0.0.1:{port}/v1") as server:
        assert server.process.stderr is not None
        with trio.fail_after(HANG_GUARD_S):
            while "no model server answers at" not in server.complaints:
                server.complaints += (await server.process.stderr.receive_some()).decode()


@pytest.mark.speech
def test_the_module_runs_and_talk_starts_and_ends_its_own_server() -> None:
    pytest.importorskip("moonshine_voice")
    ask = partial(subprocess.run, capture_output=True, text=True, timeout=2 * HANG_GUARD_S, env=without_keys())
    talk = ask(command("talk", "--text"), input="Where is my order 12345?\n")
    assert talk.returncode == 0, talk.stderr
    assert talk.stdout.startswith("No key and no --url. Starting the local server")
    assert "agent  Order ORD-12345 has been shipped" in talk.stdout
