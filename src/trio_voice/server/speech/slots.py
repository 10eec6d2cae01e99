"""Fill a tool's slots from what was heard.

Between `schema` (what is needed) and `dialogue` (what to do about what is missing). Invariant: every value
given out satisfies its slot's schema (`accepts`), whatever was heard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from .identifiers import email, identifier, phone
from .moments import find_moment
from .names import name, reason, whole
from .schema import Filled, Kind, Slot, name_words
from .words import (
    STOP_WORDS,
    Heard,
    likeness,
    number_at,
    numbers_in,
    stem,
    terms,
)

SURE_LIKENESS = 0.72
MAYBE_LIKENESS = 0.58


_ORDER = (
    Kind.EMAIL, Kind.DAY, Kind.CLOCK, Kind.MOMENT, Kind.IDENTIFIER, Kind.PHONE, Kind.CHOICE, Kind.BOOLEAN,
    Kind.INTEGER, Kind.NUMBER, Kind.REASON, Kind.NAME,
)  # fmt: skip

_ALSO_CALLED = {
    "billing": "bill bills invoice invoices payment payments charge charged charges money pay paid accounts",
    "technical": "tech technician technicians support technology broken repair engineer fix fault crash",
    "support": "help tech technical technician",
    "sales": "sale sell buy buying purchase purchasing salesman",
    "returns": "return refund refunds exchange exchanges",
    "high": "urgent important", "urgent": "asap emergency immediately", "low": "unimportant",
    "celsius": "centigrade", "small": "little", "large": "big",
}  # fmt: skip
"""What people say for the names that enumerations commonly have."""

_YES = terms(
    """
    yes yeah yep yup sure correct right ok okay exactly true please absolutely affirmative aye
    """
)
_NO = terms(
    """
    no nope nah wrong incorrect false negative not
    """
)


def yes_or_no(heard: Heard) -> bool | None:
    """Whether an answer agrees, by its first telling word."""
    for norm in heard.norms:
        if norm in _NO or norm in {"dont", "isnt"}:
            return False
        if norm in _YES:
            return True
    return None


def accepts(slot: Slot, value: Any) -> bool:
    """Whether `value` (one, where the slot wants a list) satisfies the schema's type, enum and limits."""
    if slot.choices:
        return any(value == choice and type(value) is type(choice) for choice in slot.choices)
    schema = slot.schema
    match slot.kind:
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.INTEGER | Kind.NUMBER:
            if isinstance(value, bool) or not isinstance(value, int if slot.kind is Kind.INTEGER else (int, float)):
                return False
            if not math.isfinite(value):
                return False
            low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
            above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
            step = schema.get("multipleOf")
            try:
                fits = low <= value <= high and (above is False or above is True or above < value)
                fits = fits and (below is False or below is True or value < below)
                return bool(fits and (not step or math.isclose(value / step, round(value / step))))
            except (TypeError, OverflowError):
                return True
        case _:
            if not isinstance(value, str) or not value:
                return False
            pattern, longest, shortest = (schema.get(k) for k in ("pattern", "maxLength", "minLength"))
            if isinstance(longest, int) and len(value) > longest:
                return False
            if isinstance(shortest, int) and len(value) < shortest:
                return False
            try:
                return not isinstance(pattern, str) or re.search(pattern, value) is not None
            except (re.error, RecursionError, OverflowError):
                return True


def fill(
    slots: Sequence[Slot], heard: Heard, *, asked: str | None = None, tool_words: frozenset[str] = frozenset()
) -> dict[str, Filled]:
    """Every slot that the utterance fills. `asked` names the slot that the assistant has just asked for;
    `tool_words` are stems that name the tool itself, so they are no values."""
    found: dict[str, Filled] = {}
    used: set[int] = set()
    tool_words |= {stem(word) for slot in slots for word in name_words(slot.name)}
    lone_number = sum(slot.kind in {Kind.INTEGER, Kind.NUMBER} for slot in slots) == 1
    for slot in sorted(slots, key=lambda s: (_ORDER.index(s.kind), s.name != asked)):
        value = _fill_one(slot, heard, used, slot.name == asked, lone_number, tool_words)
        if value is None or not accepts(slot, value.value):
            continue
        if not slot.required and not value.sure and slot.name != asked:
            continue
        found[slot.name] = value
        if slot.kind is not Kind.CHOICE or slot.name == asked:
            used |= value.used
    return found


def _fill_one(
    slot: Slot, heard: Heard, used: set[int], asked: bool, lone_number: bool, tool_words: frozenset[str]
) -> Filled | None:
    match slot.kind:
        case Kind.EMAIL:
            return email(heard)
        case Kind.PHONE:
            return phone(heard, used)
        case Kind.IDENTIFIER:
            return identifier(slot, heard, used, asked)
        case Kind.DAY | Kind.CLOCK | Kind.MOMENT:
            moment = find_moment(heard, asked=asked and slot.kind is not Kind.DAY)
            if moment is None:
                return whole(heard, used) if asked and slot.kind is Kind.MOMENT and len(heard.words) < 5 else None
            text = {Kind.DAY: moment.day, Kind.CLOCK: moment.clock}.get(slot.kind, moment.text)
            return Filled(text, moment.used) if text else None
        case Kind.CHOICE:
            return choice(slot, heard, asked)
        case Kind.BOOLEAN:
            return _boolean(slot, heard, asked)
        case Kind.INTEGER | Kind.NUMBER:
            return _number(slot, heard, used, asked, lone_number)
        case Kind.REASON:
            return reason(heard, used, asked)
        case Kind.NAME:
            return name(slot, heard, used, asked, tool_words)


