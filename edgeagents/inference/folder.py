"""A model folder that is what its manifest says: every file's SHA-256 and size, nothing from outside.

    manifest.json   {"format": 1, "name": …, "source": …, "files": {"model.onnx": {"sha256": …, "size_bytes": …}, …}}

What a manifest does not name is not read. Leaves out signatures: who made a model is said by its card.

Source: design.md section 6.
"""

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeagents.errors import ConfigurationError, InvalidInputError, MalformedMessageError, NotFoundError
from edgeagents.inference.onnx_file import external_files

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
MOST_MANIFEST_BYTES: Final = 1 << 20
MOST_GRAPH_BYTES: Final = 2 << 30  # what protobuf allows


class Entry(BaseModel):
    """One file of a model."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Quantised(BaseModel):
    """How an output's integers stand for real numbers: (value - zero_point) * scale."""

    model_config = ConfigDict(frozen=True)

    scale: float = Field(gt=0, allow_inf_nan=False)
    zero_point: int = 0


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
    """A folder whose files are what its manifest says; `digest` names the model, whatever the folder is called."""

    path: Path
    manifest: Manifest
    digest: str

    def file(self, name: str) -> Path:
        """Return where a file of the model lies.

        Raises:
            NotFoundError: the manifest does not name it.
        """
        if name not in self.manifest.files:
            raise NotFoundError(f"model {self.path}: {MANIFEST} names no file {name!r}")
        return self.path / name

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
    for name, entry in manifest.files.items():
        _check(path, name, entry)
    return ModelFolder(path, manifest, found)


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
        if file.stat().st_size > MOST_MANIFEST_BYTES:
            raise InvalidInputError(f"{file}: larger than {MOST_MANIFEST_BYTES} bytes: not a manifest")
        return file.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no model in {path}: make one with `make model`") from error
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}: may this service read it?") from error


def _check(path: Path, name: str, entry: Entry) -> None:
    if not name or name != Path(name).name or name in (".", ".."):
        raise InvalidInputError(f"{path / MANIFEST}: {name!r} is no name of a file in this folder")
    file = path / name
    try:
        if file.is_symlink() or not file.is_file():
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
