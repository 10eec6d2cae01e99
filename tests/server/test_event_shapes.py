"""Our events beside recorded ones of the real server: the same fields, in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from server.realtime_client import Event, connected, loud, quiet
from trio_voice.server.scripted import Call, Say, ScriptedBrain

SHAPES = json.loads((Path(__file__).parent.parent / "protocol" / "real-event-shapes.json").read_text())


def variant(event: Event) -> str:
    """The key of an event in the recordings: its type, and what it is about."""
    item, part, response = event.get("item"), event.get("part"), event.get("response")
    about = None
    if item is not None:
        about = f"message:{item['role']}" if item["type"] == "message" else item["type"]
    elif part is not None:
        about = part["type"]
    elif response is not None:
        about = response["status"]
    return event["type"] if about is None else f"{event['type']}|{about}"


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Every field of an event, as the recordings name it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{at}.{name}" if at else name
            yield path
            yield from paths(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{at}[]")


async def recorded_scenario() -> list[Event]:
    """A spoken turn, a written turn, a tool round: what the recordings hold."""
    tool = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}}
    brain = ScriptedBrain([Say("Hello there."), Say("Text."), Call("weather", '{"city": "London"}'), Say("Fog.")])
    async with connected(brain) as client:
        await client.update(audio={"input": {"transcription": {"model": "any"}}}, tools=[tool])
        await client.append(quiet(400) + loud(600) + quiet(700))
        await client.next("response.done")
        await client.ask(output_modalities=["text"])
        call = (await client.ask())["response"]["output"][0]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "12 degrees"}
        await client.send("conversation.item.create", item=result)
        await client.send("response.create")
        await client.next("response.done")
        await client.quiesce()
        return client.events


async def test_every_event_has_the_fields_that_the_real_one_always_has(autojump_clock: MockClock) -> None:
    events = await recorded_scenario()
    unseen = set(SHAPES["always"]) - {variant(event) for event in events}
    assert unseen == set()
    for event in events:
        missing = set(SHAPES["always"][variant(event)]) - set(paths(event))
        assert missing == set(), variant(event)


async def test_no_event_has_a_field_that_the_real_one_never_had(autojump_clock: MockClock) -> None:
    for event in await recorded_scenario():
        ours = {path for path in paths(event) if ".parameters." not in path}
        assert ours - set(SHAPES["ever"][event["type"]]) == set(), variant(event)


@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_a_turn_has_the_real_order(modality: str, autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("One two three.", 400)])) as client:
        await client.update()
        await client.ask(output_modalities=[modality])
        order: list[str] = []
        for type_ in client.types():
            if type_.endswith(".delta") and type_ in order:
                continue
            order.append(type_)
        expected = SHAPES["turn_order"]
        if modality == "text":
            expected = [
                type_.replace("output_audio_transcript", "output_text")
                for type_ in expected
                if type_ not in ("response.output_audio.delta", "response.output_audio.done")
            ]
        assert order[: len(expected)] == expected
