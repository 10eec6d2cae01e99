"""One conversation over a real loopback socket, in real time, with a key and with the wrong one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import trio_voice
from kit import NO_FADE, RATE_HZ
from trio_voice import ConnectionOptions, RealtimeAgent, RealtimeSession, WireLost, client_secret, events, tool
from trio_voice.server.listen import serve
from trio_voice.server.scripted import Call, Say, ScriptedBrain, tone
from trio_voice.server.server_settings import ServerSettings
from trio_voice.testing import RecordingSpeaker, ScriptedMicrophone


@tool
def opening_hours(day: str) -> str:
    """When the shop is open."""
    return f"nine to five on {day}"


async def test_a_conversation_over_loopback() -> None:
    brain = ScriptedBrain(
        [[Call("opening_hours", '{"day": "Monday"}')], Say("From nine to five.", 3000), Say("Goodbye.", 200)],
        ["When are you open on Monday?", "Thanks."],
    )
    microphone, speaker = ScriptedMicrophone(), RecordingSpeaker(block_ms=10)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(lambda task_status: serve(brain, api_key="secret", task_status=task_status))
        session = RealtimeSession(
            RealtimeAgent(tools=[opening_hours]),
            connection=ConnectionOptions(url=listening.url, model="any", api_key="secret"),
            microphone=microphone,
            speaker=speaker,
            audio_output=NO_FADE,
        )
        stream = session.events()
        with trio.fail_after(30):
            async with session:
                await session.start_listening()
                await microphone.say(tone(440, 500, RATE_HZ).tobytes())
                await stream.wait_for(events.PlaybackStart)
                await trio.sleep(1)  # let a few words be heard
                await microphone.say(tone(440, 500, RATE_HZ).tobytes())
                interruption = await stream.wait_for(events.Interruption)
                await stream.wait_for(events.PlaybackEnd)
                assert [line.text for line in session.transcript()][::3] == ["When are you open on Monday?", "Goodbye."]
        nursery.cancel_scope.cancel()
    heard = memoryview(speaker.pcm).cast("h")
    assert 1000 < interruption.heard_ms < 2900
    marks = [sample >> 8 for sample in heard if sample]
    assert set(marks) == {2, 3}, "the answer, as far as it was heard, and the last word"
    assert marks.count(2) * 1000 // RATE_HZ == interruption.heard_ms, "the device played what was reported, no more"
    assert marks.count(3) == RATE_HZ // 5
    assert marks == sorted(marks), "nothing of the interrupted answer after the new one began"


async def test_a_wrong_key_is_refused_with_what_to_do() -> None:
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            lambda task_status: serve(ScriptedBrain(), api_key="secret", task_status=task_status)
        )
        options = ConnectionOptions(url=listening.url, model=None, api_key="wrong")
        with pytest.raises(WireLost, match=r"401.*OPENAI_API_KEY") as refused:
            async with RealtimeSession(RealtimeAgent(), connection=options):
                pytest.fail("entered")
        assert not refused.value.retryable
        nursery.cancel_scope.cancel()


async def test_an_ephemeral_key_over_loopback() -> None:
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            lambda task_status: serve(ScriptedBrain([Say("Hi.")]), api_key="secret", task_status=task_status)
        )
        options = ConnectionOptions(url=listening.url, model=None, api_key="secret")
        with trio.fail_after(30):
            secret = await client_secret(options)
            theirs = ConnectionOptions(url=listening.url, model=None, api_key=secret.value)
            async with RealtimeSession(RealtimeAgent(), connection=theirs) as session:
                assert session.summary()["session_id"]
        nursery.cancel_scope.cancel()


@pytest.mark.other_shapes("the beta")
async def test_a_conversation_over_loopback_in_the_beta_s_shape() -> None:
    settings = ServerSettings(api_key="secret", dialect="trio-voice-beta")
    brain = ScriptedBrain([[Call("opening_hours", '{"day": "Monday"}')], Say("From nine to five.", 300)])
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(lambda task_status: serve(brain, settings=settings, task_status=task_status))
        session = RealtimeSession(
            RealtimeAgent(tools=[opening_hours]),
            connection=ConnectionOptions(url=listening.url, dialect="trio-voice-beta", api_key="secret"),
            speaker=RecordingSpeaker(),
        )
        stream = session.events()
        with trio.fail_after(30):
            async with session:
                await session.send_text("When are you open on Monday?")
                await stream.wait_for(events.PlaybackEnd)
                assert session.transcript()[-1].text == "From nine to five."
        nursery.cancel_scope.cancel()
    assert brain.requests[1].items[-1].output == "nine to five on Monday"


async def test_nobody_there_is_said_plainly() -> None:
    options = ConnectionOptions(url="ws://127.0.0.1:9/v1/realtime", model=None)
    with pytest.raises(WireLost, match="is the server running there"):
        async with RealtimeSession(RealtimeAgent(), connection=options):
            pytest.fail("entered")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["numpy", "soxr", "sounddevice", "trio_websocket", "structlog", "rich", "click", "asyncio", "onnxruntime"]
    code = f"import sys; from trio_voice import RealtimeSession; print([n for n in {heavy!r} if n in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_what_an_agent_has_none_of_is_not_imported() -> None:
    """Each is read and its classes are made when the first tool, handoff, guardrail or MCP server is."""
    optional = ["function_tools", "tool_schema", "handoff_tools", "guardrail_functions", "mcp_servers", "mcp_client"]
    optional += [
        "client_secrets",
        "journal",
        "otel",
        "wire",
        "testing",
        "cli",
        "devices.webrtc",
        "devices.sound_system",
    ]
    loaded = "[n for n in optional if f'trio_voice.{n}' in sys.modules]"
    code = (
        f"import sys; from trio_voice import RealtimeAgent, RealtimeSession; optional = {optional!r}\n"
        f"RealtimeSession(RealtimeAgent()); print({loaded})\n"
        "def look_up(name: str) -> str: 'Find it.'\n"
        f"RealtimeAgent(tools=[look_up], output_guardrails=[str.isupper]); print({loaded})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[]", "['function_tools', 'tool_schema', 'guardrail_functions', 'mcp_servers']"]


def test_every_public_name_is_there_and_none_is_loaded_before_it_is_asked_for() -> None:
    declared = re.findall(r"(\w+) as \1\b", Path(trio_voice.__file__).read_text(encoding="utf-8"))
    assert sorted(declared) == sorted(trio_voice._MODULE_OF)
    for name in declared:
        assert getattr(trio_voice, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = trio_voice.Nonsense  # type: ignore[attr-defined]
    code = "import sys, trio_voice; print('trio' in sys.modules, sorted(dir(trio_voice))[:1])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("False")
