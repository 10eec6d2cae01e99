"""Every event of every test is validated (`every_event.py`); and the profiles of the property tests.

Without a profile the examples are the same in each run, so that a failure is somebody's change and not the draw.
`pytest --hypothesis-profile long` draws others each time and looks thirty times harder; `hundred-thousand` is for one
test at a time, without a limit of time: `--timeout 0`.
"""

from __future__ import annotations

import signal

from hypothesis import Phase, settings

from every_event import every_event_is_valid as every_event_is_valid

FINDING = (Phase.explicit, Phase.reuse, Phase.generate)
"""To see that something fails. To shrink a conversation that hangs takes longer than a test may."""
SHRINKING = (*FINDING, Phase.shrink)
"""Without `explain`, which traces every line and makes a conversation ten times slower."""

settings.register_profile("ci", deadline=None, max_examples=30, phases=FINDING, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000, phases=SHRINKING)
settings.register_profile("hundred-thousand", deadline=None, max_examples=100_000, phases=SHRINKING, database=None)
settings.register_profile("mutants", deadline=None, max_examples=60, phases=FINDING)
settings.load_profile("ci")

# A shell lets what it runs in the background ignore Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
