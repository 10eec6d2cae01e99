"""Days and times of day in an utterance, kept as words.

Between `words` and `slots`. Invariant: nothing here knows what day it is; "tomorrow at 3 pm" stays
exactly that, so the dialogue needs no clock and the tool decides what it means.
"""

from __future__ import annotations

import attrs

from .words import Heard, number_at

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
_ORDINAL_WORDS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth",
    "nineteenth", "twentieth",
)  # fmt: skip
_ORDINALS = {word: n for n, word in enumerate(_ORDINAL_WORDS, start=1)}
_PARTS = {"morning": "am", "afternoon": "pm", "evening": "pm", "night": "pm"}
_BEFORE_HOUR = {"at", "around", "about", "by", "after", "before", "until", "till", "past"}
_UNITS = {"minute", "minutes", "hour", "hours", "day", "days", "week", "weeks"}
_PART_LEADS = {"in", "the", "this"}


@attrs.frozen
class Moment:
    """When, in words: a day, a time of day, or both; `used` are the words that said so."""

    day: str | None
    clock: str | None
    used: frozenset[int]

    @property
    def text(self) -> str:
        """Both as one phrase: "tomorrow at 3 pm", "next Tuesday", "tomorrow morning"."""
        if self.day and self.clock:
            vague = self.clock in _PARTS or self.clock.startswith(("after ", "before ", "around ", "by "))
            return f"{self.day} {self.clock}" if vague else f"{self.day} at {self.clock}"
        return self.day or self.clock or ""


def find_moment(heard: Heard, *, asked: bool = False) -> Moment | None:
    """The day and time named in an utterance. When a time was `asked` for, a bare "three" is an hour."""
    norms = heard.norms
    used: set[int] = set()
    day = _day(norms, used)
    later = _later(norms, used) if day is None else None
    clock = later or _clock(heard, used, asked)
    part = _part(norms, used)
    if clock is not None and part is not None and later is None and clock[-1].isdigit():
        clock = f"{clock.removesuffix(':00')} {_PARTS[part]}"
    elif clock is None:
        clock = part
    if day is None and clock is None:
        return None
    return Moment(day, clock, frozenset(used))


def _take(used: set[int], norms: tuple[str, ...], first: int, last: int, leads: frozenset[str]) -> None:
    used.update(range(first, last))
    while first > 0 and norms[first - 1] in leads and first - 1 not in used:
        first -= 1
        used.add(first)


_DAY_LEADS = frozenset({"on", "for", "the", "by"})


def _day(norms: tuple[str, ...], used: set[int]) -> str | None:
    for i, word in enumerate(norms):
        if word in {"today", "tomorrow", "tonight"}:
            after = norms[i - 2 : i] == ("day", "after")
            _take(used, norms, i - 2 if after else i, i + 1, _DAY_LEADS)
            return f"the day after {word}" if after else word
        weekday = word.removesuffix("s") if word.removesuffix("s") in _WEEKDAYS else None
        if weekday:
            lead = norms[i - 1] if i and norms[i - 1] in {"next", "this", "coming"} else None
            _take(used, norms, i - 1 if lead else i, i + 1, _DAY_LEADS)
            return f"{lead} {weekday.capitalize()}" if lead else weekday.capitalize()
        if word in {"week", "weekend", "month"} and i and norms[i - 1] in {"next", "this"}:
            _take(used, norms, i - 1, i + 1, _DAY_LEADS)
            return f"{norms[i - 1]} {word}"
        if word in _MONTHS:
            date = _date(norms, i, used)
            if date:
                return date
    return None


def _date(norms: tuple[str, ...], month: int, used: set[int]) -> str | None:
    """ "May fifth", "the 5th of May", "May 5": the month is word `month`."""

    def ordinal(at: int) -> tuple[int, int] | None:
        if not 0 <= at < len(norms):
            return None
        if norms[at] in _ORDINALS:
            return _ORDINALS[norms[at]], at + 1
        number = number_at(norms, at)
        if number is None or not 1 <= number.value <= 31:
            return None
        last = number.last
        if last < len(norms) and norms[last] in {"st", "nd", "rd", "th"}:
            last += 1
        return number.value, last

    after = ordinal(month + 1 + (norms[month + 1 : month + 2] == ("the",)))
    if after:
        _take(used, norms, month, after[1], _DAY_LEADS)
        return f"{norms[month].capitalize()} {after[0]}"
    end = month - 1 if month and norms[month - 1] == "of" else month
    for first in range(max(0, end - 3), end):
        before = ordinal(first)
        if before and before[1] == end:
            _take(used, norms, first, month + 1, _DAY_LEADS)
            return f"{norms[month].capitalize()} {before[0]}"
    return None


