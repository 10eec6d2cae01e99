"""The one logger of the package.

An application that has configured structlog gets every event its way. Otherwise they go to the standard library's
logger `trio_voice`, which says nothing below a warning and never writes to stdout: that belongs to the application.

structlog takes as long to import as Trio does (it looks for rich and asyncio), so `import trio_voice` leaves it out.
"""

from __future__ import annotations

import functools
from typing import Any


class _Logger:
    """`log.info("turn.interrupted", turn=3)`: events are nouns in the past, with what identifies them as keys."""

    def __getattr__(self, method: str) -> Any:
        import structlog

        logger = structlog.get_logger("trio_voice") if structlog.is_configured() else _standard_library()
        return getattr(logger, method)


@functools.cache
def _standard_library() -> Any:
    import logging

    import structlog

    return structlog.wrap_logger(
        logging.getLogger("trio_voice"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
    )


log = _Logger()


def prepare() -> None:
    """Import structlog now, when nobody is waiting for a sample."""
    import structlog  # noqa: F401 - for its effect: the next import finds it loaded
