"""Telephone numbers, order numbers and addresses, from the digits and letters that were heard.

Part of filling slots (`slots.py`). Invariant: an identifier whose shape is known is only given out in that shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from itertools import pairwise

import attrs

from .schema import Filled, Shape, Slot
from .words import Digits, Heard, digit_runs, distance

PHONE_DIGITS = range(7, 12)


def _free(reading: Digits, used: Iterable[int]) -> bool:
    return not any(reading.first <= i < reading.last for i in used)


def phone(heard: Heard, taken: Set[int] = frozenset()) -> Filled | None:
    """A telephone number of 7 to 11 digits, written 555-1234."""
    for readings in digit_runs(heard, taken):
        for reading in readings:
            if len(reading.text) in PHONE_DIGITS and _free(reading, taken):
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


def identifier(slot: Slot, heard: Heard, taken: Set[int] = frozenset(), asked: bool = False) -> Filled | None:
    """An identifier in the form its slot knows, from figures, digit words or letters with digits."""
    if slot.shapes:
        return _shaped(slot, heard, taken)
    glued = _GLUED.search(heard.text)
    for readings in digit_runs(heard, taken):
        for reading in readings:
            if len(reading.text) >= (1 if asked else 2) and _free(reading, taken):
                span = frozenset(range(reading.first, reading.last))
                if glued and reading.text.startswith(glued[3]):
                    return Filled(f"{glued[1].upper()}{glued[2]}{reading.text}", span)
                letters = ""
                for norm in reversed(heard.norms[: reading.first]):
                    if len(norm) != 1 or not norm.isalpha():
                        break
                    letters = norm + letters
                letters = "" if letters == "a" else letters  # the article
                return Filled(letters.upper() + reading.text, span)
    return None


def _shaped(slot: Slot, heard: Heard, taken: Set[int]) -> Filled | None:
    exact: list[Filled] = []
    near: list[tuple[int, Filled]] = []
    shortest = min(shape.digits for shape in slot.shapes)
    for readings in digit_runs(heard, taken):
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
                digits = "".join(c for c in known if c.isdigit())
                # Spelled letters may be heard as zeros, "O R D one two" as "0.001, 2": then the tail is the number.
                is_tail = bool(digits) and reading.text.endswith(digits)
                apart = 0 if is_tail else distance(reading.text, digits)
                if apart <= 2:
                    span = frozenset(range(reading.first, reading.last))
                    near.append((apart, Filled(known, span, sure=is_tail)))
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


def email(heard: Heard) -> Filled | None:
    written = re.search(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", heard.text)
    if written:
        return Filled(written.group(), frozenset())
    spoken = re.search(r"\b([\w.]+(?: dot \w+)*) at (\w+(?: dot \w+)+)\b", heard.text.lower())
    if spoken:
        return Filled(f"{spoken[1]}@{spoken[2]}".replace(" dot ", "."), frozenset())
    return None
