"""What the user said outlives the connection on which it was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from kit import RATE_HZ, URL, Call, Peer, call, call_peer
from test_session_peer import created, delta, done
from trio_voice import AudioInputConfig, ConnectionOptions, RealtimeAgent, WireLost, events, tool
from trio_voice.audio import PCM16_24K
from trio_voice.protocol import TurnDetection
from trio_voice.protocol.history import History
from trio_voice.server.scripted import Say, ScriptedBrain, tone
from trio_voice.utterances import CARRIED_FOR_S, SentAudio, Utterances

PUSH_TO_TALK = RealtimeAgent(turn_detection=None)
CAREFUL = RealtimeAgent(turn_detection=TurnDetection())


# --- what was sent --------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4000), max_size=60), st.booleans(), st.data())
def test_what_is_held_is_what_was_sent_there(chunk_samples: list[int], is_needed: bool, data: st.DataObject) -> None:
    """A piece is given whole and right, or not at all; what is held stays below the capacity."""
    sent = SentAudio(PCM16_24K, capacity_ms=2500)
    sent.is_needed = is_needed
    line = np.arange(1, sum(chunk_samples) + 1, dtype="<i2").tobytes()
    for end in np.cumsum(chunk_samples) * 2:
        sent.append(line[round(sent.sent_ms * 48) : end])
    assert sent.sent_ms == len(line) / 48
    start_ms = data.draw(st.integers(0, len(line) // 48))
    end_ms = data.draw(st.integers(start_ms, len(line) // 48))
    piece = sent.between(start_ms, end_ms)
    held_ms = 2500 if is_needed else 2000
    if sent.sent_ms - start_ms <= held_ms - max(chunk_samples, default=0) / 24:
        assert piece == line[start_ms * 48 : end_ms * 48]
    assert piece in (b"", line[start_ms * 48 : end_ms * 48])
    assert sum(map(len, sent._chunks)) <= held_ms * 48


def test_an_utterance_longer_than_what_is_kept_is_counted_as_lost() -> None:
    utterances, sent = Utterances(False, History().new_id), SentAudio(PCM16_24K, capacity_ms=1000)
    utterances.connect(sent)
    utterances.began(0)
    for _ in range(60):
        sent.append(bytes(960))
    utterances.ended("item", 1200)
    assert utterances.wordless == {}
    assert utterances.lost == 1


def test_of_many_the_latest_are_kept_within_the_capacity() -> None:
    utterances, sent = Utterances(True, History().new_id), SentAudio(PCM16_24K, capacity_ms=1000)
    utterances.connect(sent)
    for number in range(5):
        sent.append(bytes([number]) * 48 * 400)
        sent.commit()
        utterances.committed(f"item_{number}")
    assert list(utterances.wordless) == ["item_3", "item_4"]
    utterances.words_known("item_4")
    assert list(utterances.wordless) == ["item_3"]


def test_a_commit_that_was_refused_is_no_utterance() -> None:
    utterances, sent = Utterances(True, History().new_id), SentAudio(PCM16_24K, capacity_ms=1000)
    utterances.connect(sent)
    sent.append(bytes(480))
    sent.commit()
    utterances.refused()
    utterances.connection_lost(0)
    assert utterances.wordless == {}


# --- through a loss -------------------------------------------------------------------------------


def words_in(brain: ScriptedBrain) -> list[str]:
    """What the user said, as the last answer knew it."""
    return [item.text for item in brain.requests[-1].items if item.role == "user"]


async def until_over(on: Call) -> None:
    """The utterance is over for the server, its words are not known."""
    await on.next(events.SpeechEnd)


async def test_a_question_whose_words_had_not_come_is_answered_after_the_loss(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Here it is.", 300)], ["Where is my order?"], hear_ms=2000)
    async with call(brain, CAREFUL) as on:
        await on.speak()
        await until_over(on)
        await on.drop()
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
        assert [line.text for line in on.session.transcript()] == ["Where is my order?", "Here it is."]
        assert on.session.metrics.dropped["utterances"] == 0
    ((heard, _),) = brain.utterances
    spoken = tone(440, 800, RATE_HZ)
    assert spoken.tobytes() in heard.tobytes(), "every sample of it"
    assert words_in(brain) == ["Where is my order?"]


async def test_it_is_not_given_again_once_its_words_are_known(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Yes.", 300), Say("Still here.", 300)], ["Are you there?"])
    async with call(brain, CAREFUL) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
    assert len(brain.utterances) == 1, "recognised once"
    assert words_in(brain) == ["Are you there?"]


async def test_without_transcription_the_sound_is_the_memory(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Yes.", 300), Say("Still here.", 300)], ["Are you there?", "Are you there?"])
    async with call(brain, RealtimeAgent(transcription=None)) as on:
        await on.speak()
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.session.respond()
        await on.next(events.PlaybackEnd)
    assert words_in(brain) == ["Are you there?"]


async def test_a_sentence_cut_by_a_loss_is_heard_as_one(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("I see.", 300)], ["A long sentence."])
    async with call(brain, CAREFUL) as on, trio.open_nursery() as nursery:
        nursery.start_soon(on.speak, 3000)
        await on.next(events.SpeechStart)
        await trio.sleep(1)
        await on.drop()
        await on.next(events.PlaybackEnd)
    ((heard, _),) = brain.utterances
    assert np.count_nonzero(heard) > 0.97 * 3 * RATE_HZ, "but for what was said while it connected"


async def test_a_sentence_may_be_lost_twice(autojump_clock: MockClock) -> None:
    """Under way at the first loss, over and without words at the second."""
    brain = ScriptedBrain([Say("I see.", 300)], ["A long sentence."], hear_ms=1500)
    async with call(brain, CAREFUL) as on, trio.open_nursery() as nursery:
        nursery.start_soon(on.speak, 4000)
        await on.next(events.SpeechStart)
        await trio.sleep(3)
        await on.drop()
        await until_over(on)
        await on.drop()
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.dropped["utterances"] == 0
    ((heard, _),) = brain.utterances
    assert np.count_nonzero(heard) > 0.97 * 4 * RATE_HZ


async def test_after_a_long_outage_a_sentence_begins_anew(autojump_clock: MockClock) -> None:
    connects = 0

    async def hang() -> None:
        await trio.sleep(CARRIED_FOR_S + 1)

    brain = ScriptedBrain([Say("I see.", 300)])
    async with call(brain, CAREFUL) as on, trio.open_nursery() as nursery:
        open_stream = on.session._link.open_stream
        assert open_stream is not None

        async def slowly() -> trio.abc.Stream:
            nonlocal connects
            connects += 1
            await hang()
            return await open_stream()

        nursery.start_soon(on.speak, 12_000)
        await on.next(events.SpeechStart)
        await trio.sleep(1)
        on.session._link.open_stream = slowly
        await on.drop()
        await on.next(events.PlaybackEnd)
        assert on.session.metrics.dropped["utterances"] == 1
    ((heard, _),) = brain.utterances
    assert np.count_nonzero(heard) < 6 * RATE_HZ, "only what was said since"


@pytest.mark.parametrize("lost_at", ["held", "let go", "between"])
async def test_a_button_held_through_a_loss(lost_at: str, autojump_clock: MockClock) -> None:
    """Lost while the button is held; after it was let go, before the words came; held before, let go in the outage."""
    brain = ScriptedBrain([Say("Done.", 300)], ["Do it."], hear_ms=1000)
    async with call(brain, PUSH_TO_TALK, listening=False) as on:
        await on.session.start_listening()
        await on.speak(1000)
        if lost_at == "held":
            await on.drop()
            await on.next(events.Connected)
            await on.speak(500)
            await on.session.stop_listening()
        elif lost_at == "let go":
            await on.session.stop_listening()
            await trio.sleep(0.1)
            await on.drop()
        else:
            await on.drop()
            await on.session.stop_listening()
        await on.next(events.PlaybackEnd)
        assert on.errors() == []
    ((heard, _),) = brain.utterances
    spoken_ms = 1500 if lost_at == "held" else 1000
    assert np.count_nonzero(heard) > 0.97 * spoken_ms / 1000 * RATE_HZ
    assert words_in(brain) == ["Do it."]


async def test_nothing_is_kept_where_nothing_is_wanted(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Hm?", 300)], hear_ms=2000)
    async with call(brain, CAREFUL, audio_input=AudioInputConfig(utterance_capacity_ms=0)) as on:
        await on.speak()
        await until_over(on)
        await on.drop()
        await on.next(events.Connected)
        await trio.sleep(5)
        assert brain.requests == []
        assert on.session.metrics.dropped["utterances"] == 1


# --- a server that remembers ----------------------------------------------------------------------


def added(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "conversation.item.added", "item": item}


async def test_a_server_that_keeps_the_conversation_is_told_only_what_it_lacks(autojump_clock: MockClock) -> None:
    """What it confirmed is not told again; a text and a result that it may have missed are."""
    released = trio.Event()

    @tool
    async def order_pizza() -> str:
        """Order a pizza."""
        await released.wait()
        return "ordered"

    told: list[Sequence[dict[str, Any]]] = []
    targets: list[str] = []

    async def serve(peer: Peer) -> None:
        targets.append(peer.target)
        await peer.send({"type": "conversation.created", "conversation": {"id": "conv_7"}})
        await peer.configure()
        if len(targets) == 1:
            text = await peer.receive("conversation.item.create")
            await peer.send(added(text["item"]))
            await peer.receive("response.create")
            called = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "order_pizza", "arguments": "{}"}
            await peer.send(
                created("r1"),
                {"type": "response.output_item.done", "response_id": "r1", "item": called | {"status": "completed"}},
                done("r1"),
            )
            await peer.receive("conversation.item.create")  # the second text, which is not confirmed
            await peer.socket.aclose(1011)
            return
        released.set()
        for _ in range(2):  # whichever comes first, and whether or not an answer is asked for in between
            await peer.receive("conversation.item.create")
        told.append([event["item"] for event in peer.received if event["type"] == "conversation.item.create"])
        await peer.send(created("r2"), delta("r2", 2, 100), done("r2"))
        await peer.drain()

    options = ConnectionOptions(url="ws://memory/v1/realtime", model="grok", native_resume=True)
    async with call_peer(serve, RealtimeAgent(tools=[order_pizza]), connection=options) as on:
        await on.session.send_text("A pizza, please.")
        await on.next(events.ToolCalled)
        await on.session.send_text("And a salad.")
        await on.next(events.PlaybackEnd)
    assert targets == ["/v1/realtime?model=grok", "/v1/realtime?model=grok&conversation_id=conv_7"]
    (items,) = told
    assert {item.get("output") or item["content"][0]["text"] for item in items} == {"And a salad.", "ordered"}


async def test_by_default_no_conversation_is_asked_for(autojump_clock: MockClock) -> None:
    targets: list[str] = []

    async def serve(peer: Peer) -> None:
        targets.append(peer.target)
        await peer.send({"type": "conversation.created", "conversation": {"id": "conv_7"}})
        await peer.configure()
        await peer.socket.aclose(1011 if len(targets) == 1 else 1008)

    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="1008")):
        async with call_peer(serve, connection=URL):
            await trio.sleep_forever()
    assert targets == ["/v1/realtime", "/v1/realtime"]
