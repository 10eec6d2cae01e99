"""The session's side of a browser, in virtual time: what the page is sent, what is believed of what it says."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from trio.testing import MockClock

from trio_voice.audio import PCM16_24K
from trio_voice.devices.browser import AHEAD_MS, BrowserCall
from trio_voice.devices.remote_line import OUTBOUND_CAPACITY
from trio_voice.errors import DeviceError

BLOCK = 240


def sent(call: BrowserCall) -> list[Any]:
    """Everything on its way to the page: the length of each piece of sound, and each message."""
    found: list[Any] = []
    while True:
        try:
            item = call.outbound.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return found
        found.append(len(item) // 2 if isinstance(item, bytes) else json.loads(item))


def sound(count: int) -> bytes:
    return np.ones(count, np.int16).tobytes()


async def test_silence_is_not_sent_and_sound_a_little_ahead(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    speaks = False
    async with call.speaker.open(PCM16_24K, lambda count: sound(count) if speaks else bytes(2 * count)) as opened:
        await trio.sleep(1)
        assert sent(call) == [{"play": {"rate_hz": 24_000}}]
        assert opened.unheard_samples() == 0
        speaks = True
        await trio.sleep(0.011)
        assert sum(sent(call)) == AHEAD_MS * 24
        await trio.sleep(1)
        assert sent(call) == [], "it waits for the page, which has played nothing"
        call.received(json.dumps({"progress": {"run": 0, "played": BLOCK, "latency_ms": 0}}))
        assert opened.unheard_samples() == AHEAD_MS * 24 - BLOCK


async def test_what_the_page_says_of_before_a_flush_is_not_believed_after_it(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    async with call.speaker.open(PCM16_24K, sound) as opened:
        await trio.sleep(0.001)
        sent(call)
        opened.flush()  # type: ignore[attr-defined]  # this kind can be flushed
        assert opened.unheard_samples() == 0
        call.received(json.dumps({"progress": {"run": 0, "played": 1000}}))
        await trio.sleep(0.011)
        first, *rest = sent(call)
        assert first == {"flush": 1}
        assert sum(rest) == opened.unheard_samples() == AHEAD_MS * 24


async def test_the_output_latency_counts_as_unheard(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    async with call.speaker.open(PCM16_24K, sound) as opened:
        await trio.sleep(0.001)
        call.received(json.dumps({"progress": {"run": 0, "played": AHEAD_MS * 24, "latency_ms": 25}}))
        assert opened.unheard_samples() == 25 * 24


async def test_a_page_that_reads_nothing_is_given_up(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    for number in range(OUTBOUND_CAPACITY):
        call.tell({"number": number})
    assert not call.gone.is_set()
    call.tell({"number": -1})
    assert call.gone.is_set()
    assert "reads nothing" in call.reason


async def test_frames_come_through_and_others_are_refused(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    call.received(sound(480))  # nobody listens yet
    async with call.microphone.open(PCM16_24K, 20) as opened:
        call.received(sound(480))
        assert (await opened.receive()).pcm == sound(480)
        with pytest.raises(DeviceError, match="960 were asked for"):
            call.received(sound(100))
        call.hang_up("the page was closed")
        with pytest.raises(DeviceError, match="the page was closed"):
            await opened.receive()
    with pytest.raises(DeviceError, match="the page was closed"):
        async with call.microphone.open(PCM16_24K, 20):
            pass


@pytest.mark.parametrize("message", ["", "[]", '{"progress": 1}', '{"progress": {"run": 0}}'])
def test_what_no_page_of_ours_says_is_refused(message: str) -> None:
    with pytest.raises(DeviceError, match="none of its messages"):
        BrowserCall().received(message)


async def test_the_page_s_own_words_reach_the_application_the_newest_first_to_stay(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    for number in range(70):
        call.received(msgspec.json.encode({"number": number}).decode())
    assert (await call.messages.receive())["number"] == 70 - 64


async def test_a_browser_without_sound_ends_the_call_with_its_reason(autojump_clock: MockClock) -> None:
    call = BrowserCall()
    async with call.speaker.open(PCM16_24K, sound) as opened:
        call.received(json.dumps({"failed": "NotFoundError"}))
        assert "NotFoundError" in str(await opened.wait_failed())


def test_the_page_asks_the_browser_to_take_out_echo_and_noise() -> None:
    script = (resources.files("trio_voice.devices") / "page" / "voice.js").read_text(encoding="utf-8")
    assert "{ echoCancellation = true, noiseSuppression = true, autoGainControl = true } = {}" in script
    assert "getUserMedia({ audio: { channelCount: 1, ...this.processing } })" in script
