"""A session against a server that says exactly what a test wants: what other servers do, and what none should."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio.testing import MockClock

from kit import RATE_HZ, Peer, call, call_peer
from trio_voice import ConfigError, ConnectionOptions, RealtimeAgent, WireLost, events, tool
from trio_voice.dialects import DIALECTS
from trio_voice.server.scripted import ScriptedBrain, marked_samples, tone, turns_in
from trio_voice.testing import RecordingSpeaker


def delta(response_id: str, turn: int, milliseconds: int = 200, item_id: str | None = None) -> dict[str, Any]:
    """A piece of sound whose samples know their turn."""
    pcm = marked_samples(turn, RATE_HZ * milliseconds // 1000).tobytes()
    return {
        "type": "response.output_audio.delta",
        "response_id": response_id,
        "item_id": item_id or f"item_{response_id}",
        "delta": base64.b64encode(pcm).decode(),
    }


def created(response_id: str) -> dict[str, Any]:
    response = {"id": response_id, "object": "realtime.response", "status": "in_progress", "conversation_id": "conv"}
    return {"type": "response.created", "response": response}


def done(response_id: str, status: str = "completed") -> dict[str, Any]:
    response = {"id": response_id, "object": "realtime.response", "status": status, "conversation_id": "conv"}
    return {"type": "response.done", "response": response}


SPEECH_STARTED = {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "item_user"}


async def test_late_sound_of_an_interrupted_response_is_never_heard(autojump_clock: MockClock) -> None:
    """The server goes on sending for a while after it was interrupted, as real ones do."""

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"), *[delta("r1", 1) for _ in range(10)])
        await trio.sleep(1)
        await peer.send(SPEECH_STARTED, *[delta("r1", 1) for _ in range(10)])
        await trio.sleep(0.5)
        await peer.send(delta("r1", 1), done("r1", "cancelled"), created("r2"), delta("r2", 2), done("r2"))
        await peer.drain()

    async with call_peer(serve) as on:
        interruption = await on.next(events.Interruption)
        cut_at = len(on.speaker.pcm) // 2 + RATE_HZ * 5 // 1000
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard[cut_at:]) == [2]
        assert int((on.heard >> 8 == 3).sum()) == RATE_HZ // 5, "all of the next turn"
        assert 900 <= interruption.heard_ms <= 1000
        assert on.session.metrics.dropped["stale_samples"] == 11 * RATE_HZ // 5


async def test_truncation_names_the_item_being_heard_and_deletes_the_one_not_begun(autojump_clock: MockClock) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 1000, "first"), delta("r1", 1, 1000, "second"), done("r1"))
        await trio.sleep(0.6)
        await peer.send(SPEECH_STARTED)
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.Interruption)
        await trio.sleep(1)
    truncate, delete = [event for event in seen[0].received if event["type"].startswith("conversation.item.")]
    assert (truncate["type"], truncate["item_id"]) == ("conversation.item.truncate", "first")
    assert 400 <= truncate["audio_end_ms"] <= 600
    assert (delete["type"], delete["item_id"]) == ("conversation.item.delete", "second")


async def test_nothing_is_truncated_when_all_was_heard(autojump_clock: MockClock) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 300), done("r1"))
        await trio.sleep(2)
        await peer.send(SPEECH_STARTED)
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.SpeechStart)
        await trio.sleep(1)
        assert on.session.metrics.interruption_count == 0
    assert seen[0].types() == ["session.update"]


async def test_a_server_that_announces_nothing_can_still_be_interrupted(autojump_clock: MockClock) -> None:
    """No response.created, no output_item.added, beta names, no response ids."""

    async def serve(peer: Peer) -> None:
        await peer.configure()
        beta = delta("r1", 1, 2000) | {"type": "response.audio.delta"}
        await peer.send(beta)
        await trio.sleep(0.5)
        await peer.send(SPEECH_STARTED, beta)
        await trio.sleep(0.5)
        await peer.send(delta("r2", 2, 100), done("r2"))
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.Interruption)
        cut_at = len(on.speaker.pcm) // 2 + RATE_HZ * 5 // 1000
        await on.next(events.PlaybackEnd)
        assert turns_in(on.heard[cut_at:]) == [2]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("this is not JSON", "JSON"),
        ("[1, 2, 3]", "JSON object"),
        ('{"event_id": "e1"}', "type"),
        ('{"type": "response.output_audio.delta", "item_id": "i", "delta": "no base64!"}', "base64"),
        ('{"type": "response.output_audio.delta", "item_id": "i"}', "delta"),
        (json.dumps({"type": "session.created", "session": "x" * (20 * 1024 * 1024)}), "limit"),
    ],
    ids=["text", "array", "typeless", "base64", "missing", "20 MiB"],
)
async def test_what_is_no_event_is_reported_and_the_session_goes_on(
    message: str, complaint: str, autojump_clock: MockClock
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(message, created("r1"), delta("r1", 1, 100), done("r1"))
        await peer.drain()

    async with call_peer(serve) as on:
        error = await on.next(events.ErrorReported)
        assert error.source == "protocol"
        assert complaint in error.message
        await on.next(events.PlaybackEnd)


async def test_unknown_events_are_passed_on(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send({"type": "response.hologram.delta", "delta": 1}, created("r1"), delta("r1", 1, 100), done("r1"))
        await peer.drain()

    async with call_peer(serve, protocol=True) as on:
        received: Any = []
        async for event in on.events:
            if isinstance(event, events.ServerEventReceived):
                received.append(getattr(event.event, "type", None))
            if isinstance(event, events.PlaybackEnd):
                break
        assert "response.hologram.delta" in received


async def test_errors_of_the_server_are_reported_and_the_harmless_are_not(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        for code in ("response_cancel_not_active", "item_truncate_invalid_item_id", "rate_limit_exceeded"):
            await peer.send(
                {"type": "error", "error": {"type": "invalid_request_error", "code": code, "message": code}}
            )
        await peer.send(created("r1"), delta("r1", 1, 100), done("r1"))
        await peer.drain()

    async with call_peer(serve) as on:
        assert (await on.next(events.ErrorReported)).code == "item_truncate_invalid_item_id"
        assert (await on.next(events.ErrorReported)).code == "rate_limit_exceeded"
        await on.next(events.PlaybackEnd)


async def test_a_refused_response_is_asked_for_again(autojump_clock: MockClock) -> None:
    """The server began one of its own just before ours arrived."""
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.receive("response.create")
        code = "conversation_already_has_active_response"
        await peer.send(created("r1"), {"type": "error", "error": {"code": code, "message": code}})
        await peer.send(delta("r1", 1, 100), done("r1"))
        await peer.receive("response.create")
        await peer.send(created("r2"), delta("r2", 2, 100), done("r2"))
        await peer.drain()

    async with call_peer(serve) as on:
        await on.session.respond()
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
        assert on.turns_heard() == [1, 2]
        assert on.errors() == []
    assert seen[0].types().count("response.create") == 2


async def test_an_answer_that_the_server_could_not_begin_does_not_repeat_ours(autojump_clock: MockClock) -> None:
    """The user had said something, and when the server was to answer it, it was making what we had asked for. What the
    user said is answered after that; what we had asked for is said once."""
    asked: list[dict[str, Any]] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        asked.append(await peer.receive("response.create"))
        code = "conversation_already_has_active_response"
        await peer.send(created("r1"), {"type": "error", "error": {"code": code, "message": code, "event_id": None}})
        await peer.send(delta("r1", 1, 100), done("r1"))
        asked.append(await peer.receive("response.create"))
        await peer.send(created("r2"), delta("r2", 2, 100), done("r2"))
        await peer.drain()
        assert peer.types().count("response.create") == 2

    async with call_peer(serve) as on:
        await on.session.say("One moment.")
        await on.next(events.PlaybackEnd)
        await on.next(events.PlaybackEnd)
        await trio.sleep(5)
        assert on.errors() == []
    said, answer = asked
    assert said["response"]["instructions"].endswith("One moment.")
    assert "response" not in answer


async def test_the_user_is_answered_though_the_server_refused_itself_the_answer(autojump_clock: MockClock) -> None:
    """It was at another answer when they had finished: one that was asked for, and was not wanted any more."""

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(SPEECH_STARTED)
        await peer.receive("response.create")
        code = "conversation_already_has_active_response"
        await peer.send(
            created("r1"),
            {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 900, "item_id": "item_user"},
            {"type": "input_audio_buffer.committed", "item_id": "item_user"},
            {"type": "error", "error": {"code": code, "message": code}},
            done("r1"),
        )
        await peer.receive("response.create")
        await peer.send(created("r2"), delta("r2", 2, 100), done("r2"))
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.SpeechStart)
        await on.session.respond()
        await on.session.interrupt()
        await on.next(events.PlaybackEnd)
        assert on.turns_heard() == [2]
        assert on.errors() == []


async def test_tools_run_only_from_a_completed_item(autojump_clock: MockClock) -> None:
    ran: list[str] = []

    @tool
    async def buy(what: str) -> str:
        """Buy something."""
        ran.append(what)
        return "bought"

    def call_item(call_id: str, what: str, status: str) -> dict[str, Any]:
        arguments = json.dumps({"what": what})
        item = {"type": "function_call", "id": f"i_{call_id}", "call_id": call_id, "name": "buy", "status": status}
        return {"type": "response.output_item.done", "response_id": "r1", "item": item | {"arguments": arguments}}

    async def serve(peer: Peer) -> None:
        await peer.configure()
        finished = {"type": "response.function_call_arguments.done", "response_id": "r1", "item_id": "i_c1"}
        await peer.send(created("r1"), finished | {"call_id": "c1", "name": "buy", "arguments": '{"what": "early"}'})
        await peer.send(call_item("c1", "incomplete", "incomplete"))
        await peer.send(call_item("c2", "complete", "completed"), call_item("c2", "again", "completed"), done("r1"))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(tools=[buy])) as on:
        await on.next(events.ToolFinished)
        await trio.sleep(1)
    assert ran == ["complete"]


async def test_a_tool_of_an_interrupted_turn_is_not_begun(autojump_clock: MockClock) -> None:
    seen: list[Peer] = []

    @tool
    async def buy() -> str:
        """Buy it."""
        raise AssertionError("bought what nobody wanted any more")

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 2000))
        await trio.sleep(0.5)
        item = {"type": "function_call", "id": "i", "call_id": "c1", "name": "buy", "status": "completed"}
        called = {"type": "response.output_item.done", "response_id": "r1", "item": item | {"arguments": "{}"}}
        await peer.send(SPEECH_STARTED, called, done("r1", "cancelled"))
        await peer.drain()

    async with call_peer(serve, RealtimeAgent(tools=[buy])) as on:
        await on.next(events.ToolFinished)
        await trio.sleep(1)
    (output,) = [
        event["item"] for event in seen[0].received if event.get("item", {}).get("type") == "function_call_output"
    ]
    assert "interrupted" in output["output"]


async def test_a_manual_interruption_cancels_the_response(autojump_clock: MockClock) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), delta("r1", 1, 2000))
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.PlaybackStart)
        await on.session.interrupt()
        await trio.sleep(1)
    assert seen[0].types() == ["session.update", "response.cancel", "conversation.item.truncate"]


async def test_the_session_limit_ends_the_session_with_one_clear_error(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.socket.aclose(1001, "session_expired")

    streams: list[Any] = []
    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="1001")):
        async with call_peer(serve) as on:
            streams.append(on.events)
            await trio.sleep_forever()
    assert [event.name async for event in streams[0]][-1] == "disconnected"


async def test_a_refused_configuration_is_a_configuration_error(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        update = await peer.receive("session.update")
        error = {"message": "voice 'bob' is unknown", "code": "invalid_value", "event_id": update["event_id"]}
        await peer.send({"type": "error", "error": error})
        await peer.drain()

    with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match="bob")):
        async with call_peer(serve):
            pytest.fail("entered a session that was refused")


async def test_a_dead_peer_is_noticed_when_it_should_be(autojump_clock: MockClock) -> None:
    options = ConnectionOptions(
        url="ws://memory/",
        model=None,
        auto_reconnect=False,
        heartbeat_interval_ms=20_000,
        heartbeat_timeout_ms=10_000,
    )
    dead_at: list[float] = []

    async def serve(peer: Peer) -> None:
        await peer.configure()
        dead_at.append(trio.current_time())
        peer.socket._reader_running = False  # stops answering, and says nothing
        await trio.sleep_forever()

    with pytest.RaisesGroup(pytest.RaisesExc(WireLost, match="silent for 30 s")):
        async with call_peer(serve, connection=options):
            await trio.sleep_forever()
    assert trio.current_time() - dead_at[0] == pytest.approx(30, abs=1.1), "and closing took a second at most"


async def test_leaving_is_bounded_whatever_the_peer_does(autojump_clock: MockClock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.configure()
        peer.socket._reader_running = False  # never answers a Close
        await trio.sleep_forever()

    async with call_peer(serve) as on:
        left_at = trio.current_time()
        await on.session.disconnect()
        assert trio.current_time() - left_at <= 1.01


async def test_a_speaker_that_fails_ends_the_session_with_its_error(autojump_clock: MockClock) -> None:
    from trio_voice import DeviceError

    class Broken(RecordingSpeaker):
        def open(self, *arguments: Any) -> Any:
            raise DeviceError("no loudspeaker here")

    with pytest.RaisesGroup(pytest.RaisesExc(DeviceError, match="no loudspeaker")):
        async with call(ScriptedBrain(), speaker=Broken()):
            pytest.fail("entered a session without its speaker")


async def test_sound_at_another_rate_is_heard_whole_at_the_session_s(autojump_clock: MockClock) -> None:
    """vLLM-omni names the rate with each piece, and calls the sound `audio`."""
    spoken = tone(440, 1000, 16_000)

    async def serve(peer: Peer) -> None:
        await peer.configure()
        await peer.send(created("r1"))
        for start in range(0, len(spoken), 1600):
            piece = base64.b64encode(spoken[start : start + 1600].tobytes()).decode()
            await peer.send(
                {
                    "type": "response.audio.delta",
                    "response_id": "r1",
                    "item_id": "item_r1",
                    "audio": piece,
                    "sample_rate_hz": 16_000,
                }
            )
        await peer.send({"type": "response.audio.done", "response_id": "r1", "item_id": "item_r1"}, done("r1"))
        await peer.drain()

    async with call_peer(serve) as on:
        await on.next(events.PlaybackEnd)
        heard = np.trim_zeros(on.heard)
        assert len(heard) == pytest.approx(RATE_HZ, abs=RATE_HZ // 100), "one second"
        crossings = int((np.diff(np.signbit(heard)) != 0).sum())
        assert crossings == pytest.approx(880, abs=10), "440 Hz, as it was spoken"


@pytest.mark.parametrize("retried", [False, True])
async def test_a_model_that_cannot_be_loaded_is_told_in_the_server_s_words(
    retried: bool, autojump_clock: MockClock
) -> None:
    """LocalAI says so in place of `session.created`."""
    connections: list[Peer] = []

    async def serve(peer: Peer) -> None:
        connections.append(peer)
        if retried and len(connections) == 1:
            await peer.configure()
            await peer.socket.aclose(1011, "crashed")
            return
        error = {"type": "invalid_request_error", "code": "model_load_error", "message": "Failed to load model: no tts"}
        await peer.send({"type": "error", "error": error})
        await peer.drain()

    connection = ConnectionOptions(url="ws://memory/v1/realtime", dialect="localai", model="gpt-realtime")
    refused = pytest.RaisesExc(WireLost, match="Failed to load model: no tts", check=lambda lost: not lost.retryable)
    with pytest.RaisesGroup(refused):
        async with call_peer(serve, connection=connection):
            await trio.sleep_forever()
    assert len(connections) == (2 if retried else 1), "asking again would not help"


async def test_words_that_come_as_a_whole_replace_those_before(autojump_clock: MockClock) -> None:
    """xAI tells all of the user's words each time, and corrects itself."""
    kind = "conversation.item.input_audio_transcription"

    async def serve(peer: Peer) -> None:
        await peer.configure()
        for words in ("Hello", "Hello, my", "Hello, my name is"):
            await peer.send({"type": f"{kind}.updated", "item_id": "item_user", "transcript": words})
        await peer.send({"type": f"{kind}.updated", "item_id": "item_user", "transcript": "Yellow, my name is"})
        await peer.send({"type": f"{kind}.completed", "item_id": "item_user", "transcript": "Hello, my name is Bo."})
        await peer.drain()

    async with call_peer(serve) as on:
        told = [await on.next(events.Transcript) for _ in range(5)]
        assert [event.text for event in told] == [
            "Hello", "Hello, my", "Hello, my name is", "Yellow, my name is", "Hello, my name is Bo.",
        ]  # fmt: skip
        assert [event.delta for event in told] == ["Hello", ", my", " name is", "", ""], "what is new, where it goes on"
        assert [event.final for event in told] == [False] * 4 + [True]
        assert [line.text for line in on.session.transcript()] == ["Hello, my name is Bo."]


@pytest.mark.other_shapes("Qwen's")
async def test_a_limit_that_only_the_dialect_knows_is_kept(autojump_clock: MockClock) -> None:
    """The server says nothing of an end: the session moves before that of the table."""
    opened_at: list[float] = []

    async def serve(peer: Peer) -> None:
        opened_at.append(trio.current_time())
        await peer.configure()
        await peer.drain()

    began_at = trio.current_time()
    dialect = attrs.evolve(DIALECTS["qwen"], session_limit_min=4)
    connection = ConnectionOptions(url="ws://memory/v1/realtime", dialect=dialect, model="m")
    async with call_peer(serve, connection=connection) as on:
        await trio.sleep(3 * 60)
        assert on.session.connection_state.value == "connected"
    assert [round((at - began_at) / 60) for at in opened_at] == [0, 2]
