"""The shapes that other servers still speak, and the present one: each event translated from one to the other.

Core ring: pure. OpenAI's beta had the session's settings flat, other names for six server events, and `text` and
`audio` for the content of what the assistant says. `codec` reads beta names as they are; here is what has to be
rewritten: what a client sends (`from_ga`), and for the local server what it is sent (`to_ga`) and says
(`server_event_from_ga`).

The invariant: an event that both shapes write alike passes as it is, sound above all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trio_voice.protocol import server_events as on
from trio_voice.protocol.client_events import ClientEvent, ConversationItemCreate, ResponseCreate, SessionUpdate
from trio_voice.protocol.items import BETA_CONTENT_TYPES
from trio_voice.protocol.server_events import ServerEvent

JsonObject = dict[str, Any]

REWRITTEN = (SessionUpdate, ConversationItemCreate, ResponseCreate)
"""The client events that the shapes write differently."""

_BETA_CONTENT = {ga: beta for beta, ga in BETA_CONTENT_TYPES.items()}
_BETA_FORMATS = {"audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_GA_FORMATS = {beta: ga for ga, beta in _BETA_FORMATS.items()}
_PCM_NAMES = ("pcm16", "pcm")

_SAME = ("instructions", "tool_choice", "tracing", "id", "object", "model", "expires_at")
"""Named alike in both shapes."""
_INPUT = {
    "noise_reduction": "input_audio_noise_reduction",
    "transcription": "input_audio_transcription",
    "turn_detection": "turn_detection",
}
_OUTPUT = {"voice": "voice", "speed": "speed"}
_PLACES = {beta: (part, ga) for part, names in (("input", _INPUT), ("output", _OUTPUT)) for ga, beta in names.items()}
_OF_RESPONSE = ("conversation", "input", "metadata")


class UnknownParameter(ValueError):
    """A setting that the beta has not."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


# --- what a client sends ----------------------------------------------------------------------------------------------


def from_ga(event: ClientEvent, *, pcm_name: str = "pcm16", nested_functions: bool = False) -> JsonObject:
    """A client event as the beta has it. What the beta has no setting for (`truncation`, `reasoning` …) is left out."""
    fields: JsonObject = msgspec.to_builtins(event)
    if isinstance(event, SessionUpdate):
        fields["session"] = _flat(fields["session"], pcm_name, nested_functions)
    elif isinstance(event, ResponseCreate) and event.response:
        fields["response"] = _flat_response(fields["response"], pcm_name, nested_functions)
    elif isinstance(event, ConversationItemCreate):
        fields["item"] = _beta_item(fields["item"])
    return fields


def lifted(event: SessionUpdate) -> JsonObject:
    """A `session.update` with the voice and the turn detection at the top of the session."""
    fields: JsonObject = msgspec.to_builtins(event)
    session = fields["session"]
    audio = session.get("audio") or {}
    for part, name in (("output", "voice"), ("input", "turn_detection")):
        if name in audio.get(part, {}):
            session[name] = audio[part].pop(name)
    return fields


def lowered(raw: str | bytes) -> bytes:
    """The reverse, for the local server."""
    fields = msgspec.json.decode(raw)
    session = fields.get("session")
    if isinstance(session, dict):
        session.pop("resumption", None)
        for part, name in (("output", "voice"), ("input", "turn_detection")):
            if name in session:
                session.setdefault("audio", {}).setdefault(part, {})[name] = session.pop(name)
    return msgspec.json.encode(fields)


def _flat(session: Mapping[str, Any], pcm_name: str, nested_functions: bool) -> JsonObject:
    flat = {name: session[name] for name in _SAME if name in session}
    if "output_modalities" in session:
        flat["modalities"] = _beta_modalities(session["output_modalities"])
    if "max_output_tokens" in session:
        flat["max_response_output_tokens"] = session["max_output_tokens"]
    if "tools" in session:
        flat["tools"] = _beta_tools(session["tools"], nested_functions)
    audio = session.get("audio") or {}
    for part, names in (("input", _INPUT), ("output", _OUTPUT)):
        settings = audio.get(part) or {}
        flat |= {names[name]: settings[name] for name in names if name in settings}
        if settings.get("format"):
            flat[f"{part}_audio_format"] = _BETA_FORMATS.get(settings["format"]["type"], pcm_name)
    return flat


def _flat_response(config: Mapping[str, Any], pcm_name: str, nested_functions: bool) -> JsonObject:
    flat = _flat(config, pcm_name, nested_functions) | {name: config[name] for name in _OF_RESPONSE if name in config}
    if flat.get("input"):
        flat["input"] = [_beta_item(item) for item in flat["input"]]
    return flat


def _beta_modalities(modalities: list[str]) -> list[str]:
    """The beta's answers always have their words too."""
    return ["text", "audio"] if "audio" in modalities else list(modalities)


def _beta_tools(tools: list[JsonObject] | None, nested: bool) -> list[JsonObject] | None:
    if not nested or not tools:
        return tools
    return [
        {"type": tool["type"], "function": {name: value for name, value in tool.items() if name != "type"}}
        if tool.get("type") == "function"
        else tool
        for tool in tools
    ]


def _beta_item(item: JsonObject) -> JsonObject:
    return _with_content_types(item, _BETA_CONTENT)


def _with_content_types(item: JsonObject, types: Mapping[str, str]) -> JsonObject:
    content = item.get("content")
    if item.get("role") != "assistant" or not content:
        return item
    return {**item, "content": [{**part, "type": types.get(part.get("type"), part.get("type"))} for part in content]}


