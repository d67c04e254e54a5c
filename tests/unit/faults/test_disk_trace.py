"""What a trace says about the disk after a power cut, on lines as strace writes them and on a real trace."""

import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.disk_trace import Disk, is_whole, traced


def after(folder: Path, *lines: str) -> dict[str, bytes]:
    """Return the files of a folder after a power cut at the end of a trace; `@` stands for the folder."""
    log = folder.with_name("log")
    log.write_text("".join(line.replace("@", str(folder)) + "\n" for line in lines))
    disk = Disk(folder)
    disk.follow(log)
    disk.rebuild()
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "disk"
    found.mkdir()
    return found


OPENED = '7 openat(AT_FDCWD</>, "@/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5<@/a>'


def test_what_was_written_after_the_last_fsync_is_gone(folder: Path) -> None:
    lines = [OPENED, '7 write(5<@/a>, "one\\n\\0\\377", 6) = 6', "7 fsync(5<@/a>) = 0", '7 write(5<@/a>, "two", 3) = 3']
    assert after(folder, *lines) == {"a": b"one\n\0\xff"}
    assert after(folder, OPENED, *lines[1:], "7 fdatasync(5<@/a>) = 0") == {"a": b"one\n\0\xfftwo"}


def test_a_write_during_an_fsync_is_not_covered_by_it(folder: Path) -> None:
    assert after(
        folder, OPENED, '7 pwrite64(5<@/a>, "abc", 3, 0) = 3', "7 fsync(5<@/a> <unfinished ...>",
        '8 pwrite64(5<@/a>, "X", 1, 1) = 1', "7 <... fsync resumed>) = 0",
    ) == {"a": b"abc"}  # fmt: skip
    assert after(folder, OPENED, '7 write(5<@/a>, "abc", 3) = 3', "7 fsync(5<@/a> <unfinished ...>") == {"a": b"abc"}


def test_an_fsync_that_never_ended_or_failed_covers_nothing(folder: Path) -> None:
    begun = [OPENED, '7 write(5<@/a>, "abc", 3) = 3']
    assert after(folder, *begun, "7 fsync(5<@/a> <unfinished ...>") == {}
    assert after(folder, *begun, "7 fsync(5<@/a>) = -1 EIO (Input/output error)") == {}


def test_a_file_opened_to_sync_keeps_each_write(folder: Path) -> None:
    opened = OPENED.replace("O_CLOEXEC", "O_SYNC|O_CLOEXEC")
    assert after(folder, opened, '7 write(5<@/a>, "abc" <unfinished ...>', "7 <... write resumed>, 3) = 3") == {
        "a": b"abc"
    }


def test_a_rename_lasts_from_the_next_fsync_on_and_takes_unsynced_content_with_it(folder: Path) -> None:
    (folder / "a").write_bytes(b"old")
    new = [OPENED.replace("@/a", "@/a.new"), '7 write(5<@/a.new>, "new", 3) = 3']
    renamed = '7 renameat(AT_FDCWD</>, "@/a.new", AT_FDCWD</>, "@/a") = 0'
    folders = ['7 openat(AT_FDCWD</>, "@", O_RDONLY|O_CLOEXEC) = 6<@>', "7 fsync(6<@>) = 0"]
    assert after(folder, *new, "7 fsync(5<@/a.new>) = 0", renamed) == {"a": b"old", "a.new": b"new"}
    (folder / "a.new").unlink()
    assert after(folder, *new, "7 fsync(5<@/a.new>) = 0", renamed, *folders) == {"a": b"new"}
    assert after(folder, *new, renamed, *folders) == {"a": b""}, "the name is new, the content never was on disk"


def test_removed_and_moved_names_and_a_truncation_count(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "b").write_bytes(b"bee")
    (folder / "c").write_bytes(b"sea")
    assert after(
        folder, '7 rename("@/sub", "@/moved") = 0', '7 unlink("@/c") = 0', OPENED,
        '7 writev(5<@/a>, [{iov_base="12", iov_len=2}, {iov_base="34", iov_len=2}], 2) = 4',
        "7 ftruncate(5<@/a>, 3) = 0", "7 fsync(5<@/a>) = 0", "7 ftruncate(5<@/a>, 0) = 0",
    ) == {"moved/b": b"bee", "a": b"123"}  # fmt: skip


def test_other_folders_and_sockets_are_nobodys_business(folder: Path) -> None:
    lines = [
        '7 openat(AT_FDCWD</>, "/elsewhere/a", O_RDWR|O_CREAT, 0600) = 5</elsewhere/a>',
        '7 write(5</elsewhere/a>, "abc", 3) = 3', "7 fsync(5</elsewhere/a>) = 0",
        '7 write(9<socket:[123]>, "INFO {\\"a\\":1}", 12) = 12',
    ]  # fmt: skip
    assert after(folder, *lines) == {}


WRITER = """
import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1] + "/a.db", isolation_level=None)
db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (n INTEGER);")
for number in range(20):
    db.execute("INSERT INTO t VALUES (?)", (number,))
db.executescript("PRAGMA synchronous=OFF;")
for number in range(20, 30):
    db.execute("INSERT INTO t VALUES (?)", (number,))
os.kill(os.getpid(), 9)
"""


def test_of_a_real_database_exactly_what_was_committed_with_a_sync_is_left(folder: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here: apt-get install strace")
    log = tmp_path / "log"
    disk = Disk(folder)
    process = subprocess.Popen(traced(strace, log, [sys.executable, "-c", WRITER, str(folder)]))
    assert process.wait(30) == -9
    give_up_s = time.monotonic() + 10
    while not is_whole(log, process.pid):  # the tracer ends by itself, a moment after
        assert time.monotonic() < give_up_s
    disk.follow(log)
    disk.rebuild()
    with sqlite3.connect(folder / "a.db") as db:
        rows = [row[0] for row in db.execute("SELECT n FROM t ORDER BY n")]
    db.close()
    assert rows == list(range(20))
