"""Room on the guard's volume for safety commands, kept while there is some and used when the volume is full.

SQLite takes pages that are free inside the file before it lets the file grow, and writes its log over itself. So what
is grown beforehand is ours, whoever fills the volume: `KEPT_PAGES` free pages that only safety commands and the
bookkeeping of what was taken in may use, and a log long enough for all between two checkpoints. A ballast file beside
them is given up when the guard starts on a full volume, for what SQLite then makes anew.

On a file system that writes each change elsewhere (btrfs, ZFS) nothing can be kept like this; there the volume needs a
quota of its own.

Source: design.md section 3.7; SQLite file format (free list, WAL); docs/decisions/0015-room-for-safety-commands.md.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeagents.errors import VolumeFullError

log = logging.getLogger(__name__)

BALLAST: Final = "guard.reserve"
KEPT_PAGES: Final = 256  # of 4 KiB: a command takes half of one, the longest three dozen
GROWN_PAGES: Final = 256  # at a time
MARGIN_BYTES: Final = 4 << 20  # the file grows only while the volume has this much beside what is needed
RETRY_S: Final = 1.0
_FRAMES: Final = 1000 + 512  # SQLite checkpoints a log of 1,000 pages; one transaction may come on top
_FRAME_BYTES: Final = 4096 + 24
LOG_BYTES: Final = 32 + _FRAMES * _FRAME_BYTES
BALLAST_BYTES: Final = LOG_BYTES + (64 << 10)  # and the index of the log


class Reserve:
    """The free pages of a ledger's file."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Begin beside a file that is not open yet; on a full volume the ballast is given up for it."""
        self._folder = folder
        self._now = now
        self._db: sqlite3.Connection
        self._tried_s = float("-inf")
        self._is_told = False
        if self._free_bytes() < BALLAST_BYTES:
            with contextlib.suppress(OSError):
                (folder / BALLAST).unlink()

    def open(self, database: sqlite3.Connection) -> None:
        """Take over an open file: grow log, free pages and ballast as far as there is room."""
        self._db = database
        try:
            # SQLite locks nothing in its log, so that a descriptor more does no harm there.
            _allocate(self._folder / "guard.db-wal", LOG_BYTES)
        except OSError as error:
            log.error("guard volume %s: no room for safety commands can be kept: %s", self._folder, error.strerror)
        with contextlib.suppress(VolumeFullError):
            self.keep()
        if self._free_bytes() >= MARGIN_BYTES + BALLAST_BYTES:
            with contextlib.suppress(OSError):
                _allocate(self._folder / BALLAST, BALLAST_BYTES)

    @property
    def is_whole(self) -> bool:
        """Whether as much is free inside the file as is kept for safety commands."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return bool(free >= KEPT_PAGES)

    @property
    def is_full(self) -> bool:
        """Whether only safety commands were taken in when it was asked for last."""
        return self._is_told

    def keep(self) -> None:
        """Have the reserve whole; grow the file when it is not.

        Raises:
            VolumeFullError: there is no room for that, or not within the present transaction; the call is made again
                by itself then, so that nothing is told yet.
        """
        is_within = self._db.in_transaction
        if not self.is_whole and (is_within or not self._grow()):
            if not is_within:
                self._tell(is_full=True)
            raise VolumeFullError(
                f"the guard's volume {self._folder} is full: only safety commands are taken; make room on it"
            )
        self._tell(is_full=False)

    def _grow(self) -> bool:
        now_s = self._now()
        if now_s - self._tried_s < RETRY_S:
            return False
        self._tried_s = now_s
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        size = 4096 * (free + GROWN_PAGES + KEPT_PAGES)
        if self._free_bytes() < size + MARGIN_BYTES:
            return False
        try:
            self._db.execute("CREATE TABLE IF NOT EXISTS filler (content BLOB)")
            # Takes the free pages there are and makes more; all of them are free afterwards.
            self._db.execute("INSERT INTO filler VALUES (zeroblob(?))", (size,))
            self._db.execute("DELETE FROM filler")
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            log.error("guard volume %s: cannot grow: %s", self._folder, error)
            return False
        self._tried_s = float("-inf")
        return self.is_whole

    def _free_bytes(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _tell(self, *, is_full: bool) -> None:
        if is_full and not self._is_told:
            log.error("guard volume %s is full: only safety commands are taken; make room on it", self._folder)
        elif self._is_told and not is_full:
            log.warning("guard volume %s has room again", self._folder)
        self._is_told = is_full


def _allocate(path: Path, size: int) -> None:
    """Have a file be of at least a size, on disk.

    Raises:
        OSError: there is no room; the file is left as it was.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
