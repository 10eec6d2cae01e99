"""A session over the real WebSocket code, in virtual time: settings, items, errors."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from trio.testing import MockClock

from server.realtime_client import base64_of, connected, loud, quiet
from trio_voice.server.scripted import Call, Say, ScriptedBrain
from trio_voice.server.server_settings import ServerSettings

# --- settings -------------------------------------------------------------------------------------


async def test_the_session_says_all_its_settings_and_when_it_ends(autojump_clock: MockClock) -> None:
    settings = ServerSettings(wall_clock=lambda: 1_000_000.0, session_limit_s=600)
    async with connected(ScriptedBrain(), settings, path="/v1/realtime?model=any-name") as client:
        session = client.events[0]["session"]
        assert session["model"] == "any-name"
        assert session["expires_at"] == 1_000_600
        assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500


async def test_an_update_changes_what_it_says_and_nothing_else(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        before = client.events[0]["session"]
        detection = {"type": "server_vad", "threshold": 0.7}
        after = (await client.update(instructions="Be kind.", audio={"input": {"turn_detection": detection}}))[
            "session"
        ]
        assert after["instructions"] == "Be kind."
        assert after["audio"]["input"]["turn_detection"] == {
            **before["audio"]["input"]["turn_detection"],
            "threshold": 0.7,
        }
        assert after["audio"]["output"] == before["audio"]["output"]
        off = (await client.update(audio={"input": {"turn_detection": None}}))["session"]
        assert off["audio"]["input"]["turn_detection"] is None
        semantic = {"type": "semantic_vad", "eagerness": "high"}
        last = (await client.update(audio={"input": {"turn_detection": semantic}}))["session"]
        assert last["audio"]["input"]["turn_detection"] == {
            "type": "semantic_vad",
            "eagerness": "high",
            "create_response": True,
            "interrupt_response": True,
        }


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime", "voice": "echo"}, "unknown_parameter", "session.voice"),
        (
            {"type": "realtime", "tools": [{"type": "function", "name": "f", "meta": 1}]},
            "unknown_parameter",
            "session.tools[0].meta",
        ),
        ({"instructions": "x"}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "model": "another"}, "invalid_value", "session.model"),
        ({"type": "realtime", "output_modalities": ["smell"]}, "invalid_value", "session.output_modalities"),
        ({"type": "realtime", "output_modalities": ["text", "audio"]}, "invalid_value", "session.output_modalities"),
        ({"type": "realtime", "instructions": 5}, "invalid_type", "session.instructions"),
        ({"type": "realtime", "max_output_tokens": 9999}, "invalid_value", "session.max_output_tokens"),
        ({"type": "realtime", "tools": [{"type": "function"}]}, "missing_required_parameter", "session.tools[0].name"),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 96000}}}},
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {"type": "realtime", "audio": {"output": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "session.audio.output.format.type",
        ),
    ],
)
async def test_a_wrong_update_is_refused_and_nothing_of_it_applies(
    session: Any, code: str, param: str, autojump_clock: MockClock
) -> None:
    async with connected(ScriptedBrain()) as client:
        before = client.events[0]["session"]
        error = await client.refused("session.update", session=session)
        assert (error["code"], error["param"]) == (code, param)
        assert (await client.update())["session"] == before


async def test_the_voice_is_fixed_once_it_was_heard(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("hello")])) as client:
        await client.update(audio={"output": {"voice": "echo"}})
        await client.ask()
        error = await client.refused(
            "session.update", session={"type": "realtime", "audio": {"output": {"voice": "ash"}}}
        )
        assert error["code"] == "cannot_update_voice"
        await client.update(audio={"output": {"voice": "echo"}}, instructions="The same voice is no change.")


# --- what is no event -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ("not json", "invalid_event", None),
        ("[1]", "invalid_event", None),
        ('{"audio": "AAAA"}', "invalid_event", None),
        ('{"type": "response.sing"}', "invalid_value", "type"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_type", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "*"}', "invalid_value", "audio"),
        ('{"type": "conversation.item.delete"}', "missing_required_parameter", "item_id"),
        ('{"type": "conversation.item.create", "item": {}}', "missing_required_parameter", "item.type"),
        ('{"type": "output_audio_buffer.clear"}', "invalid_value", "type"),
    ],
)
async def test_nonsense_is_answered_and_the_session_goes_on(
    frame: str, code: str, param: str | None, autojump_clock: MockClock
) -> None:
    async with connected(ScriptedBrain([Say("still here")])) as client:
        await client.socket.send_message(frame)
        error = (await client.next("error"))["error"]
        assert error["type"] == "invalid_request_error"
        assert (error["code"], error["param"]) == (code, param)
        assert (await client.ask())["response"]["status"] == "completed"


# --- items ----------------------------------------------------------------------------------------


async def test_items_are_placed_retrieved_and_deleted(autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("ok")])) as client:
        b = await client.write("b", id="item_b")
        assert (b["previous_item_id"], b["item"]["status"]) == (None, "completed")
        for name, after in (("a", "root"), ("c", "item_b")):
            content = [{"type": "input_text", "text": name}]
            item = {"type": "message", "role": "user", "id": f"item_{name}", "content": content}
            await client.send("conversation.item.create", item=item, previous_item_id=after)
        assert (await client.next("conversation.item.done"))["previous_item_id"] is None
        assert (await client.next("conversation.item.done"))["previous_item_id"] == "item_b"
        await client.send("conversation.item.retrieve", item_id="item_c")
        assert (await client.next("conversation.item.retrieved"))["item"]["content"][0]["text"] == "c"
        await client.send("conversation.item.delete", item_id="item_b")
        assert (await client.next("conversation.item.deleted"))["item_id"] == "item_b"
        await client.send("response.create")
        await client.next("response.done")
        assert [item.text for item in brain.requests[0].items] == ["a", "c"]


@pytest.mark.parametrize(
    ("type_", "fields", "code"),
    [
        ("conversation.item.retrieve", {"item_id": "x"}, "item_retrieve_invalid_item_id"),
        ("conversation.item.delete", {"item_id": "x"}, "item_delete_invalid_item_id"),
        (
            "conversation.item.truncate",
            {"item_id": "x", "content_index": 0, "audio_end_ms": 0},
            "item_truncate_invalid_item_id",
        ),
        (
            "conversation.item.create",
            {"previous_item_id": "x", "item": {"type": "function_call_output", "call_id": "c", "output": ""}},
            "item_create_invalid_previous_item_id",
        ),
    ],
)
async def test_unknown_items_are_refused(type_: str, fields: Any, code: str, autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        assert (await client.refused(type_, **fields))["code"] == code


async def test_assistant_audio_cannot_be_created_but_its_words_can(autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("ok")])) as client:
        content: Any = [{"type": "output_audio", "audio": base64_of(loud(100))}]
        item = {"type": "message", "role": "assistant", "content": content}
        error = await client.refused("conversation.item.create", item=item)
        assert error["param"] == "item.content[0].type"
        assert "output_text" in error["message"]
        item["content"] = [{"type": "output_text", "text": "I said this."}]
        await client.send("conversation.item.create", item=item)
        await client.ask("go on")
        assert [i.text for i in brain.requests[0].items] == ["I said this.", "go on"]


async def test_a_spoken_item_is_recognised_before_it_is_answered(autojump_clock: MockClock) -> None:
    async with connected(brain := ScriptedBrain([Say("ok")], ["my words"], hear_ms=700)) as client:
        await client.update(audio={"input": {"transcription": {"model": "any"}}})
        content = [{"type": "input_audio", "audio": base64_of(loud(300))}]
        await client.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await client.send("response.create")
        await client.next("response.done")
        assert [item.text for item in brain.requests[0].items] == ["my words"]
        [completed] = client.of("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "my words"
        item_id = completed["item_id"]
        await client.send("conversation.item.retrieve", item_id=item_id)
        part = (await client.next("conversation.item.retrieved"))["item"]["content"][0]
        assert part["transcript"] == "my words"
        assert base64.b64decode(part["audio"]) == loud(300)


# --- truncation -----------------------------------------------------------------------------------


async def test_truncation_cuts_sound_and_words_where_the_user_stopped_hearing(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("One two three four five.", duration_ms=2400), Say("ok")])
    async with connected(brain) as client:
        done = await client.ask()
        item_id = done["response"]["output"][0]["id"]
        truncate = {"item_id": item_id, "content_index": 0}
        too_far = await client.refused("conversation.item.truncate", **truncate, audio_end_ms=2401)
        assert too_far["code"] == "invalid_value"
        assert too_far["message"] == "Audio content of 2400ms is already shorter than 2401ms"
        await client.send("conversation.item.truncate", **truncate, audio_end_ms=1400)
        answer = await client.next("conversation.item.truncated")
        assert (answer["item_id"], answer["audio_end_ms"]) == (item_id, 1400)
        await client.send("conversation.item.retrieve", item_id=item_id)
        part = (await client.next("conversation.item.retrieved"))["item"]["content"][0]
        assert part.get("transcript") is None
        assert len(base64.b64decode(part["audio"])) == 48 * 1400
        await client.ask("and now?")
        assert [item.text for item in brain.requests[1].items] == ["hello", "One two three", "and now?"]


async def test_what_has_no_sound_cannot_be_truncated(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Call("f"), Say("text")])) as client:
        user = await client.write("hi")
        call = (await client.ask())["response"]["output"][0]
        for item_id in (user["item"]["id"], call["id"]):
            error = await client.refused("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
            assert error["code"] == "invalid_value"
        written = (await client.ask(output_modalities=["text"]))["response"]["output"][0]
        error = await client.refused(
            "conversation.item.truncate", item_id=written["id"], content_index=0, audio_end_ms=0
        )
        assert error["code"] == "unsupported_content_type"


async def test_an_append_beyond_15_mib_is_refused_and_the_buffer_unharmed(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.send("input_audio_buffer.append", audio=base64_of(quiet(200)))
        error = await client.refused("input_audio_buffer.append", audio=base64_of(bytes(15 * 1024 * 1024 + 2)))
        assert error["param"] == "audio"
        await client.send("input_audio_buffer.commit")
        item_id = (await client.next("input_audio_buffer.committed"))["item_id"]
        await client.send("conversation.item.retrieve", item_id=item_id)
        part = (await client.next("conversation.item.retrieved"))["item"]["content"][0]
        assert base64.b64decode(part["audio"]) == quiet(200)


async def test_many_items_at_once_are_all_answered_in_order(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        for number in range(300):
            item = {"type": "function_call_output", "call_id": f"c{number}", "output": json.dumps(number)}
            await client.send("conversation.item.create", item=item)
        await client.quiesce()
        assert [e["item"]["call_id"] for e in client.of("conversation.item.done")] == [f"c{n}" for n in range(300)]
