"""The local server in the place of another: what it takes, what it refuses, what it does not tell."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from trio.testing import MockClock

from server.realtime_client import connected
from trio_voice import ConfigError
from trio_voice.dialects import CAPABILITY_OF, DIALECTS, Capability
from trio_voice.server.scripted import Say, ScriptedBrain
from trio_voice.server.server_settings import ServerSettings

pytestmark = pytest.mark.other_shapes("it plays servers that are not OpenAI's")

BETA = ServerSettings(dialect="trio-voice-beta")
FIELDS: dict[str, dict[str, Any]] = {
    "conversation.item.truncate": {"item_id": "item_1", "content_index": 0, "audio_end_ms": 5},
    "conversation.item.delete": {"item_id": "item_1"},
    "conversation.item.retrieve": {"item_id": "item_1"},
}


def lacking(*capabilities: Capability) -> ServerSettings:
    return ServerSettings(dialect=attrs.evolve(DIALECTS["trio-voice"], lacks=frozenset(capabilities)))


async def test_the_beta_takes_flat_settings_and_reports_them(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain(), BETA, strict=False) as client:
        flat = {"modalities": ["text"], "voice": "alloy", "input_audio_format": "g711_ulaw", "temperature": 0.8}
        await client.send("session.update", session={**flat, "max_response_output_tokens": 7, "turn_detection": None})
        session = (await client.next("session.updated"))["session"]
        assert {name: session[name] for name in flat} == flat
        assert session["max_response_output_tokens"] == 7
        assert session["turn_detection"] is None
        assert session["output_audio_format"] == "pcm16"
        assert not session.keys() & {"type", "audio", "output_modalities"}


@pytest.mark.parametrize(
    ("settings", "param"),
    [({"type": "realtime"}, "session.type"), ({"audio": {}}, "session.audio"), ({"wrong": 1}, "session.wrong")],
)
async def test_the_beta_refuses_settings_of_the_ga(
    settings: dict[str, Any], param: str, autojump_clock: MockClock
) -> None:
    async with connected(ScriptedBrain(), BETA, strict=False) as client:
        error = await client.refused("session.update", session={"instructions": "Hi.", **settings})
        assert (error["code"], error["param"]) == ("unknown_parameter", param)
        await client.send("session.update", session={"instructions": "Hello."})
        assert (await client.next("session.updated"))["session"]["instructions"] == "Hello.", "the session goes on"


async def test_the_ga_refuses_settings_of_the_beta(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain()) as client:
        error = await client.refused("session.update", session={"type": "realtime", "modalities": ["text"]})
        assert (error["code"], error["param"]) == ("unknown_parameter", "session.modalities")


@pytest.mark.parametrize(("event", "capability"), CAPABILITY_OF.items(), ids=CAPABILITY_OF.values())
async def test_what_a_server_lacks_it_refuses_and_goes_on(
    event: Any, capability: Capability, autojump_clock: MockClock
) -> None:
    name = event.__struct_config__.tag
    async with connected(ScriptedBrain([Say("Hello.")]), lacking(capability)) as client:
        error = await client.refused(name, **FIELDS.get(name, {}))
        assert "is not implemented" in error["message"]
        assert (await client.ask())["response"]["status"] == "completed"


async def test_what_a_server_does_not_tell_is_missing(autojump_clock: MockClock) -> None:
    async with connected(ScriptedBrain([Say("Hello.")]), lacking("response_created", "truncated")) as client:
        await client.ask()
        item = client.of("response.output_item.done")[0]["item"]
        await client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=100)
        await client.write("Go on.")
        assert "response.created" not in client.types()
        assert "conversation.item.truncated" not in client.types()
        assert client.of("error") == []


def test_a_server_plays_only_what_is_known() -> None:
    with pytest.raises(ConfigError, match="known are: openai"):
        ServerSettings(dialect="grok")
