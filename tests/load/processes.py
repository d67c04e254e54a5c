"""What each process of a gateway costs while a load runs: memory and processor time, and whether memory is flat.

PSS is what a process has for itself, and its part of what it shares with others: the sum over all processes is what
the gateway needs. Source: proc(5), `smaps_rollup`, `stat`, `schedstat`.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgeagents.embedded.supervisor import Supervisor

EVERY_S: Final = 2.0
# From when on nothing may grow any more, as a part of the run, and how much is noise of allocators.
WARM_UP: Final = 0.4
MOST_GROWTH_MB: Final = 6.0
MOST_GROWTH_SHARE: Final = 0.06
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process at one moment: CPU seconds, seconds its main thread waited for a core, PSS and RSS in bytes."""

    cpu_s: float
    waited_s: float
    pss: int
    rss: int


def usage_of(pid: int) -> Usage:
    """Return what a process uses now.

    Raises:
        OSError: it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    waited_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, waited_s, sizes["Pss"], sizes["Rss"])


@dataclass(slots=True)
class Watch:
    """Samples of all processes, one list a name, each with its time in seconds since the start."""

    supervisor: Supervisor
    began_s: float = field(default_factory=time.monotonic)
    samples: dict[str, list[tuple[float, Usage]]] = field(default_factory=dict)

    def look(self) -> None:
        """Take one sample of each process that runs."""
        for name, pid in self.supervisor.pids.items():
            self.samples.setdefault(name, []).append((time.monotonic() - self.began_s, usage_of(pid)))

    async def run(self) -> None:
        """Take samples for ever."""
        while True:
            self.look()
            await asyncio.sleep(EVERY_S)


def memory_of(samples: Sequence[tuple[float, Usage]]) -> dict[str, float]:
    """Return MB of PSS after warm-up and at the end, both medians over a fifth of the run, and RSS at the end."""
    end_s = samples[-1][0]

    def median(begin: float, end: float) -> float:
        part = [item.pss for at_s, item in samples if begin * end_s <= at_s <= end * end_s]
        return statistics.median(part or [samples[-1][1].pss]) / 1e6

    warm, last = median(WARM_UP, WARM_UP + 0.2), median(0.8, 1.0)
    return {
        "warm_pss_mb": round(warm, 1), "end_pss_mb": round(last, 1), "growth_mb": round(last - warm, 1),
        "end_rss_mb": round(samples[-1][1].rss / 1e6, 1),
    }  # fmt: skip


def growing(memory: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return in words which processes' memory is not flat."""
    return [
        f"{name} grew by {row['growth_mb']} MB, from {row['warm_pss_mb']} after warm-up"
        for name, row in memory.items()
        if row["growth_mb"] > max(MOST_GROWTH_MB, MOST_GROWTH_SHARE * row["warm_pss_mb"])
    ]


def processor_of(samples: Sequence[tuple[float, Usage]]) -> dict[str, float]:
    """Return percent of a core that a process took, and of the time in which its main thread waited for one."""
    (begin_s, first), (end_s, last) = samples[0], samples[-1]
    percent = 100 / max(end_s - begin_s, 1e-9)
    return {
        "used": round(percent * (last.cpu_s - first.cpu_s), 1),
        "waited": round(percent * (last.waited_s - first.waited_s), 1),
    }


def costs(watch: Watch) -> dict[str, Any]:
    """Return memory and processor of every process, agents beside each other."""
    return {
        "memory": {name: memory_of(samples) for name, samples in watch.samples.items()},
        "cpu_percent": {name: processor_of(samples) for name, samples in watch.samples.items()},
    }
