"""Words as a recogniser hands them over: split, counted, stemmed and compared.

The first step of the offline dialogue: everything after it (`moments`, `slots`, `intents`) works on `Heard`.
Invariant: reading words never fails; text that holds nothing readable is an empty `Heard`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache

import attrs

MAX_HEARD_CHARACTERS = 2000
"""Of one utterance; two minutes of speech. Bounds the work where someone writes a book into the conversation."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[0-9]+")
_AM_PM = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)
_OLD_HYPHEN = re.compile(r"\bto-(?=(?:day|morrow|night)\b)", re.IGNORECASE)
"""Recognisers write "to-morrow" now and then, as their books did."""
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}\b)")


@attrs.frozen
class Word:
    """One word or group of figures; `text[start:end]` of its `Heard` is how it was written."""

    norm: str
    start: int
    end: int
    ends_clause: bool
    """Punctuation that closes a clause follows."""


@attrs.frozen
class Heard:
    """An utterance: its text, tidied, and its words in order."""

    text: str
    words: tuple[Word, ...]
    norms: tuple[str, ...]
    """The words alone, in lower case."""

    def slice(self, first: int, last: int) -> str:
        """The text of words `first` up to, not including, `last`, as it was written."""
        if first >= last:
            return ""
        return self.text[self.words[first].start : self.words[last - 1].end]


def hear(text: str) -> Heard:
    """Split an utterance; letters part from figures ("Ord12345" is two words), "3 p.m." becomes "3 pm"."""
    tidy = unicodedata.normalize("NFKC", text[:MAX_HEARD_CHARACTERS]).encode("utf-8", "ignore").decode("utf-8")
    tidy = _OLD_HYPHEN.sub("to", _THOUSANDS.sub("", _AM_PM.sub(r"\1m", tidy)))
    words: list[Word] = []
    for match in _WORD.finditer(tidy):
        after = tidy[match.end() : match.end() + 1]
        norm = match.group().casefold().replace("'", "").replace("’", "")
        words.append(Word(norm, match.start(), match.end(), after in {".", ",", ";", "!", "?"} and after != ""))
    return Heard(tidy, tuple(words), tuple(word.norm for word in words))


def terms(text: str) -> frozenset[str]:
    """A set of words, written as a line of them."""
    return frozenset(text.split())


# --- numbers ------------------------------------------------------------------------------------------------

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

_UNIT_OF = {word: n for n, word in enumerate(_UNITS)} | {"nought": 0, "naught": 0, "niner": 9}
_TEEN_OF = {word: n for n, word in enumerate(_TEENS, start=10)}
_TEN_OF = {word: n * 10 for n, word in enumerate(_TENS, start=2)} | {"fourty": 40}
_SOUNDS_LIKE = {
    "oh": 0, "o": 0, "won": 1, "wan": 1, "to": 2, "too": 2, "tree": 3, "free": 3, "for": 4, "fore": 4,
    "fife": 5, "sicks": 6, "ate": 8, "nein": 9, "nigh": 9,
}  # fmt: skip
"""What recognisers write for a digit; believed only beside real digits."""
_TIMES = {"double": 2, "triple": 3, "treble": 3}
_BETWEEN_DIGITS = {"dash", "hyphen", "minus", "um", "uh", "er", "space"}


