"""A model folder that is what its manifest says: every file's SHA-256 and size, nothing from outside.

    manifest.json   {"format": 1, "name": …, "source": …, "files": {"model.onnx": {"sha256": …, "size_bytes": …}, …}}

What a manifest does not name is not read. Leaves out signatures: who made a model is said by its card.

Source: design.md section 6.
"""

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeagents.errors import ConfigurationError, InvalidInputError, MalformedMessageError, NotFoundError
from edgeagents.inference.onnx_file import external_files

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
MOST_MANIFEST_BYTES: Final = 1 << 20
MOST_GRAPH_BYTES: Final = 2 << 30  # what protobuf allows
MOST_ZERO: Final = 1 << 32  # no integer of an output is above this
Mark: TypeAlias = tuple[int, int, int, int]  # what tells a file from another one, or from itself after a change


class Entry(BaseModel):
    """One file of a model."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Quantised(BaseModel):
    """How an output's integers stand for real numbers: (value - zero_point) * scale."""

    model_config = ConfigDict(frozen=True)

    scale: float = Field(gt=0, allow_inf_nan=False)
    zero_point: int = Field(0, ge=-MOST_ZERO, le=MOST_ZERO)


class Manifest(BaseModel):
    """What a model folder holds."""

    model_config = ConfigDict(frozen=True)

    format: int
    name: str = Field(min_length=1, max_length=200)
    source: Any = None
    files: dict[str, Entry]
    outputs: dict[str, Quantised] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose files are what its manifest says; `digest` names the model, whatever the folder is called.

    Who replaces a model in use puts another folder in its place: weights are mapped, and what is written into them is
    computed with, or ends the process when it makes them shorter.
    """

    path: Path
    manifest: Manifest
    digest: str
    marks: Mapping[str, Mark]

    def file(self, name: str) -> Path:
        """Return where a file of the model lies.

        Raises:
            NotFoundError: the manifest does not name it.
            InvalidInputError: it was changed since it was checked.
        """
        if name not in self.manifest.files:
            raise NotFoundError(f"model {self.path}: {MANIFEST} names no file {name!r}")
        file = self.path / name
        if _mark(file) != self.marks[name]:
            raise InvalidInputError(f"{file}: was changed while the model was being loaded; try again")
        return file

    def check_unchanged(self) -> None:
        """Return if all files are those that were checked; InvalidInputError: one was changed since."""
        for name in self.manifest.files:
            self.file(name)

    def graph(self, name: str) -> Path:
        """Return where an ONNX file lies whose tensors are all within this folder, and of this model.

        Raises:
            NotFoundError: the manifest does not name it.
            InvalidInputError: it is no ONNX file, or wants tensors from elsewhere.
        """
        file = self.file(name)
        if file.stat().st_size > MOST_GRAPH_BYTES:
            raise InvalidInputError(f"{file}: larger than an ONNX file can be")
        try:
            wanted = external_files(_mapped(file))
        except MalformedMessageError as error:
            raise MalformedMessageError(f"{file}: {error}", error.cause_kind) from error
        for other in sorted(wanted):
            if other not in self.manifest.files:
                raise InvalidInputError(f"{file}: wants tensors from {other!r}, which is no file of this model")
        return file


def open_folder(path: Path, digest: str = "") -> ModelFolder:
    """Return a model folder after every file of it was read and compared with its manifest.

    Args:
        path: the folder.
        digest: SHA-256 of the manifest that is wanted, in hex; empty: any.

    Raises:
        NotFoundError: the folder or its manifest is not there.
        InvalidInputError: the manifest cannot be understood or is another model's, or a file differs, is missing, or
            lies outside.
    """
    raw = _manifest_bytes(path)
    found = hashlib.sha256(raw).hexdigest()
    if digest and found != digest:
        raise InvalidInputError(f"model {path}: is {found[:12]}…, wanted is {digest[:12]}…: another model, or changed")
    try:
        manifest = Manifest.model_validate(json.loads(raw))
    except (ValueError, ValidationError, RecursionError) as error:
        raise InvalidInputError(f"{path / MANIFEST}: not a manifest: {str(error)[:300]}") from error
    if manifest.format != FORMAT:
        raise InvalidInputError(f"{path / MANIFEST}: format {manifest.format}, this version reads {FORMAT}")
    marks = {name: _check(path, name, entry) for name, entry in manifest.files.items()}
    return ModelFolder(path, manifest, found, marks)


def write_manifest(path: Path, name: str, source: Any, more: Mapping[str, Any] | None = None) -> Manifest:
    """Write the manifest of all files that lie in a folder now, and return it."""
    files = {file.name: entry_of(file) for file in sorted(path.iterdir()) if file.name != MANIFEST}
    manifest = Manifest(format=FORMAT, name=name, source=source, files=files, **(more or {}))
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8")
    return manifest


def entry_of(file: Path) -> Entry:
    """Return a file's SHA-256 and size."""
    with file.open("rb") as opened:
        return Entry(sha256=hashlib.file_digest(opened, "sha256").hexdigest(), size_bytes=file.stat().st_size)


def _mapped(file: Path) -> mmap.mmap | bytes:
    """Return a file of which only the pages that are looked at take memory."""
    with file.open("rb") as opened:
        if not file.stat().st_size:
            return b""  # nothing cannot be mapped
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _manifest_bytes(path: Path) -> bytes:
    file = path / MANIFEST
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise InvalidInputError(f"{file}: no plain file")
        with file.open("rb") as opened:
            raw = opened.read(MOST_MANIFEST_BYTES + 1)
        if len(raw) > MOST_MANIFEST_BYTES:
            raise InvalidInputError(f"{file}: larger than {MOST_MANIFEST_BYTES} bytes: not a manifest")
        return raw
    except FileNotFoundError as error:
        raise NotFoundError(f"no model in {path}: make one with `make model`") from error
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}: may this service read it?") from error


def _mark(file: Path) -> Mark | None:
    """Return what tells a file from another one; None: there is none, or no plain one."""
    try:
        found = os.lstat(file)
    except (OSError, ValueError):  # a name with a NUL is none
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _check(path: Path, name: str, entry: Entry) -> Mark:
    """Return a file's mark, taken before it was read: what is written into it meanwhile, or later, changes it."""
    if not name or name != Path(name).name or name in (".", "..") or "\0" in name:
        raise InvalidInputError(f"{path / MANIFEST}: {name!r} is no name of a file in this folder")
    file = path / name
    try:
        mark = _mark(file)
        if mark is None:
            raise InvalidInputError(f"{file}: missing, or no plain file")
        size = file.stat().st_size
        if size != entry.size_bytes:
            raise InvalidInputError(f"{file}: {size} bytes, its manifest says {entry.size_bytes}: is it whole?")
        found = entry_of(file).sha256
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}: may this service read it?") from error
    if found != entry.sha256:
        raise InvalidInputError(f"{file}: its SHA-256 is {found[:12]}…, its manifest says {entry.sha256[:12]}…: "
                                "it was changed since it was made; make it again")  # fmt: skip
    return mark