def _later(norms: tuple[str, ...], used: set[int]) -> str | None:
    """ "In an hour", "in twenty minutes"."""
    for i, word in enumerate(norms):
        if word != "in":
            continue
        if norms[i + 1 : i + 4] == ("half", "an", "hour"):
            used.update(range(i, i + 4))
            return "in half an hour"
        number = number_at(norms, i + 1)
        last = number.last if number else i + 2
        amount = str(number.value) if number else (norms[i + 1] if norms[i + 1 : i + 2] else "")
        if (number or amount in {"a", "an"}) and last < len(norms) and norms[last] in _UNITS:
            used.update(range(i, last + 1))
            return f"in {amount} {norms[last]}"
    return None


def _part(norms: tuple[str, ...], used: set[int]) -> str | None:
    for i, word in enumerate(norms):
        if word in _PARTS and i not in used and not (i and norms[i - 1] == "good"):
            _take(used, norms, i, i + 1, frozenset(_PART_LEADS))
            return word
    return None


def _clock(heard: Heard, used: set[int], asked: bool) -> str | None:
    norms = heard.norms
    for i, word in enumerate(norms):
        if i in used:
            continue
        if word in {"noon", "midday", "midnight"}:
            _take(used, norms, i, i + 1, frozenset(_BEFORE_HOUR))
            return word
        if word in {"half", "quarter"} and i + 2 < len(norms) and norms[i + 1] in {"past", "to", "after"}:
            hour = number_at(norms, i + 2)
            if hour and 1 <= hour.value <= 12:
                back = norms[i + 1] == "to"
                minutes = 30 if word == "half" else 45 if back else 15
                value = (hour.value - 2) % 12 + 1 if back else hour.value
                _take(used, norms, i, hour.last, frozenset(_BEFORE_HOUR))
                return f"{value}:{minutes}{_am_pm(norms, hour.last, used)}"
    for i in range(len(norms)):
        found = _hour_at(heard, i, used, asked)
        if found is not None:
            return found
    return None


def _am_pm(norms: tuple[str, ...], at: int, used: set[int]) -> str:
    if norms[at : at + 1] in {("am",), ("pm",)}:
        used.add(at)
        return f" {norms[at]}"
    if norms[at : at + 2] in {("a", "m"), ("p", "m")}:
        used.update((at, at + 1))
        return f" {norms[at]}m"
    return ""


def _hour_at(heard: Heard, at: int, used: set[int], asked: bool) -> str | None:
    """An hour that begins at word `at`: needs "at", "o'clock", "am", "pm", a colon, or to have been asked."""
    norms = heard.norms
    led = at > 0 and norms[at - 1] in _BEFORE_HOUR
    hour = number_at(norms, at, guess=asked and (led or len(norms) == 1))
    if at in used or hour is None or not 0 <= hour.value <= 23 or hour.last - at > 2:
        return None
    last, minutes = hour.last, None
    colon = last < len(norms) and heard.text[heard.words[last - 1].end : heard.words[last].start] in {
        ":",
        ".",
    }
    minute = number_at(norms, last) if last < len(norms) else None
    if minute is not None:
        if not 0 <= minute.value <= 59 or (minute.value < 10 and norms[last] != "00"):
            return None  # "five five five ...": a row of digits, not a time
        minutes, last = minute.value, minute.last
    if last < len(norms) and number_at(norms, last) is not None:
        return None
    said_oclock = norms[last : last + 1] == ("oclock",)
    if said_oclock:
        last += 1
    marks: set[int] = set()
    half = _am_pm(norms, last, marks)
    people = norms[last : last + 1] and norms[last] in {"people", "persons", "guests", "percent", "minutes"}
    ok = half or said_oclock or (colon and minutes is not None)
    ok = ok or (led and not people and hour.value >= 1)
    ok = ok or (asked and not people and (minutes is not None or len(norms) <= 4))
    if not ok:
        return None
    used |= marks
    _take(used, norms, at, last, frozenset(_BEFORE_HOUR))
    lead = norms[at - 1] if led and norms[at - 1] in {"after", "before", "around", "by"} else ""
    shown = f"{hour.value}:{minutes:02d}" if minutes else f"{hour.value}" if half else f"{hour.value}:00"
    return f"{lead} {shown}{half}".strip()
