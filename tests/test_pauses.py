"""When a silence is broken and a wait bridged: the two watches alone, by a clock that is told."""

from __future__ import annotations

import math

from hypothesis import given, strategies as st

from trio_voice.agent_settings import Filler, IdlePrompts
from trio_voice.pauses import FillerWatch, IdleWatch


def test_a_silence_is_broken_so_often_and_then_told_once() -> None:
    watch = IdleWatch(IdlePrompts(after_ms=1000, phrases=("Hello?", "Are you there?"), at_most=3))
    said: list[object] = []
    now = 0.0
    for _ in range(8):
        watch.watch(now, silent=True)
        now = min(watch.deadline, now + 60)
        due = watch.due(now)
        said.append(watch.phrase if due == "prompt" else due)
    assert said == ["Hello?", "Are you there?", "Are you there?", "tell", "nothing", "nothing", "nothing", "nothing"]
    assert watch.deadline == math.inf
    watch.user_is_there()
    watch.watch(now, silent=True)
    assert watch.due(now + 1) == "prompt"
    assert watch.phrase == "Hello?", "it begins anew"


steps = st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["silent", "sound", "user"])), max_size=40)


@given(steps=steps, at_most=st.integers(0, 3), after_ms=st.integers(500, 2000))
def test_nothing_is_due_before_its_time_nor_oftener_than_told(
    steps: list[tuple[float, str]], at_most: int, after_ms: int
) -> None:
    watch = IdleWatch(IdlePrompts(after_ms=after_ms, at_most=at_most))
    now, silent_since, in_a_row, told = 0.0, math.inf, 0, 0
    for passed_s, what in steps:
        now += passed_s
        due = watch.due(now)
        if due != "nothing":
            assert now - silent_since >= after_ms / 1000 - 1e-9
            silent_since = now if due == "prompt" else silent_since
            in_a_row += due == "prompt"
            told += due == "tell"
            assert in_a_row <= at_most
            assert told <= 1
        if what == "user":
            watch.user_is_there()
            in_a_row = told = 0
        watch.watch(now, silent=what == "silent")
        silent_since = min(silent_since, now) if what == "silent" else math.inf
        if what == "user":
            silent_since = math.inf


def test_a_wait_is_bridged_once_each_with_another_phrase() -> None:
    watch = FillerWatch(Filler(after_ms=1500, phrases=("One moment.", "Still looking.")))
    said = []
    for begins_at in (0.0, 100.0, 200.0):
        watch.watch(begins_at, running=True, quiet=True)
        assert watch.due(begins_at + 1.4) is None
        said.append(watch.due(begins_at + 1.5))
        assert watch.due(begins_at + 50) is None
        watch.watch(begins_at + 60, running=False, quiet=True)
        assert watch.due(begins_at + 70) is None
    assert said == ["One moment.", "Still looking.", "One moment."]


def test_the_wait_counts_from_the_last_sound() -> None:
    watch = FillerWatch(Filler(after_ms=1500))
    watch.watch(0.0, running=True, quiet=False)
    assert watch.deadline == math.inf, "the agent is still speaking"
    watch.watch(4.0, running=True, quiet=True)
    assert watch.deadline == 5.5


def test_without_settings_nothing_is_ever_due() -> None:
    idle, filler = IdleWatch(None), FillerWatch(None)
    idle.watch(0.0, silent=True)
    filler.watch(0.0, running=True, quiet=True)
    assert (idle.deadline, filler.deadline) == (math.inf, math.inf)
    assert (idle.due(1e9), filler.due(1e9)) == ("nothing", None)
