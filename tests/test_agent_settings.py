"""The settings of an agent: what passes makes a configuration that the protocol knows, what does not is named."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from pydantic import BaseModel

from openai_oracle import validate
from trio_voice import Filler, IdlePrompts, Prompt, RealtimeAgent, RetentionRatio, Tracing
from trio_voice.agent_in_charge import AgentInCharge
from trio_voice.config import AgentCapability, AudioInputConfig
from trio_voice.errors import ConfigError
from trio_voice.protocol import SessionConfig, SessionUpdate, Transcription, TurnDetection, VoiceId, encode
from trio_voice.server.session_settings import default_session, updated

words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
flags = st.booleans()


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, or none."""
    return st.fixed_dictionaries({}, optional=fields)


detections = st.one_of(
    some(
        create_response=flags,
        interrupt_response=flags,
        threshold=st.floats(0, 1),
        prefix_padding_ms=st.integers(0, 5000),
        silence_duration_ms=st.integers(0, 10_000),
        idle_timeout_ms=st.none() | st.integers(1000, 60_000),
    ).map(lambda fields: TurnDetection(**fields)),
    some(
        create_response=flags,
        interrupt_response=flags,
        eagerness=st.sampled_from(["low", "medium", "high", "auto"]),
    ).map(lambda fields: TurnDetection(type="semantic_vad", **fields)),
)
transcriptions = st.builds(
    lambda model, fields: Transcription(model=model, **fields),
    words,
    some(language=words, prompt=words, keywords=st.lists(words, min_size=1), delay=st.sampled_from(["low", "xhigh"])),
)
efforts = st.sampled_from(["minimal", "low", "medium", "high", "xhigh"])
settings_of_agents = some(
    instructions=words,
    voice=words | words.map(VoiceId),
    model=words,
    turn_detection=detections,
    transcription=st.none() | words | transcriptions,
    noise_reduction=st.sampled_from(["near_field", "far_field", None]),
    speed=st.floats(0.25, 1.5),
    tool_choice=st.sampled_from(["auto", "none", "required", "weather"]),
    parallel_tool_calls=flags,
    max_output_tokens=st.integers(1, 4096) | st.just("inf"),
    truncation=st.sampled_from(["auto", "disabled"])
    | st.builds(RetentionRatio, st.floats(0, 1), st.none() | st.integers(1, 100_000)),
    reasoning_effort=efforts,
    prompt=st.builds(Prompt, words, st.none() | words, st.dictionaries(words, words, max_size=2)),
    tracing=st.just("auto") | st.builds(Tracing, st.none() | words, st.none() | words, st.dictionaries(words, words)),
    include=st.sampled_from([(), ("item.input_audio_transcription.logprobs",)]),
    capabilities=st.sets(st.sampled_from(list(AgentCapability))).map(
        lambda found: found | {AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING}
    ),
)


def weather(city: str) -> str:
    """Tell the weather."""
    return city


agents = settings_of_agents.map(lambda fields: RealtimeAgent(tools=(weather,), **fields))


def unknown_to_openai(model: BaseModel, path: str = "") -> list[str]:
    """Fields that the typed package does not have: it lets them pass, the server would not."""
    found = [f"{path}.{name}" for name in model.model_extra or ()]
    for name in model.model_fields_set:
        value = getattr(model, name, None)
        if isinstance(value, BaseModel):
            found += unknown_to_openai(value, f"{path}.{name}")
    return found


def accepted(config: SessionConfig) -> None:
    """By the typed package, and by the local server."""
    told = validate(encode(SessionUpdate(session=config)))
    assert unknown_to_openai(told) == []
    before = default_session(session_id="sess_1", model="any", expires_at=0)
    updated(before, config, voice_fixed=False)


@settings(max_examples=150, deadline=None)
@given(agent=agents)
def test_every_agent_that_can_be_made_makes_a_configuration_that_is_taken(agent: RealtimeAgent) -> None:
    accepted(AgentInCharge(agent).configuration())


