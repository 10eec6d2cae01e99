"""Say this, word for word: to the local server and through it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kit import call
from trio_voice import AgentCapability, ConfigError, RealtimeAgent, events
from trio_voice.protocol.verbatim import VERBATIM, verbatim, words_of
from trio_voice.server.scripted import VERBATIM_TURN, Say, ScriptedBrain


def test_the_words_are_found_again() -> None:
    assert words_of(verbatim(" Please hold.\nThank you. ")) == "Please hold.\nThank you."
    assert words_of(f"Never {VERBATIM} this") is None


async def test_what_is_to_be_said_is_said_and_uses_up_no_reply(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("The first reply.", 300)])
    async with call(brain, listening=False) as on:
        await on.session.say("Your call is important to us.")
        await on.next(events.PlaybackEnd)
        await on.session.send_text("Hello?")
        await on.next(events.PlaybackEnd)
        assert [(line.role, line.text) for line in on.session.transcript()] == [
            ("agent", "Your call is important to us."),
            ("user", "Hello?"),
            ("agent", "The first reply."),
        ]
        assert on.turns_heard() == [0, VERBATIM_TURN]
    assert brain.requests[0].instructions.startswith(VERBATIM)
    assert brain.requests[0].tool_choice == "none"


async def test_it_waits_for_what_is_being_said(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("A long answer.", 2000)], think_ms=300), listening=False) as on:
        await on.session.respond()
        await on.session.say("And another thing.")
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == ["A long answer.", "And another thing."]


@pytest.mark.parametrize("interruptible", [True, False])
async def test_the_user_may_interrupt_it_or_not(interruptible: bool, autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([Say("Yes?", 300)], ["Stop."])) as on:
        text = "This call may be recorded for the training of people and machines."
        await on.session.say(text, interruptible=interruptible)
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.speak()
        await on.next(events.PlaybackEnd)
        said = on.session.transcript()[0]
        assert said.interrupted is interruptible
        assert (said.text == text) is not interruptible
        assert on.session.metrics.interruption_count == (1 if interruptible else 0)


async def test_in_writing_it_is_written(autojump_clock: MockClock) -> None:
    agent = RealtimeAgent(capabilities={AgentCapability.TEXT_OUTPUT, AgentCapability.TEXT_INPUT})
    async with call(ScriptedBrain(), agent, listening=False) as on:
        await on.session.say("Welcome.")
        await on.next(events.ResponseEnd)
        assert [line.text for line in on.session.transcript()] == ["Welcome."]


async def test_nothing_to_say_is_refused(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain(), listening=False) as on:
        with pytest.raises(ConfigError, match=r"say\(\) needs words"):
            await on.session.say("  ")


async def test_a_greeting_is_said_word_for_word(autojump_clock: MockClock) -> None:
    async with call(ScriptedBrain([]), RealtimeAgent(greeting="Good morning, this is Ann."), listening=False) as on:
        await on.next(events.PlaybackEnd)
        assert [line.text for line in on.session.transcript()] == ["Good morning, this is Ann."]
