"""A device that fails is opened again, for ever; the session is told, and goes on.

Around the opening of a microphone or a loudspeaker, in the capture and the playback actor. The invariant: once the
device has started, or may be waited for, no failure of it leaves here; what opening again cannot help does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
from msgspec import Struct, field

from trio_voice.channels import DeviceNews, InboxItem, offer
from trio_voice.devices import DeviceCounters
from trio_voice.errors import DeviceError
from trio_voice.events import DeviceKind, DeviceLost, DeviceRestored
from trio_voice.logs import log
from trio_voice.restart_policy import Attempts, Reopening
from trio_voice.tracker import DeviceMetrics

HEALTHY_AFTER_S = 5.0

Use: TypeAlias = Callable[[], Awaitable[DeviceError | None]]
"""Opens the device, tells `opened` and `works`, and gives how it failed; None when its source has ended."""


class DeviceRecovery(Struct, eq=False):
    """One device of a session through all its openings. Written by the actor that uses it; the session reads."""

    kind: DeviceKind
    device: str
    reports: trio.MemorySendChannel[InboxItem]
    wait_for_device: bool = False
    """Begin without it where there is none."""
    policy: Reopening = field(default_factory=Reopening)
    failures: int = 0
    away: bool = False
    """It has failed, or was never there, and no sound has passed through it since."""
    _lost_at: float = 0.0
    _opened_at: float | None = None
    _outages_s: float = 0.0
    _started: bool = False
    _past: DeviceCounters = field(default_factory=DeviceCounters)
    _present: DeviceCounters = field(default_factory=DeviceCounters)
    _task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    _when_lost: Callable[[], None] = lambda: None

    def metrics(self, at: float) -> DeviceMetrics:
        outages_s = self._outages_s + (at - self._lost_at if self.away else 0.0)
        return DeviceMetrics(
            device=self.device,
            failures=self.failures,
            outage_ms=outages_s * 1000,
            late_callbacks=self._past.late_callbacks + self._present.late_callbacks,
            underflows=self._past.underflows + self._present.underflows,
        )

    async def keep_open(
        self,
        use: Use,
        *,
        when_lost: Callable[[], None] = lambda: None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run `use`, and again whenever the device failed, until its source has ended; `when_lost` begins an outage.

        Started: when the device is open, or is to be waited for.
        Raises: `DeviceError` if the first opening fails and is not to be waited for, or if trying again cannot help.
        Closes: `reports`.
        """
        self._task_status, self._when_lost = task_status, when_lost
        attempts = Attempts(HEALTHY_AFTER_S)
        with self.reports:
            while True:
                self._opened_at = None
                try:
                    failed = await use()
                except DeviceError as error:
                    failed = error
                if failed is None:
                    return
                if not failed.retryable or not (self._started or self.wait_for_device):
                    raise failed
                now = trio.current_time()
                worked_s = 0.0 if self.away or self._opened_at is None else now - self._opened_at
                self._failed(str(failed), now)
                attempt = attempts.next(worked_s)
                await trio.sleep(self.policy.delay_s(attempt))

    def opened(self, device: object) -> None:
        """It is open; whether it works is another matter: a suspended one takes a few blocks and stops."""
        self._opened_at = trio.current_time()
        self._past.late_callbacks += self._present.late_callbacks
        self._past.underflows += self._present.underflows
        self._present = getattr(device, "counters", None) or DeviceCounters()
        self._start()

    def works(self) -> None:
        """Sound has passed through it."""
        if not self.away:
            return
        outage_s = (trio.current_time() if self._opened_at is None else self._opened_at) - self._lost_at
        self._outages_s += outage_s
        self.away = False
        log.info("device.restored", kind=self.kind, device=self.device, outage_s=round(outage_s, 3))
        now = trio.current_time()
        self._tell(DeviceRestored(at=now, kind=self.kind, device=self.device, outage_ms=outage_s * 1000))

    def _failed(self, reason: str, now: float) -> None:
        self._start()
        if self.away:  # the same outage
            log.debug("device.still_lost", kind=self.kind, device=self.device, reason=reason)
            return
        self._lost_at = now
        self.failures += 1
        self.away = True
        log.warning("device.lost", kind=self.kind, device=self.device, reason=reason)
        self._tell(DeviceLost(at=now, kind=self.kind, device=self.device, reason=reason))
        self._when_lost()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._task_status.started()

    def _tell(self, news: DeviceNews) -> None:
        offer(self.reports, news)
