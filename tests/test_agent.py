from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from trio_voice.agent import RealtimeAgent
from trio_voice.config import ALL_CAPABILITIES, AgentCapability, AudioInputConfig, AudioOutputConfig, ConnectionOptions
from trio_voice.errors import ConfigError, ToolSchemaError
from trio_voice.function_tools import tool
from trio_voice.protocol import Transcription


def weather(city: str) -> str:
    """Tell the weather."""
    return city


def configured(agent: RealtimeAgent, input_hz: int = 16_000, output_hz: int = 24_000) -> dict[str, Any]:
    """The session configuration as it goes over the wire."""
    config = agent.session_config(
        AudioInputConfig(sample_rate_hz=input_hz), AudioOutputConfig(sample_rate_hz=output_hz)
    )
    encoded: dict[str, Any] = json.loads(msgspec.json.encode(config))
    return encoded


def test_the_server_is_told_everything_and_the_formats_always() -> None:
    agent = RealtimeAgent(
        instructions="Be brief.",
        tools=(weather, tool(name="lights-off")(weather)),
        voice="marin",
        speed=1.2,
        transcription=Transcription(model="whisper-1", language="nb"),
        tool_choice="required",
        max_output_tokens=500,
    )
    said = configured(agent)
    assert said["instructions"] == "Be brief."
    assert said["output_modalities"] == ["audio"]
    assert said["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 16_000}
    assert said["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert (said["audio"]["output"]["voice"], said["audio"]["output"]["speed"]) == ("marin", 1.2)
    assert said["audio"]["input"]["transcription"]["language"] == "nb"
    assert [offered["name"] for offered in said["tools"]] == ["weather", "lights-off"]
    assert said["tools"][0]["parameters"]["required"] == ["city"]
    assert (said["tool_choice"], said["max_output_tokens"]) == ("required", 500)


def test_what_is_left_to_the_server_is_absent() -> None:
    said = configured(RealtimeAgent())
    assert "voice" not in said["audio"]["output"]
    assert "speed" not in said["audio"]["output"]
    assert "max_output_tokens" not in said
    assert said["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 16_000}


def test_push_to_talk_is_a_null_not_an_absence() -> None:
    """Absent would leave the server's own turn detection on."""
    assert configured(RealtimeAgent(turn_detection=None))["audio"]["input"]["turn_detection"] is None
    assert configured(RealtimeAgent())["audio"]["input"]["turn_detection"]["type"]


@pytest.mark.parametrize(
    ("missing", "path", "expected"),
    [
        (AgentCapability.VOICE_OUTPUT, ("output_modalities",), ["text"]),
        (AgentCapability.FUNCTION_CALLING, ("tools",), []),
        (AgentCapability.TRANSCRIPTION, ("audio", "input", "transcription"), None),
    ],
)
def test_what_it_cannot_do_is_not_asked_for(missing: AgentCapability, path: tuple[str, ...], expected: object) -> None:
    agent = RealtimeAgent(tools=(weather,), capabilities=ALL_CAPABILITIES - {missing})
    assert not agent.can(missing)
    said: Any = configured(agent)
    for key in path:
        said = said.get(key, UNSET)
    assert said == expected


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tools": (weather, weather)}, "two tools named 'weather'; rename one"),
        ({"speed": 2.0}, "outside 0.25..1.5"),
        ({"speed": 0.0}, "outside 0.25..1.5"),
        ({"max_output_tokens": 0}, "None or 'inf' sets no limit"),
        ({"max_output_tokens": 5000}, "None or 'inf' sets no limit"),
        ({"capabilities": {AgentCapability.VOICE_INPUT}}, "can neither speak nor write nor transcribe"),
        ({"capabilities": ()}, "can neither speak nor write nor transcribe"),
    ],
)
def test_settings_that_no_server_would_take(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RealtimeAgent(**settings)
    assert told in str(caught.value)


def test_a_tool_that_cannot_be_offered_is_found_before_anything_is_opened() -> None:
    def every(*cities: str) -> None: ...

    with pytest.raises(ToolSchemaError, match="calls by name"):
        RealtimeAgent(tools=(every,))


# --- the other settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AudioInputConfig(sample_rate_hz=7_000), "sample_rate_hz=7000 is outside 8000..48000"),
        (lambda: AudioInputConfig(chunk_ms=1), "chunk_ms=1 is outside 5..500; 20 is usual"),
        (lambda: AudioInputConfig(capacity_ms=5000), "capacity_ms=5000 is outside"),
        (lambda: AudioOutputConfig(sample_rate_hz=96_000), "sample_rate_hz=96000 is outside"),
        (lambda: AudioOutputConfig(prebuffer_ms=-1), "prebuffer_ms=-1 is outside"),
        (lambda: AudioOutputConfig(fade_ms=50), "fade_ms=50 is outside"),
        (lambda: AudioOutputConfig(prebuffer_ms=1500, capacity_ms=1200), "a turn would never begin to play"),
        (
            lambda: AudioOutputConfig(prebuffer_ms=50, longest_prebuffer_ms=45),
            "is not between shortest_prebuffer_ms",
        ),
        (
            lambda: AudioOutputConfig(longest_prebuffer_ms=1000, capacity_ms=1000),
            "longest_prebuffer_ms=1000 does not",
        ),
        (lambda: AudioOutputConfig(device_rate_hz=96_000), "device_rate_hz=96000 is outside 8000..48000"),
        (lambda: ConnectionOptions(url="https://example.test"), "must begin with ws:// or wss://"),
        (lambda: ConnectionOptions(connect_timeout_ms=0), "connect_timeout_ms=0 is outside"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_what_is_usual(make: object, told: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError) as caught:
        make()
    assert told in str(caught.value)


def test_secrets_are_not_shown() -> None:
    options = ConnectionOptions(api_key="sk-secret", headers=(("cookie", "sk-other"),))
    assert "sk-" not in repr(options)
