"""Which tools were called, which have answered, and whether the user has been told. Core ring: pure.

The invariant: a call id is begun at most once, whatever the server repeats, and a result, once there, is kept, so
that it can be delivered on another connection than the one that asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, field

REMEMBERED_CALLS = 256
"""Of those whose results are not kept any more. A server that repeats an older one has it run again."""


class ToolLedger(Struct, eq=False):
    """By call id: the result, or None while the tool runs."""

    owed: set[str] = field(default_factory=set)
    """What the model was told, and no response has been asked for that could tell the user: ids of calls, and of
    messages with the results of background tools."""
    _arrived: set[str] = field(default_factory=set)
    """Of what is owed: the server has said that it has it."""
    _results: dict[str, str | None] = field(default_factory=dict)
    _in_background: set[str] = field(default_factory=set)
    _forgotten: set[str] = field(default_factory=set)
    _spent: dict[str, None] = field(default_factory=dict)
    """Calls of which no more is kept than this, the newest last."""

    def begin(self, call_id: str) -> bool:
        """Whether this call is new; if it is not, it must not be run."""
        if call_id in self._results or call_id in self._spent:
            return False
        self._results[call_id] = None
        return True

    def finish(self, call_id: str, output: str) -> bool:
        """Record a result. False if there was one already, or no such call: then it must not be delivered."""
        if self._results.get(call_id, "") is not None:
            return False
        self._results[call_id] = output
        return True

    def amend(self, call_id: str, output: str) -> None:
        """More is known of a result that there was already."""
        if self._results.get(call_id) is not None:
            self._results[call_id] = output

    def to_background(self, call_id: str, output: str) -> bool:
        """Record that the model was told `output`, and that the result itself comes later."""
        if not self.finish(call_id, output):
            return False
        self._in_background.add(call_id)
        return True

    def finish_later(self, call_id: str) -> bool:
        """Whether this is the one result of a call in the background."""
        if call_id not in self._in_background:
            return False
        self._in_background.remove(call_id)
        return True

    def is_open(self, call_id: str) -> bool:
        """Whether a result of it has still to come."""
        return self._results.get(call_id, "") is None or call_id in self._in_background

    def arrived(self, told: str) -> None:
        """The server has it: a response that begins from here on knows it, whoever asked for that response."""
        if told in self.owed:
            self._arrived.add(told)

    def response_began(self) -> None:
        """What the server had by now is being told the user."""
        self.owed -= self._arrived
        self._arrived.clear()

    def response_asked(self) -> None:
        """A request goes out behind all that is owed."""
        self.owed.clear()
        self._arrived.clear()

    def forget(self, call_id: str) -> None:
        """The call was taken out of the conversation: if it runs, it runs on, and the model is not told its result."""
        self.owed.discard(call_id)
        if self.is_open(call_id):
            self._forgotten.add(call_id)

    def spend(self, call_id: str) -> None:
        """Nothing will come of the call any more, and nobody asks for its result: what is kept is that it was made."""
        self._results.pop(call_id, None)
        self._forgotten.discard(call_id)
        self._spent[call_id] = None
        if len(self._spent) > REMEMBERED_CALLS:
            del self._spent[next(iter(self._spent))]

    def is_forgotten(self, call_id: str) -> bool:
        return call_id in self._forgotten

    @property
    def running(self) -> bool:
        """Whether any tool has still to answer; those in the background have."""
        return any(call_id not in self._forgotten for call_id, result in self._results.items() if result is None)

    @property
    def results(self) -> Mapping[str, str | None]:
        return MappingProxyType(self._results)
