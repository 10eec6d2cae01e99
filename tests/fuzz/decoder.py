"""The decoder against frames that are nearly right. What must hold of every frame, whatever it is, is in `check`."""

from __future__ import annotations

import random
from collections import Counter

from fuzz.frames import Frame, any_frame
from trio_voice.protocol import RemoteProtocolError, UnknownEvent, decode_client_event, decode_server_event, encode
from trio_voice.protocol.codec import MAX_EXCERPT_CHARS
from trio_voice.protocol.history import History
from trio_voice.protocol.server_events import ServerEvent
from trio_voice.protocol.turns import REMEMBERED_TURNS, TurnNumbers

FORGET_AFTER = 500
"""Frames that go into one history."""


def check(frame: Frame, history: History, turns: TurnNumbers) -> str:
    """Decode `frame` and let the core take it in. Returns what became of it."""
    event = decode_server_event(frame)
    decode_client_event(frame)
    match event:
        case RemoteProtocolError():
            assert len(event.raw) <= MAX_EXCERPT_CHARS
            assert event.reason
            event.raw.encode()  # safe to log
            return "error"
        case UnknownEvent():
            assert event.raw == (frame if isinstance(frame, str) else frame.decode())
            return "unknown"
    assert isinstance(event, ServerEvent)
    text = encode(event)
    again = decode_server_event(text)
    assert isinstance(again, ServerEvent)
    assert encode(again) == text, "encoding is the inverse"
    turns.turn_of(event)
    history.apply(event)
    assert len(turns._turns) <= REMEMBERED_TURNS
    return "event"


def run(inputs: int, seed: int) -> Counter[str]:
    """Raises: what `check` raises, with a note that holds the frame."""
    rng, seen = random.Random(seed), Counter[str]()
    history, turns = History(), TurnNumbers()
    for number in range(inputs):
        if number % FORGET_AFTER == 0:
            history, turns = History(), TurnNumbers()
        frame = any_frame(rng)
        try:
            seen[check(frame, history, turns)] += 1
        except BaseException as error:
            error.add_note(f"input {number} of seed {seed}: {frame[:2000]!r}")
            raise
    return seen
