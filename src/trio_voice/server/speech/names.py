"""Reasons, cities, rooms: values that are words of the utterance itself.

Part of filling slots (`slots.py`), and last in turn: what other slots used is no longer free.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import attrs

from .schema import Filled, Slot, name_words
from .words import STOP_WORDS, Heard, number_at, stem, terms

_NOT_A_REASON = terms("me us you him her that it this today now sure some free")
_REASON_MARKS = {"about", "because", "regarding", "concerning", "reason", "cause", "due", "since"}
_AFTER_MARK = {
    "is",
    "of",
    "to",
    "that",
    "its",
    "it",
    "about",
    "for",
    "was",
    "the",
    "my",
    "a",
    "an",
    "our",
    "this",
}
_LEAD_IN = {
    "um",
    "uh",
    "well",
    "so",
    "its",
    "it",
    "is",
    "about",
    "the",
    "my",
    "because",
    "reason",
    "regarding",
    "a",
}
_TAIL = {
    "please",
    "thanks",
    "at",
    "on",
    "and",
    "thank",
    "you",
    "number",
    "my",
    "is",
    "to",
    "me",
    "call",
    "back",
    "by",
}


def _trimmed(heard: Heard, first: int, last: int, lead: Set[str], tail: Set[str]) -> Filled | None:
    norms = heard.norms
    while first < last and norms[first] in lead:
        first += 1
    while last > first and norms[last - 1] in tail:
        last -= 1
    text = heard.slice(first, last)
    return Filled(text, frozenset(range(first, last))) if text else None


def reason(heard: Heard, used: set[int], asked: bool) -> Filled | None:
    norms = heard.norms
    for i, norm in enumerate(norms):
        possible = norm in _REASON_MARKS or (
            norm == "for"
            and i + 1 < len(norms)
            and i + 1 not in used
            and norms[i + 1] not in _NOT_A_REASON
            and number_at(norms, i + 1) is None
        )
        if i in used or not possible:
            continue
        last = i + 1
        while last < len(norms) and last not in used and not heard.words[last - 1].ends_clause:
            last += 1
        clause = norm in {"because", "since", "cause"}
        found = _trimmed(heard, i + 1, last, {"of", "that"} if clause else _AFTER_MARK, _TAIL)
        if found is not None:
            return found
    if not asked or used.issuperset(range(len(norms))):  # all of it was something else, a time, say
        return None
    brief = _trimmed(heard, 0, len(norms), _LEAD_IN, {"please", "thanks"})
    if brief is not None and len(brief.used) > 2:  # a whole clause keeps its "the" and "my"
        brief = _trimmed(heard, 0, len(norms), _LEAD_IN - {"the", "my", "a"}, {"please", "thanks"})
    return brief or whole(heard, used)


def whole(heard: Heard, used: set[int]) -> Filled | None:
    text = heard.text.strip(" .,;!?\t\r\n")
    return Filled(text, frozenset(range(len(heard.words)))) if heard.words and text else None


_PREPOSITIONS = {"in", "for", "at", "to", "of", "from", "near", "called", "named", "is", "as", "with"}
_NAME_LEAD = terms(
    """
    in the a an its it is for at to um uh my name im i am well make please from of called say yes
    this
    """
)
_NAME_END = terms(
    """
    please today now tomorrow right thanks like at on and for to in with tonight is by off about
    """
)


def _telling(norms: Sequence[str], at: int, tool_words: frozenset[str]) -> bool:
    """Whether word `at` may be a name: no filler, no number, none of the tool's own words."""
    norm = norms[at]
    return norm not in STOP_WORDS and stem(norm) not in tool_words and number_at(norms, at) is None


def name(slot: Slot, heard: Heard, used: set[int], asked: bool, tool_words: frozenset[str]) -> Filled | None:
    norms = heard.norms
    own = {stem(word) for word in name_words(slot.name)}

    def shown(filled: Filled | None) -> Filled | None:
        if filled is None or not own & {"city", "country", "nam", "person", stem("location"), stem("place")}:
            return filled
        return attrs.evolve(filled, value=filled.value.title() if filled.value.islower() else filled.value)

    if asked:
        return shown(_trimmed(heard, 0, len(norms), _NAME_LEAD, {"please", "thanks"}))
    for i in reversed(range(len(norms))):
        if norms[i] not in _PREPOSITIONS or i in used:
            continue
        first = last = i + 1
        while last < len(norms) and last - first < 4 and last not in used and norms[last] not in _NAME_END:
            last += 1
            if heard.words[last - 1].ends_clause:
                break
        while first < last and norms[first] in _NAME_LEAD:
            first += 1
        while last > first and (stem(norms[last - 1]) in tool_words | own or norms[last - 1] in STOP_WORDS):
            last -= 1
        telling = any(_telling(norms, k, tool_words) for k in range(first, last))
        if telling and number_at(norms, first) is None:
            return shown(Filled(heard.slice(first, last), frozenset(range(first, last))))
    beside = [i for i in range(1, len(norms)) if stem(norms[i]) in own and i - 1 not in used]
    for i in beside:  # "the living room lights", of a slot named room
        if _telling(norms, i - 1, tool_words):
            return shown(Filled(heard.slice(i - 1, i + 1), frozenset({i - 1, i})))
    rest = [
        i for i, norm in enumerate(norms)
        if i not in used and norm not in STOP_WORDS and norm not in _NAME_LEAD | _NAME_END
        and stem(norm) not in tool_words and stem(norm) not in own and number_at(norms, i) is None
    ]  # fmt: skip
    if rest and len(rest) <= 2 and rest[-1] - rest[0] == len(rest) - 1:
        return shown(Filled(heard.slice(rest[0], rest[-1] + 1), frozenset(rest)))
    return None
