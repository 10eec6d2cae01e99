"""The rules for an agent's settings: what is refused before a server is asked.

Core ring: a function for each rule. The invariant: what passes here makes a `session.update` that the protocol allows,
and what does not is a `ConfigError` that names the field, what was wrong with it and what is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal, TypeAlias, get_args

from msgspec import UNSET
from msgspec.structs import asdict

from trio_voice.errors import ConfigError
from trio_voice.protocol.session_config import NoiseReduction, Transcription, TurnDetection

NoiseReductionType: TypeAlias = Literal["near_field", "far_field"]
ReasoningEffort: TypeAlias = Literal["minimal", "low", "medium", "high", "xhigh"]
Included: TypeAlias = Literal["item.input_audio_transcription.logprobs"]
TOOL_CHOICES = ("auto", "none", "required")
COMMON_DETECTION_FIELDS = ("create_response", "interrupt_response")
DETECTION_FIELDS = {
    "server_vad": ("threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"),
    "semantic_vad": ("eagerness",),
}
DETECTION_RANGES: dict[str, tuple[float, float]] = {
    "threshold": (0.0, 1.0),
    "prefix_padding_ms": (0, 5_000),
    "silence_duration_ms": (0, 10_000),
    "idle_timeout_ms": (1_000, 60_000),
}
EAGERNESS = ("low", "medium", "high", "auto")
WITHOUT_PROMPT = "gpt-realtime-whisper"


def as_words(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


def check_range(name: str, value: object, low: float, high: float, hint: str = "") -> None:
    """Raises: `ConfigError` unless `value` is a number from `low` to `high`; a whole one where both of them are."""
    whole = isinstance(low, int) and isinstance(high, int)
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]  # a number by now
        outside = f"is outside {low:g}..{high:g}" if is_number else f"is no {'whole ' if whole else ''}number"
        tail = f"; {hint}" if hint else "" if is_number else f"; {low:g}..{high:g} is allowed"
        raise ConfigError(f"{name}={value!r} {outside}{tail}")


def check_choice(name: str, value: object, allowed: Collection[str], hint: str = "") -> None:
    """Raises: `ConfigError` unless `value` is one of `allowed`."""
    if value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ConfigError(f"{name}={value!r} is not known; it is one of {choices}{'; ' + hint if hint else ''}")


def check_words(name: str, value: object) -> None:
    """Raises: `ConfigError` unless `value` is a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name}={value!r} says nothing; it is a text that is not empty")


def check_flag(name: str, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} is not True, False or None")


def check_turn_detection(detection: TurnDetection | None) -> None:
    """Raises: `ConfigError` for a value out of range, and for one that its kind of detection does not have."""
    if detection is None:
        return
    if not isinstance(detection, TurnDetection):
        raise ConfigError(f"turn_detection={detection!r} is no TurnDetection; None is push-to-talk")
    check_choice("turn_detection.type", detection.type, tuple(DETECTION_FIELDS))
    said = {name: value for name, value in asdict(detection).items() if value is not UNSET and name != "type"}
    for name, value in said.items():
        at = f"turn_detection.{name}"
        if name not in COMMON_DETECTION_FIELDS and name not in DETECTION_FIELDS[detection.type]:
            other = next(kind for kind, names in DETECTION_FIELDS.items() if name in names)
            raise ConfigError(f"{at}={value!r} belongs to {other!r}; {detection.type!r} does not have it: leave it out")
        match name:
            case "create_response" | "interrupt_response":
                if not isinstance(value, bool):
                    raise ConfigError(f"{at}={value!r} is not True or False")
            case "eagerness":
                check_choice(at, value, EAGERNESS)
            case "idle_timeout_ms" if value is None:
                pass
            case _:
                check_range(at, value, *DETECTION_RANGES[name])


def check_transcription(transcription: Transcription | None) -> None:
    """Raises: `ConfigError` for settings that no model of transcription takes together."""
    if transcription is None:
        return
    if not isinstance(transcription, Transcription):
        raise ConfigError(f"transcription={transcription!r} is no Transcription; None asks for no transcript")
    check_words("transcription.model", transcription.model)
    for name in ("language", "prompt"):
        if getattr(transcription, name) is not UNSET:
            check_words(f"transcription.{name}", getattr(transcription, name))
    for name in ("languages", "keywords"):
        values = getattr(transcription, name)
        if values is not UNSET:
            if not isinstance(values, list) or not values:
                raise ConfigError(f"transcription.{name}={values!r} is no list of words; leave it out for none")
            for value in values:
                check_words(f"transcription.{name}", value)
    if transcription.language is not UNSET and transcription.languages is not UNSET:
        raise ConfigError("transcription.language and transcription.languages exclude each other; give one of them")
    if transcription.delay is not UNSET:
        check_choice("transcription.delay", transcription.delay, get_args(ReasoningEffort))
    if transcription.model == WITHOUT_PROMPT and transcription.prompt is not UNSET:
        raise ConfigError(f"transcription.prompt is not taken by {WITHOUT_PROMPT!r}; leave it out")


def check_noise_reduction(kind: object) -> NoiseReduction | None:
    if kind is None:
        return None
    check_choice("noise_reduction", kind, get_args(NoiseReductionType), "None leaves the sound as it is")
    return NoiseReduction(type=str(kind))


def check_voice(voice: object) -> None:
    if voice is not None:
        check_words("voice" if isinstance(voice, str) else "voice.id", getattr(voice, "id", voice))


def check_truncation(truncation: object) -> str | dict[str, Any]:
    if not isinstance(truncation, str):
        from trio_voice.agent_settings import RetentionRatio  # here: few agents have one

        if isinstance(truncation, RetentionRatio):
            return truncation.wire()
    check_choice("truncation", truncation, ("auto", "disabled"), "or a RetentionRatio")
    return str(truncation)


def check_tracing(tracing: object) -> str | dict[str, Any]:
    if not isinstance(tracing, str):
        from trio_voice.agent_settings import Tracing  # here: few agents have one

        if isinstance(tracing, Tracing):
            return tracing.wire()
    check_choice("tracing", tracing, ("auto",), "or a Tracing")
    return str(tracing)


def check_prompt(prompt: object) -> None:
    if prompt is None:
        return
    from trio_voice.agent_settings import Prompt  # here: few agents have one

    if not isinstance(prompt, Prompt):
        raise ConfigError(f"prompt={prompt!r} is no Prompt; what the model is told goes into instructions")


def check_tool_choice(choice: object, offered: Collection[str]) -> str | dict[str, Any]:
    """`auto`, `none`, `required`, or the name of one of the tools `offered`."""
    check_choice("tool_choice", choice, (*TOOL_CHOICES, *offered), "the name of a tool makes the model call that one")
    if choice == "required" and not offered:
        raise ConfigError("tool_choice='required' needs a tool to call; give the agent tools, or leave it at 'auto'")
    return str(choice) if choice in TOOL_CHOICES else {"type": "function", "name": choice}


def check_include(include: Collection[str]) -> list[str]:
    for name in include:
        check_choice("include", name, get_args(Included))
    return list(include)
