"""Fill a tool's slots from what was heard.

Between `schema` (what is needed) and `dialogue` (what to do about what is missing). Invariant: every value
given out satisfies its slot's schema (`accepts`), whatever was heard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence, Set
from itertools import pairwise
from typing import Any

import attrs

from .moments import find_moment
from .schema import Kind, Shape, Slot, name_words
from .words import (
    STOP_WORDS,
    Digits,
    Heard,
    digit_runs,
    distance,
    likeness,
    number_at,
    numbers_in,
    stem,
    terms,
)

SURE_LIKENESS = 0.72
MAYBE_LIKENESS = 0.58
PHONE_DIGITS = range(7, 12)

_ORDER = (
    Kind.EMAIL, Kind.IDENTIFIER, Kind.PHONE, Kind.DAY, Kind.CLOCK, Kind.MOMENT, Kind.CHOICE, Kind.BOOLEAN,
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


@attrs.frozen
class Filled:
    """A value for a slot, the words it was read from, and whether to ask if it was meant."""

    value: Any
    used: frozenset[int]
    sure: bool = True
    others: tuple[Any, ...] = ()
    """Further values of the same kind in the same utterance ("12345 and 67890")."""
    marked: bool = False
    """Said with the letters of its identifier ("Ord12345"): it can be nothing else."""


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
            if isinstance(value, bool) or not isinstance(
                value, int if slot.kind is Kind.INTEGER else (int, float)
            ):
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
            return _email(heard)
        case Kind.PHONE:
            return phone(heard, used)
        case Kind.IDENTIFIER:
            return identifier(slot, heard, used, asked)
        case Kind.DAY | Kind.CLOCK | Kind.MOMENT:
            moment = find_moment(heard, asked=asked and slot.kind is not Kind.DAY)
            if moment is None:
                return (
                    _whole(heard, used)
                    if asked and slot.kind is Kind.MOMENT and len(heard.words) < 5
                    else None
                )
            text = {Kind.DAY: moment.day, Kind.CLOCK: moment.clock}.get(slot.kind, moment.text)
            return Filled(text, moment.used) if text else None
        case Kind.CHOICE:
            return choice(slot, heard, asked)
        case Kind.BOOLEAN:
            return _boolean(slot, heard, asked)
        case Kind.INTEGER | Kind.NUMBER:
            return _number(slot, heard, used, asked, lone_number)
        case Kind.REASON:
            return _reason(heard, used, asked)
        case Kind.NAME:
            return _name(slot, heard, used, asked, tool_words)


# --- digits -------------------------------------------------------------------------------------------------


def _free(reading: Digits, used: Iterable[int]) -> bool:
    return not any(reading.first <= i < reading.last for i in used)


def phone(heard: Heard, used: Iterable[int] = ()) -> Filled | None:
    """A telephone number of 7 to 11 digits, written 555-1234."""
    for readings in digit_runs(heard):
        for reading in readings:
            if len(reading.text) in PHONE_DIGITS and _free(reading, used):
                return Filled(_phone_text(reading.text), frozenset(range(reading.first, reading.last)))
    return None


def _phone_text(digits: str) -> str:
    groups = {7: (3,), 10: (3, 6), 11: (1, 4, 7)}.get(len(digits), ())
    cuts = (0, *groups, len(digits))
    return "-".join(digits[a:b] for a, b in pairwise(cuts))


_GLUED = re.compile(r"\b([A-Za-z]{1,8})([-_]?)([0-9]{2,12})\b")
_LETTERS = {
    "are": "r", "dee": "d", "bee": "b", "be": "b", "see": "c", "sea": "c", "oh": "o", "you": "u", "why": "y",
    "tea": "t", "tee": "t", "eye": "i", "jay": "j", "kay": "k", "el": "l", "em": "m", "en": "n", "pea": "p",
    "pee": "p", "queue": "q", "cue": "q", "ex": "x", "zee": "z", "zed": "z", "ay": "a", "ef": "f", "gee": "g",
    "es": "s", "vee": "v",
}  # fmt: skip


def _letters_before(heard: Heard, first: int) -> str:
    """Letters spelled just before word `first`: "o r d", "or d", "ord"."""
    spelled = ""
    for norm in reversed(heard.norms[max(0, first - 6) : first]):
        letters = _LETTERS.get(norm, norm)
        if not letters.isalpha() or len(letters) > 4 or len(spelled) + len(letters) > 6:
            break
        spelled = letters + spelled
    return spelled


def identifier(slot: Slot, heard: Heard, used: Iterable[int] = (), asked: bool = False) -> Filled | None:
    """An identifier in the form its slot knows, from figures, digit words or letters with digits."""
    taken = set(used)
    if slot.shapes:
        return _shaped(slot, heard, taken, asked)
    glued = _GLUED.search(heard.text)
    for readings in digit_runs(heard):
        for reading in readings:
            if len(reading.text) >= (1 if asked else 2) and _free(reading, taken):
                span = frozenset(range(reading.first, reading.last))
                if glued and reading.text.startswith(glued[3]):
                    return Filled(f"{glued[1].upper()}{glued[2]}{reading.text}", span)
                letters = ""
                for norm in reversed(heard.norms[: reading.first]):
                    if len(norm) != 1 or norm == "a":
                        break
                    letters = norm + letters
                return Filled(letters.upper() + reading.text, span)
    return None


def _shaped(slot: Slot, heard: Heard, taken: set[int], asked: bool) -> Filled | None:
    exact: list[Filled] = []
    near: list[tuple[int, Filled]] = []
    shortest = min(shape.digits for shape in slot.shapes)
    for readings in digit_runs(heard):
        hits = [r for r in readings if _free(r, taken) and any(len(r.text) == s.digits for s in slot.shapes)]
        if hits:
            spans: set[int] = set()
            for reading in hits:
                if _free(reading, spans):
                    spans.update(range(reading.first, reading.last))
                    exact.append(_formatted(slot, heard, reading))
            continue
        for reading in readings:
            if not _free(reading, taken) or len(reading.text) < max(3, shortest - 1):
                continue
            for known in slot.known:
                apart = distance(reading.text, "".join(c for c in known if c.isdigit()))
                if apart <= 2:
                    span = frozenset(range(reading.first, reading.last))
                    near.append((apart, Filled(known, span, sure=False)))
    if exact:
        return attrs.evolve(exact[0], others=tuple(f.value for f in exact[1:] if f.value != exact[0].value))
    return min(near, key=lambda pair: pair[0])[1] if near else None


def _formatted(slot: Slot, heard: Heard, reading: Digits) -> Filled:
    """The digits in the shape whose letters were heard, or else the first that fits."""
    fitting = [shape for shape in slot.shapes if shape.digits == len(reading.text)]
    letters = _letters_before(heard, reading.first)

    def apart(shape: Shape) -> int:
        n = len(shape.prefix)
        return min(distance(letters[-k:], shape.prefix.lower()) for k in range(1, n + 2)) if letters else n

    shape = min(fitting, key=apart)
    span = frozenset(range(reading.first, reading.last))
    value = f"{shape.prefix}{shape.joint}{reading.text}"
    return Filled(value, span, marked=len(shape.prefix) > 1 and apart(shape) == 0)


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
                score = (
                    max(likeness(norm, name) for name in names if len(name) > 2)
                    if max(map(len, names)) > 2
                    else 0
                )
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
                norm == "off"
                or i == len(norms) - 1
                or bool({"turn", "switch", "put", "lights"} & set(norms[:i]))
            )
            if switched:
                return Filled((norm == "on") != ("off" in name_words(slot.name)), frozenset({i}))
        if stem(norm) in names:
            return Filled(
                not set(norms[max(0, i - 2) : i]) & {"no", "not", "without", "dont"}, frozenset({i})
            )
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


def _email(heard: Heard) -> Filled | None:
    written = re.search(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", heard.text)
    if written:
        return Filled(written.group(), frozenset())
    spoken = re.search(r"\b([\w.]+(?: dot \w+)*) at (\w+(?: dot \w+)+)\b", heard.text.lower())
    if spoken:
        return Filled(f"{spoken[1]}@{spoken[2]}".replace(" dot ", "."), frozenset())
    return None


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


def _reason(heard: Heard, used: set[int], asked: bool) -> Filled | None:
    norms = heard.norms
    for i, norm in enumerate(norms):
        possible = norm in _REASON_MARKS or (
            norm == "for" and i + 1 < len(norms) and norms[i + 1] in {"my", "a", "the"}
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
    if not asked:
        return None
    return _trimmed(heard, 0, len(norms), _LEAD_IN, {"please", "thanks"}) or _whole(heard, used)


def _whole(heard: Heard, used: set[int]) -> Filled | None:
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


def _name(slot: Slot, heard: Heard, used: set[int], asked: bool, tool_words: frozenset[str]) -> Filled | None:
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
        content = [
            norm for norm in norms[first:last] if norm not in STOP_WORDS and stem(norm) not in tool_words
        ]
        if content and number_at(norms, first) is None:
            return shown(Filled(heard.slice(first, last), frozenset(range(first, last))))
    beside = [i for i in range(1, len(norms)) if stem(norms[i]) in own and i - 1 not in used]
    for i in beside:  # "the living room lights", of a slot named room
        before = norms[i - 1]
        if before not in STOP_WORDS and stem(before) not in tool_words and number_at(norms, i - 1) is None:
            return shown(Filled(heard.slice(i - 1, i + 1), frozenset({i - 1, i})))
    rest = [
        i for i, norm in enumerate(norms)
        if i not in used and norm not in STOP_WORDS and norm not in _NAME_LEAD | _NAME_END
        and stem(norm) not in tool_words and stem(norm) not in own and number_at(norms, i) is None
    ]  # fmt: skip
    if rest and len(rest) <= 2 and rest[-1] - rest[0] == len(rest) - 1:
        return shown(Filled(heard.slice(rest[0], rest[-1] + 1), frozenset(rest)))
    return None
