"""Responses over the real WebSocket code, in virtual time."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from server.realtime_client import Event, connected, samples_of_deltas
from trio_voice.server.scripted import Call, Fail, Reply, Say, ScriptedBrain, Wait, marked_samples, turns_in
from trio_voice.server.server_settings import ServerSettings


def collapsed(types: list[str]) -> list[str]:
    """Runs of one type as one, and words and sound, which alternate, in one place."""
    result: list[str] = []
    for type_ in types:
        name = "deltas" if type_.startswith("response.output_") and type_.endswith(".delta") else type_
        if not result or result[-1] != name:
            result.append(name)
    return result


def response_of(events: list[Event], response_id: str) -> list[Event]:
    return [e for e in events if response_id in (e.get("response_id"), e.get("response", {}).get("id"))]


async def test_sound_is_whole_in_deltas_of_100_ms_and_its_words_in_step(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("One two.", 1250), Say("Three.", 300)]])) as client:
        done = (await client.ask())["response"]
        np.testing.assert_array_equal(samples_of_deltas(client.events), marked_samples(0, 24 * 1550))
        lengths = [len(base64.b64decode(e["delta"])) // 48 for e in client.of("response.output_audio.delta")]
        assert lengths == [100] * 12 + [50] + [100] * 3
        words = "".join(e["delta"] for e in client.of("response.output_audio_transcript.delta"))
        assert words == "One two. Three."
        assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": words}]
        assert done["usage"]["output_token_details"]["audio_tokens"] == 31
        assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"]


async def test_a_written_answer_has_no_sound(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("Just words.", 1000)])) as client:
        done = await client.ask(output_modalities=["text"])
        assert done["response"]["output"][0]["content"] == [{"type": "output_text", "text": "Just words."}]
        assert "".join(e["delta"] for e in client.of("response.output_text.delta")) == "Just words."
        assert not client.of("response.output_audio.delta")


@pytest.mark.parametrize("encoding", ["audio/pcmu", "audio/pcma"])
async def test_telephone_sound_has_a_byte_for_each_sample_at_8_khz(encoding: str, autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("hello", 500, tone_hz=400)])) as client:
        await client.update(audio={"output": {"format": {"type": encoding}}})
        await client.ask()
        assert brain.requests[0].rate_hz == 8000
        assert sum(len(base64.b64decode(e["delta"])) for e in client.of("response.output_audio.delta")) == 4000


async def test_words_and_a_call_are_two_items_in_order(autojump_clock: MockClock) -> None:
    arguments = '{"city": "London", "when": "tomorrow morning"}'
    async with connected(ScriptedBrain([[Say("Let me look."), Call("weather", arguments)]])) as client:
        done = (await client.ask())["response"]
        message, call = done["output"]
        assert (message["type"], call["type"]) == ("message", "function_call")
        assert (call["name"], call["arguments"], call["status"]) == ("weather", arguments, "completed")
        pieces = client.of("response.function_call_arguments.delta")
        assert len(pieces) > 1
        assert "".join(e["delta"] for e in pieces) == arguments
        assert {e["output_index"] for e in pieces} == {1}
        mine = response_of(client.events, done["id"])
        assert collapsed([e["type"] for e in mine])[-5:] == [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.done",
        ]


async def test_one_response_at_a_time_in_the_conversation(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("a"), Wait(1000)], Say("b")])) as client:
        await client.send("response.create")
        await client.next("response.created")
        error = await client.refused("response.create")
        assert error["code"] == "conversation_already_has_active_response"
        await client.next("response.done")
        await client.send("response.create")
        assert (await client.next("response.done"))["response"]["status"] == "completed"


async def test_cancelling_ends_a_response_at_once_and_in_order(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("One two.", 500), Wait(60_000)], Say("next")])) as client:
        await client.send("response.create")
        await client.next("response.output_audio.delta")
        started = trio.current_time()
        await client.send("response.cancel")
        done = (await client.next("response.done"))["response"]
        assert trio.current_time() == started
        assert done["status"] == "cancelled"
        assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert done["output"][0]["status"] == "incomplete"
        await client.next("rate_limits.updated")
        assert collapsed(client.types())[-8:] == [
            "deltas",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
        assert (await client.ask())["response"]["status"] == "completed"


async def test_cancelling_nothing_is_a_harmless_error(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("a")])) as client:
        assert (await client.refused("response.cancel"))["code"] == "response_cancel_not_active"
        await client.ask()
        assert (await client.refused("response.cancel"))["code"] == "response_cancel_not_active"


async def test_a_cancelled_brain_cannot_speak_into_the_next_response(autojump_clock: MockClock) -> None:
    class Stubborn(ScriptedBrain):
        async def respond(self, request: Any, writer: Any) -> None:
            try:
                await super().respond(request, writer)
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                    await writer.speak("too late", marked_samples(99, 2400))
                    await writer.call("late", "{}")
                raise

    async with connected(Stubborn([[Say("a"), Wait(9000)], Say("b", 3000)])) as client:
        await client.send("response.create")
        await client.next("response.output_audio.delta")
        await client.send("response.cancel")
        await client.send("response.create")
        await client.quiesce()
        assert 99 not in turns_in(samples_of_deltas(client.events))
        assert not client.of("response.function_call_arguments.done")


async def test_a_call_cut_off_ends_with_its_arguments_so_far(autojump_clock: MockClock) -> None:
    arguments = '{"text": "' + "x" * 3000 + '"}'
    async with connected(ScriptedBrain([Call("write", arguments)])) as client:
        done = (await client.ask(max_output_tokens=100))["response"]
        assert done["status"] == "incomplete"
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        [item] = done["output"]
        assert item["status"] == "incomplete"
        assert arguments.startswith(item["arguments"])
        [end] = client.of("response.function_call_arguments.done")
        assert end["arguments"] == item["arguments"] != arguments
        await client.quiesce()
        assert len(client.of("response.done")) == 1


async def test_the_token_limit_cuts_speech_too(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("word " * 50, 20_000)])) as client:
        done = (await client.ask(max_output_tokens=60))["response"]
        assert done["status"] == "incomplete"
        assert done["usage"]["output_tokens"] <= 60
        assert 1000 < len(samples_of_deltas(client.events)) / 24 < 3000


async def test_a_broken_brain_fails_the_response_and_the_session_goes_on(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("Well,"), Fail("engine on fire")], Say("Better.")])) as client:
        done = (await client.ask())["response"]
        assert done["status"] == "failed"
        assert "engine on fire" in done["status_details"]["error"]["message"]
        assert done["output"][0]["status"] == "incomplete"
        assert (await client.ask())["response"]["status"] == "completed"


async def test_what_follows_a_truncation_is_not_remembered(autojump_clock: MockClock) -> None:
    replies: list[Reply] = [[Say("One two three four.", 1000), Wait(500), Say("Five.", 400)], Say("ok")]
    async with connected(brain := ScriptedBrain(replies)) as client:
        await client.send("response.create")
        item_id = (await client.next("response.output_item.added"))["item"]["id"]
        await client.next("response.output_audio.delta")
        await trio.sleep(0.1)
        await client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=600)
        done = await client.next("response.done")
        assert done["response"]["output"][0]["content"] == [{"type": "output_audio"}]
        await client.ask("next")
        assert [item.text for item in brain.requests[1].items] == ["One two", "next"]


async def test_a_brain_that_writes_half_a_character_breaks_nothing(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([[Say("odd \ud800 one", 100), Call("f", "\ud800")]])) as client:
        assert (await client.ask())["response"]["status"] == "completed"


async def test_overrides_are_for_one_response(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("a"), Say("b")])
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
    async with connected(brain) as client:
        await client.update(instructions="Session's.")
        done = await client.ask(instructions="Its own.", tools=[tool], tool_choice="required", metadata={"k": "v"})
        await client.ask()
        first, second = brain.requests
        assert (first.instructions, second.instructions) == ("Its own.", "Session's.")
        assert ([t.name for t in first.tools], list(second.tools)) == (["f"], [])
        assert (first.tool_choice, second.tool_choice) == ("required", "auto")
        assert done["response"]["metadata"] == first.metadata == {"k": "v"}


async def test_a_response_outside_the_conversation_leaves_no_trace_and_runs_beside_another(
    autojump_clock: MockClock,
) -> None:
    brain = ScriptedBrain(lambda request: [Say("slow"), Wait(2000)] if not request.metadata else [Say("aside")])
    async with connected(brain) as client:
        user = await client.write("first")
        await client.send("response.create")
        await client.next("response.output_audio.delta")
        own = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "classify"}]}
        reference = {"type": "item_reference", "id": user["item"]["id"]}
        wanted = {"conversation": "none", "input": [reference, own], "metadata": {"aside": "yes"}}
        await client.send("response.create", response={**wanted, "output_modalities": ["text"]})
        aside = (await client.next("response.done"))["response"]
        assert aside["conversation_id"] is None
        assert aside["output"][0]["content"][0]["text"] == "aside"
        assert [item.text for item in brain.requests[1].items] == ["first", "classify"]
        aside_item = aside["output"][0]["id"]
        assert aside_item not in [e["item"]["id"] for e in client.of("conversation.item.added")]
        main = (await client.next("response.done"))["response"]
        assert main["status"] == "completed"
        assert main["conversation_id"] is not None


async def test_a_reference_to_nothing_is_refused(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        wanted = {"input": [{"type": "item_reference", "id": "gone"}]}
        assert (await client.refused("response.create", response=wanted))["param"] == "response.input[0].id"


async def test_burst_paces_the_sound(autojump_clock: MockClock) -> None:
    settings = ServerSettings(burst=2.0)
    async with connected(ScriptedBrain([Say("long", 4000)]), settings) as client:
        started = trio.current_time()
        await client.ask()
        assert trio.current_time() - started == pytest.approx(1.95, abs=0.01)


async def test_ids_repeat_with_the_seed(autojump_clock: MockClock) -> None:
    import random

    async def run() -> list[Event]:
        settings = ServerSettings(rng=random.Random(7), wall_clock=lambda: 0.0)
        async with connected(ScriptedBrain([Say("same")]), settings) as client:
            await client.ask()
            await client.next("rate_limits.updated")
            return client.events

    first, second = await run(), await run()
    assert first == second
    ids = [event["event_id"] for event in first]
    assert len(set(ids)) == len(ids)