def number_words(n: int) -> str:
    """`n`, 0 to 999, as it is spoken; other numbers in figures."""
    if not 0 <= n <= 999:
        return str(n)
    if n < 10:
        return _UNITS[n]
    if n < 20:
        return _TEENS[n - 10]
    if n < 100:
        return _TENS[n // 10 - 2] + (f" {_UNITS[n % 10]}" if n % 10 else "")
    rest = f" and {number_words(n % 100)}" if n % 100 else ""
    return f"{_UNITS[n // 100]} hundred{rest}"


@attrs.frozen
class Digits:
    """Consecutive digits found in an utterance, words `first` up to, not including, `last`."""

    text: str
    first: int
    last: int


@attrs.frozen
class _Piece:
    digits: str
    first: int
    last: int
    sure: bool


def _piece(norms: Sequence[str], at: int) -> _Piece | None:
    """The digits that start at word `at`: figures, a digit word, "double five", "twenty three"."""
    word = norms[at]
    following = norms[at + 1] if at + 1 < len(norms) else ""
    if word.isdecimal() and word.isascii():
        return _Piece(word, at, at + 1, True)
    if word in _TIMES and following:
        one = _piece(norms[: at + 2], at + 1)
        if one is not None and len(one.digits) == 1:
            return _Piece(one.digits * _TIMES[word], at, at + 2, True)
        return None
    if word in _TEN_OF:
        if _UNIT_OF.get(following, 0) > 0:
            return _Piece(str(_TEN_OF[word] + _UNIT_OF[following]), at, at + 2, True)
        return _Piece(str(_TEN_OF[word]), at, at + 1, True)
    if word in _TEEN_OF:
        return _Piece(str(_TEEN_OF[word]), at, at + 1, True)
    if word in _UNIT_OF:
        if following == "hundred":
            return _Piece(f"{_UNIT_OF[word]}00", at, at + 2, True)
        return _Piece(str(_UNIT_OF[word]), at, at + 1, True)
    if word in _SOUNDS_LIKE:
        return _Piece(str(_SOUNDS_LIKE[word]), at, at + 1, False)
    return None


def digit_runs(heard: Heard, used: Collection[int] = ()) -> list[tuple[Digits, ...]]:
    """Every run of digits, each as its possible readings, the most careful first.

    A homophone at the edge of a run ("for", "to") may be a digit or a word: both readings are given. A run
    of separate groups of figures also offers each group alone. Words that are `used` already end a run.
    """
    norms = heard.norms
    runs: list[tuple[Digits, ...]] = []
    at = 0
    while at < len(norms):
        pieces: list[_Piece] = []
        while at < len(norms):
            if pieces and norms[at] in _BETWEEN_DIGITS:
                at += 1
                continue
            piece = _piece(norms, at)
            if piece is None or at in used:
                break
            pieces.append(piece)
            at = piece.last
        at += 0 if pieces else 1
        sure = [i for i, piece in enumerate(pieces) if piece.sure]
        if not sure and len(pieces) < 4:
            continue
        low, high = (sure[0], sure[-1] + 1) if sure else (0, len(pieces))
        readings: list[Digits] = []
        for begin, end in ((low, high), (low, len(pieces)), (0, high), (0, len(pieces))):
            chosen = pieces[begin:end]
            reading = Digits("".join(p.digits for p in chosen), chosen[0].first, chosen[-1].last)
            if reading not in readings:
                readings.append(reading)
        if len(pieces) > 1:
            readings += [Digits(p.digits, p.first, p.last) for p in pieces if len(p.digits) > 2]
        runs.append(tuple(readings))
    return runs


@attrs.frozen
class Number:
    """A whole number said as one, words `first` up to, not including, `last`."""

    value: int
    first: int
    last: int


def _below_hundred(norms: Sequence[str], at: int, guess: bool) -> tuple[int, int] | None:
    word = norms[at] if at < len(norms) else ""
    if word.isdecimal() and word.isascii() and len(word) <= 12:
        return int(word), at + 1
    if word in _TEN_OF:
        unit = _UNIT_OF.get(norms[at + 1], 0) if at + 1 < len(norms) else 0
        return (_TEN_OF[word] + unit, at + 2) if unit else (_TEN_OF[word], at + 1)
    if word in _TEEN_OF:
        return _TEEN_OF[word], at + 1
    if word in _UNIT_OF:
        return _UNIT_OF[word], at + 1
    if guess and word in _SOUNDS_LIKE:
        return _SOUNDS_LIKE[word], at + 1
    return None


def number_at(norms: Sequence[str], at: int, *, guess: bool = False) -> Number | None:
    """The whole number that begins at word `at` ("two hundred and five", "42"), if one does.

    With `guess`, homophones count ("for" is four).
    """
    word = norms[at] if at < len(norms) else ""
    following = norms[at + 1] if at + 1 < len(norms) else ""
    if word in {"a", "one"} and following == "dozen":
        return Number(12, at, at + 2)
    if word == "a" and following == "couple":
        return Number(2, at, at + 2)
    begun = (1, at + 1) if word == "a" and following in {"hundred", "thousand"} else None
    begun = begun or _below_hundred(norms, at, guess)
    if begun is None:
        return None
    total, value, last = 0, begun[0], begun[1]
    while last < len(norms):
        if norms[last] == "hundred" and value < 100:
            value, last = value * 100, last + 1
        elif norms[last] == "thousand" and 0 < value < 1000:
            total, value, last = total + value * 1000, 0, last + 1
        else:
            break
        skip = last + 1 if last < len(norms) and norms[last] == "and" else last
        rest = _below_hundred(norms, skip, False)
        if rest is not None and rest[0] < 1000:
            value, last = value + rest[0], rest[1]
    return Number(total + value, at, last)


def numbers_in(heard: Heard, *, guess: bool = False) -> list[Number]:
    """Every whole number of an utterance, in order."""
    norms = heard.norms
    found: list[Number] = []
    at = 0
    while at < len(norms):
        number = number_at(norms, at, guess=guess)
        if number is None:
            at += 1
        else:
            found.append(number)
            at = number.last
    return found


# --- likeness -----------------------------------------------------------------------------------------------

STOP_WORDS = terms(
    """
    a an and am are as at be been but by can could did do does dont for from get give got had has
    have he hello help her hey hi him his how i id if ill im in is it its ive just kindly know let
    lets like may me might my need no not now of oh ok okay on one or our out please really she
    should so some tell than that the their them then there these they thing this those to too uh um
    us very want wanna was we well were what whats when which who why will with would yes you your
    thats theres want wish say said go going the whether any about into such per e g eg value
    current given return returns string name
    """
)
"""Words that say nothing about what is wanted."""


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A word without its ending, so that "shipped", "shipping" and "ships" meet."""
    for ending, put in (
        ("ings", ""),
        ("ing", ""),
        ("ies", "y"),
        ("ed", ""),
        ("es", ""),
        ("s", ""),
        ("ly", ""),
    ):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + put
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def distance(a: str, b: str) -> int:
    """How many letters must be put in, taken out or changed to turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]


@lru_cache(maxsize=8192)
def likeness(a: str, b: str) -> float:
    """1 for the same word, 0 for nothing in common; "sails" and "sales", which sound alike, count as near."""
    if a == b:
        return 1.0
    if not a or not b or max(len(a), len(b)) > 40:
        return 0.0
    spelled = 1 - distance(a, b) / max(len(a), len(b))
    same_sound = len(a) > 3 and len(b) > 3 and len(_sound(a)) > 2 and _sound(a) == _sound(b)
    return max(spelled, 0.9) if same_sound else spelled


def _sound(word: str) -> str:
    """The consonants of a word, roughly as English sounds them."""
    for wrote, sounds in (
        ("ph", "f"),
        ("ck", "k"),
        ("ce", "s"),
        ("ci", "s"),
        ("c", "k"),
        ("q", "k"),
        ("z", "s"),
    ):
        word = word.replace(wrote, sounds)
    bare = word[:1] + re.sub(r"[aeiouyhw]", "", word[1:])
    return re.sub(r"(.)\1+", r"\1", bare)
