"""What becomes of the user's sound: buffer, turn detection, commits, recognition.

Between a connection's append, commit and clear events and its conversation. The invariant: each utterance
becomes one item, announced before it is committed and committed before anything answers it; an utterance in
which no word was recognised becomes an item too, but is not answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import trio
from msgspec.structs import replace

from trio_voice.protocol.items import ContentPart, Item, ReportedError
from trio_voice.protocol.responses import TranscriptionUsage
from trio_voice.protocol.server_events import (
    ConversationItemAdded,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionFailed,
    InputAudioBufferCleared,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    InputAudioBufferTimeoutTriggered,
)
from trio_voice.protocol.session_config import SessionConfig
from trio_voice.server.brain import Brain
from trio_voice.server.conversation_items import ConversationItems, Entry, Sound
from trio_voice.server.hearing import Hearing, Recognition
from trio_voice.server.input_audio import InputAudio
from trio_voice.server.outbox import Outbox
from trio_voice.server.refusals import Refused
from trio_voice.server.session_settings import (
    audio_format,
    audio_input,
    transcription,
    turn_detection,
    turn_rules,
)
from trio_voice.server.turn_detection import (
    IdleTimedOut,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    TurnDetection,
    TurnEvent,
)

if TYPE_CHECKING:
    from trio_voice.audio import Samples

MIN_COMMIT_MS = 100
MAX_HELD_MS = 900_000
"""Uncommitted sound of a client that commits by itself: a quarter of an hour, 43 MB at 24 kHz."""
WINDOWS_PER_CHECKPOINT = 16
"""About 3 ms of a neural detector's work between two chances for other tasks."""


class Answers(Protocol):
    """What the user's speech may cause: the connection."""

    @property
    def responding(self) -> bool: ...

    def respond(self) -> None: ...

    async def foresee(self, words: str) -> None: ...

    def interrupt(self) -> None: ...

    def report(self, refused: Refused) -> None: ...

    def report_failure(self, code: str, message: str) -> None: ...


