"""The row of the table of dialects that the local server plays: what it understands, and how it says things.

Between the connection and the wire; pure. The invariant: all behind it speaks the GA, and knows of no other shape.
"""

from __future__ import annotations

from trio_voice.dialects import Dialect
from trio_voice.protocol import beta, server_events as on
from trio_voice.protocol.client_events import ClientEvent
from trio_voice.protocol.codec import Undecodable, decode_client_event, encode, wire_name
from trio_voice.protocol.server_events import ServerEvent
from trio_voice.server.refusals import Refused


class PlayedDialect:
    """One connection's."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._words: dict[str, str] = {}

    def understood(self, event: ClientEvent, raw: str | bytes) -> tuple[ClientEvent | Undecodable, str | bytes]:
        """A client's event and its frame in the GA's shape; no event where it is none in this server's shape.

        Raises: `Refused` for what this server does not know.
        """
        if not self.dialect.takes(event):
            name = wire_name(event)
            raise Refused(f"Handling of the '{name}' event is not implemented.", code="unknown_event", param="type")
        if self.dialect.shape == "ga" or not isinstance(event, beta.REWRITTEN):
            return event, raw
        try:
            raw = self._in_ga(raw)
        except beta.UnknownParameter as unknown:
            message = f"Unknown parameter: '{unknown.name}'."
            raise Refused(message, code="unknown_parameter", param=unknown.name) from None
        return decode_client_event(raw), raw

    def _in_ga(self, raw: str | bytes) -> bytes:
        if self.dialect.shape == "lifted":
            return beta.lowered(raw)
        rates = self.dialect.input_rate_hz, self.dialect.output_rate_hz
        return beta.to_ga(raw, input_rate_hz=rates[0], output_rate_hz=rates[1])

    def frame(self, event: ServerEvent) -> str | None:
        """The text frame of an event; None where this server says nothing."""
        if isinstance(event, on.ResponseCreated) and not self.dialect.has("response_created"):
            return None
        if isinstance(event, on.ConversationItemTruncated) and not self.dialect.has("truncated"):
            return None
        if self.dialect.cumulative_transcripts and isinstance(event, on.ConversationItemInputAudioTranscriptionDelta):
            self._words[event.item_id] = words = self._words.get(event.item_id, "") + event.delta
            event = on.ConversationItemInputAudioTranscriptionUpdated(
                event_id=event.event_id, item_id=event.item_id, transcript=words
            )
        if self.dialect.shape != "beta":
            return encode(event)
        said = beta.server_event_from_ga(event, pcm_name=self.dialect.pcm_name)
        return None if said is None else encode(said)
