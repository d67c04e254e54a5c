"""Was the wall clock set? Pure: readings of both clocks come in, the size of a step comes out.

What is measured from (rates, minimum times, freshness, how long agents stand back) must last as long as it should,
whoever sets the clock of the gateway. Leases and deadlines use the monotonic clock and are not concerned.

Source: design.md section 4, time.
"""

from collections.abc import Callable
from typing import Final

LEAST_STEP_NS: Final = 500_000_000  # less is drift, or a process that did not run between two readings


LONGEST_LOOK_S: Final = 0.05  # between two readings of one look; a process stopped in between would see a step


class StepWatch:
    """Compares the wall clock with the monotonic one."""

    def __init__(self, wall_ns: int, now_s: float) -> None:
        """Begin with a reading of both, wall nanoseconds and monotonic seconds."""
        self._offset_ns = wall_ns - int(now_s * 1e9)

    @property
    def offset_ms(self) -> int:
        """What the wall clock is ahead of the monotonic one."""
        return self._offset_ns // 1_000_000

    def look(self, wall_ns: int, now_s: float) -> int:
        """Return by how many nanoseconds the wall clock was set since the last look; 0 when it was not."""
        offset_ns = wall_ns - int(now_s * 1e9)
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        return step_ns if abs(step_ns) >= LEAST_STEP_NS else 0


class SteppedClock:
    """A wall clock that tells of a step before it tells the time after it: nothing is noted down in between."""

    def __init__(self, wall_ns: Callable[[], int], now: Callable[[], float]) -> None:
        """Begin now; `wall_ns` is wall nanoseconds, `now` monotonic seconds. `on_step` is told each step's size, ns."""
        self._wall_ns = wall_ns
        self._now = now
        self._watch = StepWatch(wall_ns(), now())
        self.on_step: Callable[[int], None] = lambda step_ns: None

    @property
    def offset_ms(self) -> int:
        """What the wall clock is ahead of the monotonic one."""
        return self._watch.offset_ms

    def wall_ns(self) -> int:
        """Return wall nanoseconds."""
        before_s = self._now()
        wall_ns = self._wall_ns()
        after_s = self._now()
        if after_s - before_s <= LONGEST_LOOK_S:
            step_ns = self._watch.look(wall_ns, after_s)
            if step_ns:
                self.on_step(step_ns)
        return wall_ns
