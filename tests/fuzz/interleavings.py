"""The property of the playback buffer, with as many examples as are asked for."""

from __future__ import annotations

from hypothesis import Phase, given, seed, settings, strategies as st

from playback_model import Checked, Operation, operations


def run(examples: int, start: int) -> int:
    """Raises: what is wrong, with the shortest plan that shows it. Returns how many operations were tried."""
    tried = 0

    @seed(start)
    @settings(deadline=None, max_examples=examples, database=None, phases=(Phase.generate, Phase.shrink))
    @given(operations, st.sampled_from([0, 5]))
    def nothing_stale_nothing_lost(plan: list[Operation], fade_ms: int) -> None:
        nonlocal tried
        checked = Checked(fade_ms)
        for operation in plan:
            checked.apply(operation)
            tried += 1
        checked.check_statistics()
        checked.play_out()

    nothing_stale_nothing_lost()
    return tried
