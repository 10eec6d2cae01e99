"""An agent with its ears, its mouth and its server: everything that a conversation needs, ready to be begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from trio_voice.agent import RealtimeAgent
from trio_voice.config import AudioInputConfig, AudioOutputConfig, ConnectionOptions
from trio_voice.session import RealtimeSession

if TYPE_CHECKING:
    from trio_voice.devices import Microphone, Speaker


@attrs.frozen
class VoiceAgent:
    """A recipe for sessions. Each `session()` is a new conversation; `talk()` holds one from beginning to end."""

    agent: RealtimeAgent
    connection: ConnectionOptions = attrs.Factory(ConnectionOptions)
    microphone: Microphone | None = None
    speaker: Speaker | None = None
    audio_input: AudioInputConfig = attrs.Factory(AudioInputConfig)
    audio_output: AudioOutputConfig = attrs.Factory(AudioOutputConfig)

    def session(self, *, metadata: dict[str, Any] | None = None) -> RealtimeSession:
        """A session, not yet entered."""
        return RealtimeSession(
            self.agent,
            connection=self.connection,
            microphone=self.microphone,
            speaker=self.speaker,
            audio_input=self.audio_input,
            audio_output=self.audio_output,
            metadata=metadata,
        )

    async def talk(self) -> None:
        """Listen and answer until cancelled, or until the connection is lost for good.

        Raises: what a session raises.
        """
        async with self.session() as session:
            await session.start_listening()
            async for _ in session.events():
                pass
