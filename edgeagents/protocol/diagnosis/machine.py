"""Clocks and disks.

Source: design.md section 4 (time); docs/faults.md (full and read-only volumes).
"""

from dataclasses import dataclass
from typing import Final

from edgeagents.model.finding import Finding, failed, ok, skipped, warning

ODD_CLOCK_S: Final = 2.0  # whole seconds of HTTP's Date, and the way there
WRONG_CLOCK_S: Final = 30.0
LEAST_BYTES: Final = 64 << 20
LOW_BYTES: Final = 512 << 20
LOW_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disk that a folder lies on.

    Args:
        name: what lies there.
        path: the folder; empty: nobody said where it is.
        free_bytes: that we may use.
        total_bytes: of the disk.
        problem: why nothing can be written; empty when it can.
        is_there: whether the folder exists.
        is_shown: whether it is mounted read-only for us alone, so that nobody tried to write.
    """

    name: str
    path: str = ""
    free_bytes: int = 0
    total_bytes: int = 0
    problem: str = ""
    is_there: bool = True
    is_shown: bool = False


def apart_s(there_s: float, began_s: float, ended_s: float, unit_s: float = 0.0) -> float:
    """Return how far somebody's clock surely is from ours, in seconds: ahead of it above 0, behind it below.

    Args:
        there_s: what it showed, at some moment while we asked.
        began_s: when we began to ask, by our clock.
        ended_s: when the answer had come.
        unit_s: what was cut off `there_s` is less than that.
    """
    return max(there_s - ended_s, 0.0) - max(began_s - there_s - unit_s, 0.0)


def clock_finding(whose: str, ahead_s: float) -> Finding:
    """Return how somebody's wall clock stands against ours; `ahead_s` below 0: it is behind."""
    check, apart_s = f"clock of {whose}", abs(ahead_s)
    if apart_s < ODD_CLOCK_S:
        return ok(check, "as ours")
    text = f"{apart_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} ours"
    remedy = "set both machines' clocks by one time server: readings look too old or lie in the future"
    return failed(check, text, remedy) if apart_s >= WRONG_CLOCK_S else warning(check, text, remedy)


def disk_finding(facts: DiskFacts) -> Finding:
    """Return how the disk of a volume stands."""
    check = f"disk of {facts.name}"
    if not facts.path or not facts.is_there:
        text = f"{facts.path}: no such folder on this machine" if facts.path else "nobody said where it lies"
        return skipped(check, text, "run this where it lies, and name the folder")
    if facts.problem:
        remedy = "mount it writable, for the user the service runs as: without it nothing is commanded"
        return failed(check, f"{facts.path}: {facts.problem}", remedy)
    text = f"{facts.path}: {size(facts.free_bytes)} of {size(facts.total_bytes)} free"
    if facts.is_shown:
        text += " (read-only for us: writing was not tried)"
    remedy = "free the disk, or move the volume to a larger one"
    if facts.free_bytes < LEAST_BYTES:
        return failed(check, text, f"{remedy}: a broker whose store was full must be restarted afterwards")
    is_low = facts.free_bytes < LOW_BYTES or facts.free_bytes < facts.total_bytes * LOW_SHARE
    return warning(check, text, remedy) if is_low else ok(check, text)


def size(count: float) -> str:
    """Return a number of bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
