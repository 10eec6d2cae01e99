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
    _forgotten: set[str] = attrs.Factory(set)

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

    def forget(self, call_id: str) -> None:
        """The call was taken out of the conversation: if it runs, it runs on, and the model is not told its result."""
        if self._results.get(call_id, "") is None:
            self._forgotten.add(call_id)

    def is_forgotten(self, call_id: str) -> bool:
        return call_id in self._forgotten

    @property
    def running(self) -> bool:
        """Whether any tool has still to answer."""
        return any(call_id not in self._forgotten for call_id, result in self._results.items() if result is None)

    @property
    def results(self) -> Mapping[str, str | None]:
        return MappingProxyType(self._results)
