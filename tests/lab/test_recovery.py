"""Devices that really fail: a sound server that is killed and started again, a sink that is suspended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import numpy as np
import pytest
import trio

from trio_voice import capture, playback
from trio_voice.audio import PCM16_24K, AudioFormat, Frame
from trio_voice.channels import DropOldest, EndTurn, InboxItem, Interrupt, Interrupted, Play, PlaybackItem, TurnPlayed
from trio_voice.config import AudioInputConfig, AudioOutputConfig
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.devices import OpenSpeaker, Pull, Speaker, portaudio, sound_system
from trio_voice.devices.portaudio import PortAudioMicrophone, PortAudioSpeaker
from trio_voice.events import DeviceLost, DeviceRestored

from .pulse import AudioLab
from .test_speaker import samples, sounding

pytestmark = pytest.mark.device

SENTENCE = np.arange(1, 30_001, dtype="<i2")
"""One and a quarter seconds in which every sample is another."""


@attrs.define(eq=False)
class Stage:
    recovery: DeviceRecovery
    send: trio.MemorySendChannel[PlaybackItem]
    reports: list[InboxItem] = attrs.Factory(list)
    grew: trio.Event = attrs.Factory(trio.Event)

    def told(self, kind: type[Any]) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    async def until(self, kind: type[Any]) -> Any:
        """Wait for the first report of this kind."""
        with trio.fail_after(20):
            while not self.told(kind):
                await self.grew.wait()
        return self.told(kind)[0]

    def say(self, turn: int, numbers: Any) -> None:
        self.send.send_nowait(Play(turn, f"item {turn}", 0, numbers.astype("<i2").tobytes()))
        self.send.send_nowait(EndTurn(turn))


@asynccontextmanager
async def playing(speaker: Speaker) -> AsyncIterator[Stage]:
    """The playback actor on a real loudspeaker."""
    send, inbox = trio.open_memory_channel[PlaybackItem](1000)
    to_reports, reports = trio.open_memory_channel[InboxItem](1000)
    stage = Stage(DeviceRecovery("speaker", speaker.name, to_reports.clone()), send)

    async def collect() -> None:
        async for report in reports:
            stage.reports.append(report)
            stage.grew.set()
            stage.grew = trio.Event()

    config = AudioOutputConfig(fade_ms=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        play = partial(playback.run, inbox, to_reports, speaker=speaker, config=config)
        await nursery.start(partial(play, recovery=stage.recovery))
        yield stage
        send.close()


@attrs.define(eq=False)
class Tapped:
    """A loudspeaker that notes the first sound that each opening of it was given."""

    speaker: PortAudioSpeaker
    begun_with: list[int] = attrs.Factory(list)
    openings: int = 0

    @property
    def name(self) -> str:
        return self.speaker.name

    def open(self, audio_format: AudioFormat, pull: Pull) -> AbstractAsyncContextManager[OpenSpeaker]:
        self.openings += 1

        def note(sample_count: int) -> bytes:
            pcm = pull(sample_count)
            sound = np.trim_zeros(samples(pcm))
            if len(sound) and len(self.begun_with) < self.openings:
                self.begun_with += [int(sound[0])] * (self.openings - len(self.begun_with))
            return pcm

        return self.speaker.open(audio_format, note)


async def test_a_sentence_goes_on_when_the_sound_server_is_back(lab: AudioLab) -> None:
    speaker = Tapped(PortAudioSpeaker(lab.loose_speaker))
    async with playing(speaker) as stage:
        async with lab.listen(loose=True) as before:
            await before.until_longer_by(200)
            stage.say(1, SENTENCE)
            await before.until(sounding)
            await before.until_longer_by(300)
            async with lab.crashed():
                lost = await stage.until(DeviceLost)
        async with lab.listen(loose=True) as after:
            [position] = (await stage.until(TurnPlayed)).positions
            await after.until(lambda pcm: any(pcm) and not any(pcm[-4_800:]))
    assert "stopped by itself" in lost.reason
    assert position.heard_ms == PCM16_24K.ms_of_samples(len(SENTENCE))
    last_heard, again = int(samples(bytes(before.pcm)).max()), speaker.begun_with[-1]
    assert abs(last_heard + 1 - again) <= 960, "where it died, by the device's own account"
    assert np.trim_zeros(samples(bytes(after.pcm)))[-1] == SENTENCE[-1]
    [restored] = stage.told(DeviceRestored)
    assert 0 < restored.outage_ms < 10_000


async def test_an_interruption_while_the_sound_server_is_away_counts_what_was_heard(lab: AudioLab) -> None:
    speaker = Tapped(PortAudioSpeaker(lab.loose_speaker))
    async with playing(speaker) as stage:
        async with lab.listen(loose=True) as before:
            await before.until_longer_by(200)
            stage.say(1, SENTENCE)
            await before.until(sounding)
            await before.until_longer_by(300)
            async with lab.crashed():
                await stage.until(DeviceLost)
                stage.send.send_nowait(Interrupt(1))
                [position] = (await stage.until(Interrupted)).positions
        stage.say(2, -SENTENCE[:2400])
        await stage.until(TurnPlayed)
    last_heard = PCM16_24K.ms_of_samples(int(samples(bytes(before.pcm)).max()))
    assert abs(position.heard_ms - last_heard) <= 40
    assert speaker.begun_with[-1] == -1, "not a sample of what was interrupted"


async def test_a_suspended_loudspeaker_is_opened_again_until_it_sounds(
    lab: AudioLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "STALL_LIMIT_S", 0.4)
    speaker = Tapped(PortAudioSpeaker(lab.speaker))
    async with playing(speaker) as stage, lab.listen() as heard:
        await heard.until_longer_by(200)
        stage.say(1, SENTENCE)
        await heard.until(sounding)
        await lab.suspend("speaker", True)
        try:
            lost = await stage.until(DeviceLost)
            assert "has asked for no sound" in lost.reason
            with trio.fail_after(20):
                while speaker.openings < 4:  # noqa: ASYNC110 - they are counted by another task's calls
                    await trio.sleep(0.05)
            assert not stage.told(DeviceRestored), "a few blocks taken are no proof"
        finally:
            await lab.suspend("speaker", False)
        await stage.until(TurnPlayed)
        await heard.until(lambda pcm: not any(pcm[-4_800:]))
    assert len(stage.told(DeviceLost)) == len(stage.told(DeviceRestored)) == 1
    missing = len(SENTENCE) - len(np.unique(samples(bytes(heard.pcm)))) + 1
    assert missing <= 2_400, "what was in the device when it stopped may be lost, not what it took afterwards"
    sound = samples(bytes(heard.pcm))
    assert sound.max() == SENTENCE[-1]


async def test_the_microphone_comes_back_with_new_sound_alone(lab: AudioLab) -> None:
    microphone = PortAudioMicrophone(lab.loose_microphone)
    frames: DropOldest[Frame] = DropOldest(1_000)
    to_reports, reports = trio.open_memory_channel[InboxItem](1000)
    recovery = DeviceRecovery("microphone", microphone.name, to_reports)
    arrivals: list[float] = []

    async def receive() -> None:
        async for frame in frames.receiver:
            assert len(frame.pcm) == PCM16_24K.bytes_of_ms(20)
            arrivals.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        hear = partial(capture.run, frames, microphone=microphone, config=AudioInputConfig())
        await nursery.start(partial(hear, recovery=recovery))
        began_at = trio.current_time()
        async with lab.crashed():
            assert isinstance(await reports.receive(), DeviceLost)
        restored = await reports.receive()
        assert isinstance(restored, DeviceRestored)
        with trio.move_on_after(1.0):
            await trio.sleep_forever()
        ended_at = trio.current_time()
        nursery.cancel_scope.cancel()
    after = [at for at in arrivals if at >= restored.at]
    assert len(after) * 0.02 == pytest.approx(ended_at - restored.at, abs=0.3), "in real time: no backlog came"
    assert len(arrivals) * 0.02 == pytest.approx(ended_at - began_at, abs=0.6), "silence took the place of its sound"


async def test_a_device_that_appears_later_is_found_without_a_restart(lab: AudioLab) -> None:
    """PortAudio lists devices only when it starts: it is started again when none of ours is open."""
    with lab.unplugged():
        await trio.to_thread.run_sync(_look)
        assert lab.loose_speaker not in [device.name for device in portaudio.list_devices()]
    async with PortAudioSpeaker(lab.loose_speaker).open(PCM16_24K, lambda count: bytes(2 * count)) as opened:
        assert opened.name == lab.loose_speaker


def _look() -> None:
    with sound_system.opening:
        sound_system._looked_at = float("-inf")
        sound_system.look_anew(sound_system.load_sounddevice())
