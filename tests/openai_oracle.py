"""The typed `openai` package as an oracle: examples of every event that it knows, and its own validation.

Examples are derived from the package's pydantic models, field by field, so a type added there is tested here
without a word being written.
"""

from __future__ import annotations

import base64
import json
import types
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

words = st.text(st.characters(codec="utf-8"), max_size=12)
sound_base64 = st.binary(max_size=24).map(lambda sound: base64.b64encode(sound).decode())
whole = st.integers(min_value=0, max_value=2**31)
fraction = st.floats(min_value=0, max_value=1e6, allow_nan=False)


def _models(union: Any) -> dict[str, type[BaseModel]]:
    members = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in members}


SERVER_MODELS = _models(RealtimeServerEvent)
CLIENT_MODELS = _models(RealtimeClientEvent)


@cache
def _adapter(model: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def validate(text: str) -> BaseModel:
    """The openai package's reading of a frame of ours, in pydantic's strict mode."""
    fields = json.loads(text)
    model = (SERVER_MODELS | CLIENT_MODELS)[fields["type"]]
    validated = _adapter(model).validate_json(text, strict=True)
    assert isinstance(validated, BaseModel)
    return validated


@cache
def examples(model: type[BaseModel], *, every_field: bool | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects that `model` accepts: with every optional field, with none (False), or with any (None)."""
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        is_sound = name == "audio" and str in _flattened(field.annotation)
        is_sound |= name == "delta" and model.__name__ == "ResponseAudioDeltaEvent"
        value = sound_base64 if is_sound else _values(field.annotation, every_field)
        (required if field.is_required() else optional)[name] = value
    if every_field is None:
        return st.fixed_dictionaries(required, optional=optional)
    return st.fixed_dictionaries(required | optional if every_field else required)


def _flattened(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) is Annotated:
        return _flattened(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [leaf for arm in get_args(annotation) for leaf in _flattened(arm)]
    return [annotation]


def _values(annotation: Any, every_field: bool | None) -> st.SearchStrategy[Any]:
    arms = [arm for arm in _flattened(annotation) if arm is not type(None)]
    return st.one_of([_of_one_type(arm, every_field) for arm in arms])


def _of_one_type(arm: Any, every_field: bool | None) -> st.SearchStrategy[Any]:
    plain = {str: words, int: whole, float: fraction, bool: st.booleans()}
    if arm in plain:
        return plain[arm]
    if arm is object:  # schemas, annotations, metadata: an object wherever the protocol has one
        return st.dictionaries(words, words, max_size=2)
    origin, arguments = get_origin(arm), get_args(arm)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(_values(arguments[0], every_field), min_size=1 if every_field else 0, max_size=2)
    if origin is dict:
        return st.dictionaries(words, _values(arguments[1], every_field), max_size=2)
    if isinstance(arm, type) and issubclass(arm, BaseModel):
        return examples(arm, every_field=every_field)
    raise NotImplementedError(f"no examples of {arm!r}: teach the oracle this type")


def missing(expected: Any, actual: Any, path: str = "$") -> list[str]:
    """Paths at which `actual` lacks what `expected` has, or differs; more than expected is no difference."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            found
            for name, value in expected.items()
            for found in (missing(value, actual[name], f"{path}.{name}") if name in actual else [f"{path}.{name}"])
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = enumerate(zip(expected, actual, strict=True))
        return [found for n, (a, b) in pairs for found in missing(a, b, f"{path}[{n}]")]
    return [] if expected == actual else [path]


# --- the beta ---------------------------------------------------------------------------------------------------------


def missing_from_beta(text: str, *, pcm_name: str = "pcm16") -> list[str]:
    """What in a frame the package's types of the beta do not have, or read otherwise.

    Raises: `ValidationError` or `KeyError` where they do not understand it at all.
    """
    fields = json.loads(text)
    session = fields.get("session", {})
    for name in ("input_audio_format", "output_audio_format"):  # Qwen's name of the same thing
        if session.get(name) == pcm_name:
            session[name] = "pcm16"
    for tool in session.get("tools") or []:  # as nested as Qwen has them
        tool.update(tool.pop("function", {}))
    understood = _adapter(_beta_models()[fields["type"]]).validate_python(fields)
    assert isinstance(understood, BaseModel)
    return _unknown_fields(understood) + missing(fields, understood.model_dump(mode="json", exclude_unset=True))


@cache
def _beta_models() -> dict[str, type[BaseModel]]:
    from openai.types.beta.realtime import RealtimeClientEvent, RealtimeServerEvent

    return _models(RealtimeServerEvent) | _models(RealtimeClientEvent)


def _unknown_fields(value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        found = [f"{type(value).__name__}.{name}" for name in value.model_extra or {}]
        return found + [deep for name in type(value).model_fields for deep in _unknown_fields(getattr(value, name))]
    if isinstance(value, list):
        return [deep for element in value for deep in _unknown_fields(element)]
    return []
