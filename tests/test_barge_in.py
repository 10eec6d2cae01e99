"""Barge-in where the application is slow, where news crosses on its way, and where sound did not fit."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from test_session_peer import SPEECH_STARTED, created, delta, done
from trio_voice import AudioOutputConfig, events
from trio_voice.barge_in import BargeIn, Speaking
from trio_voice.channels import CheckText, EventFanOut, Interrupted, PlaybackItem, Send, UplinkItem
from trio_voice.outbox import Outbox
from trio_voice.playback_buffer import ItemPosition
from trio_voice.protocol import (
    ClientEvent,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemTruncate,
    TurnDetection,
)
from trio_voice.protocol.history import History
from trio_voice.protocol.server_events import ResponseOutputAudioTranscriptDelta
from trio_voice.server.scripted import Say, ScriptedBrain, marked_samples, turns_in
from trio_voice.server_detection import ServerDetection
from trio_voice.tool_items import ToolItem
from trio_voice.tracker import ConversationTracker

BURST = 60
"""Pieces of sound that the application has not taken when the user begins to speak."""
WORK_S = 0.020


async def sleeping() -> None:
    await trio.sleep(WORK_S)


async def computing() -> None:
    """Nobody else gets a turn meanwhile."""
    until = time.perf_counter() + WORK_S
    while time.perf_counter() < until:
        pass
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("work", [sleeping, computing])
async def test_a_slow_application_learns_of_it_before_any_sound_that_waited(
    work: Callable[[], Awaitable[None]], autojump_clock: MockClock
) -> None:
    burst, at_work = trio.Event(), trio.Event()

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), *[delta("r1", 1, 100) for _ in range(BURST)])
        await trio.testing.wait_all_tasks_blocked()
        burst.set()
        await at_work.wait()
        await peer.send(SPEECH_STARTED, *[delta("r1", 1, 100) for _ in range(5)], done("r1", "cancelled"))
        await trio.sleep(0.2)
        await peer.send(created("r2"), *[delta("r2", 2, 100) for _ in range(10)], done("r2"))
        await peer.drain()

    taken: list[events.SessionEvent] = []
    async with call_peer(serve) as on:
        stream = on.session.events(audio=True)
        await burst.wait()
        with trio.fail_after(60):
            async for event in stream:
                taken.append(event)
                if isinstance(event, events.ResponseAudio):
                    await work()
                    at_work.set()
                if isinstance(event, events.PlaybackEnd):
                    break
        names = [event.name for event in taken]
        before, after = taken[: names.index("speech_start")], taken[names.index("speech_start") :]
        waiting = BURST - sum(isinstance(event, events.ResponseAudio) for event in before)
        assert waiting > 0, "sound of the interrupted turn was queued"
        assert [event.turn for event in after if isinstance(event, events.Interruption)] == [1]
        answer = [event for event in after if isinstance(event, events.ResponseAudio)]
        assert {event.turn for event in answer} == {2}, "nothing stale reached the application"
        assert b"".join(event.pcm for event in answer) == marked_samples(2, RATE_HZ // 10).tobytes() * 10
        assert names.index("interruption") < names.index("audio", len(before)), "before any further sound"
        assert int((on.heard >> 8 == 3).sum()) == RATE_HZ, "the loudspeaker had all of the next answer"
        assert turns_in(on.heard[-RATE_HZ:]) == [2]


async def test_what_there_was_no_room_for_is_not_remembered_as_said(autojump_clock: MockClock) -> None:
    """The buffer holds a second; the answer has four, and comes at once. Nobody interrupts."""
    words = "One two three four five six seven eight."
    brain = ScriptedBrain([Say(words, 4000), Say("Right.", 300)], ["Go.", "What did you say?"])
    output = AudioOutputConfig(fade_ms=0, capacity_ms=1000)
    async with call(brain, audio_output=output) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        said_until = len(on.heard)
        assert 0 < int((on.heard >> 8 == 1).sum()) <= 2 * RATE_HZ
        await on.speak()
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard[said_until:]) == [1]
        assert on.session.metrics.dropped["overflow_samples"] > 0
        assert on.session.metrics.truncation_count == 1
        assert on.session.metrics.interruption_count == 0
        spoken = on.session.transcript()[1].text
        assert spoken, "the beginning of it was said"
        assert words.startswith(spoken)
        assert len(spoken) < len(words)
        assert on.errors() == []
    (remembered,) = [item for item in brain.requests[1].items if item.role == "assistant"]
    assert words.startswith(remembered.text or "-")
    assert len(remembered.text) < len(words)


# --- news that crosses on its way: the conversation's part alone ----------------------------------


@attrs.define(eq=False)
class Bench:
    """Barge-in with its channels in the test's hands."""

    barge_in: BargeIn
    control: trio.MemoryReceiveChannel[UplinkItem]
    playback: trio.MemoryReceiveChannel[PlaybackItem]

    def told(self) -> list[ClientEvent]:
        """What the server has been told since the last look."""
        told = []
        while self.control.statistics().current_buffer_used:
            item = self.control.receive_nowait()
            assert isinstance(item, Send)
            told.append(item.event)
        return told

    def says(self, item_id: str, words: str) -> None:
        self.barge_in.history.apply(ResponseOutputAudioTranscriptDelta(item_id=item_id, response_id="r", delta=words))

    def remembers(self) -> list[str]:
        return [entry.heard_text for entry in self.barge_in.history]


