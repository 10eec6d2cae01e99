from __future__ import annotations

import itertools
from xml.etree import ElementTree

import attrs
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from picture.told import STARTED_AT, barge_in
from trio_voice.picture.layout import LONGEST_ROW_S, PLOT_LEFT, PLOT_RIGHT, PLOT_WIDTH, rows_of
from trio_voice.picture.record import (
    AgentSpan,
    CallerSpan,
    ErrorMark,
    FalseAlarmSpan,
    Recording,
    ToolSpan,
    recording_of,
)
from trio_voice.picture.svg import text_width_px, wrapped
from trio_voice.picture.timeline import draw_timeline, key_figures

SVG = "{http://www.w3.org/2000/svg}"


def barge_in_recording() -> Recording:
    return recording_of(barge_in().events, started_at=STARTED_AT, ended_at=STARTED_AT + 10)


def drawn(recording: Recording) -> ElementTree.Element:
    return ElementTree.fromstring(draw_timeline(recording))


def with_tooltip(picture: ElementTree.Element, tag: str, beginning: str) -> list[ElementTree.Element]:
    return [mark for mark in picture.iter(SVG + tag) if (mark.findtext(SVG + "title") or "").startswith(beginning)]


def x_extent(rect: ElementTree.Element) -> tuple[float, float]:
    x = float(rect.attrib["x"])
    return x, x + float(rect.attrib["width"])


def texts(picture: ElementTree.Element) -> list[str]:
    return ["".join(mark.itertext()) for mark in picture.iter(SVG + "text")]


def shown(picture: ElementTree.Element) -> str:
    """All that can be read without pointing at anything."""
    return " ".join((next(iter(mark)).tail if len(mark) else mark.text) or "" for mark in picture.iter(SVG + "text"))


def test_spans_stand_where_their_time_is() -> None:
    picture = drawn(barge_in_recording())
    (row,) = rows_of(barge_in_recording())
    (question, _) = with_tooltip(picture, "rect", "Caller, ")
    (answer, _) = with_tooltip(picture, "rect", "Agent, ")
    (ghost,) = with_tooltip(picture, "rect", "Discarded")
    per_s = PLOT_WIDTH / 10
    assert row.px_per_s == pytest.approx(per_s)
    assert x_extent(question) == pytest.approx((PLOT_LEFT + 1.0 * per_s, PLOT_LEFT + 2.5 * per_s), abs=0.2)
    assert x_extent(answer) == pytest.approx((PLOT_LEFT + 3.5 * per_s, PLOT_LEFT + 5.5 * per_s), abs=0.2)
    assert x_extent(ghost) == pytest.approx((PLOT_LEFT + 5.5 * per_s, PLOT_LEFT + 7.5 * per_s), abs=0.2), (
        "until the agent speaks again"
    )
    assert ghost.attrib["fill"] == "url(#hatch)"


def test_latency_and_interruption_are_said_in_words() -> None:
    words = shown(drawn(barge_in_recording()))
    assert "1000 ms" in words
    assert "caller interrupts: agent silent, 2000 ms heard" in words
    assert "2 caller turns · 1 interruption · mean latency 1000 ms · 0 tool calls" in words


def test_the_line_of_an_interruption_stands_at_its_moment() -> None:
    lines = [line for line in drawn(barge_in_recording()).iter(SVG + "line") if line.attrib.get("stroke-width") == "2"]
    cuts = [line for line in lines if line.attrib["y1"] < line.attrib["y2"] and "pattern" not in line.tag]
    x = PLOT_LEFT + 5.5 * PLOT_WIDTH / 10
    assert any(float(line.attrib["x1"]) == pytest.approx(x, abs=0.1) for line in cuts)


def test_hostile_words_stay_words() -> None:
    hostile = '</text><script>alert(1)</script> & "q" \x00\x1b[31m ]]> \ud800 \uffff'
    recording = Recording(
        duration_s=9,
        caller=(CallerSpan(0, 8, hostile),),
        agent=(AgentSpan(1, 8, 9, hostile, False),),
        tools=(ToolSpan("c", hostile, 1, 2, hostile, hostile),),
        errors=(ErrorMark(3, hostile, "server"),),
    )
    picture = ElementTree.fromstring(draw_timeline(recording, title=hostile))
    assert not list(picture.iter(SVG + "script"))
    assert any("<script>" in text for text in texts(picture))


@settings(max_examples=40)
@given(st.text(), st.text(), st.floats(0, 100), st.floats(0, 100))
def test_any_words_at_any_time_make_well_formed_xml_that_utf8_can_hold(
    words: str, title: str, start: float, length: float
) -> None:
    recording = Recording(
        duration_s=100,
        caller=(CallerSpan(start, start + length, words),),
        tools=(ToolSpan("c", words, start, start + length, words, words),),
    )
    ElementTree.fromstring(draw_timeline(recording, title=title).encode())


@pytest.mark.parametrize("duration_s", [0.0, 0.01, 400.0])
def test_an_empty_conversation_is_a_picture_too(duration_s: float) -> None:
    picture = drawn(Recording(duration_s=duration_s))
    assert f"{duration_s:.1f} s · 0 caller turns" in shown(picture)


