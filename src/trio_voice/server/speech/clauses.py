"""Cut an answer into the clauses that are synthesised one at a time.

Pure. The voice needs a whole clause before its first sample, so the first clause is short (the user hears
something early) and the later ones are longer (they are made while the earlier ones play).

Invariant: the clauses, concatenated, are the text; nothing is lost, added or reordered.
"""

from __future__ import annotations

import re

FIRST_CLAUSE_CHARS = 45
"""A first sentence longer than this is cut at a comma, if it has one: at ~15 characters a second of speech
and a tenth of real time to make it, 45 characters are on their way in about 0.3 s."""
CLAUSE_CHARS = 140
"""A later sentence longer than this is cut at a comma too: it bounds how long a cancelled synthesis lasts."""
SHORTEST_CHARS = 8
"""A piece before a comma must have this many, or it would sound chopped: "No, ..." stays whole."""
CLAUSE_CHARS_HARD = 240
"""Text without any punctuation is cut at a space here, come what may."""

_TITLES = "mr mrs ms dr prof st sr jr vs etc e.g i.e no nos approx dept est fig inc ltd co corp ext tel max min"
_DATES = "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun"
ABBREVIATIONS = frozenset(f"{_TITLES} {_DATES}".split())
"""Words whose full stop does not end a sentence (lower case, without the last stop)."""

_SENTENCE_END = re.compile(r"""[.!?…]+["'”’)\]]*(?:\s+|$)|\n+\s*""")
_PAUSE = re.compile(r"""(?:[,;:]["'”’)\]]*|\s[–—-])\s+(?!\d)""")
_LAST_WORD = re.compile(r"([A-Za-z.]+)\.[\"'”’)\]]*\s*$")


def split_clauses(text: str, *, first: bool = True) -> list[str]:
    """The clauses of `text`, in order, each with the white space that follows it.

    `first` says that the answer begins with `text`, so its first clause is to be short.
    """
    clauses: list[str] = []
    for sentence in _sentences(text):
        while True:
            limit = FIRST_CLAUSE_CHARS if first and not clauses else CLAUSE_CHARS
            cut = _cut_of(sentence, limit)
            if cut is None:
                break
            clauses.append(sentence[:cut])
            sentence = sentence[cut:]
        if clauses and not sentence.strip():
            clauses[-1] += sentence
        elif sentence:
            clauses.append(sentence)
    return clauses


def ends_sentence(clause: str) -> bool:
    """Whether a speaker would draw breath after `clause`."""
    return clause.rstrip().rstrip("\"'”’)]").endswith((".", "!", "?", "…")) or "\n" in clause


def _sentences(text: str) -> list[str]:
    sentences: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if not text[start : end.start()].strip() or _is_abbreviation(text[start : end.end()]):
            continue
        sentences.append(text[start : end.end()])
        start = end.end()
    if start < len(text):
        sentences.append(text[start:])
    return sentences


def _is_abbreviation(sentence: str) -> bool:
    """Whether the full stop at the end of `sentence` belongs to its last word: "Dr.", "J.", "e.g."."""
    if sentence.endswith("\n"):
        return False
    word = _LAST_WORD.search(sentence)
    if word is None:
        return False
    letters = word[1].lower()
    if letters in ("a.m", "p.m"):
        return False  # more often than not the last word of its sentence
    return letters in ABBREVIATIONS or len(letters) == 1


def _cut_of(sentence: str, limit: int) -> int | None:
    """Where to cut `sentence` to make its first piece about `limit` long, or None to keep it whole."""
    if len(sentence) <= limit:
        return None
    pauses = [
        pause.end()
        for pause in _PAUSE.finditer(sentence)
        if len(sentence[: pause.start()].strip()) >= SHORTEST_CHARS and sentence[pause.end() :].strip()
    ]
    within = [cut for cut in pauses if cut <= limit]
    if within:
        return within[-1]
    if pauses and pauses[0] <= CLAUSE_CHARS_HARD:
        return pauses[0]
    if len(sentence) <= CLAUSE_CHARS_HARD:
        return None
    space = sentence.rfind(" ", SHORTEST_CHARS, CLAUSE_CHARS_HARD)
    return space + 1 if space > 0 else CLAUSE_CHARS_HARD
