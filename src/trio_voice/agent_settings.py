"""The settings of an agent that a server has to take, and what is refused before one is asked.

Core ring: values, and a function for each rule. The invariant: what passes here makes a `session.update` that the
protocol allows, and what does not is a `ConfigError` that names the field, what was wrong with it and what is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import attrs
import msgspec
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


@attrs.frozen
class RetentionRatio:
    """What is kept when a conversation has outgrown the model: `ratio` of its tokens, so that it is cut less often."""

    ratio: float
    """0 to 1."""
    post_instructions_tokens: int | None = None
    """How many tokens may follow the instructions before it is cut; None: as many as the model takes."""

    def __attrs_post_init__(self) -> None:
        check_range("ratio", self.ratio, 0.0, 1.0)
        if self.post_instructions_tokens is not None:
            check_range("post_instructions_tokens", self.post_instructions_tokens, 1, 1_000_000)

    def wire(self) -> dict[str, Any]:
        limits = {"post_instructions": self.post_instructions_tokens}
        found: dict[str, Any] = {"type": "retention_ratio", "retention_ratio": float(self.ratio)}
        return found if self.post_instructions_tokens is None else found | {"token_limits": limits}


@attrs.frozen
class Prompt:
    """A prompt that is kept at the server, with what is put in for its variables."""

    id: str
    version: str | None = None
    variables: Mapping[str, str] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        check_words("prompt.id", self.id)
        if self.version is not None:
            check_words("prompt.version", self.version)
        for name, value in self.variables.items():
            if not isinstance(value, str):
                raise ConfigError(f"prompt.variables[{name!r}]={value!r} is no text; a variable stands for words")

    def wire(self) -> dict[str, Any]:
        found: dict[str, Any] = {"id": self.id}
        if self.version is not None:
            found["version"] = self.version
        return found | ({"variables": dict(self.variables)} if self.variables else {})


@attrs.frozen
class Tracing:
    """How the server's trace of the session is filed. It cannot be changed while a session lasts."""

    workflow_name: str | None = None
    group_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("workflow_name", "group_id"):
            if getattr(self, name) is not None:
                check_words(f"tracing.{name}", getattr(self, name))
        try:
            msgspec.json.encode(self.metadata)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"tracing.metadata cannot be put into JSON: {error}") from None

    def wire(self) -> dict[str, Any]:
        found = {"workflow_name": self.workflow_name, "group_id": self.group_id, "metadata": self.metadata}
        return {name: value for name, value in found.items() if value is not None}


@attrs.frozen
class IdlePrompts:
    """Breaking a silence: what the agent says when neither side has made a sound for `after_ms`.

    At most `at_most` times in a row; after as long a silence again comes the event `user_idle`. Any word of the user
    begins it all anew.
    """

    after_ms: int = 8_000
    phrases: tuple[str, ...] = attrs.field(default=("Are you still there?",), converter=as_words)
    """Said word for word, one after the other; the last again and again."""
    instructions: str | None = None
    """In place of phrases: how the model is to break the silence."""
    at_most: int = 2

    def __attrs_post_init__(self) -> None:
        check_range("idle_prompts.after_ms", self.after_ms, 500, 600_000)
        check_range("idle_prompts.at_most", self.at_most, 0, 100, "0 only tells the application")
        _check_phrases("idle_prompts.phrases", self.phrases)
        if self.instructions is not None:
            check_words("idle_prompts.instructions", self.instructions)


@attrs.frozen
class Filler:
    """What the agent says, once, when a tool has kept the user waiting in silence for `after_ms`."""

    after_ms: int = 1_500
    phrases: tuple[str, ...] = attrs.field(default=("One moment, please.",), converter=as_words)
    """Said word for word: another one at each wait, in turn."""

    def __attrs_post_init__(self) -> None:
        check_range("filler.after_ms", self.after_ms, 0, 60_000)
        _check_phrases("filler.phrases", self.phrases)


# --- the rules ------------------------------------------------------------------------------------


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
    if isinstance(truncation, RetentionRatio):
        return truncation.wire()
    check_choice("truncation", truncation, ("auto", "disabled"), "or a RetentionRatio")
    return str(truncation)


def check_tracing(tracing: object) -> str | dict[str, Any]:
    if isinstance(tracing, Tracing):
        return tracing.wire()
    check_choice("tracing", tracing, ("auto",), "or a Tracing")
    return str(tracing)


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


def _check_phrases(name: str, phrases: tuple[str, ...]) -> None:
    if not phrases:
        raise ConfigError(f"{name} is empty; give it something to say")
    for phrase in phrases:
        check_words(name, phrase)
        if len(phrase) == 1:  # a text in place of a tuple of texts comes letter by letter
            raise ConfigError(f"{name}={phrases!r} holds single letters; it is a tuple of sentences")