def test_no_sound_is_drawn_where_none_was_played_and_all_of_it_where_it_was() -> None:
    pcm = np.zeros(80_000, np.int16)
    pcm[28_000:44_000] = 12_000  # 3.5 s to 5.5 s
    recording = attrs.evolve(barge_in_recording(), agent_pcm=pcm, rate_hz=8000)
    (wave,) = drawn(recording).iter(SVG + "path")
    xs = [float(bar.split()[0]) for bar in wave.attrib["d"].split("M")[1:]]
    per_s = PLOT_WIDTH / 10
    assert min(xs) == pytest.approx(PLOT_LEFT + 3.5 * per_s, abs=3)
    assert max(xs) == pytest.approx(PLOT_LEFT + 5.5 * per_s, abs=3)
    assert len(xs) == pytest.approx(2 * per_s / 3, abs=2)


def talk(duration_s: int) -> Recording:
    """Six seconds of talk, two of quiet, over and over."""
    caller = tuple(CallerSpan(start, start + 6, "word " * 20) for start in range(0, duration_s, 8))
    return Recording(duration_s=duration_s, caller=caller)


def test_a_long_conversation_is_broken_into_rows_in_its_pauses() -> None:
    recording = talk(88)
    rows = rows_of(recording)
    assert len(rows) >= 3
    assert {row.px_per_s for row in rows} == {rows[0].px_per_s}
    for row, following in itertools.pairwise(rows):
        assert row.end_s == following.start_s
        assert not any(span.start_s < row.end_s < span.end_s for span in recording.caller)


@settings(max_examples=60)
@given(
    st.floats(0, 500),
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 60)), max_size=12),
)
def test_rows_hold_every_moment_once_and_are_never_too_long(
    duration_s: float, spoken: list[tuple[float, float]]
) -> None:
    caller = tuple(CallerSpan(start, start + length, "") for start, length in spoken)
    rows = rows_of(Recording(duration_s=duration_s, caller=caller))
    assert rows[0].start_s == 0
    assert rows[-1].end_s >= duration_s
    for row, following in itertools.pairwise(rows):
        assert row.end_s == following.start_s
    for row in rows:
        assert 0 < row.end_s - row.start_s <= LONGEST_ROW_S + 1
        assert row.x(row.end_s) <= PLOT_RIGHT + 0.1


def test_a_speech_longer_than_a_row_goes_on_in_the_next_with_its_words_shared_out() -> None:
    words = " ".join(f"w{index}" for index in range(40))
    picture = drawn(Recording(duration_s=50, caller=(CallerSpan(1, 49, words),)))
    blocks = with_tooltip(picture, "rect", "Caller, ")
    assert len(blocks) == 2
    read = [word for word in shown(picture).split() if word.startswith("w") and word[1:].isdigit()]
    assert read == words.split()


def test_captions_of_a_lane_do_not_overlap() -> None:
    recording = Recording(
        duration_s=12, caller=tuple(CallerSpan(start, start + 0.9, f"some longer words {start}") for start in range(12))
    )
    said = [mark for mark in drawn(recording).iter(SVG + "text") if "said" in mark.attrib["class"]]
    by_line: dict[str, list[tuple[float, float]]] = {}
    for mark in said:
        left, text = float(mark.attrib["x"]), next(iter(mark)).tail or ""
        by_line.setdefault(mark.attrib["y"], []).append((left, left + text_width_px(text, 11)))
    assert said
    for extents in by_line.values():
        ordered = sorted(extents)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(ordered))


@settings(max_examples=100)
@given(st.text(alphabet="abc mw W\n", max_size=80), st.floats(25, 300), st.integers(1, 4))
def test_wrapped_lines_fit_and_lose_words_only_to_an_ellipsis(text: str, width_px: float, max_lines: int) -> None:
    lines = wrapped(text, width_px, 11, max_lines=max_lines)
    assert len(lines) <= max_lines
    assert all(text_width_px(line, 11) <= width_px for line in lines)
    if lines and not lines[-1].endswith("…"):
        assert " ".join(lines).split() == text.split()


def test_key_figures_count_errors_only_where_there_are_any() -> None:
    assert key_figures(Recording(duration_s=1)) == "1.0 s · 0 caller turns · 0 interruptions · 0 tool calls"
    assert key_figures(Recording(duration_s=1, errors=(ErrorMark(0, "x", "server"),))).endswith("· 1 error")


def test_a_false_alarm_is_seen_and_counted() -> None:
    recording = attrs.evolve(barge_in_recording(), false_alarms=(FalseAlarmSpan(4.0, 4.3),))
    picture = drawn(recording)
    (alarm,) = with_tooltip(picture, "rect", "False alarm")
    (row,) = rows_of(recording)
    assert x_extent(alarm) == pytest.approx((row.x(4.0), row.x(4.3)), abs=0.2)
    assert "1 false alarm" in key_figures(recording)
    assert "false alarm" in shown(picture)
    assert "false alarm" not in shown(drawn(barge_in_recording()))
