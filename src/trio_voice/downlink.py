"""The downlink actor: wire → typed events; never waits on a consumer.

trio-websocket answers pings in the task that also delivers messages, so a downlink that waited would look to the
peer like a dead client. Sound goes straight to playback, tagged with its turn; the turn floor over there makes the
order of the two senders irrelevant. It also goes straight to the application while nothing is interrupted; everything
else, and sound whenever there is a doubt, goes to the conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from trio_voice.channels import EventFanOut, FromServer, InboxItem, Play, PlaybackItem, offer
from trio_voice.errors import WireLost
from trio_voice.output_rate import OutputRate
from trio_voice.protocol import (
    ErrorEvent,
    InputAudioBufferSpeechStarted,
    RemoteProtocolError,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ServerEvent,
    SessionConfig,
    SessionUpdated,
    UnknownEvent,
    decode_server_event,
)
from trio_voice.protocol.server_events import ConversationCreated
from trio_voice.protocol.turns import TurnNumbers

if TYPE_CHECKING:
    from trio_voice.wire import Wire


REFUSALS = {"model_load_error", "invalid_pipeline", "beta_api_shape_disabled"}
"""Errors in place of `session.created`, after which nothing comes (LocalAI, and OpenAI's end of the beta)."""


SOUND = (ResponseOutputAudioDelta, ResponseOutputAudioDone)


PASSES_OF_AN_INTERRUPTION = 6
"""Of the scheduler, until the application has heard of it: to the conversation, to playback, back, to the listener. So
long the sound that came behind it can wait: to decode each piece of it takes longer than all of those."""


class Configuration(Struct, eq=False):
    """What the server has said of the session on one connection."""

    taken: trio.Event = field(default_factory=trio.Event)
    """It has accepted our settings."""
    expires_at: float | None = None
    """When it will end the session, in Unix seconds."""
    conversation_id: str = ""
    """By which it knows the conversation; empty while it has not said."""

    def take(self, session: SessionConfig) -> None:
        if session.expires_at:
            self.expires_at = float(session.expires_at)
        self.taken.set()


async def run(
    wire: Wire,
    epoch: int,
    inbox: trio.MemorySendChannel[InboxItem],
    playback: trio.MemorySendChannel[PlaybackItem] | None,
    *,
    turns: TurnNumbers,
    fan_out: EventFanOut,
    configuration: Configuration,
    output_rate_hz: int = 24_000,
) -> None:
    """Receive until the wire is lost. `configuration` notes what the server says of the session; sound is passed on at
    `output_rate_hz`.

    Raises: `WireLost`, always: there is no other end than cancellation.
    Closes: its sending ends.
    """
    rate = OutputRate(output_rate_hz)

    def take(event: ServerEvent | UnknownEvent | RemoteProtocolError) -> None:
        if isinstance(event, SOUND) and (rate.is_converting or getattr(event, "sample_rate_hz", None)):
            for fitted in rate.fitted(event):
                pass_on(fitted)
        else:
            pass_on(event)

    def pass_on(event: ServerEvent | UnknownEvent | RemoteProtocolError) -> None:
        turn = turns.turn_of(event, epoch)
        if isinstance(event, ResponseOutputAudioDelta) and turn is not None:
            if playback is not None:
                offer(playback, Play(turn, event.item_id, event.content_index, event.delta))
            # A conversation that waits has dealt with all that came before, so the order stays.
            waits = inbox.statistics().tasks_waiting_receive > 0
            if waits and fan_out.pass_by(turn, event.item_id, event.delta):
                return
        elif isinstance(event, SessionUpdated):
            configuration.take(event.session)
        elif isinstance(event, ConversationCreated):
            configuration.conversation_id = event.conversation.id or ""
        elif isinstance(event, ErrorEvent) and event.error.code in REFUSALS and not configuration.taken.is_set():
            raise WireLost(f"the server cannot hold this session: {event.error.message}", retryable=False)
        offer(inbox, FromServer(epoch, turn, event))

    async def take_next() -> None:
        event = decode_server_event(await wire.receive())
        take(event)
        if isinstance(event, InputAudioBufferSpeechStarted):
            for _ in range(PASSES_OF_AN_INTERRUPTION):
                await trio.lowlevel.checkpoint()

    with inbox:
        try:
            while True:
                await take_next()  # in a frame of its own, which keeps no piece of sound while nothing comes
        except trio.WouldBlock:
            raise WireLost(
                "the server's events came faster than they could be taken for too long; "
                "does the application block the event loop?",
                retryable=True,
            ) from None
        finally:
            if playback is not None:
                playback.close()