# --- words --------------------------------------------------------------------------------------------------


def choice(slot: Slot, heard: Heard, asked: bool = False) -> Filled | None:
    """The member of an enumeration that was said, or sounds like what was said."""
    best: tuple[float, Any, int] = (0.0, None, -1)
    norms = heard.norms
    for option in slot.choices:
        if isinstance(option, bool) or not isinstance(option, str):
            for number in numbers_in(heard, guess=asked):
                if not isinstance(option, bool) and number.value == option:
                    return Filled(option, frozenset(range(number.first, number.last)))
            continue
        names = name_words(option)
        synonyms = {stem(word) for word in _ALSO_CALLED.get(option.lower(), "").split()}
        for i, norm in enumerate(norms):
            score = 0.0
            if names and norms[i : i + len(names)] == tuple(names):
                score = 1.0 + len(names)
            elif len(names) == 1 and stem(norm) == stem(names[0]):
                score = 1.0
            elif stem(norm) in synonyms:
                score = 0.95
            elif len(names) >= 1 and len(norm) > 3 and norm not in STOP_WORDS:
                score = max(likeness(norm, name) for name in names if len(name) > 2) if max(map(len, names)) > 2 else 0
                score = min(score, 0.94) - 0.1 * (len(names) > 1)
            if score > best[0]:
                best = (score, option, i)
    if best[0] >= MAYBE_LIKENESS:
        return Filled(best[1], frozenset({best[2]}), sure=best[0] >= SURE_LIKENESS)
    return None


def _boolean(slot: Slot, heard: Heard, asked: bool) -> Filled | None:
    names = [stem(word) for word in name_words(slot.name) if word not in {"is", "has", "on", "off"}]
    norms = heard.norms
    for i, norm in enumerate(norms):
        if norm in {"enable", "activate", "disable", "deactivate"}:
            return Filled(norm in {"enable", "activate"}, frozenset({i}))
        if set(name_words(slot.name)) & {"on", "off", "enabled", "active", "power", "state"} and norm in {
            "on",
            "off",
        }:
            switched = (
                norm == "off" or i == len(norms) - 1 or bool({"turn", "switch", "put", "lights"} & set(norms[:i]))
            )
            if switched:
                return Filled((norm == "on") != ("off" in name_words(slot.name)), frozenset({i}))
        if stem(norm) in names:
            return Filled(not set(norms[max(0, i - 2) : i]) & {"no", "not", "without", "dont"}, frozenset({i}))
    answer = yes_or_no(heard) if asked else None
    return None if answer is None else Filled(answer, frozenset(range(len(norms))))


_PEOPLE = {"people", "persons", "person", "guests", "guest", "adults", "of"}


def _number(slot: Slot, heard: Heard, used: set[int], asked: bool, lone: bool) -> Filled | None:
    norms = heard.norms
    names = {stem(word) for word in name_words(slot.name)}
    people = bool(names & {stem(word) for word in _PEOPLE | {"party", "size"}})
    decimal = re.search(r"(?<![0-9])-?[0-9]+\.[0-9]+", heard.text) if slot.kind is Kind.NUMBER else None
    if decimal:
        return Filled(float(decimal.group()), frozenset())
    best: tuple[int, Filled] | None = None
    numbers = numbers_in(heard)
    for i in range(len(norms)):  # "for for people": a homophone is believed just before what it counts
        guessed = number_at(norms, i, guess=True)
        following = stem(norms[i + 1]) if i + 1 < len(norms) else ""
        beside = following in names or (people and following in {stem("people"), stem("guests"), "person"})
        last = i == len(norms) - 1 and i > 0 and norms[i - 1] in {"for", "of"}
        if guessed and number_at(norms, i) is None and (beside or last or (asked and len(norms) == 1)):
            numbers.append(guessed)
    for number in numbers:
        if any(i in used for i in range(number.first, number.last)):
            continue
        value: int | float = number.value
        if number.first and norms[number.first - 1] == "minus":
            value = -value
        after = stem(norms[number.last]) if number.last < len(norms) else ""
        before = {stem(norm) for norm in norms[max(0, number.first - 3) : number.first]}
        rank = 3 if after in names or (people and after in {stem("people"), stem("guests"), "person"}) else 0
        rank = rank or 2 * bool(before & names) or 1 * (lone or asked)
        filled = Filled(value, frozenset(range(number.first, number.last)))
        if rank and accepts(slot, value) and (best is None or rank > best[0]):
            best = (rank, filled)
    return best[1] if best else None
