"""The files in which a gateway's services keep their state: copied while they run, moved aside, put in place.

SQLite files are copied by SQLite's own online backup: one moment, whatever is written meanwhile. All others are
replaced in one step or only grow by their writers, so that a plain copy is whole.

Source: SQLite online backup API; docs/backup.md.
"""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeagents.errors import ConfigurationError, StoreError

_SQLITE: Final = b"SQLite format 3\x00"
_COMPANIONS: Final = ("-wal", "-shm", "-journal")
_NO_STATE: Final = ("lock", "guard.lock", "guard.reserve")  # locks, and room that the guard keeps


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder that are state: no locks, no kept room, no companions of a database."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if path.name not in _NO_STATE and not path.name.endswith(_COMPANIONS))


def copy_file(source: Path, target: Path) -> None:
    """Copy one file as it was at one moment.

    Raises:
        StoreError: it cannot be read, or is a database that is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open("rb") as file:
            is_database = file.read(len(_SQLITE)) == _SQLITE
        if is_database:
            _copy_database(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise StoreError(f"{source}: {error.strerror}: may we read it, is the disk full?") from error
    except sqlite3.Error as error:
        raise StoreError(f"{source}: {error}: is the database damaged?") from error


def _copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source.absolute().as_uri() + "?mode=ro", uri=True, timeout=10)) as live,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
        # What nobody else has open needs no log beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
        (word,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if word != "ok":
            raise sqlite3.DatabaseError(word)


def ledger_generation(folder: Path) -> int:
    """Return the generation that a guard's volume tells, 0 when there is none, or it cannot be read any more."""
    path = folder / "guard.db"
    if not path.exists():
        return 0
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        row = database.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
        return int(row[0]) if row else 0
    return 0


def is_locked(path: Path) -> bool:
    """Say whether a process holds the lock in a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def held(path: Path, whose: str) -> Iterator[None]:
    """Hold a service's lock inside the block, so that it cannot start; the file is made when it is not there.

    Raises:
        ConfigurationError: it runs, or the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: may we write there?") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"{path.parent}: {whose} runs on it: stop the gateway first") from error
    try:
        yield
    finally:
        os.close(descriptor)


def move_contents(source: Path, target: Path) -> None:
    """Move all that lies in a folder but locks into another one; the folder stays, it may be a mounted volume."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()) if source.is_dir() else []:
        if path.name not in _NO_STATE:
            shutil.move(path, target / path.name)
