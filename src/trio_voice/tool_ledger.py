"""Which tools were called, which have answered, and whether the user has been told. Core ring: pure.

The invariant: a call id is begun at most once, whatever the server repeats, and a result, once there, is kept, so
that it can be delivered on another connection than the one that asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs


@attrs.define(eq=False)
class ToolLedger:
    """By call id: the result, or None while the tool runs."""

    answer_owed: bool = False
    """A tool has answered, and no response has begun since that could tell the user."""
    _results: dict[str, str | None] = attrs.Factory(dict)

    def begin(self, call_id: str) -> bool:
        """Whether this call is new; if it is not, it must not be run."""
        if call_id in self._results:
            return False
        self._results[call_id] = None
        return True

    def finish(self, call_id: str, output: str) -> bool:
        """Record a result. False if there was one already, or no such call: then it must not be delivered."""
        if self._results.get(call_id, "") is not None:
            return False
        self._results[call_id] = output
        return True

    @property
    def running(self) -> bool:
        """Whether any tool has still to answer."""
        return None in self._results.values()

    @property
    def results(self) -> Mapping[str, str | None]:
        return MappingProxyType(self._results)
