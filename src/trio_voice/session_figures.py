"""A session in figures: read from its parts when somebody asks, so that counting costs nothing in between.

Beside the session, which makes one and owns the parts. The invariant: it only reads, and goes on giving the last
figures when the session is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from msgspec import Struct

from trio_voice.audio import AudioFormat
from trio_voice.channels import DropOldest, EventFanOut
from trio_voice.conversation_view import ConversationView
from trio_voice.device_recovery import DeviceRecovery
from trio_voice.supervisor import Link
from trio_voice.tracker import Readings, SessionMetrics
from trio_voice.usage import Prices

if TYPE_CHECKING:
    from trio_voice.loop_watch import LoopWatch
    from trio_voice.playback_buffer import BufferStatistics


class SessionFigures(Struct, eq=False):
    view: ConversationView
    fan_out: EventFanOut
    frames: DropOldest[Any]
    link: Link
    device_format: AudioFormat
    """Of the loudspeaker."""
    hearing: DeviceRecovery | None
    sounding: DeviceRecovery | None
    loop_watch: LoopWatch | None
    prices: Prices | None = None
    played: BufferStatistics | None = None
    """None before the loudspeaker is open, and without one."""

    def readings(self) -> Readings:
        dropped = {"frames": self.frames.dropped, "events": self.fan_out.dropped}
        dropped["control"] = self.view.dropped_control
        dropped["utterances"] = self.view.lost_utterances
        dropped["stale_frames"] = self.link.uplink.stale_frames
        if self.played is not None:
            dropped["stale_samples"] = self.played.stale_samples
            dropped["overflow_samples"] = self.played.overflow_samples
            dropped["underruns"] = self.played.underruns
            dropped["late_chunks"] = self.played.late_chunks
        trips = self.link.round_trips
        stalls = self.loop_watch.stalls if self.loop_watch is not None else None
        return Readings(dropped, trips.median_ms, max(trips.latest_ms, default=None), stalls)

    def metrics(self, at: float) -> SessionMetrics:
        played = self.played
        return attrs.evolve(
            self.view.tracker.metrics(at, self.readings(), self.prices),
            jitter_ms=played.jitter_ms if played is not None else None,
            prebuffer_ms=played.prebuffer_ms if played is not None else None,
            heard_ms=self.device_format.ms_of_samples(played.heard_samples if played is not None else 0),
            microphone=None if self.hearing is None else self.hearing.metrics(at),
            speaker=None if self.sounding is None else self.sounding.metrics(at),
        )
