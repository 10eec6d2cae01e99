"""Hypothesis strategies for conversations and for what goes wrong in them. Needs hypothesis, which is not installed
with the package.

    @given(plans())
    def test_my_session(plan): assert converse(plan).violations == ()
"""

from __future__ import annotations

from hypothesis import strategies as st

from trio_voice.testing.faults import FATAL_FAULTS, FAULT_KINDS, STREAM_FAULTS, Fault, FaultKind
from trio_voice.testing.people import ACTS, STATES, Action, Plan, PlannedFault

HARMLESS_FAULTS: tuple[FaultKind, ...] = tuple(
    kind for kind in FAULT_KINDS if kind not in FATAL_FAULTS and kind not in ("corrupt", "oversized")
)
"""What a conversation survives, and what does not take 25 MB."""

_seconds = st.integers(0, 300).map(lambda tenths: tenths / 10)


def stream_faults() -> st.SearchStrategy[Fault]:
    """A fault of a byte stream, at once, at a time or after some bytes."""
    return st.builds(
        Fault,
        kind=st.sampled_from(STREAM_FAULTS),
        at_s=st.none() | _seconds,
        after_bytes=st.none() | st.integers(0, 5000),
        duration_s=st.integers(0, 30).map(lambda tenths: tenths / 10),
        delay_s=st.integers(0, 10).map(lambda tenths: tenths / 10),
    )


def schedules(max_connections: int = 3) -> st.SearchStrategy[list[tuple[Fault, ...]]]:
    """What happens to the first connection, the second …: for `memory_server(schedule=…)`."""
    return st.lists(st.lists(stream_faults(), max_size=2).map(tuple), max_size=max_connections)


def actions() -> st.SearchStrategy[Action]:
    """Something that a person does."""
    lengths = st.integers(3, 20).map(lambda tenths: tenths / 10)
    pauses = st.integers(0, 60).map(lambda tenths: tenths / 10)
    return st.builds(Action, after_s=pauses, act=st.sampled_from(ACTS), length_s=lengths, pick=st.integers(0, 99))


def planned_faults(within_s: float = 30.0) -> st.SearchStrategy[PlannedFault]:
    """A fault that a conversation survives, in some state of it."""
    faults = st.builds(
        Fault,
        kind=st.sampled_from(HARMLESS_FAULTS),
        duration_s=st.integers(1, 30).map(lambda tenths: tenths / 10),
        delay_s=st.integers(0, 6).map(lambda tenths: tenths / 10),
    )
    # A fault of the first connection ends the session, as it must: the application has to see it.
    states = st.sampled_from([state for state in STATES if state != "connecting"])
    return st.builds(PlannedFault, st.integers(0, int(within_s)).map(float), states, faults)


def plans(*, max_actions: int = 6, max_faults: int = 3) -> st.SearchStrategy[Plan]:
    """A short conversation, for `converse`."""
    return st.builds(
        Plan,
        seed=st.integers(0, 2**32),
        minutes=st.just(0.5),
        actions=st.lists(actions(), max_size=max_actions).map(tuple),
        faults=st.lists(planned_faults(), max_size=max_faults).map(
            lambda faults: tuple(sorted(faults, key=lambda planned: planned.at_s))
        ),
        block_ms=st.sampled_from((20, 60, 100)),
        latency_ms=st.sampled_from((0, 40, 150)),
        prebuffer_ms=st.sampled_from((0, 100, 250)),
        clause_delay_ms=st.sampled_from((0, 40, 300)),
        think_ms=st.sampled_from((0, 200, 1500)),
        push_to_talk=st.booleans(),
        session_limit_s=st.sampled_from((3600.0, 60.0)),
        agents=st.sampled_from((1, 3)),
        guardrails=st.sampled_from(("", "refuse", "delete")),
        hosted=st.booleans(),
    )
