"""Every error a user of trio-voice may meet, each saying what to do."""

from __future__ import annotations


class TrioVoiceError(Exception):
    """The base of every error that this package raises on purpose."""


class ConfigError(TrioVoiceError):
    """A setting that cannot work, found before anything was sent or opened."""


class ToolSchemaError(ConfigError):
    """A function that cannot be offered as a tool: its types say nothing a model could be told."""


class ToolArgumentsError(TrioVoiceError):
    """The model called a tool with arguments that do not fit. The message is for the model, which is told it."""


class DeviceError(TrioVoiceError):
    """A microphone or loudspeaker is missing, or failed.

    `retryable` tells whether opening it again may help: an unplugged one yes, a format that no sound card takes no.
    """

    def __init__(self, reason: str, *, retryable: bool = True) -> None:
        super().__init__(reason)
        self.retryable = retryable


class WireLost(TrioVoiceError):
    """The connection to the server is gone, or was never made.

    `retryable` tells whether connecting again may help: a reset socket yes, a refused key no.
    """

    def __init__(self, reason: str, *, retryable: bool, close_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable
        self.close_code = close_code


class HistoryError(TrioVoiceError):
    """An item of the conversation that cannot be changed: there is none of that id, or it is still being said."""


class SessionEnded(TrioVoiceError):
    """The session is disconnected, so what was asked of it cannot happen any more."""


class EngineMissing(TrioVoiceError):
    """A part of the offline speech stack is not installed; the message says how to get it."""


class JournalError(TrioVoiceError):
    """A file that should be a journal and is none, or not whole; the message names the line."""


class McpServerError(TrioVoiceError):
    """An MCP server did not start, or could not do what it was called for."""


def cause_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in a group of one, however deep; else the group.

    A method that was waiting when the session broke has raised `SessionEnded`: that follows from the error that broke
    it, and would only hide it.
    """
    error: BaseException = group.split(SessionEnded)[1] or group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
