"""One look at the disk that a volume lies on: room, and whether a file can be written there.

Source: POSIX statvfs; docs/faults.md.
"""

import os
import tempfile
from pathlib import Path

from edgeagents.protocol.diagnosis.machine import DiskFacts


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
        return DiskFacts(name, str(folder), problem=error.strerror or str(error))
    return DiskFacts(name, str(folder), free, total)