def bench(epoch: int = 1) -> Bench:
    to_playback, playback = trio.open_memory_channel[PlaybackItem](9)
    to_tools, _ = trio.open_memory_channel[ToolItem](9)
    to_control, control = trio.open_memory_channel[UplinkItem](9)
    history = History()
    to_checks, _ = trio.open_memory_channel[CheckText](9)
    outbox = Outbox(to_playback, to_tools, EventFanOut(), to_checks, to_control, is_open=True)
    detection = ServerDetection(TurnDetection())
    barge_in = BargeIn(outbox, history, ConversationTracker(history, started_at=0.0), detection, epoch=epoch)
    return Bench(barge_in, control, playback)


def at(turn: int, item_id: str, heard_ms: float, received_ms: float) -> ItemPosition:
    return ItemPosition(turn, item_id, 0, received_ms=received_ms, heard_ms=heard_ms)


async def test_the_next_answer_is_untouched_when_it_begins_before_playback_has_answered() -> None:
    """It has begun by the time at which the first one is reported silent; its items were deleted once."""
    on = bench()
    first, second = Speaking(1, "r1", item_ids=["first"]), Speaking(2, "r2", item_ids=["second"])
    on.says("second", "The next answer.")
    on.barge_in.interrupt(first, "speech")
    first.done = True
    on.barge_in.silenced(Interrupted(1, (at(1, "first", 500, 900),), 400), second)
    assert on.told() == [ConversationItemTruncate(item_id="first", content_index=0, audio_end_ms=500)]
    assert "The next answer." in on.remembers()


async def test_an_answer_heard_to_its_end_is_not_deleted_by_an_interruption_that_came_too_late() -> None:
    on = bench()
    answer = Speaking(1, "r1", item_ids=["heard"], done=True)
    on.says("heard", "All of it.")
    on.barge_in.item_complete(1, "heard")
    on.barge_in.interrupt(answer, "speech")
    on.barge_in.played(1, [at(1, "heard", 900, 900)], answer)  # said before playback had seen the interruption
    on.barge_in.silenced(Interrupted(1, (), 0), answer)
    assert on.told() == []
    assert on.remembers() == ["All of it."]


async def test_what_was_heard_of_an_interrupted_answer_is_not_held_back_from_the_next_connection() -> None:
    """All that had come was heard; only then the server says that there will be no more of it."""
    on = bench()
    answer, following = Speaking(1, "r1", item_ids=["heard"]), Speaking(2, "r2", item_ids=["next"])
    on.says("heard", "All of it.")
    on.barge_in.interrupt(answer, "manual")
    on.barge_in.silenced(Interrupted(1, (at(1, "heard", 900, 900),), 0), answer)
    on.barge_in.item_complete(1, "heard")
    assert on.barge_in.hold_back(following) == {"next"}


async def test_an_item_that_begins_after_its_turn_was_silenced_is_not_kept() -> None:
    on = bench()
    answer = Speaking(1, "r1", item_ids=["first"])
    on.barge_in.interrupt(answer, "manual")
    on.barge_in.item_added(1, "second", answer)
    on.barge_in.silenced(Interrupted(1, (), 0), answer)
    assert [event for event in on.told() if isinstance(event, ConversationItemDelete)] == [
        ConversationItemDelete(item_id="first"),
        ConversationItemDelete(item_id="second"),
    ]
    on.says("third", "Three.")
    for _ in range(2):  # a server may say it twice
        on.barge_in.item_added(1, "third", answer)
    assert on.told() == [ConversationItemDelete(item_id="third")]


async def test_a_server_is_told_nothing_of_items_that_another_one_made() -> None:
    """What was heard of them is restored as text, and text is never truncated."""
    on = bench(epoch=2)
    answer = Speaking(1, "r1", epoch=1, item_ids=["old"], done=True)
    on.says("old", "One two three four.")
    on.barge_in.hold_back(answer)
    on.barge_in.interrupt(answer, "speech")
    on.barge_in.silenced(Interrupted(1, (at(1, "old", 500, 1000),), 500), answer)
    (restored,) = on.told()
    assert isinstance(restored, ConversationItemCreate)
    assert "One two" in restored.item.text
    assert "four" not in restored.item.text


async def test_a_server_that_is_not_configured_yet_is_told_later() -> None:
    on = bench(epoch=0)
    answer = Speaking(1, "r1", epoch=1, item_ids=["old"], done=True)
    on.says("old", "One two three four.")
    on.barge_in.interrupt(answer, "speech")
    on.barge_in.silenced(Interrupted(1, (at(1, "old", 500, 1000),), 500), answer)
    assert on.told() == []


async def test_what_was_heard_is_told_before_the_text_that_interrupts(autojump_clock: MockClock) -> None:
    """All of the answer was made; the server must cut it before it answers the text."""
    brain = ScriptedBrain([Say("One two three four five six seven eight nine ten.", 5000), Say("Yes.", 300)])
    async with call(brain, listening=False) as on:
        await on.session.respond()
        await on.next(events.ResponseEnd)
        await on.next(events.PlaybackStart)
        await trio.sleep(1.5)
        await on.session.send_text("Stop. Go on with something else.")
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    said, asked = brain.requests[1].items
    assert (asked.role, said.role) == ("user", "assistant")
    assert 1 <= len(said.text.split()) <= 5, "as much as was heard"
