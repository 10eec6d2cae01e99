"""The same agent holds the same conversation over every row of the table of dialects, played by the local server."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from openai_oracle import missing_from_beta, validate
from trio_voice import (
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    ConfigError,
    ConnectionOptions,
    RealtimeAgent,
    RealtimeSession,
    events,
    tool,
)
from trio_voice.audio import samples_of
from trio_voice.channels import EventStream
from trio_voice.dialects import CAPABILITIES, DIALECTS, OPENAI_TRANSCRIPTION_MODEL, Dialect
from trio_voice.protocol import TurnDetection
from trio_voice.protocol.resume import CONTINUES
from trio_voice.server.scripted import Call, Reply, Say, ScriptedBrain, tone, turns_in
from trio_voice.server.server_settings import DEFAULT_MODEL, ServerSettings
from trio_voice.testing import FaultyServer, RecordingSpeaker, ScriptedMicrophone, memory_server

STORY = "One two three four five six seven eight nine ten."
ROWS = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
COMMITTING = {name: row for name, row in DIALECTS.items() if row.has("commit")}
WITH_COMMIT = pytest.mark.parametrize("dialect", COMMITTING.values(), ids=COMMITTING)


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order."""
    await trio.sleep(0.5)
    return {"order_id": order_id, "status": "shipped"}


def options_of(dialect: Dialect, **others: Any) -> ConnectionOptions:
    """Of a session with the local server in the place of the real one. It remembers nothing, as xAI's would."""
    return ConnectionOptions(dialect=dialect, url="ws://memory/v1/realtime", model="any", native_resume=False, **others)


@attrs.define(eq=False)
class Stage:
    """A session, and all that goes over its wire."""

    session: RealtimeSession
    microphone: ScriptedMicrophone
    speaker: RecordingSpeaker
    events: EventStream
    server: FaultyServer
    dialect: Dialect
    sent: list[dict[str, Any]] = attrs.Factory(list)
    told: list[dict[str, Any]] = attrs.Factory(list)

    def watch(self, _: object, direction: str, text: str) -> None:
        """Both sides' events are what the typed package knows of this shape; xAI's it does not know."""
        if self.dialect.shape == "ga":
            validate(text.replace('"rate":16000', '"rate":24000'))  # the package knows OpenAI's rate only
        elif self.dialect.shape == "beta":
            text = text.replace(DEFAULT_MODEL, "gpt-4o-realtime-preview")
            more = missing_from_beta(text, pcm_name=self.dialect.pcm_name)
            assert direction == "sent" or more == [], "the server may tell more than the beta did, a client may not"
        (self.sent if direction == "received" else self.told).append(json.loads(text))

    async def next(self, kind: type[Any]) -> Any:
        with trio.fail_after(60):
            return await self.events.wait_for(kind)

    async def speak(self) -> None:
        await self.microphone.say(tone(440, 800, self.dialect.input_rate_hz).tobytes())

    def of_type(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.sent if event["type"] == name]


async def converse(dialect: Dialect) -> dict[str, Any]:
    """A tool, a barge-in, a text, a lost connection, push-to-talk; what came of it."""
    replies: list[Reply] = [
        Call("lookup_order", '{"order_id": "ORD-1"}'),
        Say("It has shipped.", 900),
        Say(STORY, 5000),
    ]
    replies += [Say("Of course.", 500), Say("Four.", 400), Say("Still here.", 500)]
    brain = ScriptedBrain(replies, ["Where is my order?", "Count.", "Stop.", "Are you there?"])
    agent = RealtimeAgent(instructions="Be brief.", tools=[lookup_order], voice="marin")
    settings = ServerSettings(dialect=dialect)
    outcome: dict[str, Any] = {}
    async with memory_server(brain, settings=settings) as server:
        microphone, speaker = ScriptedMicrophone(), RecordingSpeaker(block_ms=10)
        session = RealtimeSession(
            agent,
            connection=options_of(dialect),
            microphone=microphone,
            speaker=speaker,
            open_stream=server.open_stream,
            audio_output=AudioOutputConfig(fade_ms=0),
        )
        on = Stage(session, microphone, speaker, session.events(), server, dialect)
        server.watch = on.watch
        async with session:
            await session.start_listening()
            await on.speak()
            await on.next(events.PlaybackEnd)
            await on.speak()
            await on.next(events.PlaybackStart)
            await trio.sleep(1.5)
            await on.speak()
            interruption = await on.next(events.Interruption)
            cut_at = len(speaker.pcm) // 2
            await on.next(events.PlaybackEnd)
            outcome["stale"] = (
                turns_in(samples_of(bytes(speaker.pcm))[:cut_at]),
                turns_in(samples_of(bytes(speaker.pcm))[cut_at:]),
            )
            await session.send_text("Two and two?")
            await on.next(events.PlaybackEnd)
            await trio.aclose_forcefully(server.connections[-1].client_end)
            assert (await on.next(events.Connected)).resumed
            await on.speak()
            await on.next(events.PlaybackEnd)
        outcome["heard_ms"] = interruption.heard_ms
        outcome["transcript"] = [(line.role, line.text, line.interrupted) for line in session.transcript()]
        outcome["tools"] = [
            (use.tool, use.arguments, use.output) for turn in session.turns() for use in turn.tool_calls
        ]
        outcome["turns_heard"] = turns_in(samples_of(bytes(speaker.pcm)))
        outcome["errors"] = [event["error"] for event in on.told if event["type"] == "error"]
        outcome["errors"] += [event for event in on.events._queue if isinstance(event, events.ErrorReported)]
        outcome["interruptions"] = session.metrics.interruption_count
    restored = brain.requests[-1].items
    assert [item.text for item in restored if item.role == "system"] == [CONTINUES]
    outcome["restored"] = [(item.role, item.text) for item in restored if item.type == "message"]
    outcome["results"] = [item.output for item in restored if item.type == "function_call_output"]
    assert_only_what_it_takes(on)
    return outcome


