"""A model folder appears whole or not at all; what it holds says `edgeagents/inference/folder.py`."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeagents.errors import ConflictError, StoreError
from edgeagents.inference.folder import MANIFEST


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside the target, which takes the target's place when nothing failed, else is deleted.

    Raises:
        ConflictError: the target is there and is no model folder; nothing was written.
        StoreError: the disk cannot be written.
    """
    if target.exists() and not _replaceable(target):
        raise ConflictError(f"{target} holds something else than a model: name another folder, or remove it first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            yield fresh
            _swap(fresh, target, Path(scratch) / "old")
    except OSError as error:
        raise StoreError(f"model {target} could not be written: {error}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write what a person may read, too; the same content gives the same bytes."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _swap(fresh: Path, target: Path, aside: Path) -> None:
    """Put a folder in the target's place; what was there is put aside, or back when that fails."""
    if target.exists():
        target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise


def _replaceable(target: Path) -> bool:
    """Say whether a folder is empty, or holds a manifest and no file beyond it: ours, to be made anew."""
    if not target.is_dir() or target.is_symlink():
        return False
    present = {file.name for file in target.iterdir()}
    if not present:
        return True
    try:
        files = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]
        return present <= {MANIFEST, *files}
    except (OSError, ValueError, KeyError, TypeError):
        return False
