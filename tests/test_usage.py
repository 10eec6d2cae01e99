"""Every token that a server reports is counted once, and priced by its kind."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st
from msgspec import UNSET

from trio_voice.errors import ConfigError
from trio_voice.protocol.responses import (
    CachedTokensDetails,
    InputTokenDetails,
    OutputTokenDetails,
    TranscriptionUsage,
    Usage,
)
from trio_voice.usage import NOTHING, Prices, TokenUsage, of_response, of_transcription

counts = st.integers(0, 10_000)
maybe = st.one_of(counts, st.just(UNSET), st.none())
details_in = st.builds(
    InputTokenDetails,
    text_tokens=maybe,
    audio_tokens=maybe,
    image_tokens=maybe,
    cached_tokens=maybe,
    cached_tokens_details=st.one_of(
        st.just(UNSET), st.builds(CachedTokensDetails, text_tokens=maybe, audio_tokens=maybe, image_tokens=maybe)
    ),
)
details_out = st.builds(OutputTokenDetails, text_tokens=maybe, audio_tokens=maybe, reasoning_tokens=maybe)
usages = st.builds(
    TokenUsage,
    **{
        field.name: st.floats(0, 1e5) if field.name == "transcription_s" else counts
        for field in attrs.fields(TokenUsage)
        if not field.name.startswith("cached") and field.name != "reasoning_out"
    },
)
PRICED = [field.name for field in attrs.fields(Prices)]


def told(*values: Any) -> int:
    return sum(value for value in values if isinstance(value, int))


@given(st.one_of(details_in, st.just(UNSET)), st.one_of(details_out, st.just(UNSET)), maybe, maybe)
def test_every_token_is_counted_once(read: Any, made: Any, tokens_in: Any, tokens_out: Any) -> None:
    reported = Usage(
        input_tokens=tokens_in, output_tokens=tokens_out, input_token_details=read, output_token_details=made
    )
    usage = of_response(reported)
    parts_in = told(read.text_tokens, read.audio_tokens, read.image_tokens) if read else 0
    parts_out = told(made.text_tokens, made.audio_tokens) if made else 0
    assert usage.tokens_in == max(told(tokens_in), parts_in)
    assert usage.tokens_out == max(told(tokens_out), parts_out)
    assert usage.cached_text_in <= usage.text_in
    assert usage.cached_audio_in <= usage.audio_in
    assert usage.cached_image_in <= usage.image_in
    assert usage.reasoning_out <= usage.text_out
    assert min(attrs.astuple(usage)) >= 0
    if read and not read.cached_tokens_details:
        assert usage.cached_in == min(told(read.cached_tokens), parts_in)


def test_what_a_real_server_reports() -> None:
    reported = Usage(
        total_tokens=253,
        input_tokens=132,
        output_tokens=121,
        input_token_details=InputTokenDetails(
            text_tokens=119,
            audio_tokens=13,
            image_tokens=0,
            cached_tokens=64,
            cached_tokens_details=CachedTokensDetails(text_tokens=64, audio_tokens=0, image_tokens=0),
        ),
        output_token_details=OutputTokenDetails(text_tokens=30, audio_tokens=91),
    )
    usage = of_response(reported)
    assert usage == TokenUsage(text_in=119, audio_in=13, cached_text_in=64, text_out=30, audio_out=91)
    prices = Prices(text_in=4, cached_text_in=0.4, audio_in=32, text_out=16, audio_out=64)
    assert prices.cost(usage) == pytest.approx((55 * 4 + 64 * 0.4 + 13 * 32 + 30 * 16 + 91 * 64) / 1e6)


@pytest.mark.parametrize(
    ("text", "reasoning", "whole", "expected"),
    [(30, 20, 30, (30, 20, 0)), (10, 20, 30, (30, 20, 0)), (10, 20, 40, (30, 20, 10)), (10, 0, 10, (10, 0, 0))],
    ids=["among the text", "beside the text", "and more", "none"],
)
def test_reasoning_is_text_that_was_not_written(
    text: int, reasoning: int, whole: int, expected: tuple[int, int, int]
) -> None:
    details = OutputTokenDetails(text_tokens=text, reasoning_tokens=reasoning)
    usage = of_response(Usage(output_tokens=whole, output_token_details=details))
    assert (usage.text_out, usage.reasoning_out, usage.other_out) == expected


def test_transcription_is_counted_apart() -> None:
    by_tokens = TranscriptionUsage(
        type="tokens",
        input_tokens=14,
        output_tokens=45,
        input_token_details=InputTokenDetails(text_tokens=4, audio_tokens=10),
    )
    assert of_transcription(by_tokens) == TokenUsage(
        transcription_text_in=4, transcription_audio_in=10, transcription_text_out=45
    )
    by_duration = TranscriptionUsage(type="duration", seconds=90.0)
    assert of_transcription(by_duration) == TokenUsage(transcription_s=90.0)
    assert Prices(transcription_minute=0.006).cost(of_transcription(by_duration)) == pytest.approx(0.009)
    assert of_transcription(None) == of_response(None) == NOTHING


@given(usages, usages)
def test_the_cost_of_two_is_the_sum_of_their_costs(one: TokenUsage, other: TokenUsage) -> None:
    prices = Prices(**{name: number + 1.0 for number, name in enumerate(PRICED)})
    costs = [prices.cost(usage) for usage in (one, other, one + other)]
    assert None not in costs
    assert math.isclose(costs[2] or 0, (costs[0] or 0) + (costs[1] or 0), rel_tol=1e-9, abs_tol=1e-12)


@given(usages, st.sampled_from(PRICED))
def test_a_cost_that_is_not_known_is_not_told(usage: TokenUsage, missing: str) -> None:
    prices = Prices(**{name: 1.0 for name in PRICED if name != missing})
    of_kind = {"transcription_minute": "transcription_s"}.get(missing, missing)
    known = missing.startswith("cached") or not getattr(usage, of_kind)
    assert (prices.cost(usage) is not None) == known


def test_what_is_cached_costs_as_much_as_what_is_not_unless_it_has_a_price() -> None:
    usage = TokenUsage(text_in=1_000_000, cached_text_in=500_000)
    assert Prices(text_in=4.0).cost(usage) == 4.0
    assert Prices(text_in=4.0, cached_text_in=0.4).cost(usage) == 2.2


def test_what_is_of_no_kind_costs_as_much_as_the_dearest() -> None:
    assert Prices(text_in=4.0, audio_in=32.0).cost(TokenUsage(other_in=1_000_000)) == 32.0
    assert Prices(text_out=16.0).cost(TokenUsage(other_out=500_000)) == 8.0
    assert Prices(text_out=16.0).cost(TokenUsage(other_in=1)) is None


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_price_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="audio_out"):
        Prices(audio_out=value)


def test_nothing_costs_nothing() -> None:
    assert Prices().cost(NOTHING) == 0.0
    assert NOTHING.as_dict()["tokens_in"] == 0
