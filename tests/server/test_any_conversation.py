"""Whatever a client does, in whatever order: what must hold of the events it gets, in virtual time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from server.realtime_client import Event, RealtimeClient, base64_of, connected, loud, quiet
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Call, Fail, Say, ScriptedBrain, Step, Wait

steps = st.lists(
    st.sampled_from([Say("One two three.", 700), Say("", 50), Call("f", '{"a": 1}'), Wait(300), Fail()]), max_size=4
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("loud"), st.sampled_from([20, 100, 400])),
        st.tuples(st.just("quiet"), st.sampled_from([20, 200, 700])),
        st.tuples(st.just("sleep"), st.sampled_from([0, 50, 500])),
        st.tuples(
            st.sampled_from(
                ["commit", "clear", "write", "create", "aside", "cancel", "truncate", "delete", "manual", "vad"]
            ),
            st.integers(0, 2000),
        ),
    ),
    max_size=25,
)


async def act(client: RealtimeClient, action: str, number: int) -> None:
    items = [event["item"]["id"] for event in client.of("conversation.item.added")] or ["none"]
    item_id = items[number % len(items)]
    match action:
        case "loud" | "quiet":
            pcm = loud(number) if action == "loud" else quiet(number)
            await client.send("input_audio_buffer.append", audio=base64_of(pcm))
        case "sleep":
            await trio.sleep(number / 1000)
        case "commit" | "clear":
            await client.send(f"input_audio_buffer.{action}")
        case "write":
            content = [{"type": "input_text", "text": "hello"}]
            item = {"type": "message", "role": "user", "content": content}
            await client.send("conversation.item.create", item=item, previous_item_id=item_id)
        case "create":
            await client.send("response.create")
        case "aside":
            await client.send("response.create", response={"conversation": "none", "output_modalities": ["text"]})
        case "cancel":
            await client.send("response.cancel")
        case "truncate":
            await client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=number)
        case "delete":
            await client.send("conversation.item.delete", item_id=item_id)
        case _:
            detection: Any = None if action == "manual" else {"type": "server_vad"}
            session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
            await client.send("session.update", session=session)


def turned_off(event: Event) -> bool:
    """Whether there is no turn detection from this event on."""
    return event["type"] == "session.updated" and event["session"]["audio"]["input"]["turn_detection"] is None


def check(events: list[Event]) -> None:
    """The rules of the protocol that hold in every conversation."""
    assert max(Counter(event["event_id"] for event in events).values()) == 1
    failures = [
        event for event in events if event["type"] == "error" and event["error"]["type"] != "invalid_request_error"
    ]
    assert failures == []
    under_way: dict[str, str | None] = {}
    over: set[str] = set()
    open_items: dict[str, str] = {}
    speaking: str | None = None
    for event in events:
        type_ = event["type"]
        response_id = event.get("response_id") or event.get("response", {}).get("id")
        if type_ == "response.created":
            conversation_id = event["response"]["conversation_id"]
            if conversation_id is not None:
                assert conversation_id not in under_way.values(), "two responses in the conversation at once"
            under_way[response_id] = conversation_id
        elif response_id is not None:
            assert response_id in under_way, "an event of a response that is not under way"
            assert response_id not in over
        if type_ == "response.output_item.added":
            assert response_id not in open_items.values(), "two items open at once"
            open_items[event["item"]["id"]] = response_id
        elif type_ == "response.output_item.done":
            assert open_items.pop(event["item"]["id"]) == response_id
        elif "output_index" in event and type_.startswith("response."):
            assert open_items.get(event["item_id"]) == response_id, "an event of an item that is not open"
        elif type_ == "response.done":
            assert response_id not in open_items.values()
            del under_way[response_id]
            over.add(response_id)
        elif type_ == "input_audio_buffer.speech_started":
            assert speaking is None
            speaking = event["item_id"]
        elif type_ == "input_audio_buffer.speech_stopped":
            assert speaking == event["item_id"]
            speaking = None
        elif type_ in ("input_audio_buffer.cleared", "input_audio_buffer.committed") or turned_off(event):
            speaking = None
    assert under_way == {}
    added = Counter(e["item"]["id"] for e in events if e["type"] == "conversation.item.added")
    done = Counter(e["item"]["id"] for e in events if e["type"] == "conversation.item.done")
    deleted = {e["item_id"] for e in events if e["type"] == "conversation.item.deleted"}
    assert set(added.values()) <= {1}
    assert set(done.values()) <= {1}
    assert added.keys() - deleted == done.keys() - deleted


@given(st.lists(steps, min_size=1, max_size=4), actions, st.sampled_from([0, 100, 900]))
@settings(max_examples=60, deadline=None)
def test_any_conversation_keeps_the_rules_and_goes_on(
    replies: list[list[Step]], script: list[tuple[str, int]], hear_ms: int
) -> None:
    asked = 0

    def reply(request: ResponseRequest) -> list[Step]:
        nonlocal asked
        asked += 1
        return replies[asked % len(replies)]

    async def main() -> None:
        async with connected(ScriptedBrain(reply, hear_ms=hear_ms)) as client:
            for action, number in script:
                await act(client, action, number)
                await trio.sleep(0.001)
            await client.quiesce()
            check(client.events)
            await client.update(instructions="still alive")

    trio.run(main, clock=MockClock(autojump_threshold=0))
