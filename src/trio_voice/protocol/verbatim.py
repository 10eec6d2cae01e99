"""Say this, word for word: how a response is asked for that has its words already.

Core ring: pure. The protocol has no such request, so the words go into the instructions of one response. A model
follows them; the local server's brains take them out again.
"""

from __future__ import annotations

VERBATIM = "Say exactly the following words, nothing before them and nothing after them:"


def verbatim(text: str) -> str:
    """Instructions to say `text`."""
    return f"{VERBATIM}\n{text}"


def words_of(instructions: str) -> str | None:
    """What is to be said, where these are such instructions."""
    return instructions.removeprefix(VERBATIM).strip() if instructions.startswith(VERBATIM) else None
