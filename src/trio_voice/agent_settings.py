"""Settings of an agent that are values of their own: most agents have none of them, so they are imported when one has.

Core ring: pure, and checked when they are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from trio_voice.agent_rules import as_words, check_range, check_words
from trio_voice.errors import ConfigError


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


def _check_phrases(name: str, phrases: tuple[str, ...]) -> None:
    if not phrases:
        raise ConfigError(f"{name} is empty; give it something to say")
    for phrase in phrases:
        check_words(name, phrase)
        if len(phrase) == 1:  # a text in place of a tuple of texts comes letter by letter
            raise ConfigError(f"{name}={phrases!r} holds single letters; it is a tuple of sentences")
