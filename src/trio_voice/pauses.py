"""When the agent speaks by itself because time passes: into a silence, and while a tool keeps the user waiting.

Core ring: pure. The conversation says after each step how things stand, and asks at `deadline`. The invariant: what is
due is given once, and nothing is due while anybody speaks or something is on its way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:  # few agents have them
    from trio_voice.agent_settings import Filler, IdlePrompts


class IdleWatch(Struct, eq=False):
    """Tells a silence in which neither side says anything."""

    prompts: IdlePrompts | None
    prompted: int = 0
    """How often in a row."""
    since: float | None = None
    """When the silence began."""
    _told: bool = False

    @property
    def deadline(self) -> float:
        """When to ask `due`."""
        if self.prompts is None or self.since is None or self._told:
            return math.inf
        return self.since + self.prompts.after_ms / 1000

    def watch(self, now: float, *, silent: bool) -> None:
        """How things stand: whether anything is to be heard, or to be expected."""
        if not silent:
            self.since = None
        elif self.since is None:
            self.since = now

    def user_is_there(self) -> None:
        """Any word of the user: it begins anew."""
        self.since, self.prompted, self._told = None, 0, False

    def due(self, now: float) -> Literal["nothing", "prompt", "tell"]:
        """What is to be done now: break the silence, or tell the application that it was no use."""
        if self.prompts is None or now < self.deadline:
            return "nothing"
        if self.prompted >= self.prompts.at_most:
            self._told = True
            return "tell"
        self.prompted += 1
        self.since = now
        return "prompt"

    def unsaid(self) -> None:
        """The prompt was asked for, and not a word of it was heard."""
        self.prompted = max(0, self.prompted - 1)

    def silent_s(self, now: float) -> float:
        return now - self.since if self.since is not None else 0.0

    @property
    def phrase(self) -> str:
        """What is said at the prompt that was due."""
        assert self.prompts is not None
        return self.prompts.phrases[min(self.prompted, len(self.prompts.phrases)) - 1]


class FillerWatch(Struct, eq=False):
    """Tells a wait for a tool that has become long."""

    filler: Filler | None
    _running_since: float | None = None
    _quiet_since: float | None = None
    _said: bool = False
    _waits: int = 0

    @property
    def deadline(self) -> float:
        """When to ask `due`: the user has heard nothing for so long, and a tool runs."""
        if self.filler is None or self._said or self._running_since is None or self._quiet_since is None:
            return math.inf
        return max(self._running_since, self._quiet_since) + self.filler.after_ms / 1000

    def watch(self, now: float, *, running: bool, quiet: bool) -> None:
        """How things stand: whether a tool runs, and whether nothing is to be heard or on its way."""
        if not running:
            self._running_since, self._said = None, False
        elif self._running_since is None:
            self._running_since = now
        if not quiet:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now

    def due(self, now: float) -> str | None:
        """What is said now, once for each wait."""
        if self.filler is None or now < self.deadline:
            return None
        phrase = self.filler.phrases[self._waits % len(self.filler.phrases)]
        self._said = True
        self._waits += 1
        return phrase

    def unsaid(self) -> None:
        """It was asked for, and not a word of it was heard: it may be said again, if the wait goes on."""
        self._said = False