# --- what the local server is sent ------------------------------------------------------------------------------------


def to_ga(raw: str | bytes, *, input_rate_hz: int, output_rate_hz: int) -> bytes:
    """A beta client's frame of one of the `REWRITTEN` kinds, as the GA has it.

    Raises: `UnknownParameter` for a setting that the beta has not, such as those of the GA.
    """
    fields = msgspec.json.decode(raw)
    rates = {"input": input_rate_hz, "output": output_rate_hz}
    for at in ("session", "response"):
        if isinstance(fields.get(at), dict):
            fields[at] = _nested(fields[at], at, rates)
    if isinstance(fields.get("item"), dict):
        fields["item"] = _with_content_types(fields["item"], BETA_CONTENT_TYPES)
    return msgspec.json.encode(fields)


def _nested(flat: JsonObject, at: str, rates: Mapping[str, int]) -> JsonObject:
    nested: JsonObject = {"type": "realtime"} if at == "session" else {}
    audio: dict[str, JsonObject] = {"input": {}, "output": {}}
    for name, value in flat.items():
        if name in _PLACES:
            part, ga_name = _PLACES[name]
            audio[part][ga_name] = value
        elif name in ("input_audio_format", "output_audio_format"):
            part = name.partition("_")[0]
            audio[part]["format"] = _ga_format(value, rates[part], f"{at}.{name}")
        elif name == "modalities":
            nested["output_modalities"] = ["audio"] if isinstance(value, list) and "audio" in value else value
        elif name in ("max_response_output_tokens", "max_output_tokens" if at == "response" else ""):
            nested["max_output_tokens"] = value
        elif name == "tools":
            nested["tools"] = [_ga_tool(tool) for tool in value] if isinstance(value, list) else value
        elif name == "input" and at == "response" and isinstance(value, list):
            nested["input"] = [_with_content_types(item, BETA_CONTENT_TYPES) for item in value]
        elif name in ("temperature", "client_secret"):
            continue  # without effect, as in the GA
        elif name in _SAME or (at == "response" and name in _OF_RESPONSE):
            nested[name] = value
        else:
            raise UnknownParameter(f"{at}.{name}")
    present = {part: settings for part, settings in audio.items() if settings}
    return nested | ({"audio": present} if present else {})


def _ga_format(name: Any, rate_hz: int, at: str) -> JsonObject:
    if name in _PCM_NAMES:
        return {"type": "audio/pcm", "rate": rate_hz}
    if not isinstance(name, str) or name not in _GA_FORMATS:
        raise UnknownParameter(at)
    return {"type": _GA_FORMATS[name]}


def _ga_tool(tool: Any) -> Any:
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        return {"type": tool.get("type"), **tool["function"]}
    return tool


# --- what the local server says ---------------------------------------------------------------------------------------

_BETA_EVENTS: dict[type[ServerEvent], type[ServerEvent]] = {
    on.ResponseOutputTextDelta: on.ResponseTextDelta,
    on.ResponseOutputTextDone: on.ResponseTextDone,
    on.ResponseOutputAudioDelta: on.ResponseAudioDelta,
    on.ResponseOutputAudioDone: on.ResponseAudioDone,
    on.ResponseOutputAudioTranscriptDelta: on.ResponseAudioTranscriptDelta,
    on.ResponseOutputAudioTranscriptDone: on.ResponseAudioTranscriptDone,
    on.ConversationItemAdded: on.ConversationItemCreated,
}


def server_event_from_ga(event: ServerEvent, *, pcm_name: str = "pcm16") -> ServerEvent | JsonObject | None:
    """A server event as the beta has it, None where the beta has none."""
    if isinstance(event, on.ConversationItemDone):
        return None
    beta = _BETA_EVENTS.get(type(event))
    if beta is not None:
        event = beta(**{name: getattr(event, name) for name in beta.__struct_fields__})
    if isinstance(event, on.SessionCreated | on.SessionUpdated):
        fields: JsonObject = msgspec.to_builtins(event)
        fields["session"] = {"temperature": 0.8, **_flat(fields["session"], pcm_name, nested_functions=False)}
        return fields
    if isinstance(event, on.ResponseCreated | on.ResponseDone):
        fields = msgspec.to_builtins(event)
        response = fields["response"]
        response.pop("audio", None)
        response["modalities"] = _beta_modalities(response.pop("output_modalities", None) or [])
        response["output"] = [_beta_item(item) for item in response.get("output") or []]
        return fields
    if isinstance(event, _WITH_ITEM):
        fields = msgspec.to_builtins(event)
        fields["item"] = _beta_item(fields["item"])
        return fields
    return event


_WITH_ITEM = (
    on.ConversationItemCreated,
    on.ConversationItemRetrieved,
    on.ResponseOutputItemAdded,
    on.ResponseOutputItemDone,
)


def session_to_ga(flat: JsonObject) -> JsonObject:
    """A flat session as a server reports it, nested; what has no place in the GA is left out."""
    rates = {"input": 24_000, "output": 24_000}
    known: JsonObject = {}
    for name, value in flat.items():
        try:
            _nested({name: value}, "session", rates)
        except (UnknownParameter, TypeError):
            continue
        known[name] = value
    nested = _nested(known, "session", rates)
    for part in nested.get("audio", {}).values():
        part.get("format", {}).pop("rate", None)  # the beta names none
    return nested