class UserAudio:
    """The user's side of one connection."""

    def __init__(
        self,
        brain: Brain,
        outbox: Outbox,
        nursery: trio.Nursery,
        items: ConversationItems,
        session: SessionConfig,
        answers: Answers,
    ) -> None:
        self._outbox = outbox
        self._nursery = nursery
        self._items = items
        self._answers = answers
        self._session = session
        self._detector = brain.new_detector()
        self._hearing = Hearing(brain, nursery)
        self._input = InputAudio(audio_format(audio_input(session).format))
        self._turns: TurnDetection | None = None
        self._coming_item_id = ""
        """Of the utterance in progress."""
        self._unanswered = False
        """Words were heard that nobody answered, because the user went on speaking."""
        self._words_known: dict[str, trio.Event] = {}
        """By item, while its recognition is under way."""
        self.configure(session)

    def configure(self, session: SessionConfig) -> None:
        """Obey new settings. Another input format drops what was not committed: it cannot be spliced."""
        self._session = session
        wanted_format = audio_format(audio_input(session).format)
        detection = turn_detection(session)
        if wanted_format != self._input.format:
            self._input = InputAudio(wanted_format, self._input.received_ms)
            self._stop_watching()
        if detection is None:
            self._stop_watching()
        elif self._turns is None:
            self._detector.reset()
            self._turns = TurnDetection(turn_rules(detection), self._input.watch())
        else:
            self._turns.rules = turn_rules(detection)

    def _restart_turns(self) -> None:
        """What is left in the resampler is gone too, or the end of an old utterance would begin a new one."""
        if self._turns is not None:
            self._detector.reset()
            self._turns.restart(self._input.watch())

    def _stop_watching(self) -> None:
        self._turns = None
        self._input.unwatch()
        self._hearing.forget_guess()

    # --- what the client sends ----------------------------------------------------------------

    async def append(self, encoded: bytes) -> None:
        """Take sound in, and notice what it means. Raises: `Refused`."""
        if self._turns is None and self._input.held_ms > MAX_HELD_MS:
            raise Refused(
                f"The input audio buffer holds {MAX_HELD_MS // 60_000} minutes: commit or clear it.",
                code="input_audio_buffer_full",
                param="audio",
            )
        try:
            self._input.append(encoded)
        except ValueError as broken:
            raise Refused(f"Invalid 'audio': {broken}.", param="audio") from None
        if self._turns is None:
            return
        for count, window in enumerate(self._input.windows(), 1):
            if self._turns is None:
                return
            for event in self._turns.window(self._probability(window)):
                self._on_turn(event)
            if count % WINDOWS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        if self._turns is not None:
            self._input.drop_before(self._turns.needed_from_ms)

    def commit(self) -> None:
        """Make all that is held the user's message. Raises: `Refused` for less than 100 ms."""
        if self._input.held_ms < MIN_COMMIT_MS:
            raise Refused(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {self._input.held_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        item_id, self._coming_item_id = self._coming_item_id or self._new_id(), ""
        samples = self._input.between(0, self._input.received_ms)
        self._input.clear()
        self._restart_turns()
        self._hear(self._commit(item_id, samples), self._hearing.recognise(samples, self._input.rate_hz))

    def clear(self) -> None:
        """Forget all that is held, a begun utterance included."""
        self._input.clear()
        self._hearing.forget_guess()
        self._coming_item_id = ""
        self._restart_turns()
        self._outbox.emit(InputAudioBufferCleared())

    def sound_of(self, encoded: bytes) -> Sound:
        """Sound that came within an item, in the session's input format. Raises: `Refused`."""
        sound = InputAudio(self._input.format)
        try:
            sound.append(encoded)
        except ValueError as broken:
            raise Refused(f"Invalid audio: {broken}.", param="item.content") from None
        return Sound(sound.format, bytearray(sound.between(0, sound.received_ms).tobytes()))

    def recognise(self, entry: Entry, *, quietly: bool = False) -> None:
        """Find the words of an item that came with its sound; `quietly`: without events."""
        assert entry.sound is not None
        recognition = self._hearing.recognise(entry.sound.heard(), entry.sound.format.rate_hz)
        self._hear(entry, recognition, quietly=quietly)

    async def known(self, entries: Iterable[Entry]) -> None:
        """Wait until the words of all these are known, or known to be lost."""
        for entry in list(entries):
            words_known = self._words_known.get(entry.id)
            if words_known is not None:
                await words_known.wait()

    # --- what the agent does ----------------------------------------------------------------------

    def response_began(self) -> None:
        self._unanswered = False
        if self._turns is not None:
            self._turns.response_began()

    def response_ended(self, unplayed_ms: float) -> None:
        """From when it is played, the user is expected to speak. Time is the input's: it flows with it."""
        if self._turns is not None:
            self._turns.response_played_at(self._input.received_ms + unplayed_ms)

    # --- turns --------------------------------------------------------------------------------

    def _probability(self, window: Samples) -> float:
        try:
            return self._detector.probability(window)
        except Exception as failure:  # a brain is anyone's code: its failures must not end the session
            self._stop_watching()
            self._answers.report_failure(
                "turn_detection_failed", f"Turn detection failed and is off now, commit instead: {failure}"
            )
            return 0.0

    def _on_turn(self, event: TurnEvent) -> None:
        rate_hz = self._input.rate_hz
        match event:
            case SpeechStarted():
                self._coming_item_id = self._new_id()
                self._outbox.emit(
                    InputAudioBufferSpeechStarted(audio_start_ms=event.start_ms, item_id=self._coming_item_id)
                )
                if self._wants("interrupt_response"):
                    self._answers.interrupt()
            case SpeechPaused():
                samples = self._input.between(event.start_ms, event.end_ms)
                self._hearing.guess(samples, rate_hz, self._answers.foresee)
            case SpeechResumed():
                self._hearing.forget_guess()
            case SpeechStopped():
                item_id, self._coming_item_id = self._coming_item_id, ""
                self._outbox.emit(InputAudioBufferSpeechStopped(audio_end_ms=event.end_ms, item_id=item_id))
                samples = self._input.between(event.start_ms, event.end_ms)
                entry = self._commit(item_id, samples)
                recognition = self._hearing.recognise(samples, rate_hz, guessed=True)
                self._hear(entry, recognition, answer=self._wants("create_response"))
            case IdleTimedOut():
                item_id = self._new_id()
                self._outbox.emit(
                    InputAudioBufferTimeoutTriggered(
                        audio_start_ms=event.start_ms, audio_end_ms=event.end_ms, item_id=item_id
                    )
                )
                self._commit(item_id, self._input.between(event.start_ms, event.end_ms))
                self._answer()

    def _wants(self, setting: str) -> bool:
        detection = turn_detection(self._session)
        if detection is None or self._session.type == "transcription":
            return False
        return bool(getattr(detection, setting))

    def _commit(self, item_id: str, samples: Samples) -> Entry:
        part = ContentPart("input_audio", transcript=None)
        item = Item(type="message", id=item_id, status="completed", role="user", content=[part])
        entry = Entry(item, Sound(self._input.format, bytearray(samples.tobytes())))
        previous_id = self._items.add(entry)
        self._outbox.emit(InputAudioBufferCommitted(previous_item_id=previous_id, item_id=item_id))
        self._outbox.emit(ConversationItemAdded(previous_item_id=previous_id, item=item))
        self._outbox.emit(ConversationItemDone(previous_item_id=previous_id, item=item))
        return entry

    def _new_id(self) -> str:
        return self._outbox.ids.new("item")

    # --- words --------------------------------------------------------------------------------

    def _hear(self, entry: Entry, recognition: Recognition, *, answer: bool = False, quietly: bool = False) -> None:
        self._words_known[entry.id] = trio.Event()
        self._nursery.start_soon(self._hear_out, entry, recognition, answer, quietly)

    async def _hear_out(self, entry: Entry, recognition: Recognition, answer: bool, quietly: bool) -> None:
        await recognition.over.wait()
        entry.item = replace(entry.item, content=_with_words(entry.item, recognition.text))
        self._words_known.pop(entry.id).set()
        if answer and (recognition.text or self._unanswered):
            # The user may have begun again meanwhile: then both utterances are answered together, later.
            if self._turns is not None and self._turns.speaking:
                self._unanswered = True
            else:
                self._answer()
        if recognition.failure is not None:
            self._tell_failure(entry, recognition.failure)
        elif transcription(self._session) is not None and not quietly:
            self._tell_words(entry, recognition.text)

    def _answer(self) -> None:
        try:
            self._answers.respond()
        except Refused as refused:  # a response is under way and may not be interrupted
            self._answers.report(refused)

    def _tell_words(self, entry: Entry, text: str) -> None:
        for piece in _pieces(text):
            self._outbox.emit(
                ConversationItemInputAudioTranscriptionDelta(
                    item_id=entry.id,
                    content_index=0,
                    delta=piece,
                    obfuscation=self._outbox.ids.padding(piece),
                )
            )
        seconds = entry.sound.duration_ms / 1000 if entry.sound is not None else 0.0
        self._outbox.emit(
            ConversationItemInputAudioTranscriptionCompleted(
                item_id=entry.id,
                content_index=0,
                transcript=text,
                usage=TranscriptionUsage(type="duration", seconds=round(seconds, 3)),
            )
        )

    def _tell_failure(self, entry: Entry, failure: Exception) -> None:
        message = f"The words could not be recognised: {failure}"
        if transcription(self._session) is None:
            self._answers.report_failure("transcription_failed", message)
            return
        error = ReportedError(type="server_error", code="transcription_failed", message=message)
        self._outbox.emit(ConversationItemInputAudioTranscriptionFailed(item_id=entry.id, content_index=0, error=error))


def _with_words(item: Item, text: str) -> list[ContentPart]:
    return [replace(part, transcript=text) if part.type == "input_audio" else part for part in item.parts]


def _pieces(text: str) -> list[str]:
    """Words with the space before them, as the real server streams them."""
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)] if text else []
