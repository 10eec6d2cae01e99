"""What the server answers when a client asks for what cannot be: raised anywhere below, sent as `error`.

A refusal never ends the session. Codes and parameters are those of the real server where they are known.
"""

from __future__ import annotations

from trio_voice.errors import TrioVoiceError


class Refused(TrioVoiceError):
    """The client's event was not carried out; `code` and `param` go into the `error` event."""

    def __init__(self, message: str, *, code: str | None = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
