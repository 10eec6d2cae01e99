"""Write a clause the way it is said: figures, identifiers, dates, times and money become words.

Pure, and the same for every voice. A voice's own rules for figures differ from engine to engine; here an
order number is read sign by sign and a price as a price, whichever engine speaks.

Invariant: what comes out holds no digit, and figures are never silent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


ONES: Final = _list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS: Final = _list("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
MONTHS: Final = _list("January February March April May June July August September October November December")
_ORDINALS: Final = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_WORDS: Final = {
    "mr.": "Mister", "mrs.": "Missus", "ms.": "Miz", "dr.": "Doctor", "prof.": "Professor", "st.": "Street",
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "about",
    "dept.": "department", "ext.": "extension", "a.m.": "A M", "p.m.": "P M", "asap": "A S A P",
}  # fmt: skip
_MONEY: Final = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_SIGNS: Final = {
    "&": " and ",
    "%": " percent ",
    "@": " at ",
    "+": " plus ",
    "=": " equals ",
    "°": " degrees ",
}


def spoken_form(text: str) -> str:
    """`text` as a person would read it aloud, on one line."""
    text = text.translate(_PLAIN)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    for sign, words in _SIGNS.items():
        text = text.replace(sign, words)
    text = _UNSAYABLE.sub(" ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" +([,.;:!?])", r"\1", text)
    text = re.sub(r"([,;:])(?: *[,;:])+", r"\1", text)
    return text.strip()


def number_words(value: int) -> str:
    """A whole number below 10**12 in words: 1204 is "one thousand two hundred four"."""
    if value < 20:
        return ONES[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return TENS[tens] + (f" {ONES[ones]}" if ones else "")
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            count, rest = divmod(value, size)
            return f"{number_words(count)} {name}" + (f" {number_words(rest)}" if rest else "")
    raise AssertionError(value)


def ordinal_words(value: int) -> str:
    """21 is "twenty first"."""
    *head, last = number_words(value).split()
    regular = (last[:-1] + "ie" if last.endswith("y") else last) + "th"
    return " ".join([*head, _ORDINALS.get(last, regular)])


def digit_words(digits: str) -> str:
    """Sign by sign, with a breath after every third or fourth when there are many."""
    words = [ONES[int(digit)] for digit in digits if digit in "0123456789"]
    if len(words) <= 5:
        return " ".join(words)
    groups = []
    while words:
        size = 4 if len(words) == 4 else 3
        groups.append(" ".join(words[:size]))
        words = words[size:]
    return ", ".join(groups)


def year_words(year: int) -> str:
    """2026 is "twenty twenty six", 1905 "nineteen oh five", 2000 "two thousand"."""
    high, low = divmod(year, 100)
    if high % 10 == 0 and low < 10:
        return number_words(year)
    tail = "hundred" if low == 0 else f"oh {ONES[low]}" if low < 10 else number_words(low)
    return f"{number_words(high)} {tail}"


# --- the rules, from the most particular to the least; each takes digits away from those after it --------


def _identifier(match: re.Match[str]) -> str:
    """ORD-12345: letters one by one, then the digits one by one, with a breath between."""
    parts = re.findall(r"[A-Za-z]+|\d+", match[0])
    return ", ".join(digit_words(part) if part.isdigit() else " ".join(part.upper()) for part in parts)


def _phone(match: re.Match[str]) -> str:
    groups = [digit_words(group) for group in re.findall(r"\d+", match[0])]
    return ("plus " if match[0].startswith("+") else "") + ", ".join(groups)


def _time(match: re.Match[str]) -> str:
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    said = number_words(hour)
    if minute:
        said += f" oh {ONES[minute]}" if minute < 10 else f" {number_words(minute)}"
    elif not half:
        said += " o'clock" if 0 < hour <= 12 else " hundred hours"
    return said + (f" {half[0].upper()} M" if half else "")


def _iso_date(match: re.Match[str]) -> str:
    return _date(int(match[1]), int(match[2]), int(match[3]), match[0])


def _us_date(match: re.Match[str]) -> str:
    return _date(int(match[3]), int(match[1]), int(match[2]), match[0])


def _date(year: int, month: int, day: int, written: str) -> str:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return ", ".join(digit_words(group) for group in re.findall(r"\d+", written))
    return f"{MONTHS[month - 1]} {ordinal_words(day)}, {year_words(year)}"


def _month_day(match: re.Match[str]) -> str:
    month = next(name for name in MONTHS if name[:3] == match[1][:3].capitalize())
    return f"{month} {ordinal_words(int(match[2]))}"


def _money(match: re.Match[str]) -> str:
    unit, part = _MONEY[match[1]]
    whole, parts = int(match[2].replace(",", "")), int(match[3] or 0)
    said = f"{number_words(whole)} {unit}{'' if whole == 1 else 's'}"
    if not parts:
        return said
    many = "pence" if part == "penny" else "cents"
    said_part = f"{number_words(parts)} {part if parts == 1 else many}"
    return said_part if whole == 0 else f"{said} and {said_part}"


def _number(match: re.Match[str]) -> str:
    whole, _, fraction = match[0].partition(".")
    plain = whole.replace(",", "")
    if len(plain) > 12 or (plain.startswith("0") and len(plain) > 1) or (len(plain) > 4 and "," not in whole):
        said = digit_words(plain)
    elif len(plain) == 4 and "," not in whole and plain[:2] in ("19", "20") and not fraction:
        said = year_words(int(plain))
    else:
        said = number_words(int(plain))
    return f"{said} point {' '.join(ONES[int(digit)] for digit in fraction)}" if fraction else said


def _apart(say: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    """Keep a space between what was said and a letter that touched the figures."""

    def spaced(match: re.Match[str]) -> str:
        before = match.string[match.start() - 1 : match.start()]
        after = match.string[match.end() : match.end() + 1]
        return (" " if before.isalnum() else "") + say(match) + (" " if after.isalnum() else "")

    return spaced


_MONTH_NAMES = "|".join(rf"{name[:3]}(?:{name[3:]}|\.)?" if name != "May" else name for name in MONTHS)
_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = tuple(
    (re.compile(pattern, flags | re.ASCII), _apart(say))
    for pattern, flags, say in (
        (r"\[([^\]]*)\]\([^)]*\)", 0, lambda match: match[1]),  # a Markdown link: its words
        (r"https?://\S+", 0, lambda _: "a web address"),
        (
            r"(?<![A-Za-z.])(?:" + "|".join(map(re.escape, _WORDS)) + r")(?!\w)",
            re.I,
            lambda m: _WORDS[m[0].lower()],
        ),
        (r"(?<=\d)T(?=\d\d:)", 0, lambda _: " at "),
        (r"(?<!\d)(\d{4})-(\d\d?)-(\d\d?)(?!\d)", 0, _iso_date),
        (r"(?<!\d)(\d\d?)/(\d\d?)/(\d{4})(?!\d)", 0, _us_date),
        (
            r"\b([A-Z]{2,}-?\d[\dA-Z-]*|[A-Z]+-\d[\dA-Z-]*|[A-Z]\d{2,}[\dA-Z]*|\d+[A-Z][\dA-Z]+)\b",
            0,
            _identifier,
        ),
        (r"(?<!\d)([01]?\d|2[0-3]):([0-5]\d)(?::[0-5]\d)?(?: ?([AaPp])\.? ?[Mm]\b\.?)?(?!\d)", 0, _time),
        (r"(?<![\d.,])(1[0-2]|[1-9])() ?([AaPp])\.?[Mm]\b\.?", 0, _time),
        (r"(?:\+\d{1,3}[ -])?\(\d{3}\) ?\d{3}[ -]\d{4}(?!\d)", 0, _phone),
        (r"(?<![\w-])(?:\+\d{1,3}[ -])?(?:\d{3}[ -]){1,2}\d{4}(?![\w-])", 0, _phone),
        (rf"\b({_MONTH_NAMES}) (\d\d?)(?:st|nd|rd|th)?\b", 0, _month_day),
        (r"([$€£]) ?(\d{1,12}(?:,\d{3})*)(?:\.(\d\d))?(?!\d)", 0, _money),
        (r"\b(\d{1,4})(?:st|nd|rd|th)\b", re.I, lambda match: ordinal_words(int(match[1]))),
        (r"(?<=\d)-(?=\d)", 0, lambda _: " to "),
        (r"(?<![\w.])-(?=\d)", 0, lambda _: "minus "),
        (r"#(?=\d)", 0, lambda _: "number "),
        (r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?", 0, _number),
    )
)
_UNSAYABLE = re.compile(r"[^A-Za-zÀ-ɏ\s.,;:!?'\"()-]")
_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": ", ", "–": "-", "…": ".", "−": "-"})
