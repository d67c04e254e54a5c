"""What this process may use of the machine: CPUs and memory, within the limits of its container.

With cgroup v1 only the limits of a container that sees its own group as the root: else the machine's figures count.

Source: Linux Documentation/admin-guide/cgroup-v2, cpu.max, memory.max, memory.current; cgroup-v1/memory,
scheduler/sched-bwc; proc(5), meminfo.
"""

import math
import os
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_GROUP: Final = Path("/proc/self/cgroup")
MEMINFO: Final = Path("/proc/meminfo")


def cpus(groups: Path = CGROUPS, own: Path = OWN_GROUP) -> int:
    """Return how many threads may compute at once: by affinity and by the tightest CPU limit, rounded up; 1 or more.

    More threads than that spin for each other's turn: two such processes on two cores fall to a tenth of their speed.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _folders(groups, own):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit() and int(period):
            count = min(count, math.ceil(int(quota) / int(period)))
    quota, period = (_text(groups / "cpu" / f"cpu.cfs_{word}_us") for word in ("quota", "period"))
    if quota.isdigit() and period.isdigit() and int(period):  # version 1; -1 is no limit
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def free_memory_bytes(groups: Path = CGROUPS, own: Path = OWN_GROUP, meminfo: Path = MEMINFO) -> float:
    """Return how much more memory this process can have, in bytes; infinite where the system does not say."""
    free = math.inf
    for line in _text(meminfo).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            free = int(rest.split()[0]) * 1024.0
    for folder in _folders(groups, own):
        most, used = _text(folder / "memory.max"), _text(folder / "memory.current")
        free = min(free, _left(most, used, folder / "memory.stat", "inactive_file"))
    first = groups / "memory"  # version 1
    most, used = _text(first / "memory.limit_in_bytes"), _text(first / "memory.usage_in_bytes")
    return min(free, _left(most, used, first / "memory.stat", "total_inactive_file"))


def _left(most: str, used: str, stat: Path, name: str) -> float:
    """Return what a limit leaves, with what was only read from files, which can be had back; infinite without one."""
    if not (most.isdigit() and used.isdigit()):
        return math.inf
    return max(0.0, float(most) - float(used) + _of(_text(stat), name))


def _folders(groups: Path, own: Path) -> list[Path]:
    """Return the folders of our group and of those above it."""
    path = next((line[3:] for line in _text(own).splitlines() if line.startswith("0::")), "/")
    here = groups / path.strip().lstrip("/")
    return [folder for folder in (here, *here.parents) if folder == groups or groups in folder.parents]


def _of(text: str, name: str) -> float:
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
