"""One file that holds a gateway's state: a tar whose first member says what the others are.

Written under another name and renamed when it is whole; read only after each member's SHA-256 fits. Leaves out
encryption on purpose: that is the business of where it is put.

Source: docs/backup.md.
"""

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeagents.errors import ConfigurationError, StoreError

FORMAT: Final = "edgeagents-backup"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
CHECKSUM: Final = "manifest.json.sha256"
MOST_MANIFEST_BYTES: Final = 8 << 20
_BLOCK: Final = 1 << 20
Progress = Callable[[int], None]


class Member(BaseModel):
    """One file in the archive: its path in the gateway's folder, size and digest."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """What an archive holds, of whom and when.

    Args:
        format: always `edgeagents-backup`.
        version: of the archive's layout; a newer one is not read.
        gateway: whose state it is.
        created: when it was begun, RFC 3339, UTC.
        generation: of leases, as the guard's volume had it; 0: it had none.
        last_sequences: where each stream ended.
        has_secrets: whether tokens and passwords are in it.
        members: all files, the manifest left out.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["edgeagents-backup"] = "edgeagents-backup"
    version: int = VERSION
    written_by: str = ""
    gateway: str
    created: str
    generation: int = 0
    last_sequences: dict[str, int] = {}
    has_secrets: bool = False
    members: tuple[Member, ...] = ()


def digest(path: Path) -> Member:
    """Return size and SHA-256 of a file, under its own name."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
            size += len(block)
    return Member(name=path.name, size_bytes=size, sha256=found.hexdigest())


def write_archive(target: Path, folder: Path, names: Sequence[str], manifest: Manifest, progress: Progress) -> Manifest:
    """Write files of a folder into one archive, readable by its owner alone; return the manifest as written.

    Args:
        target: the archive; replaced when it is there, and whole at any time.
        folder: where the files lie.
        names: their paths in it, `/` between parts.
        manifest: what to say of them; its members are filled in here.
        progress: told of bytes written.

    Raises:
        StoreError: the disk is full, or the folder is not writable.
    """
    members = tuple(digest(folder / name).model_copy(update={"name": name}) for name in names)
    manifest = manifest.model_copy(update={"members": members})
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with _created(partial) as file, tarfile.open(fileobj=file, mode="w") as archive:
            text = manifest.model_dump_json(indent=1).encode()
            for name, data in ((MANIFEST, text), (CHECKSUM, hashlib.sha256(text).hexdigest().encode())):
                _add(archive, name, io.BytesIO(data), len(data))
            for member in members:
                with (folder / member.name).open("rb") as source:
                    _add(archive, member.name, source, member.size_bytes)
                progress(member.size_bytes)
        os.replace(partial, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise StoreError(f"backup {target}: {error.strerror}: is the disk full, may we write there?") from error
    finally:
        partial.unlink(missing_ok=True)
    return manifest


@contextlib.contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new private file, on disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    archive.addfile(info, source)


def read_manifest(path: Path) -> Manifest:
    """Return what an archive says of itself; only its beginning is read.

    Raises:
        ConfigurationError: it is none of ours, of a newer version, or not there.
        StoreError: it is damaged.
    """
    with _opened(path) as archive:
        return _manifest(path, archive)


def extract(path: Path, folder: Path, progress: Progress) -> Manifest:
    """Write all members below a folder, each checked; return the manifest.

    Raises:
        ConfigurationError: it is none of ours, of a newer version, or not there.
        StoreError: a member is damaged, missing, or one too many; or the folder cannot be written.
    """
    with _opened(path) as archive:
        manifest = _manifest(path, archive)
        left = {member.name: member for member in manifest.members}
        while (info := archive.next()) is not None:
            member = left.pop(info.name, None)
            source = archive.extractfile(info) if member is not None and info.isreg() else None
            if member is None or source is None or not _is_inside(info.name):
                raise StoreError(f"{path}: holds {info.name!r}, which its manifest does not name: it was changed")
            _extract(path, source, member, folder / member.name)
            progress(member.size_bytes)
        if left:
            raise StoreError(f"{path}: is cut short, {next(iter(left))!r} is missing: copy it again")
    return manifest


def _extract(path: Path, source: IO[bytes], member: Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with _created(target) as file:
        while block := source.read(_BLOCK):
            found.update(block)
            file.write(block)
    if found.hexdigest() != member.sha256:
        raise StoreError(f"{path}: member {member.name!r} is damaged (SHA-256): copy it again, or take an older backup")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield archive
    except FileNotFoundError as error:
        raise ConfigurationError(f"backup {path}: there is no such file") from error
    except tarfile.ReadError as error:
        cut = "unexpected end" in str(error)
        text = "is cut short: copy it again" if cut else f"is no backup of edgeagents, or damaged ({error})"
        raise (StoreError if cut else ConfigurationError)(f"{path}: {text}") from error
    except tarfile.TarError as error:
        raise StoreError(f"{path}: is damaged: {error}") from error
    except OSError as error:
        raise StoreError(f"backup {path}: {error.strerror or error}") from error


def _manifest(path: Path, archive: tarfile.TarFile) -> Manifest:
    text, checksum = _read(archive, MANIFEST), _read(archive, CHECKSUM)
    if not text or not checksum:
        raise ConfigurationError(f"{path}: is no backup of edgeagents: it does not begin with {MANIFEST}")
    if hashlib.sha256(text).hexdigest() != checksum.decode(errors="replace"):
        raise StoreError(f"{path}: its manifest is damaged (SHA-256): copy it again, or take an older backup")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(f"{path}: is no backup of edgeagents: {first['loc']}: {first['msg']}") from error
    if manifest.version > VERSION:
        raise ConfigurationError(
            f"{path}: is of version {manifest.version}, this edgeagents reads up to {VERSION}: use the newer one "
            f"({manifest.written_by or 'its writer'})"
        )
    return manifest


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the next member, nothing when it has another name or is too large to be what it should be."""
    info = archive.next()
    if info is None or info.name != name or info.size > MOST_MANIFEST_BYTES:
        return b""
    source = archive.extractfile(info)
    return source.read() if source is not None else b""


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts
