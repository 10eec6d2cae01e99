"""What must hold of words that guardrails look at, and of words that the application has said: `say()`, replacements.

Beside the other rules (`checks.py`), told of the same messages and events. Such words carry a number, so that each
request for them can be followed through the server to the loudspeaker. The invariant: it only looks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias

import attrs
import trio

from trio_voice import events
from trio_voice.guarding import REFUSAL

FORBIDDEN = "swordfish"
OVERDUE_S = 40.0
"""Longer than any answer and any time without a connection."""
_WANTED = re.compile(r"(In place of|To be said:) (\d+)\.")

Kind: TypeAlias = Literal["In place of", "To be said:", "refusal"]


def words_for(kind: Kind, number: int) -> str:
    """What is to be said."""
    return f"{kind} {number}."


@attrs.define(eq=False)
class Wanted:
    """Words that are to be said, once."""

    since: float = attrs.Factory(trio.current_time)
    marks: list[int] = attrs.Factory(list)
    """Of the answers that the server began to make of them."""
    excused: bool = False
    """Something came in between that makes them unwanted."""


@attrs.define(eq=False)
class WordRules:
    wrong: Callable[[str, str], None]
    wanted: dict[tuple[Kind, int], Wanted] = attrs.Factory(dict)
    forbidden: set[int] = attrs.Factory(set)
    """Marks of answers in which the model says what it must not."""
    refused: set[int] = attrs.Factory(set)
    """Numbers of texts of the user that must not reach the server."""
    tripped: set[int] = attrs.Factory(set)
    """Turns."""
    trips: int = 0
    said: int = 0
    """How often words were given to be said."""
    found: int = 0
    """How often a guardrail has found something, told of or not: its number is in what is said instead."""
    _tripped_items: Counter[str] = attrs.Factory(Counter)

    def want(self, kind: Kind, number: int) -> None:
        self.wanted[kind, number] = Wanted()

    def went_on(self) -> None:
        """The user has done something: what was not yet asked for may be forgotten, unless it is overdue."""
        for wanted in self.wanted.values():
            wanted.excused |= not wanted.marks and trio.current_time() < wanted.since + OVERDUE_S

    # --- at the server ----------------------------------------------------------------------------

    def asked(self, instructions: str, mark: int) -> None:
        """An answer is asked for, by these instructions; its samples will bear `mark`."""
        for wanted in self._meant(instructions):
            wanted.marks.append(mark)

    def _meant(self, instructions: str) -> Iterator[Wanted]:
        if instructions.endswith(REFUSAL):
            refusals = [wanted for (kind, _), wanted in self.wanted.items() if kind == "refusal"]
            yield from [wanted for wanted in refusals if not wanted.marks][:1] or refusals[-1:]
        found = _WANTED.findall(instructions)
        if found:
            kind, number = found[-1]
            wanted = self.wanted.get((kind, int(number)))
            if wanted is not None:
                yield wanted

    def sent(self, number: int) -> None:
        """A text of the user has come."""
        if number in self.refused:
            self.wrong("refused is not sent", f"the server was told text {number}, which must not be said")

    # --- at the session ---------------------------------------------------------------------------

    def trip(self, event: events.GuardrailTripped, mark: int) -> None:
        """`mark`: of the turn, as far as it is known."""
        self.trips += 1
        key = f"turn {event.turn}" if event.turn is not None else event.item_id
        self._tripped_items[key] += 1
        if self._tripped_items[key] > 1:
            self.wrong("told once", f"a guardrail tripped twice in {key}")
        if event.turn is not None:
            self.tripped.add(event.turn)
        if not event.replaced:
            return
        number = int(event.reason)
        replaces = any(mark in wanted.marks for (kind, _), wanted in self.wanted.items() if kind == "In place of")
        self.went_on()
        self.want("refusal" if mark and replaces else "In place of", number)

    # --- when it is over --------------------------------------------------------------------------

    def judge(self, made: Mapping[int, tuple[int, int]], heard: Mapping[int, int], *, session_goes_on: bool) -> None:
        """`made`: by mark, the connection and the samples of an answer; `heard`: by mark, turns heard whole."""
        for (kind, number), wanted in self.wanted.items():
            words = words_for(kind, number)
            if session_goes_on and not wanted.marks and not wanted.excused:
                rule = "said once" if kind == "To be said:" else "replaced once"
                self.wrong(rule, f"{words!r} was never asked for")
            on = Counter(made[mark][0] for mark in wanted.marks if mark in made and made[mark][1])
            whole = sum(heard.get(mark, 0) for mark in wanted.marks)
            if max([whole, *on.values()]) > 1:
                rule = "said once" if kind == "To be said:" else "replaced once"
                self.wrong(rule, f"{words!r} was made on connections {dict(on)}, and heard {whole} times")
        stood = sorted(mark for mark in self.forbidden if heard.get(mark))
        if stood and session_goes_on:
            self.wrong("what must not be said", f"answers {stood} were heard to their ends, and nothing tripped")