def assert_only_what_it_takes(on: Stage) -> None:
    """What a dialect lacks is not sent, and what it has is."""
    truncated = on.of_type("conversation.item.truncate")
    assert len(truncated) == (1 if on.dialect.has("truncate") else 0)
    told = {event["type"] for event in on.told}
    assert ("conversation.item.truncated" in told) == (bool(truncated) and on.dialect.has("truncated"))
    assert ("response.created" in told) == on.dialect.has("response_created")
    beta = on.dialect.shape == "beta"
    assert ("response.audio.delta" in told, "response.output_audio.delta" in told) == (beta, not beta)
    assert ("conversation.item.created" in told, "conversation.item.added" in told) == (beta, not beta)
    session = on.of_type("session.update")[0]["session"]
    assert ("modalities" in session, "output_modalities" in session) == (beta, not beta)
    words = session["input_audio_transcription"] if beta else session["audio"]["input"]["transcription"]
    assert words.get("model") == (on.dialect.transcription_model if on.dialect.has("transcription_model") else None)


EXPECTED: dict[str, Any] = {}
"""What came of the conversation over the package's own server, as it is: the measure of the others."""


@pytest.mark.other_shapes("validated in the shape of each dialect")
@ROWS
def test_the_same_conversation_over_every_dialect(dialect: Dialect) -> None:
    if not EXPECTED:
        EXPECTED.update(trio.run(converse, DIALECTS["trio-voice"], clock=MockClock(autojump_threshold=0)))
        assert EXPECTED["errors"] == []
        assert EXPECTED["interruptions"] == 1
        assert EXPECTED["stale"] == ([1, 2], [3]), "no sample of the story after its interruption"
        assert EXPECTED["turns_heard"] == [1, 2, 3, 4, 5]
        assert [text for _, text, interrupted in EXPECTED["transcript"] if not interrupted] == [
            "Where is my order?", "It has shipped.", "Count.", "Stop.", "Of course.", "Two and two?", "Four.",
            "Are you there?", "Still here.",
        ]  # fmt: skip
        assert EXPECTED["tools"][0][:2] == ("lookup_order", '{"order_id": "ORD-1"}')
        assert len(EXPECTED["results"]) == 1
    outcome = trio.run(converse, dialect, clock=MockClock(autojump_threshold=0))
    heard_ms = outcome.pop("heard_ms")
    assert heard_ms == pytest.approx(EXPECTED["heard_ms"], abs=100), "the detection's windows differ with the rate"
    assert outcome == {name: value for name, value in EXPECTED.items() if name != "heard_ms"}


