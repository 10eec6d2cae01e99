"""What must hold of tools that the server itself calls, on an MCP server: asked for, approved, run and told of once.

Beside the other rules (`checks.py`), told of the same messages. The invariant: it only looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import attrs
import msgspec

_read = msgspec.json.Decoder(dict[str, Any]).decode


@attrs.define(eq=False)
class Request:
    """The server asks whether it may call."""

    connection: int
    number: int
    answers: list[bool] = attrs.Factory(list)
    """What it was told, on that connection."""


@attrs.define(eq=False)
class HostedRules:
    wrong: Callable[[str, str], None]
    approved: Collection[int]
    """Numbers of calls that were about to be approved."""
    requests: dict[str, Request] = attrs.Factory(dict)
    """By id."""
    decided: dict[str, bool] = attrs.Factory(dict)
    """By the id of a request: what the person said, and the session took for in time."""
    calls: dict[str, int] = attrs.Factory(dict)
    """By item id: the number of a call."""
    runs: Counter[int] = attrs.Factory(Counter)
    """By number."""

    @property
    def answers(self) -> int:
        return sum(len(request.answers) for request in self.requests.values())

    def asked(self, connection: int, request_id: str, arguments: str) -> None:
        """The server has asked."""
        self.requests.setdefault(request_id, Request(connection, _read(arguments)["number"]))

    def answered(self, connection: int, request_id: str, given: bool) -> None:
        """The server was told."""
        request = self.requests.get(request_id)
        if request is None or request.connection != connection:
            self.wrong("answered once", f"connection {connection} was told about {request_id}, which it had not asked")
            return
        request.answers.append(given)
        if len(request.answers) > 1:
            self.wrong("answered once", f"{request_id} was answered {len(request.answers)} times")
        if given and request.number not in self.approved:
            self.wrong("approved first", f"call {request.number} was let through, and nobody has approved it")

    def made(self, item_id: str, arguments: str) -> None:
        """There is an item of a call."""
        self.calls.setdefault(item_id, _read(arguments)["number"])

    def run(self, item_id: str) -> None:
        """A call begins."""
        number = self.calls.get(item_id, -1)
        self.runs[number] += 1
        if self.runs[number] > 1:
            self.wrong("tool once", f"the server has begun call {number} {self.runs[number]} times")

    def judge(self, connection: int) -> None:
        """What was decided has reached the server; where the connection was lost meanwhile, or not at all."""
        for request_id, given in self.decided.items():
            request = self.requests.get(request_id)
            answers = request.answers if request is not None else []
            if given not in answers and (request is None or request.connection == connection or answers):
                self.wrong("answered once", f"{request_id}: decided {given}, and the server was told {answers}")
