"""Sessions that only write down what the user says: of the protocol's type `transcription`, without answers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Call, call
from trio_voice import AgentCapability, ConfigError, ConnectionOptions, RealtimeAgent, SessionState, events
from trio_voice.agent_in_charge import connection_for
from trio_voice.protocol import ResponseCreate, SessionUpdate, Transcription, TurnDetection
from trio_voice.server.scripted import ScriptedBrain, tone

SCRIBE = RealtimeAgent(
    "scribe",
    transcription=Transcription(model="whisper-1", language="en", prompt="orders of a shop"),
    capabilities={AgentCapability.VOICE_INPUT, AgentCapability.TRANSCRIPTION},
)
PUSHED = RealtimeAgent("scribe", turn_detection=None, capabilities=SCRIBE.capabilities)


def note(text: str) -> str:
    """Write it down."""
    return text


def words(on: Call) -> list[tuple[str, str]]:
    return [(line.role, line.text) for line in on.session.transcript()]


async def next_words(on: Call) -> str:
    while True:
        heard = await on.next(events.Transcript)
        if heard.final:
            return str(heard.text)


async def test_what_is_said_is_written_down_and_nobody_answers(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([], ["Where is my order?", "It is number seven."])
    async with call(brain, SCRIBE, protocol=True) as on:
        await on.speak()
        assert await next_words(on) == "Where is my order?"
        await trio.testing.wait_all_tasks_blocked()
        assert on.session.state is SessionState.LISTENING, "it waits for no answer"
        await on.speak()
        assert await next_words(on) == "It is number seven."
        assert words(on) == [("user", "Where is my order?"), ("user", "It is number seven.")]
        assert len(on.session.turns()) == 2
        await trio.sleep(5)
        assert on.errors() == []
        (update,) = [event for event in on.sent if isinstance(event, SessionUpdate)]
        assert update.session.type == "transcription"
        assert {type(event).__name__ for event in on.sent} == {"SessionUpdate"}, "no response is asked for"
    assert brain.requests == []


async def test_with_push_to_talk(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([], ["Over."]), PUSHED, listening=False, protocol=True) as on:
        await on.session.start_listening()
        await on.microphone.say(tone(440, 900, RATE_HZ).tobytes())
        await on.session.stop_listening()
        assert await next_words(on) == "Over."
        await trio.sleep(5)
        assert not any(isinstance(event, ResponseCreate) for event in on.sent)


async def test_through_a_lost_connection_nothing_is_asked_for(autojump_clock: MockClock) -> None:
    """What the user waits for are words, not an answer."""
    brain = ScriptedBrain([], ["Where is my order?"], hear_ms=3000)
    async with call(brain, SCRIBE, protocol=True) as on:
        await on.speak()
        await on.next(events.SpeechEnd)
        await on.drop()
        assert await next_words(on) == "Where is my order?"
        await trio.sleep(5)
        assert not any(isinstance(event, ResponseCreate) for event in on.sent)
        assert on.session.state is SessionState.LISTENING
    assert brain.requests == []


@pytest.mark.parametrize("what", ["send_text", "respond", "say"])
async def test_it_cannot_be_made_to_speak(what: str, autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(capabilities=SCRIBE.capabilities | {AgentCapability.TEXT_INPUT})
    async with call(ScriptedBrain(), agent) as on:
        with pytest.raises(ConfigError, match=rf"{what}\(\): agent 'agent' only transcribes"):
            await getattr(on.session, what)("Hello.")


async def test_no_agent_that_answers_can_take_over(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), SCRIBE) as on:
        with pytest.raises(ConfigError, match="only transcribes"):
            await on.session.update_agent(RealtimeAgent("Ann"))


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("wss://h/v1/realtime", "wss://h/v1/realtime?intent=transcription"),
        ("wss://h/v1/realtime?a=b", "wss://h/v1/realtime?a=b&intent=transcription"),
        ("wss://h/v1/realtime?intent=transcription", "wss://h/v1/realtime?intent=transcription"),
    ],
    ids=["plain", "query", "said"],
)
def test_the_server_is_asked_for_such_a_session_by_its_address(url: str, asked: str) -> None:
    options = connection_for(SCRIBE, ConnectionOptions(url=url, model="gpt-realtime-2.1"))
    assert (options.url, options.model) == (asked, None)


def test_the_agent_s_model_comes_before_the_connection_s() -> None:
    options = ConnectionOptions(model="gpt-realtime-2.1")
    assert connection_for(RealtimeAgent(model="gpt-realtime-1.5"), options).model == "gpt-realtime-1.5"
    assert connection_for(RealtimeAgent(), options) is options


@pytest.mark.parametrize(
    "settings",
    [
        {"greets_first": True},
        {"greeting": "Hello."},
        {"transcription": None},
        {"tools": (note,)},
        {"tracing": "auto"},
    ],
    ids=["greets_first", "greeting", "transcription", "tools", "tracing"],
)
def test_what_has_no_meaning_without_answers_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"only transcribes.*{next(iter(settings))}"):
        RealtimeAgent(capabilities=SCRIBE.capabilities, **settings)  # type: ignore[arg-type]  # drawn settings


def test_a_detection_of_its_own_is_kept() -> None:
    agent = RealtimeAgent(turn_detection=TurnDetection(type="semantic_vad"), capabilities=SCRIBE.capabilities)
    assert agent.transcribes_only
