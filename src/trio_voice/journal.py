"""The journal: every event of a session with its time, one JSON object a line, and the sound if that is wanted.

`write` keeps one beside a session, `read` gives its events back. The invariant: a line is handed to the operating
system whole and at once, so that a process that dies loses at most the line it was writing; and no key is in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import attrs
import msgspec
import trio

from trio_voice import events
from trio_voice.errors import JournalError
from trio_voice.events import EVENT_NAMES, PROTOCOL_EVENTS, SessionEvent
from trio_voice.protocol import RemoteProtocolError, UnknownEvent, wire_name

if TYPE_CHECKING:
    from trio_voice.session import RealtimeSession

FORMAT = 1
LONGEST_SILENCE_BYTES = 10_000_000
"""A line is about a piece of sound, a fraction of a second: a longer silence was not written by us."""
LIMIT_BYTES = 512 * 1024 * 1024
"""Four hours of a conversation with sound, or days of one without."""
SECRET_KEYS = frozenset({"authorization", "headers", "api_key", "client_secret", "password", "access_token"})
"""What stands under them in an event is not written: hosted tools are given keys of their own."""


@attrs.frozen(kw_only=True)
class Header:
    """The first line: what was talked to, and how to read the rest."""

    journal: int
    """The version of the format."""
    version: str
    """Of trio-voice."""
    began: str
    """The date at which `t` is 0, in UTC."""
    agent: str
    url: str
    """Without a query, which may hold a key."""
    model: str | None
    input_rate_hz: int
    """Of `audio_sent`."""
    speaker_rate_hz: int
    """Of `audio_played`."""


@attrs.frozen(eq=False)
class Journal:
    """A journal that was read. Times of its events are seconds from its beginning."""

    header: Header
    events: tuple[SessionEvent, ...]
    """Without those of the wire."""
    is_torn: bool = False
    """The last line is not whole: the process that wrote it died."""
    is_cut: bool = False
    """It was full before the session was over."""
    unknown: int = 0
    """Lines of kinds that this version does not know."""


async def write(
    session: RealtimeSession,
    path: Path,
    *,
    sound: bool = False,
    protocol: bool = True,
    limit_bytes: int = LIMIT_BYTES,
    wall_clock: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Write until the session ends. Start it with `await nursery.start(journal.write, session, path)` before the
    session is entered, and nothing is missed.

    `sound` keeps the microphone as it was sent and the loudspeaker as it played, which takes up to 8 MB a minute;
    `protocol` the events of the wire, but not the sound in them.
    When full: at `limit_bytes` it says so in a last line, and nothing more is written.
    Raises: `OSError` when it cannot be written.
    """
    stream = session.events(protocol=protocol, sound=sound)
    began_at = trio.current_time()
    with path.open("wb", buffering=0) as file:
        pen = _Pen(file, limit_bytes)
        pen.write(attrs.asdict(_header(session, wall_clock())))
        task_status.started()
        async for event in stream:
            pen.write(_row(event, began_at))


def read(path: str | Path) -> Journal:
    """What `write` has written.

    A last line that is not whole is passed over: the process that wrote it died.
    Raises: `JournalError` naming the line that is wrong, and `OSError` when it cannot be read.
    """
    with Path(path).open("rb") as file:
        reader = _Reader(str(path), _header_of(path, file.readline()))
        for number, line in enumerate(file, start=2):
            reader.take(number, line)
    return reader.journal()


# --- writing --------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Pen:
    file: IO[bytes]
    limit_bytes: int
    written_bytes: int = 0
    is_full: bool = False

    def write(self, row: dict[str, Any]) -> None:
        if self.is_full:
            return
        line = msgspec.json.encode(row, enc_hook=repr) + b"\n"
        if self.written_bytes + len(line) > self.limit_bytes:
            self.is_full = True
            line = msgspec.json.encode({"t": row.get("t", 0.0), "event": "journal_full"}) + b"\n"
        self.written_bytes += len(line)
        self.file.write(line)


def _header(session: RealtimeSession, now: float) -> Header:
    try:
        written_by = version("trio-voice")
    except PackageNotFoundError:  # run from a folder that was never installed
        written_by = "unknown"
    parts = urlsplit(session.connection.url)
    return Header(
        journal=FORMAT,
        version=written_by,
        began=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        agent=session.agent.name,
        url=urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")),
        model=session.connection.model,
        input_rate_hz=session.audio_input.sample_rate_hz,
        speaker_rate_hz=session.audio_output.device_format.rate_hz,
    )