@settings(max_examples=60, deadline=None)
@given(fields=some(turn_detection=detections, transcription=words | transcriptions, include=st.just(())))
def test_so_does_every_one_that_only_transcribes(fields: dict[str, Any]) -> None:
    agent = RealtimeAgent(capabilities={AgentCapability.TRANSCRIPTION}, **fields)
    config = AgentInCharge(agent).configuration()
    assert config.type == "transcription"
    accepted(config)


@settings(max_examples=150, deadline=None)
@given(first=agents, second=agents)
def test_after_a_change_the_server_holds_what_a_new_one_would(first: RealtimeAgent, second: RealtimeAgent) -> None:
    """But for the voice and what has no default, whatever the first agent had set."""
    second = attrs.evolve(second, model=None, tracing=first.tracing, reasoning_effort="low", include=first.include)
    second = attrs.evolve(second, voice=second.voice or "marin")
    in_charge = AgentInCharge(first)
    in_charge.told = in_charge.configuration()
    change = in_charge.successor(second)
    accepted(change)
    fresh = default_session(session_id="sess_1", model="any", expires_at=0)
    told_first = updated(fresh, in_charge.told, voice_fixed=False)
    changed = updated(told_first, change, voice_fixed=False)
    begun = updated(fresh, AgentInCharge(second).configuration(), voice_fixed=False)
    assert known(changed) == known(begun)


def known(session: SessionConfig) -> Any:
    """As JSON, without what stays absent until it is set, and then has its default."""
    held = json.loads(msgspec.json.encode(session))
    if held.get("parallel_tool_calls"):
        del held["parallel_tool_calls"]
    words_of_the_user = held["audio"]["input"]["transcription"] or {}
    held["audio"]["input"]["transcription"] = {name: value for name, value in words_of_the_user.items() if value}
    return held


# --- what is refused ------------------------------------------------------------------------------

below_and_above = [
    ("turn_detection.threshold", -0.01, 1.01),
    ("turn_detection.prefix_padding_ms", -1, 5001),
    ("turn_detection.silence_duration_ms", -1, 10_001),
    ("turn_detection.idle_timeout_ms", 999, 60_001),
    ("speed", 0.2, 1.6),
    ("max_output_tokens", 0, 4097),
]


@pytest.mark.parametrize(("name", "below", "above"), below_and_above, ids=[name for name, _, _ in below_and_above])
@given(data=st.data())
def test_what_is_out_of_range_is_refused_by_its_name(
    name: str, below: float, above: float, data: st.DataObject
) -> None:
    if isinstance(below, int):
        wrong: Any = data.draw(
            st.integers(max_value=below) | st.integers(min_value=int(above)) | st.sampled_from(["7", True])
        )
    else:
        wrong = data.draw(st.floats(max_value=below) | st.floats(min_value=above) | st.just(float("nan")))
    group, _, field = name.rpartition(".")
    fields = {field: wrong} if not group else {group: TurnDetection(**{field: wrong})}
    with pytest.raises(ConfigError) as refused:
        RealtimeAgent(**fields)
    assert name in str(refused.value)
    assert repr(wrong) in str(refused.value)


