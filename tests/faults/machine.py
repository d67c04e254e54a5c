"""How much of this machine others left to us while something took its time: a busy neighbour is no fault of ours.

A recovery is held to its limit on a machine of our own. What processes that are not ours took of all processors
meanwhile stretches the limit: with half of the machine gone, twice the time is granted. Figures are told as measured.

A disk that stands still takes no processor's time: a thread of the test's own writes and syncs a few bytes again and
again, and how long that stood still is granted as well.

Source: proc(5): stat, pid/stat.
"""

import contextlib
import functools
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

PROBE_EVERY_S: Final = 0.1
STANDS_STILL_S: Final = 0.5  # a round of the probe that takes less is a busy disk's, which is what we measure on


class Share:
    """Measures from when it is made."""

    def __init__(self) -> None:
        """Begin."""
        self._busy, self._total = _machine()
        self._ours = _tree(os.getpid())

    def now(self) -> float:
        """Return the part of the processors, above 0 and at most 1, that others left to us so far."""
        busy, total = _machine()
        others = (busy - self._busy) - (_tree(os.getpid()) - self._ours)
        return min(1.0, max(0.05, 1.0 - others / max(1, total - self._total)))


class Probe:
    """Says for how long the machine stood still, as a write that has to reach the disk sees it."""

    def __init__(self) -> None:
        """Begin; it goes on until the process ends."""
        self._stood_s = 0.0
        self._round_s = time.monotonic()
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def stood_s(self) -> float:
        """Return the seconds so far in which nothing went on."""
        return self._stood_s + self._beyond(time.monotonic())

    def _beyond(self, now_s: float) -> float:
        took_s = now_s - self._round_s
        return took_s if took_s > STANDS_STILL_S else 0.0

    def _run(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as file:
            while True:
                time.sleep(PROBE_EVERY_S)
                with contextlib.suppress(OSError):  # a full disk is not one that stands still
                    os.pwrite(file.fileno(), b"x", 0)
                    os.fsync(file.fileno())
                now_s = time.monotonic()
                self._stood_s, self._round_s = self._stood_s + self._beyond(now_s), now_s


@functools.cache
def probe() -> Probe:
    """Return the probe of this process, running since it was asked for first."""
    return Probe()


def _machine() -> tuple[int, int]:
    """Return (busy, all) ticks of all processors since the machine started."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def _tree(root: int) -> int:
    """Return ticks of a process and all below it, those that have ended and were waited for included."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = (int(words[1]), sum(int(word) for word in words[11:15]))
    return sum(ticks for pid, (_, ticks) in parents.items() if _descends(pid, root, parents))


def _descends(pid: int, root: int, parents: dict[int, tuple[int, int]]) -> bool:
    while pid not in (0, root):
        pid = parents.get(pid, (0, 0))[0]
    return pid == root
