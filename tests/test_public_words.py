"""The words that people know from other voice SDKs: their defaults, every state, what is told once, the figures."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from kit import ONE_CONNECTION, SPEECH, URL, call
from trio_voice import (
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    ConfigError,
    ConnectionOptions,
    ConnectionState,
    Prompt,
    RealtimeAgent,
    RealtimeSession,
    RetentionRatio,
    SessionState,
    Tracing,
    VoiceAgent,
    WireLost,
    events,
    tool,
)
from trio_voice.audio import samples_of
from trio_voice.events import EVENT_NAMES
from trio_voice.protocol import Transcription, TurnDetection, VoiceId
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.listen import serve_stream
from trio_voice.server.scripted import Call as Calls, Say, ScriptedBrain, Step, turns_in
from trio_voice.testing import Fault, FaultyServer, RecordingSpeaker, ScriptedMicrophone, memory_server

TOLD_ONCE = [
    ("start_listening", events.ListeningStarted),
    ("stop_listening", events.ListeningStopped),
    ("pause", events.Paused),
    ("resume", events.Resumed),
]


# --- defaults -------------------------------------------------------------------------------------


def test_the_defaults_are_those_that_people_know() -> None:
    hearing, speaking, connection = AudioInputConfig(), AudioOutputConfig(), ConnectionOptions()
    assert (hearing.sample_rate_hz, hearing.chunk_ms) == (24_000, 20)
    assert hearing.format.bytes_of_ms(20) == 24_000 * 20 // 1000 * 2, "one channel of 16 bits"
    assert (speaking.sample_rate_hz, speaking.prebuffer_ms) == (24_000, 100)
    assert connection.auto_reconnect
    assert connection.max_reconnect_attempts == 5
    assert (connection.reconnect_delay_ms, connection.reconnect_backoff_multiplier) == (1000, 1.5)
    assert connection.heartbeat_interval_ms == 30_000


def test_the_enumerations_have_the_members_that_people_know() -> None:
    assert {member.value for member in AgentCapability} == {
        "voice_input", "voice_output", "text_input", "text_output", "function_calling", "transcription",
    }  # fmt: skip
    assert [member.value for member in SessionState] == [
        "initializing", "connected", "listening", "processing", "responding", "paused", "disconnected",
    ]  # fmt: skip
    assert [member.value for member in ConnectionState] == ["disconnected", "connecting", "connected", "reconnecting"]


# --- states ---------------------------------------------------------------------------------------


async def test_a_session_passes_through_every_state(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Yes.", 2000)], ["Are you there?"], think_ms=300)
    assert RealtimeSession(RealtimeAgent()).state is SessionState.INITIALIZING
    async with call(brain, listening=False) as on:
        seen = [on.session.state]
        await on.session.start_listening()
        seen.append(on.session.state)
        await on.speak()
        await on.next(events.SpeechEnd)
        seen.append(on.session.state)
        await on.next(events.PlaybackStart)
        seen.append(on.session.state)
        await on.session.pause()
        seen.append(on.session.state)
        await on.session.resume()
        seen.append(on.session.state)
        await on.next(events.PlaybackEnd)
        seen.append(on.session.state)
        await on.session.disconnect()
        seen.append(on.session.state)
    assert [state.value for state in seen] == [
        "connected", "listening", "processing", "responding", "paused", "responding", "listening", "disconnected",
    ]  # fmt: skip


async def test_a_connection_passes_through_every_state(autojump_clock: MockClock) -> None:
    seen: list[ConnectionState] = []

    async def open_stream() -> trio.abc.Stream:
        seen.append(session.connection_state)
        client_end, server_end = memory_stream_pair()
        links.append(client_end)
        nursery.start_soon(serve_stream, server_end, ScriptedBrain())
        await trio.lowlevel.checkpoint()
        return client_end

    links: list[Any] = []
    session = RealtimeSession(RealtimeAgent(), connection=URL, open_stream=open_stream)
    stream = session.events()
    async with trio.open_nursery() as nursery:
        async with session:
            seen.append(session.connection_state)
            await stream.wait_for(events.Connected)
            await trio.aclose_forcefully(links[-1])
            await stream.wait_for(events.Connected)
            seen.append(session.connection_state)
        seen.append(session.connection_state)
        nursery.cancel_scope.cancel()
    assert [state.value for state in seen] == [
        "connecting", "connected", "reconnecting", "connected", "disconnected",
    ]  # fmt: skip


# --- events and callbacks -------------------------------------------------------------------------


async def test_what_changes_nothing_is_not_told(autojump_clock: MockClock) -> None:
    """Each of the four commands is told when it takes effect, and not when it is given a second time."""
    async with call(ScriptedBrain(), listening=False) as on:
        for method, _ in TOLD_ONCE:
            for _ in range(2):
                await getattr(on.session, method)()
        await on.session.disconnect()
        names = [event.name async for event in on.events]
    assert names == ["connected", *(kind.name for _, kind in TOLD_ONCE), "disconnected"]


async def test_callbacks_by_name_get_what_the_stream_gets(autojump_clock: MockClock) -> None:
    called: list[events.SessionEvent] = []
    async with call(ScriptedBrain([Say("Hi.", 200)], ["Hello."]), audio=True, protocol=True) as on:
        stream = on.session.events(audio=True, protocol=True, sound=True)
        for name in EVENT_NAMES:
            on.session.on(name, called.append)
        await on.speak()
        await on.next(events.PlaybackEnd)
        await on.session.disconnect()
        streamed = [event async for event in stream]
    assert {event.name for event in called} > {
        "speech_start",
        "response_start",
        "audio",
        "playback_end",
        "server_event",
    }
    assert called == streamed


async def test_a_callback_that_raises_is_logged_and_the_session_goes_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        "trio_voice.session.log.exception", lambda name, **details: logged.append(details["event_name"])
    )
    async with call(ScriptedBrain([Say("Hi.", 200)] * 2), listening=False) as on:
        on.session.on("playback_end", lambda event: 1 / 0)
        for _ in range(2):
            await on.session.respond()
            await on.next(events.PlaybackEnd)
        await trio.testing.wait_all_tasks_blocked()
        assert on.session.state is SessionState.CONNECTED
    assert logged == ["playback_end"] * 2


# --- what it can be told --------------------------------------------------------------------------


async def test_after_unmute_the_user_is_heard_again(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Yes?", 300)], ["Hello."])) as on:
        await on.session.mute()
        await on.speak()
        with trio.move_on_after(5) as muted:
            await on.next(events.SpeechStart)
        assert muted.cancelled_caught, "what is said meanwhile is not sent"
        await on.session.unmute()
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == ["Hello.", "Yes?"]


async def test_whether_it_has_a_loudspeaker(autojump_clock: MockClock) -> None:
    in_writing = RealtimeAgent(capabilities={AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT})
    assert RealtimeSession(RealtimeAgent(), speaker=RecordingSpeaker()).has_speaker
    assert not RealtimeSession(RealtimeAgent()).has_speaker
    assert not RealtimeSession(in_writing, speaker=RecordingSpeaker()).has_speaker


async def test_without_the_voice_of_the_user_no_microphone_is_opened(autojump_clock: MockClock) -> None:
    mute = RealtimeAgent(capabilities=set(AgentCapability) - {AgentCapability.VOICE_INPUT})
    async with call(ScriptedBrain([Say("Yes.", 200)], ["Hello."]), mute) as on:
        with trio.move_on_after(5) as unheard:
            await on.speak()
        assert unheard.cancelled_caught, "nobody takes what is said"


async def test_without_reconnecting_the_first_loss_ends_the_session(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="connection")):
        async with call(ScriptedBrain(), connection=ONE_CONNECTION, listening=False) as on:
            await on.drop()
            await trio.sleep(60)


class Longest(random.Random):
    """Chance, when it is against us."""

    def uniform(self, a: float, b: float) -> float:
        return b


async def until_it_is_lost(session: RealtimeSession, server: FaultyServer) -> None:
    async with session:
        await server.strike(Fault("reset"))
        await trio.sleep_forever()


async def test_the_waits_between_attempts_grow_as_told(autojump_clock: MockClock) -> None:
    connection = ConnectionOptions(
        url="ws://memory/v1/realtime",
        model=None,
        max_reconnect_attempts=4,
        reconnect_delay_ms=2000,
        reconnect_backoff_multiplier=3,
    )
    async with memory_server(ScriptedBrain(), schedule=[[], *[[Fault("status_503")]] * 9]) as server:
        session = RealtimeSession(
            RealtimeAgent(), connection=connection, open_stream=server.open_stream, rng=Longest(1)
        )
        stream = session.events()
        with pytest.raises(WireLost):
            await until_it_is_lost(session, server)
        waits = [event.delay_ms async for event in stream if isinstance(event, events.Reconnecting)]
    assert waits == [0, 2000, 6000, 18_000]


@pytest.mark.parametrize("capacity_ms", [200, 1000])
async def test_sound_that_waits_for_the_wire_is_dropped_beyond_its_capacity(
    capacity_ms: int, autojump_clock: MockClock
) -> None:
    async with memory_server(ScriptedBrain(), schedule=[[], [Fault("hangs")]]) as server:
        session = RealtimeSession(
            RealtimeAgent(),
            connection=URL,
            microphone=ScriptedMicrophone(),
            audio_input=AudioInputConfig(capacity_ms=capacity_ms),
            open_stream=server.open_stream,
        )
        stream = session.events()
        async with session:
            await session.start_listening()
            await stream.wait_for(events.Connected)
            await server.strike(Fault("reset"))
            lost_at = trio.current_time()
            away_ms = ((await stream.wait_for(events.Connected)).at - lost_at) * 1000
            await trio.sleep(1)
            dropped = session.metrics.dropped
    assert away_ms > 5000
    assert dropped["stale_frames"] == capacity_ms / 20, "what waited is too old by then"
    assert dropped["frames"] == pytest.approx((away_ms - capacity_ms) / 20, abs=2)


@pytest.mark.parametrize(
    ("dialect", "header"), [("openai", "authorization: bearer sesame"), ("azure", "api-key: sesame")]
)
async def test_the_key_goes_where_the_server_looks_for_it(dialect: str, header: str, autojump_clock: MockClock) -> None:
    client_end, server_end = memory_stream_pair()
    asked = b""

    async def open_stream() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return client_end

    async def refuse() -> None:
        nonlocal asked
        asked = bytes(await server_end.receive_some(65_536))
        await server_end.aclose()

    connection = ConnectionOptions(
        dialect=dialect, url="ws://memory/v1", model="m", api_key="sesame", headers=(("X-Shop", "Acme"),)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(WireLost):
            async with RealtimeSession(RealtimeAgent(), connection=connection, open_stream=open_stream):
                pass
    request, *headers = asked.decode().lower().split("\r\n")
    assert request == "get /v1?model=m http/1.1"
    assert {header, "x-shop: acme"} <= set(headers)


async def test_without_text_input_no_text_is_taken(autojump_clock: MockClock) -> None:
    speaks = RealtimeAgent(capabilities=set(AgentCapability) - {AgentCapability.TEXT_INPUT})
    async with call(ScriptedBrain(), speaks, listening=False) as on:
        with pytest.raises(ConfigError, match="TEXT_INPUT"):
            await on.session.send_text("Hello?")


# --- the agent's settings, as the server is told --------------------------------------------------


def weather(city: str) -> str:
    """Tell the weather."""
    return city


SETTINGS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "instructions": ({"instructions": "Be brief."}, "instructions", "Be brief."),
    "voice": ({"voice": "marin"}, "audio.output.voice", "marin"),
    "voice of one's own": ({"voice": VoiceId("voice_1")}, "audio.output.voice", {"id": "voice_1"}),
    "speed": ({"speed": 1.2}, "audio.output.speed", 1.2),
    "turn_detection": (
        {"turn_detection": TurnDetection(type="semantic_vad", eagerness="low")},
        "audio.input.turn_detection",
        {"type": "semantic_vad", "eagerness": "low"},
    ),
    "transcription": (
        {"transcription": Transcription(model="whisper-1", language="nb")},
        "audio.input.transcription",
        {"model": "whisper-1", "language": "nb"},
    ),
    "noise_reduction": ({"noise_reduction": "far_field"}, "audio.input.noise_reduction", {"type": "far_field"}),
    "tool_choice": ({"tool_choice": "required"}, "tool_choice", "required"),
    "tool_choice of one": ({"tool_choice": "weather"}, "tool_choice", {"type": "function", "name": "weather"}),
    "parallel_tool_calls": ({"parallel_tool_calls": False}, "parallel_tool_calls", False),
    "max_output_tokens": ({"max_output_tokens": "inf"}, "max_output_tokens", "inf"),
    "truncation": (
        {"truncation": RetentionRatio(0.8, 500)},
        "truncation",
        {"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 500}},
    ),
    "reasoning_effort": ({"reasoning_effort": "low"}, "reasoning", {"effort": "low"}),
    "prompt": (
        {"prompt": Prompt("pmpt_1", "2", {"shop": "Acme"})},
        "prompt",
        {"id": "pmpt_1", "version": "2", "variables": {"shop": "Acme"}},
    ),
    "tracing": (
        {"tracing": Tracing("calls", "g1", {"shop": "Acme"})},
        "tracing",
        {"workflow_name": "calls", "group_id": "g1", "metadata": {"shop": "Acme"}},
    ),
    "include": (
        {"include": ["item.input_audio_transcription.logprobs"]},
        "include",
        ["item.input_audio_transcription.logprobs"],
    ),
    "output modalities": ({"capabilities": {AgentCapability.TEXT_OUTPUT}}, "output_modalities", ["text"]),
}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_setting_is_told_as_the_protocol_has_it(name: str) -> None:
    given, path, wanted = SETTINGS[name]
    config = RealtimeAgent(tools=(weather,), **given).session_config(AudioInputConfig(), AudioOutputConfig())
    told: Any = json.loads(msgspec.json.encode(config))
    left_out: Any = json.loads(
        msgspec.json.encode(RealtimeAgent(tools=(weather,)).session_config(AudioInputConfig(), AudioOutputConfig()))
    )
    for key in path.split("."):
        told, left_out = told[key], (left_out or {}).get(key)
    assert told == wanted
    assert left_out != wanted, "it is told because it was set"


# --- figures --------------------------------------------------------------------------------------


async def test_the_figures_of_a_session_and_of_its_turns(autojump_clock: MockClock) -> None:
    @tool
    async def lookup_order() -> str:
        await trio.sleep(0.5)
        return "shipped"

    brain = ScriptedBrain(
        [[Calls("lookup_order")], Say("It has shipped.", 1500), Say("One two three four five.", 5000)],
        ["Where is my order?", "Tell me more.", "Stop."],
    )
    began_at = trio.current_time()
    async with call(brain, RealtimeAgent(tools=[lookup_order])) as on:
        await on.speak(1000)
        await on.next(events.PlaybackEnd)
        await on.speak(1000)
        await on.next(events.PlaybackStart)
        await trio.sleep(2)
        await on.session.interrupt()
        await on.session.disconnect()
        ended_at = trio.current_time()
        metrics, turns = on.session.metrics, on.session.turns()
    assert metrics.started_at == began_at
    assert metrics.duration_s == ended_at - began_at
    assert (metrics.turn_count, metrics.interruption_count, metrics.truncation_count, metrics.tool_call_count) == (
        2, 1, 1, 1,
    )  # fmt: skip
    assert metrics.audio_duration_ms == metrics.heard_ms == pytest.approx(3500, abs=50)
    first, second = turns
    assert metrics.average_latency_ms == pytest.approx(np.mean([first.latency_ms or 0, second.latency_ms or 0]))
    assert 500 < (first.latency_ms or 0) < 1500, "the tool's half second is in it"
    assert set(metrics.dropped.values()) == {0}
    assert metrics.microphone is not None
    assert metrics.speaker is not None
    assert (metrics.microphone.failures, metrics.speaker.failures) == (0, 0)
    assert metrics.jitter_ms is not None
    assert metrics.prebuffer_ms is not None
    assert metrics.usage.tokens_out > 0

    assert (first.id, second.id) == (1, 2)
    assert (first.user_transcript, first.agent_transcript) == ("Where is my order?", "It has shipped.")
    assert first.user_audio_ms == pytest.approx(1536, abs=100), "with the silence before and after"
    assert first.agent_audio_ms == pytest.approx(1500, abs=1)
    assert [(use.tool, use.output, use.failed, use.duration_ms) for use in first.tool_calls] == [
        ("lookup_order", "shipped", False, 500)
    ]
    assert (first.interrupted, second.interrupted) == (False, True)
    assert "One two three four five.".startswith(second.agent_transcript)
    assert began_at < first.started_at < (first.ended_at or 0) <= second.started_at < (second.ended_at or 0)
    assert second.ended_at == ended_at
    assert set(first.item_ids) < {item.id for item in on.session.history}
    assert first.usage + second.usage == metrics.usage


# --- the recipe -----------------------------------------------------------------------------------


async def test_a_recipe_makes_a_new_conversation_each_time(autojump_clock: MockClock) -> None:
    connection = ConnectionOptions(url="ws://127.0.0.1:9/", model=None)
    hearing, speaking = AudioInputConfig(chunk_ms=40), AudioOutputConfig(prebuffer_ms=60)
    recipe = VoiceAgent(RealtimeAgent("Ann"), connection, ScriptedMicrophone(), RecordingSpeaker(), hearing, speaking)
    first, second = recipe.session(metadata={"customer": 1}), recipe.session()
    assert first is not second
    assert (first.agent.name, first.audio_input, first.audio_output) == ("Ann", hearing, speaking)
    assert first.connection.url == connection.url
    assert first.has_speaker


async def test_talk_listens_and_answers_until_it_is_cancelled() -> None:
    """Over a socket and in real time: a recipe has its connection from an address."""
    asked = [trio.Event(), trio.Event()]

    def answer(request: ResponseRequest) -> list[Step]:
        next(event for event in asked if not event.is_set()).set()
        return [Say("Here I am.", 200)]

    brain = ScriptedBrain(answer, ["Are you there?", "And still there?"])
    microphone, speaker = ScriptedMicrophone(), RecordingSpeaker()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: serve_stream(stream, brain), 0)
        port = listeners[0].socket.getsockname()[1]
        connection = ConnectionOptions(url=f"ws://127.0.0.1:{port}/v1/realtime", model=None)
        with trio.fail_after(60):
            async with trio.open_nursery() as talking:
                talking.start_soon(VoiceAgent(RealtimeAgent(), connection, microphone, speaker).talk)
                for event in asked:
                    await microphone.say(SPEECH)
                    await event.wait()
                talking.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert 0 in turns_in(samples_of(bytes(speaker.pcm))), "the first answer was heard"
