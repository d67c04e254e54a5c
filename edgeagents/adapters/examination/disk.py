"""One look at the disk that a volume lies on: room, and whether a file can be written there.

A volume that a container has mounted read-only, as the owner's command line has those of guard and broker, says nothing
about its disk: that the kernel tells apart, and nothing is claimed of writing then.

Source: POSIX statvfs; proc_pid_mountinfo(5); docs/faults.md.
"""

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from edgeagents.protocol.diagnosis.machine import DiskFacts

MOUNTS: Final = Path("/proc/self/mountinfo")


def look_at_disk(name: str, folder: Path | None) -> DiskFacts:
    """Return how much room a folder's disk has; one byte is written into the folder, and gone at once."""
    if folder is None:
        return DiskFacts(name)
    if not folder.is_dir():
        return DiskFacts(name, str(folder), is_there=False)
    try:
        found = os.statvfs(folder)
        free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\n")
            probe.flush()
    except PermissionError as error:
        # Another user than the service's cannot say whether the service may write.
        return DiskFacts(name, str(folder), problem=f"we may not write there: {error.strerror}")
    except OSError as error:
        if error.errno == errno.EROFS and is_only_shown(_mounts(), folder.resolve()):
            return DiskFacts(name, str(folder), free, total, is_shown=True)
        return DiskFacts(name, str(folder), problem=error.strerror or str(error))
    return DiskFacts(name, str(folder), free, total)


def is_only_shown(mounts: str, folder: Path) -> bool:
    """Say whether a folder is read-only by how it is mounted here, while its file system is writable.

    Args:
        mounts: what the kernel says of this process's mounts.
        folder: without links in its path.
    """
    found, depth = False, -1
    for line in mounts.splitlines():
        mount, _, system = line.partition(" - ")
        fields, rights = mount.split(), system.split()
        if len(fields) < 6 or len(rights) < 3:
            continue
        place = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        # A later mount at the same place covers the one before.
        if len(place.parts) >= depth and folder.is_relative_to(place):
            depth = len(place.parts)
            found = "ro" in fields[5].split(",") and "ro" not in rights[2].split(",")
    return found


def _mounts() -> str:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
