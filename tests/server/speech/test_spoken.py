from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_voice.server.speech.spoken import digit_words, number_words, ordinal_words, spoken_form, year_words

NUMBERS = st.integers(0, 10**14)
ENDINGS = st.sampled_from(["", "%", "st", "th", " pm", "a.m.", "p.m"])
FIGURES = st.lists(
    st.one_of(
        st.builds("{}{}{}".format, st.sampled_from(["A", "ORD", "COVID"]), st.sampled_from(["", "-"]), NUMBERS),
        st.builds("{}{}".format, st.sampled_from(["", "$", "€", "£", "-", "#"]), NUMBERS),
        st.builds("{}{}{}{}".format, NUMBERS, st.sampled_from(list(".,:/-")), NUMBERS, ENDINGS),
        st.sampled_from(["Nov 3", "the", "and", "a.m.", "(555) 123-4567", "+1 555-123-4567", "2026-11-24T09:30:00Z"]),
    ),
    max_size=6,
).map(" ".join)


@given(st.one_of(FIGURES, st.text(max_size=200)))
def test_no_digit_is_left(text: str) -> None:
    assert not any(character in "0123456789" for character in spoken_form(text))


@given(FIGURES)
def test_figures_are_never_silent(text: str) -> None:
    assert bool(spoken_form(text)) == bool(text)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Order ORD-12345.", "Order O R D, one two three four five."),
        ("555-1234", "five five five, one two three four"),
        ("+1 555-123-4567", "plus one, five five five, one two three, four five six seven"),
        ("(555) 123-4567", "five five five, one two three, four five six seven"),
        ("at 3:30 PM", "at three thirty P M"),
        ("at 9am", "at nine A M"),
        ("at 10:05", "at ten oh five"),
        ("at 9:00", "at nine o'clock"),
        ("at 15:00", "at fifteen hundred hours"),
        ("at 9 a.m. sharp", "at nine A M sharp"),
        ("on 2026-11-24", "on November twenty fourth, twenty twenty six"),
        ("on 11/24/2026", "on November twenty fourth, twenty twenty six"),
        ("2026-11-24T09:30:00", "November twenty fourth, twenty twenty six at nine thirty"),
        ("Nov. 3rd", "November third"),
        ("$49.99", "forty nine dollars and ninety nine cents"),
        ("£0.01", "one penny"),
        ("€1,200", "one thousand two hundred euros"),
        ("5% off", "five percent off"),
        ("-5 °C", "minus five degrees C"),
        ("10-15 days", "ten to fifteen days"),
        ("the 21st", "the twenty first"),
        ("3.14", "three point one four"),
        ("007", "zero zero seven"),
        ("1,234", "one thousand two hundred thirty four"),
        ("in 2019", "in twenty nineteen"),
        ("Mr. Lee & co", "Mister Lee and co"),
        ("**bold** `code` 🎉", "bold code"),
        ("see [our page](https://example.com/a1)", "see our page"),
        ("Wait — what…", "Wait, what."),
        ("2026-19-45", "two zero two six, one nine, four five"),
    ],
)
def test_as_a_person_reads_it(written: str, spoken: str) -> None:
    assert spoken_form(written) == spoken


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "zero"), (13, "thirteen"), (40, "forty"), (105, "one hundred five"), (2_000_001, "two million one")],
)
def test_number_words(value: int, words: str) -> None:
    assert number_words(value) == words


def test_ordinals_years_and_digits() -> None:
    assert [ordinal_words(n) for n in (1, 2, 12, 20, 33)] == [
        "first",
        "second",
        "twelfth",
        "twentieth",
        "thirty third",
    ]
    assert [year_words(y) for y in (1900, 1905, 2000, 2026)] == [
        "nineteen hundred",
        "nineteen oh five",
        "two thousand",
        "twenty twenty six",
    ]
    assert digit_words("1234567") == "one two three, four five six seven"
