"""What a look at a folder's disk tells."""

import errno
import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from edgeagents.adapters.examination import disk
from edgeagents.adapters.examination.disk import is_only_shown, look_at_disk

# As a container has it: its own file system, a volume that is shown, one that may be written, a disk gone read-only.
MOUNTS = """\
600 500 0:50 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/l
601 600 254:1 /volumes/guard/_data /volumes/guard ro,relatime - ext4 /dev/vda1 rw,discard
602 600 254:1 /volumes/nats/_data /volumes/nats rw,relatime - ext4 /dev/vda1 rw,discard
603 600 254:2 / /bad\\040disk ro,relatime shared:7 - ext4 /dev/vdb ro,errors=remount-ro
"""


def test_a_folder_that_can_be_written_tells_its_room_and_is_left_as_it_was(tmp_path: Path) -> None:
    facts = look_at_disk("the guard", tmp_path)
    assert (facts.problem, facts.is_there) == ("", True)
    assert 0 < facts.free_bytes <= facts.total_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_or_not_named_is_no_problem_of_the_disk(tmp_path: Path) -> None:
    assert not look_at_disk("the guard", tmp_path / "gone").is_there
    assert look_at_disk("the guard", None).path == ""


def test_where_nothing_can_be_written_the_reason_is_told() -> None:
    assert look_at_disk("the guard", Path("/proc")).problem


@pytest.mark.parametrize(
    ("folder", "is_shown"),
    [("/volumes/guard", True), ("/volumes/guard/deeper", True), ("/volumes/nats", False), ("/bad disk", False),
     ("/bad disk/deeper", False), ("/volumes", True), ("/", True)],
)  # fmt: skip
def test_a_read_only_mount_is_told_from_a_read_only_disk(folder: str, is_shown: bool) -> None:
    assert is_only_shown(MOUNTS, Path(folder)) is is_shown


def test_a_mount_over_another_covers_it() -> None:
    above = "604 601 254:1 /x /volumes/guard rw,relatime - ext4 /dev/vda1 rw\n"
    assert not is_only_shown(MOUNTS + above, Path("/volumes/guard"))
    assert not is_only_shown("", Path("/volumes/guard"))
    assert not is_only_shown("what is this - no\n\n", Path("/volumes/guard"))


@pytest.mark.parametrize(("rights", "problem"), [("rw", ""), ("ro", os.strerror(errno.EROFS))])
def test_what_is_only_shown_tells_its_room_and_a_read_only_disk_its_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rights: str, problem: str
) -> None:
    def refuse(**_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 8:1 / {tmp_path.resolve()} ro - ext4 /dev/sda1 {rights}\n")
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    facts = look_at_disk("the guard", tmp_path)
    assert (facts.is_shown, facts.problem) == (not problem, problem)
    assert (facts.free_bytes > 0) is (not problem)