@pytest.mark.other_shapes("of each dialect")
@WITH_COMMIT
async def test_push_to_talk_over_every_dialect(dialect: Dialect, autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Roger.", 500)], ["Over."])
    microphone = ScriptedMicrophone()
    async with memory_server(brain, settings=ServerSettings(dialect=dialect)) as server:
        session = RealtimeSession(
            RealtimeAgent(turn_detection=None),
            connection=options_of(dialect),
            microphone=microphone,
            speaker=RecordingSpeaker(),
            open_stream=server.open_stream,
        )
        async with session:
            stream = session.events()
            await session.start_listening()
            await microphone.say(tone(440, 1200, dialect.input_rate_hz).tobytes())
            await session.stop_listening()
            with trio.fail_after(60):
                await stream.wait_for(events.PlaybackEnd)
            assert [line.text for line in session.transcript()] == ["Over.", "Roger."]
            assert not [event for event in stream._queue if isinstance(event, events.ErrorReported)]
    ((samples, rate_hz),) = brain.utterances
    assert rate_hz == dialect.input_rate_hz
    assert len(samples) / rate_hz >= 1.2


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "agent", "audio", "told"),
    [
        ("qwen", RealtimeAgent(), {"audio_input": AudioInputConfig()}, "hears at 16000 Hz, not at 24000"),
        ("openai", RealtimeAgent(), {"audio_output": AudioOutputConfig(sample_rate_hz=48_000)}, "speaks at 24000 Hz"),
        ("stepfun", RealtimeAgent(turn_detection=TurnDetection(type="semantic_vad")), {}, "knows no turn detection by"),
        ("qwen", RealtimeAgent(turn_detection=TurnDetection(type="semantic_vad")), {}, "is not known to have turn"),
        ("xai", RealtimeAgent(capabilities={AgentCapability.TEXT_OUTPUT}), {}, "answers in writing"),
    ],
)
def test_what_a_server_does_not_take_is_refused_before_connecting(
    dialect: str, agent: RealtimeAgent, audio: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        RealtimeSession(agent, connection=options_of(DIALECTS[dialect]), **audio)


def test_push_to_talk_needs_commit() -> None:
    without = attrs.evolve(DIALECTS["openai"], name="mine", lacks=frozenset({"commit"}))
    with pytest.raises(ConfigError, match="push-to-talk needs it"):
        RealtimeSession(RealtimeAgent(turn_detection=None), connection=options_of(without))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dialect": "azur"}, "known are: openai, azure"),
        ({"dialect": "azure", "model": "m"}, "filled in"),
    ],
)
def test_a_connection_that_cannot_be_says_what_is_missing(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ConnectionOptions(**options)


def test_a_model_is_needed_and_the_agent_may_name_it() -> None:
    with pytest.raises(ConfigError, match="needs a model"):
        RealtimeSession(RealtimeAgent(), connection=ConnectionOptions(dialect="qwen"))
    session = RealtimeSession(RealtimeAgent(model="qwen-omni"), connection=ConnectionOptions(dialect="qwen"))
    assert session.connection.model == "qwen-omni"


@pytest.mark.parametrize("dialect", ["qwen", "xai"])
def test_only_transcribing_is_not_known_of_other_shapes(dialect: str) -> None:
    with pytest.raises(ConfigError, match="only transcribe"):
        RealtimeSession(
            RealtimeAgent(capabilities={AgentCapability.VOICE_INPUT, AgentCapability.TRANSCRIPTION}),
            connection=options_of(DIALECTS[dialect]),
        )


def test_a_dialect_brings_its_address_its_model_and_its_rates() -> None:
    xai = ConnectionOptions(dialect="xai")
    assert (xai.url, xai.model, xai.native_resume) == ("wss://api.x.ai/v1/realtime", "grok-voice-latest", True)
    assert not ConnectionOptions(dialect="xai", native_resume=False).native_resume
    qwen = RealtimeSession(RealtimeAgent(), connection=ConnectionOptions(dialect="qwen", model="qwen-omni"))
    assert (qwen.audio_input.sample_rate_hz, qwen.audio_output.sample_rate_hz) == (16_000, 24_000)
    assert ConnectionOptions().server is DIALECTS["openai"]
    assert ConnectionOptions(url="ws://localhost/").server is DIALECTS["trio-voice"]


@ROWS
def test_a_row_is_whole_and_names_capabilities_that_exist(dialect: Dialect) -> None:
    assert dialect.lacks | dialect.unknown <= CAPABILITIES.keys()
    assert not dialect.lacks & dialect.unknown
    assert dialect.url.startswith(("ws://", "wss://"))
    assert dialect.input_rate_hz in dialect.input_rates_hz
    assert dialect.output_rate_hz in dialect.output_rates_hz
    local = dialect.name.startswith("trio-voice")
    assert (dialect.transcription_model == OPENAI_TRANSCRIPTION_MODEL) == (
        local or dialect.name in ("openai", "azure", "azure-voice-live")
    )


@pytest.mark.other_shapes("of each dialect")
@ROWS
async def test_a_text_in_mid_answer_is_answered_over_every_dialect(dialect: Dialect, autojump_clock: MockClock) -> None:
    """Also where the server cannot be told to stop: then not a sample of what it still makes is heard."""
    brain = ScriptedBrain([Say(STORY, 5000), Say("Of course.", 500)])
    speaker = RecordingSpeaker(block_ms=10)
    settings = ServerSettings(dialect=dialect, burst=2.0)
    async with memory_server(brain, settings=settings) as server:
        session = RealtimeSession(
            RealtimeAgent(),
            connection=options_of(dialect),
            speaker=speaker,
            open_stream=server.open_stream,
            audio_output=AudioOutputConfig(fade_ms=0),
        )
        async with session:
            stream = session.events()
            await session.respond()
            with trio.fail_after(60):
                await stream.wait_for(events.PlaybackStart)
                await trio.sleep(1)
                await session.send_text("Stop.")
                cut_at = len(speaker.pcm) // 2
                await stream.wait_for(events.PlaybackEnd)
            assert turns_in(samples_of(bytes(speaker.pcm))[cut_at:]) == [1]
            assert [line.text for line in session.transcript()][1:] == ["Stop.", "Of course."]
            heard = session.transcript()[0].text.split()
            assert 0 < len(heard) < len(STORY.split())
            assert not [event for event in stream._queue if isinstance(event, events.ErrorReported)]
    (asked,) = [item.text for item in brain.requests[1].items if item.role == "assistant"]
    more = len(asked.split()) - len(heard)
    assert abs(more) <= 1 if dialect.has("truncate") else more > 1, "what the model believes to have said"
