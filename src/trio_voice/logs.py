"""The one logger of the package: structlog, imported when the first session starts.

structlog takes as long to import as Trio does (it looks for rich and asyncio), so `import trio_voice` leaves it out.
"""

from __future__ import annotations

from typing import Any


class _Logger:
    """`log.info("turn.interrupted", turn=3)`: events are nouns in the past, with what identifies them as keys."""

    def __getattr__(self, method: str) -> Any:
        import structlog

        return getattr(structlog.get_logger("trio_voice"), method)


log = _Logger()


def prepare() -> None:
    """Import structlog now, when nobody is waiting for a sample."""
    import structlog  # noqa: F401
