"""The machine's clocks, and what the guard does when the wall clock is set: what was recent stays as recent as it was.

Source: design.md section 4, time; docs/decisions/0010-clocks-that-are-set.md.
"""

import logging
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edgeagents.clock import SteppedClock
from edgeagents.settings import SiteTime

if TYPE_CHECKING:
    from services.guard.jobs import Means

log = logging.getLogger(__name__)

LEAST_STEP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class SystemClocks:
    """The machine's clocks; a step of the wall clock is told before a time after it."""

    site_time: SiteTime
    wall: SteppedClock = field(default_factory=lambda: SteppedClock(time.time_ns, time.monotonic))

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def site(self) -> float:
        """Return site seconds."""
        return self.site_time.at_ns(self.wall.wall_ns())

    def wall_ns(self) -> int:
        """Return wall nanoseconds."""
        return self.wall.wall_ns()


class ClockSteps:
    """Moves all that is measured from past times when the wall clock is set."""

    def __init__(self, clocks: SystemClocks, means: "Means") -> None:
        """Listen to the clock from now on."""
        self._clocks = clocks
        self._means = means
        clocks.wall.on_step = self._moved

    async def catch_up(self) -> None:
        """Take in what was done to the clock while no guard ran, if the machine was not started anew; on disk then."""
        means, offset_ms = self._means, self._clocks.wall.offset_ms
        known_ms = await means.on_disk(means.ledger.clock_offset_ms)
        by_s = (offset_ms - known_ms) / 1000 if known_ms is not None else 0.0
        if abs(by_s) >= LEAST_STEP_S:
            log.warning("the wall clock was set by %.1f s while no guard ran: past times move with it", by_s)
            await means.on_disk(means.ledger.shift, self._clocks.site_time.factor * by_s, offset_ms)
            means.audit.append("clock-step", by_s=by_s)
        await means.on_disk(means.ledger.remember_clock, offset_ms)

    def look(self) -> None:
        """Look at the clock, also when nothing else does."""
        self._clocks.wall_ns()

    def _moved(self, by_ns: int) -> None:
        # At once, and queued before whatever is written down at the new time.
        means, by_site_s = self._means, self._clocks.site_time.factor * by_ns / 1e9
        log.warning("the wall clock was set by %.1f s: past times move with it", by_ns / 1e9)
        means.picture.shift(by_ns)
        means.desk.shift(by_site_s)
        means.overrides.shift(by_site_s)
        written = means.executor.submit(means.ledger.shift, by_site_s, self._clocks.wall.offset_ms)
        written.add_done_callback(_told)
        means.audit.append("clock-step", by_s=by_ns / 1e9)


def _told(written: Future[None]) -> None:
    error = None if written.cancelled() else written.exception()
    if error is not None:
        log.error("past times did not move in the ledger: after a restart rates may count them wrongly: %s", error)