def _row(event: SessionEvent, began_at: float) -> dict[str, Any]:
    row: dict[str, Any] = {"t": round(event.at - began_at, 6), "event": event.name}
    match event:
        case events.ServerEventReceived():
            row["server"] = _without_sound(_plain(event.event))
        case events.ClientEventSent():
            row["client"] = _without_sound(_plain(event.event))
        case events.AudioSent(captured_at=at, pcm=pcm):
            row |= {"captured_t": round(at - began_at, 6), **_sound(pcm)}
        case events.AudioPlayed(heard_at=at, pcm=pcm):
            row |= {"heard_t": round(at - began_at, 6), **_sound(pcm)}
        case _:
            fields = msgspec.structs.asdict(event)
            del fields["at"]  # as `t`
            if isinstance(event, events.HistoryChanged):
                fields["item"] = attrs.evolve(event.item, at=round(event.item.at - began_at, 6))
            row |= _without_sound(fields)
    return row


def _sound(pcm: bytes) -> dict[str, Any]:
    """Silence is most of what a loudspeaker takes: only how much."""
    return {"pcm": pcm} if pcm.strip(b"\0") else {"silent_bytes": len(pcm)}


def _plain(event: Any) -> Any:
    match event:
        case UnknownEvent():
            return {"type": event.type, "unknown": True}
        case RemoteProtocolError():
            return {"type": "protocol error", "reason": event.reason}
        case _:
            return {"type": wire_name(event), **msgspec.structs.asdict(event)}


def _without_sound(value: Any) -> Any:
    """As JSON can hold it: a piece of sound as its length, a secret as its place."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, msgspec.Struct):
        return _without_sound(msgspec.structs.asdict(value))
    if attrs.has(type(value)):
        return _without_sound(attrs.asdict(value))
    if isinstance(value, dict):
        return {
            key: "<secret>" if str(key).lower() in SECRET_KEYS and item else _without_sound(item)
            for key, item in value.items()
            if item is not msgspec.UNSET
        }
    if isinstance(value, list | tuple):
        return [_without_sound(item) for item in value]
    return value


# --- reading --------------------------------------------------------------------------------------


def _header_of(path: str | Path, line: bytes) -> Header:
    if not line.strip():
        raise JournalError(f"{path}: it is empty; `trio-voice talk --journal FILE` writes one")
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        row = None
    if not isinstance(row, dict) or "journal" not in row:
        raise JournalError(f"{path}, line 1: this is no journal of trio-voice; its first line would say so")
    if row["journal"] != FORMAT:
        raise JournalError(
            f"{path}, line 1: format {row['journal']!r}, and this version reads {FORMAT}; "
            f"read it with trio-voice {row.get('version', 'of its own time')}"
        )
    try:
        return msgspec.convert(row, Header)
    except msgspec.ValidationError as error:
        raise JournalError(f"{path}, line 1: the header does not fit: {error}") from None


@attrs.define(eq=False)
class _Reader:
    path: str
    header: Header
    events: list[SessionEvent] = attrs.Factory(list)
    is_torn: bool = False
    is_cut: bool = False
    unknown: int = 0

    def journal(self) -> Journal:
        return Journal(self.header, tuple(self.events), self.is_torn, self.is_cut, self.unknown)

    def take(self, number: int, line: bytes) -> None:
        if not line.endswith(b"\n"):  # the last one can have none
            self.is_torn = True
            return
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalError(f"{self.path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict) or not isinstance(row.get("event"), str) or "t" not in row:
            raise JournalError(f"{self.path}, line {number}: not an event, which has `t` and `event`")
        name = row["event"]
        kind = EVENT_NAMES.get(name)
        if name == "journal_full":
            self.is_cut = True
        elif kind is None:
            self.unknown += 1
        elif kind not in PROTOCOL_EVENTS:
            try:
                self.events.append(msgspec.convert(_fields(row), kind))
            except (msgspec.ValidationError, ValueError, TypeError) as error:
                raise JournalError(f"{self.path}, line {number}: no {name!r} event: {error}") from None


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """Of the event, with the names that it has in the code."""
    fields = {key: value for key, value in row.items() if key not in ("t", "event")}
    fields["at"] = row["t"]
    if row["event"] in ("audio_sent", "audio_played"):
        timed = "captured_" if row["event"] == "audio_sent" else "heard_"
        fields[f"{timed}at"] = fields.pop(f"{timed}t", None)
        if "silent_bytes" in fields:
            fields["pcm"] = bytes(min(int(fields.pop("silent_bytes")), LONGEST_SILENCE_BYTES))
    return fields
