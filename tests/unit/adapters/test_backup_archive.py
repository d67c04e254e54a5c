"""One file for a gateway's state: whole, or refused with the reason named."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edgeagents.adapters.backup_archive import CHECKSUM, MANIFEST, Manifest, extract, read_manifest, write_archive
from edgeagents.errors import ConfigurationError, StoreError

NAMES = ["guard/guard.db", "streams/commands.json", "world/home.json"]


def ignore(size_bytes: int) -> None:
    """Take no notice of progress."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of three files."""
    folder = tmp_path / "state"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes([number]) * 5000)
    target = tmp_path / "backup.tar"
    manifest = Manifest(gateway="home", created="2026-01-01T00:00:00Z", generation=4, last_sequences={"commands": 9})
    write_archive(target, folder, NAMES, manifest, ignore)
    return target


def test_what_was_written_is_read_back(archive: Path, tmp_path: Path) -> None:
    sizes: list[int] = []
    manifest = extract(archive, tmp_path / "out", sizes.append)
    assert (manifest.gateway, manifest.generation, manifest.last_sequences) == ("home", 4, {"commands": 9})
    assert [member.name for member in manifest.members] == NAMES
    assert sizes == [5000] * 3
    for name in NAMES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "state" / name).read_bytes()
    assert read_manifest(archive) == manifest


def test_only_its_owner_can_read_it_and_nothing_else_is_left(archive: Path) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in archive.parent.iterdir()) == ["backup.tar", "state"]


def test_a_backup_that_fails_leaves_the_one_before(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    manifest = Manifest(gateway="home", created="2026-01-02T00:00:00Z")
    with pytest.raises((StoreError, OSError)):
        write_archive(archive, tmp_path / "state", [*NAMES, "gone"], manifest, ignore)
    assert archive.read_bytes() == before
    assert sorted(path.name for path in archive.parent.iterdir()) == ["backup.tar", "state"]


@pytest.mark.parametrize("at", [100, 700, 1600, 5000, 9000, 17_000])
def test_a_flipped_bit_is_found_wherever_it_is(archive: Path, tmp_path: Path, at: int) -> None:
    data = bytearray(archive.read_bytes())
    data[at] ^= 1
    archive.write_bytes(data)
    with pytest.raises((StoreError, ConfigurationError), match=r"backup\.tar"):
        extract(archive, tmp_path / "out", ignore)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_one_that_is_cut_short_is_named_so(archive: Path, tmp_path: Path, share: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StoreError, match="is cut short"):
        extract(archive, tmp_path / "out", ignore)


def test_a_damaged_member_is_named(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"\x01" * 5000, b"\x01" * 4999 + b"\x00"))
    with pytest.raises(StoreError, match=r"'streams/commands\.json' is damaged \(SHA-256\)"):
        extract(archive, tmp_path / "out", ignore)


def packed(path: Path, *members: tuple[str, bytes]) -> Path:
    """Write a tar with these members, and the checksum of a manifest behind it."""
    checksum = hashlib.sha256(members[0][1]).hexdigest().encode()
    members = (members[0], (CHECKSUM, checksum), *members[1:])
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def manifest(**changes: Any) -> bytes:
    """Return a manifest's text."""
    return json.dumps({"format": "edgeagents-backup", "version": 1, "gateway": "g", "created": "x"} | changes).encode()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("readme", b"x")], "does not begin with manifest.json"),
        ([(MANIFEST, b"{}")], "is no backup of edgeagents"),
        ([(MANIFEST, manifest(format="other"))], "is no backup of edgeagents"),
        ([(MANIFEST, manifest(version=2, written_by="edgeagents 9"))], r"version 2, .* up to 1: use .*edgeagents 9"),
    ],
)
def test_a_foreign_or_newer_one_is_refused(tmp_path: Path, members: list[tuple[str, bytes]], says: str) -> None:
    path = packed(tmp_path / "x.tar", *members)
    with pytest.raises(ConfigurationError, match=says):
        extract(path, tmp_path / "out", ignore)


def test_what_is_no_archive_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with pytest.raises(ConfigurationError, match="there is no such file"):
        read_manifest(path)
    path.write_text("hello " * 1000)
    with pytest.raises(ConfigurationError, match="is no backup of edgeagents, or damaged"):
        read_manifest(path)


@pytest.mark.parametrize("name", ["extra", "../outside", "/absolute"])
def test_a_member_that_the_manifest_does_not_name_is_refused(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "x.tar", (MANIFEST, manifest()), (name, b"x"))
    with pytest.raises(StoreError, match="which its manifest does not name"):
        extract(path, tmp_path / "out", ignore)


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of "x"
    member = {"name": "../outside", "size_bytes": 1, "sha256": digest}
    path = packed(tmp_path / "x.tar", (MANIFEST, manifest(members=[member])), ("../outside", b"x"))
    with pytest.raises(StoreError, match="outside"):
        extract(path, tmp_path / "out", ignore)
    assert not (tmp_path / "outside").exists()
