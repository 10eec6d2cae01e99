"""The user's utterances, for as long as a lost connection could lose them.

Core ring: pure. A server keeps what was appended until it has become words; when the connection goes, so does that. So
what was sent is kept here as well: an utterance that was over, until its words are known, and the one under way. A new
connection is given the first as a message with its sound, the second as the beginning of what is said there.

The invariant: sound is given again at most once on each connection, and only as part of an utterance. What waited in
an outage is none: the uplink drops it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import Struct, field

from trio_voice.audio import AudioFormat

IDLE_MS = 2000
"""Kept while nobody is known to speak: a server says late that speech began, and names a moment before that."""
CARRIED_FOR_S = 5.0
"""An utterance under way outlives an outage of this length: after a longer one the user has begun anew."""


class SentAudio:
    """The newest of what was sent on one connection, by its place on the server's time line.

    That line begins with the connection and counts the milliseconds appended, as `audio_start_ms` does. Written by the
    uplink; the conversation reads it, and says from where on it is needed. When full (`capacity_ms`): the oldest goes.
    """

    def __init__(self, audio_format: AudioFormat, capacity_ms: int) -> None:
        self.is_needed = False
        """Keep up to the capacity; else only the last moments."""
        self.committed_ms = 0.0
        """Where the last utterance that we ended ourselves was over."""
        self.unconfirmed: list[tuple[float, float]] = []
        """Utterances that we ended and that the server has not confirmed, from and to."""
        self.capacity_bytes = audio_format.bytes_of_ms(capacity_ms)
        self._format = audio_format
        self._idle_bytes = min(self.capacity_bytes, audio_format.bytes_of_ms(IDLE_MS))
        self._chunks: deque[bytes] = deque()
        self._held_bytes = self._sent_bytes = 0

    @property
    def sent_ms(self) -> float:
        return self._format.ms_of_bytes(self._sent_bytes)

    def append(self, pcm: bytes) -> None:
        self._chunks.append(pcm)
        self._held_bytes += len(pcm)
        self._sent_bytes += len(pcm)
        limit = self.capacity_bytes if self.is_needed else self._idle_bytes
        while self._held_bytes > limit:
            self._held_bytes -= len(self._chunks.popleft())

    def commit(self) -> None:
        """We have ended the utterance here."""
        self.unconfirmed.append((self.committed_ms, self.sent_ms))
        self.committed_ms = self.sent_ms

    def between(self, start_ms: float, end_ms: float) -> bytes:
        """What was sent from `start_ms` to `end_ms`; empty where not all of it is held any more."""
        held_from = self._sent_bytes - self._held_bytes
        first, last = self._format.bytes_of_ms(start_ms), self._format.bytes_of_ms(end_ms)
        if first < held_from or last <= first:
            return b""
        return b"".join(self._chunks)[first - held_from : last - held_from]


class Utterances(Struct, eq=False):
    """Told by the conversation what the server says of the user's speech; asked when a connection is lost."""

    push_to_talk: bool
    """We end utterances ourselves: whatever is not committed is under way."""
    new_id: Callable[[str], str]
    """Makes ids of our own."""
    lost: int = 0
    """Utterances that a lost connection took with it: longer than what is kept, or before too long an outage."""
    _sent: SentAudio | None = None
    _began_ms: float | None = None
    _wordless: dict[str, bytes] = field(default_factory=dict)
    _carried: bytes = b""
    _lost_at: float = 0.0
    _committed_id: str = ""

    @property
    def wordless(self) -> Mapping[str, bytes]:
        """By item id: the sound of utterances that are over and whose words are not known, oldest first."""
        return MappingProxyType(self._wordless)

    def connect(self, sent: SentAudio) -> None:
        """From now on the server's time line is that of this connection."""
        self._sent, self._began_ms = sent, None
        sent.is_needed = self.push_to_talk

    def began(self, at_ms: float) -> None:
        """The server heards speech begin."""
        self._began_ms = at_ms
        if self._sent is not None:
            self._sent.is_needed = True

    def ended(self, item_id: str, at_ms: float) -> None:
        """The server heard it end; it will be the item `item_id`."""
        if self._sent is not None and self._began_ms is not None:
            self._keep(item_id, self._began_ms, at_ms)
            self._sent.is_needed = self.push_to_talk
        self._began_ms = None

    def committed(self, item_id: str) -> None:
        """The server has made a message of what was appended. Only what we ended ourselves is news, and only once."""
        if self._sent is not None and self._sent.unconfirmed and item_id != self._committed_id:
            self._committed_id = item_id
            self._keep(item_id, *self._sent.unconfirmed.pop(0))

    def refused(self) -> None:
        """The server did not take our commit."""
        if self._sent is not None and self._sent.unconfirmed:
            self._sent.unconfirmed.pop(0)

    def words_known(self, item_id: str) -> None:
        self._wordless.pop(item_id, None)

    def connection_lost(self, at: float) -> None:
        """Take stock. What we had ended and the server never spoke of gets an id of our own."""
        if self._sent is None:
            return
        self._lost_at = at
        while self._sent.unconfirmed:
            self._keep(self.new_id("utterance"), *self._sent.unconfirmed.pop(0))
        began_ms = self._sent.committed_ms if self.push_to_talk else self._began_ms
        if began_ms is not None and began_ms < self._sent.sent_ms:
            self._carried = self._sent.between(began_ms, self._sent.sent_ms)
            self.lost += not self._carried
        self._sent = self._began_ms = None

    def carry_on(self, at: float) -> bytes:
        """What had been said of the utterance under way; empty when that is too long ago, and when asked again."""
        carried, self._carried = self._carried, b""
        if carried and at - self._lost_at > CARRIED_FOR_S:
            self.lost += 1
            return b""
        if self._sent is not None and carried:
            self._sent.is_needed = True  # it is longer than the last moments, and may be lost again
        return carried

    def _keep(self, item_id: str, start_ms: float, end_ms: float) -> None:
        assert self._sent is not None
        pcm = self._sent.between(start_ms, end_ms)
        if not item_id or not pcm:
            self.lost += not pcm and end_ms > start_ms
            return
        self._wordless[item_id] = pcm
        while len(self._wordless) > 1 and sum(map(len, self._wordless.values())) > self._sent.capacity_bytes:
            del self._wordless[next(iter(self._wordless))]
