"""How many tokens things would have cost: estimates, in the real server's proportions.

Pure. There is no tokenizer here: text counts four characters a token, the user's sound ten tokens a second
and the agent's twenty, as OpenAI bills them. The invariant: totals are the sums of their parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from trio_voice.protocol.items import Item
from trio_voice.protocol.responses import CachedTokensDetails, InputTokenDetails, OutputTokenDetails, Usage

CHARACTERS_PER_TOKEN = 4
INPUT_MS_PER_TOKEN = 100
OUTPUT_MS_PER_TOKEN = 50


def text_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def spoken_tokens(duration_ms: float) -> int:
    """Of the agent's speech."""
    return math.ceil(duration_ms / OUTPUT_MS_PER_TOKEN)


def heard_tokens(duration_ms: float) -> int:
    """Of the user's speech."""
    return math.ceil(duration_ms / INPUT_MS_PER_TOKEN)


def item_tokens(item: Item) -> int:
    """Of an item's words."""
    written = (item.name, item.arguments, item.output)
    return text_tokens(item.text) + sum(text_tokens(words) for words in written if words)


def usage_of(
    *, instructions: str, items: Iterable[Item], heard_ms: float, written_tokens: int, spoken_ms: float
) -> Usage:
    """What a response reports."""
    text_in = text_tokens(instructions) + sum(item_tokens(item) for item in items)
    audio_in = heard_tokens(heard_ms)
    audio_out = spoken_tokens(spoken_ms)
    return Usage(
        total_tokens=text_in + audio_in + written_tokens + audio_out,
        input_tokens=text_in + audio_in,
        output_tokens=written_tokens + audio_out,
        input_token_details=InputTokenDetails(
            text_tokens=text_in,
            audio_tokens=audio_in,
            image_tokens=0,
            cached_tokens=0,
            cached_tokens_details=CachedTokensDetails(text_tokens=0, audio_tokens=0, image_tokens=0),
        ),
        output_token_details=OutputTokenDetails(text_tokens=written_tokens, audio_tokens=audio_out),
    )
