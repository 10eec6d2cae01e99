"""What whoever runs the server decides, as opposed to its clients (`session_settings.py`)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import attrs

from trio_voice.dialects import DIALECTS, Dialect, dialect_named
from trio_voice.server.client_secrets import ClientSecrets

DEFAULT_MODEL = "trio-voice-local"


def _positive(_: object, attribute: Any, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{attribute.name}={value} must be more than 0")


def _row(given: str | Dialect) -> Dialect:
    row = dialect_named(given)
    assert row is not None
    return row


@attrs.frozen
class ServerSettings:
    """Of all connections of a server."""

    api_key: str | None = attrs.field(default=None, repr=False)
    """Clients must show it; None: anyone may connect who can reach the port."""
    session_limit_s: float = attrs.field(default=3600.0, validator=_positive)
    """A session is ended after this long, as the real server does after an hour."""
    burst: float | None = attrs.field(default=None, validator=_positive)
    """How many times faster than real time sound is sent at most; None: as fast as the brain makes it."""
    wall_clock: Callable[[], float] = time.time
    """Only for `expires_at`, which is a date; every wait uses trio's clock."""
    rng: random.Random = attrs.Factory(random.Random)
    """Where ids come from."""
    max_connections: int = 64
    dialect: Dialect = attrs.field(default=DIALECTS["trio-voice"], converter=_row)
    """Which server it plays, by name or as a row: its shape, what it lacks, what it does not tell."""
    client_secrets: ClientSecrets = attrs.field(
        default=attrs.Factory(lambda self: ClientSecrets(self.wall_clock), takes_self=True), init=False, repr=False
    )
    """The ephemeral keys that it has given out."""
