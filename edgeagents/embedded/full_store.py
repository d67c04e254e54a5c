"""Says when a broker has to be started again: its disk was full, and it takes nothing in though there is room by now.

nats-server keeps a write error of a stream's block for good: with "no space left on device" met once, each further
message of that stream is left without an acknowledgement until the server is started anew. Its log tells of it.

Source: observed with nats-server 2.15.1; docs/faults.md.
"""

import os
from pathlib import Path
from typing import Final

NO_SPACE: Final = b"no space left on device"
ROOM_BYTES: Final = 4 << 20  # less is used up again at once


class FullStore:
    """Asked again and again; true once for each time that the store was full and has room again."""

    def __init__(self, log: Path, store: Path) -> None:
        """Watch the server's log and the disk that its store lies on; neither need be there yet."""
        self._log = log
        self._store = store
        self._read = log.stat().st_size if log.exists() else 0
        self._was_full = False

    def __call__(self) -> bool:
        """Say whether the server should be started again now."""
        return self.heard(self._news())

    def heard(self, news: bytes) -> bool:
        """Say whether the server should be started again, after these words of it; for who reads its log himself."""
        self._was_full = NO_SPACE in news or self._was_full
        if not self._was_full or _room_bytes(self._store) < ROOM_BYTES:
            return False
        self._was_full = False
        return True

    def _news(self) -> bytes:
        try:
            with self._log.open("rb") as log:
                log.seek(self._read)
                news = log.read()
        except FileNotFoundError:
            return b""
        whole = news[: news.rfind(b"\n") + 1]  # a line that is being written is read again
        self._read += len(whole)
        return whole


def _room_bytes(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
