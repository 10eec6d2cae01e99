"""What a conversation used, in tokens by kind, and what that cost by the prices that the application gives.

Core ring: pure. Fed with what servers report of responses and of transcriptions. The invariant: each token is counted
once; what a server does not tell the kind of is counted apart, and priced as the dearest kind.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
from msgspec import UNSET

from trio_voice.errors import ConfigError
from trio_voice.protocol.responses import TranscriptionUsage, Usage

PER = 1_000_000
"""Prices are for so many tokens."""


@attrs.frozen
class TokenUsage:
    """Tokens by kind, added up. Of transcription: tokens or seconds, whichever the server counts."""

    text_in: int = 0
    audio_in: int = 0
    image_in: int = 0
    other_in: int = 0
    """Of a kind that the server did not tell."""
    cached_text_in: int = 0
    """How many of `text_in` the server had at hand; so for the next two."""
    cached_audio_in: int = 0
    cached_image_in: int = 0
    text_out: int = 0
    audio_out: int = 0
    other_out: int = 0
    reasoning_out: int = 0
    """How many of `text_out` were thought, not written."""
    transcription_text_in: int = 0
    transcription_audio_in: int = 0
    transcription_text_out: int = 0
    transcription_s: float = 0.0

    @property
    def tokens_in(self) -> int:
        """All that responses read; without transcription, which another model does."""
        return self.text_in + self.audio_in + self.image_in + self.other_in

    @property
    def tokens_out(self) -> int:
        """All that responses made."""
        return self.text_out + self.audio_out + self.other_out

    @property
    def cached_in(self) -> int:
        return self.cached_text_in + self.cached_audio_in + self.cached_image_in

    def __add__(self, other: TokenUsage) -> TokenUsage:
        mine, its = attrs.astuple(self), attrs.astuple(other)
        return TokenUsage(*(one + more for one, more in zip(mine, its, strict=True)))

    def as_dict(self) -> dict[str, Any]:
        """Its fields and the three totals, ready for JSON."""
        totals = {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out, "cached_in": self.cached_in}
        return totals | attrs.asdict(self)


NOTHING = TokenUsage()


def of_response(usage: Usage | None) -> TokenUsage:
    """What a response reports, by kind.

    Cached tokens without their kind are taken for text as far as there is text: the smallest discount.
    """
    if usage is None:
        return NOTHING
    read, made = usage.input_token_details, usage.output_token_details
    text_in, audio_in = _count(read, "text_tokens"), _count(read, "audio_tokens")
    image_in = _count(read, "image_tokens")
    text_out, audio_out = _count(made, "text_tokens"), _count(made, "audio_tokens")
    cached = getattr(read, "cached_tokens_details", None)
    if cached:
        cached_text, cached_audio = _count(cached, "text_tokens"), _count(cached, "audio_tokens")
        cached_image = _count(cached, "image_tokens")
    else:
        left = _count(read, "cached_tokens")
        cached_text = min(left, text_in)
        cached_audio = min(left - cached_text, audio_in)
        cached_image = min(left - cached_text - cached_audio, image_in)
    reasoning = _count(made, "reasoning_tokens")
    other_out = max(0, _count(usage, "output_tokens") - text_out - audio_out)
    thought_apart = min(reasoning, other_out)  # some servers count it among the text, some beside it
    return TokenUsage(
        text_in=text_in,
        audio_in=audio_in,
        image_in=image_in,
        other_in=max(0, _count(usage, "input_tokens") - text_in - audio_in - image_in),
        cached_text_in=min(cached_text, text_in),
        cached_audio_in=min(cached_audio, audio_in),
        cached_image_in=min(cached_image, image_in),
        text_out=text_out + thought_apart,
        audio_out=audio_out,
        other_out=other_out - thought_apart,
        reasoning_out=min(reasoning, text_out + thought_apart),
    )


def of_transcription(usage: TranscriptionUsage | None) -> TokenUsage:
    """What the transcription of an utterance reports. Tokens of no kind are sound: that is what is transcribed."""
    if usage is None:
        return NOTHING
    text_in = _count(usage.input_token_details, "text_tokens")
    return TokenUsage(
        transcription_text_in=text_in,
        transcription_audio_in=max(0, _count(usage, "input_tokens") - text_in),
        transcription_text_out=_count(usage, "output_tokens"),
        transcription_s=max(0.0, usage.seconds or 0.0),
    )


def _count(reported: object, name: str) -> int:
    value = getattr(reported, name, UNSET)
    return max(0, value) if isinstance(value, int) else 0


def _price(prices: Prices, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not 0 <= value < float("inf"):
        raise ConfigError(f"{attribute.name}={value} is no price: it is an amount, 0 or more, or None")


def _field() -> Any:
    return attrs.field(default=None, validator=_price)


@attrs.frozen(kw_only=True)
class Prices:
    """What a million tokens cost, by kind, in whatever currency; and a minute of transcription.

    There are no figures here: they change, and are the provider's to tell. None is a price that is not known: as soon
    as something was used that it is needed for, the cost is not known either. What is cached costs as much as what is
    not, unless it has a price of its own.
    """

    text_in: float | None = _field()
    cached_text_in: float | None = _field()
    text_out: float | None = _field()
    audio_in: float | None = _field()
    cached_audio_in: float | None = _field()
    audio_out: float | None = _field()
    image_in: float | None = _field()
    cached_image_in: float | None = _field()
    transcription_text_in: float | None = _field()
    transcription_audio_in: float | None = _field()
    transcription_text_out: float | None = _field()
    transcription_minute: float | None = _field()

    def cost(self, usage: TokenUsage) -> float | None:
        """What `usage` cost; None where a price is missing."""
        tokens = [
            (usage.text_in - usage.cached_text_in, self.text_in),
            (usage.audio_in - usage.cached_audio_in, self.audio_in),
            (usage.image_in - usage.cached_image_in, self.image_in),
            (usage.cached_text_in, _first(self.cached_text_in, self.text_in)),
            (usage.cached_audio_in, _first(self.cached_audio_in, self.audio_in)),
            (usage.cached_image_in, _first(self.cached_image_in, self.image_in)),
            (usage.other_in, _dearest(self.text_in, self.audio_in, self.image_in)),
            (usage.text_out, self.text_out),
            (usage.audio_out, self.audio_out),
            (usage.other_out, _dearest(self.text_out, self.audio_out)),
            (usage.transcription_text_in, self.transcription_text_in),
            (usage.transcription_audio_in, self.transcription_audio_in),
            (usage.transcription_text_out, self.transcription_text_out),
        ]
        seconds = (usage.transcription_s, _per_second(self.transcription_minute))
        parts = [(count, None if price is None else price / PER) for count, price in tokens]
        return _sum([*parts, seconds])


def _sum(parts: list[tuple[float, float | None]]) -> float | None:
    used = [(count, price) for count, price in parts if count]
    known = [count * price for count, price in used if price is not None]
    return math.fsum(known) if len(known) == len(used) else None


def _per_second(minute: float | None) -> float | None:
    return None if minute is None else minute / 60


def _first(price: float | None, otherwise: float | None) -> float | None:
    return otherwise if price is None else price


def _dearest(*prices: float | None) -> float | None:
    known = [price for price in prices if price is not None]
    return max(known, default=None)
