"""The watch over all events notices one that is not OpenAI's, on either side of a wire."""

from __future__ import annotations

import random

import pytest
from trio.testing import MockClock

from every_event import watched
from kit import call
from trio_voice import AudioInputConfig
from trio_voice.protocol import Item
from trio_voice.protocol.server_events import ConversationItemDone
from trio_voice.server import outbox
from trio_voice.server.scripted import ScriptedBrain


@pytest.mark.other_shapes("sent on purpose")
@pytest.mark.parametrize(("rate_hz", "is_refused"), [(24_000, False), (16_000, True)])
async def test_what_a_session_sends(rate_hz: int, is_refused: bool, autojump_clock: MockClock) -> None:
    with watched() as refusals:
        async with call(ScriptedBrain(), audio_input=AudioInputConfig(sample_rate_hz=rate_hz), listening=False):
            pass
    assert any("the session sent" in refusal and "session.update" in refusal for refusal in refusals) is is_refused


@pytest.mark.other_shapes("sent on purpose")
@pytest.mark.parametrize(("role", "is_refused"), [("user", False), ("ghost", True)])
def test_what_the_server_sends(role: str, is_refused: bool) -> None:
    box = outbox.Outbox(outbox.Ids(random.Random(1)))
    with watched() as refusals:
        box.emit(ConversationItemDone(item=Item(type="message", role=role, id="item_1", content=[])))
    assert any("the server sent" in refusal for refusal in refusals) is is_refused