refusals: list[tuple[dict[str, Any], str]] = [
    ({"turn_detection": TurnDetection(type="loudness")}, "turn_detection.type='loudness' is not known; it is one of"),
    ({"turn_detection": "server_vad"}, "None is push-to-talk"),
    ({"turn_detection": TurnDetection(eagerness="low")}, "turn_detection.eagerness='low' belongs to 'semantic_vad'"),
    ({"turn_detection": TurnDetection(type="semantic_vad", eagerness="keen")}, "turn_detection.eagerness='keen'"),
    ({"turn_detection": TurnDetection(type="semantic_vad", idle_timeout_ms=5000)}, "belongs to 'server_vad'"),
    ({"turn_detection": TurnDetection(type="semantic_vad", threshold=0.5)}, "belongs to 'server_vad'"),
    ({"turn_detection": TurnDetection(create_response=None)}, "turn_detection.create_response=None is not True or"),
    ({"noise_reduction": "mid_field"}, "noise_reduction='mid_field' is not known; it is one of 'near_field', 'far_"),
    ({"transcription": ""}, "transcription"),
    ({"transcription": 3}, "transcription=3 is no Transcription"),
    ({"transcription": Transcription(language="en")}, "transcription.model"),
    ({"transcription": Transcription(model="m", language="en", languages=["nb"])}, "exclude each other"),
    ({"transcription": Transcription(model="m", keywords=[""])}, "transcription.keywords"),
    ({"transcription": Transcription(model="m", languages=[])}, "transcription.languages"),
    ({"transcription": Transcription(model="m", delay="long")}, "transcription.delay='long'"),
    ({"transcription": Transcription(model="gpt-realtime-whisper", prompt="x")}, "transcription.prompt is not taken"),
    ({"reasoning_effort": "maximal"}, "reasoning_effort='maximal' is not known; it is one of 'minimal'"),
    ({"truncation": "never"}, "truncation='never' is not known; it is one of 'auto', 'disabled'; or a RetentionRatio"),
    ({"tracing": True}, "tracing=True is not known"),
    ({"include": ("everything",)}, "include='everything' is not known"),
    ({"prompt": "pmpt_1"}, "prompt='pmpt_1' is no Prompt"),
    ({"voice": ""}, "voice='' says nothing"),
    ({"voice": VoiceId(" ")}, "voice.id=' ' says nothing"),
    ({"model": ""}, "model='' says nothing"),
    ({"instructions": None}, "instructions=None are no text"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls='yes'"),
    (
        {"tool_choice": "wether"},
        "tool_choice='wether' is not known; it is one of 'auto', 'none', 'required', 'weather'",
    ),
    ({"tool_choice": "required", "tools": ()}, "tool_choice='required' needs a tool to call"),
    ({"tool_choice": "weather", "capabilities": {AgentCapability.TEXT_OUTPUT}}, "tool_choice='weather'"),
    ({"greeting": " "}, "greeting=' ' says nothing"),
    (
        {"idle_prompts": IdlePrompts(), "turn_detection": TurnDetection(idle_timeout_ms=5000)},
        "idle_prompts and turn_detection.idle_timeout_ms",
    ),
]


@pytest.mark.parametrize(("fields", "told"), refusals, ids=[str(number) for number in range(len(refusals))])
def test_what_no_server_takes_is_refused_with_what_is_allowed(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RealtimeAgent(**({"tools": (weather,)} | fields))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RetentionRatio(1.1), "ratio=1.1 is outside 0..1"),
        (lambda: RetentionRatio(0.5, 0), "post_instructions_tokens=0 is outside"),
        (lambda: Prompt(""), "prompt.id='' says nothing"),
        (lambda: Prompt("p", variables={"n": 3}), "prompt.variables['n']=3 is no text"),  # type: ignore[dict-item]
        (lambda: Tracing(workflow_name=""), "tracing.workflow_name"),
        (lambda: Tracing(metadata={"file": object()}), "tracing.metadata cannot be put into JSON"),
        (lambda: IdlePrompts(phrases="Hello?"), "single letters"),
        (lambda: IdlePrompts(phrases=()), "idle_prompts.phrases is empty"),
        (lambda: IdlePrompts(instructions=" "), "idle_prompts.instructions"),
        (lambda: Filler(phrases=()), "filler.phrases is empty"),
        (lambda: Filler(after_ms=-1), "filler.after_ms=-1 is outside 0..60000"),
    ],
    ids=[
        "ratio",
        "tokens",
        "id",
        "variables",
        "workflow",
        "json",
        "letters",
        "none",
        "instructions",
        "filler",
        "after",
    ],
)
def test_so_are_the_parts_of_settings(make: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert told in str(refused.value)


def test_noise_is_taken_out_once() -> None:
    agent = RealtimeAgent(noise_reduction="far_field")
    AgentInCharge(agent)
    with pytest.raises(ConfigError, match="would take the noise out twice"):
        AgentInCharge(agent, AudioInputConfig(noise_suppression=True))
