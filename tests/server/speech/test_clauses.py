from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_voice.server.speech.clauses import (
    CLAUSE_CHARS_HARD,
    FIRST_CLAUSE_CHARS,
    ends_sentence,
    split_clauses,
)

WORDS = st.lists(
    st.sampled_from(["Yes", "order", "ORD-12345", "Dr.", "3.5", "1,234", "9 a.m.", "the", "J.", "etc.", "is"]),
    min_size=1,
    max_size=40,
)
PROSE = st.lists(
    st.tuples(WORDS.map(" ".join), st.sampled_from([". ", "? ", ", ", "; ", ": ", "! ", "\n", "...", '" '])),
    max_size=8,
).map(lambda parts: "".join(words + end for words, end in parts))


@given(st.one_of(PROSE, st.text(max_size=400)))
def test_the_clauses_together_are_the_text(text: str) -> None:
    assert "".join(split_clauses(text)) == text


@given(st.one_of(PROSE, st.text(max_size=900)))
def test_no_clause_is_endless_and_none_is_blank(text: str) -> None:
    clauses = split_clauses(text)
    assert all(len(clause.rstrip()) <= CLAUSE_CHARS_HARD for clause in clauses)
    if text.strip():
        assert all(clause.strip() for clause in clauses)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("", []),
        ("Sure. I can do that!", ["Sure. ", "I can do that!"]),
        ("Dr. Lee, e.g. at 9 a.m. on Main St. 5.", ["Dr. Lee, e.g. at 9 a.m. ", "on Main St. 5."]),
        ("It costs 3.5 dollars.", ["It costs 3.5 dollars."]),
        ("First line\nsecond line", ["First line\n", "second line"]),
        ('He said "stop." Then he left.', ['He said "stop." ', "Then he left."]),
        ("No, we do not have that one in the shop any more.", ["No, we do not have that one in the shop any more."]),
    ],
)
def test_sentences(text: str, clauses: list[str]) -> None:
    assert split_clauses(text) == clauses


def test_a_long_first_sentence_is_cut_at_its_last_early_pause_and_no_more() -> None:
    text = "I found your order, ORD-12345: it left our house yesterday, so it should arrive on Tuesday, I think."
    first, rest = split_clauses(text)
    assert first == "I found your order, ORD-12345: "
    assert len(first) <= FIRST_CLAUSE_CHARS
    assert rest == text.removeprefix(first)


def test_a_later_sentence_stays_whole() -> None:
    text = "I found your order, ORD-12345: it left our house yesterday and should arrive on Tuesday."
    assert split_clauses(text, first=False) == [text]


def test_a_date_is_not_torn_apart() -> None:
    text = "Everything in that parcel should be there by the end of November 24, 2026 at the very latest."
    assert all(not clause.rstrip().endswith("24,") for clause in split_clauses(text))


@pytest.mark.parametrize(
    ("clause", "ends"),
    [("Sure. ", True), ('He said "stop." ', True), ("Well, ", False), ("a line\n", True), ("what?", True)],
)
def test_ends_sentence(clause: str, ends: bool) -> None:
    assert ends_sentence(clause) is ends
