"""What a service did, one JSON line a fact, for whoever checks afterwards that nothing was lost or done twice.

Append-only and written with one system call a line, so a line is whole or absent after kill -9. It is off
unless `EDGEAGENTS_JOURNAL_DIR` names a folder; then each service writes `<name>.jsonl` there and goes on with
the same file after a restart. Leaves out rotation on purpose: it serves runs that end.

Source: issue "First light", `lost` and `duplicated`.
"""

import json
import os
from pathlib import Path
from typing import Any

from edgeagents.errors import StoreError


class Journal:
    """An open journal, or one that writes nothing; the latter is `Journal()`."""

    def __init__(self, descriptor: int | None = None, name: str = "") -> None:
        """Use an open file descriptor; `open` and `in_folder` make one."""
        self._descriptor = descriptor
        self._name = name

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Return a journal that appends to a file, made with its folder when it is not there.

        Raises:
            StoreError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644), str(path))
        except OSError as error:
            raise StoreError(f"journal {path}: {error.strerror}: may we write there?") from error

    @classmethod
    def in_folder(cls, folder: Path | None, name: str) -> "Journal":
        """Return the journal of the service `name` in a folder, one that writes nothing when there is no folder.

        Raises:
            StoreError: the file cannot be written.
        """
        return cls() if folder is None else cls.open(folder / f"{name}.jsonl")

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line; what JSON cannot hold is written as text.

        Raises:
            StoreError: the disk is full, or the journal is closed.
        """
        if self._descriptor is None:
            return
        line = json.dumps({"kind": kind, **fields}, ensure_ascii=False, separators=(",", ":"), default=str)
        data = line.encode() + b"\n"
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise StoreError(f"journal {self._name}: {error.strerror}: is the disk full?") from error
        if written != len(data):
            raise StoreError(f"journal {self._name}: only {written} of {len(data)} bytes fitted: is the disk full?")

    def close(self) -> None:
        """Close the file; later lines are dropped."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal as objects; a torn last line (disk full) is left out.

    Raises:
        StoreError: the file cannot be read, or a line before the last is no JSON.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise StoreError(f"journal {path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise StoreError(f"journal {path}, line {number}: not JSON") from error
    return found
