"""State files: copied at one moment while they are written, locked against whoever runs, moved and not deleted."""

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeagents.adapters.state_files import copy_file, files_of, held, is_locked, ledger_generation, move_contents
from edgeagents.errors import ConfigurationError, StoreError


def test_a_database_in_use_is_copied_with_what_its_log_holds(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as live:
        live.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        assert (tmp_path / "a.db-wal").stat().st_size > 0
        live.execute("BEGIN")
        live.execute("INSERT INTO t VALUES (2)")
        copy_file(tmp_path / "a.db", tmp_path / "copy" / "a.db")
        live.execute("COMMIT")
    with closing(sqlite3.connect(tmp_path / "copy" / "a.db")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)], "what is committed, and nothing else"
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["a.db"]


def test_a_database_left_by_a_killed_process_is_copied_whole(tmp_path: Path) -> None:
    live = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    live.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)")
    left = tmp_path / "left"
    left.mkdir()
    for name in ("a.db", "a.db-wal"):  # as after kill -9: no shared memory, the log not taken in
        (left / name).write_bytes((tmp_path / name).read_bytes())
    live.close()
    copy_file(left / "a.db", tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(StoreError, match=r"a\.db: .*is the database damaged"):
        copy_file(tmp_path / "a.db", tmp_path / "copy.db")


def test_files_without_locks_and_companions(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("guard.db", "guard.db-wal", "guard.db-shm", "guard.lock", "lock", "sub/home.json"):
        (tmp_path / name).touch()
    assert [path.name for path in files_of(tmp_path)] == ["guard.db", "home.json"]
    assert files_of(tmp_path / "none") == []


def test_a_lock_that_somebody_holds_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "guard" / "guard.lock"
    assert not is_locked(path)
    with held(path, "a guard"):
        assert is_locked(path)
        with (
            pytest.raises(ConfigurationError, match="a guard runs on it: stop the gateway first"),
            held(path, "a guard"),
        ):
            pass
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again
    os.close(descriptor)


def test_contents_are_moved_and_locks_stay(tmp_path: Path) -> None:
    source, target = tmp_path / "guard", tmp_path / "aside" / "guard"
    (source / "sub").mkdir(parents=True)
    for name in ("guard.db", "guard.db-wal", "guard.lock", "sub/x"):
        (source / name).write_text(name)
    move_contents(source, target)
    assert [path.name for path in source.iterdir()] == ["guard.lock"]
    assert sorted(path.name for path in target.rglob("*")) == ["guard.db", "guard.db-wal", "sub", "x"]
    move_contents(tmp_path / "none", target)


def test_the_generation_of_a_volume_is_read_whatever_state_it_is_in(tmp_path: Path) -> None:
    assert ledger_generation(tmp_path) == 0
    with closing(sqlite3.connect(tmp_path / "guard.db")) as database, database:
        database.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        database.execute("INSERT INTO meta VALUES ('generation', 17)")
    assert ledger_generation(tmp_path) == 17
    (tmp_path / "guard.db").write_bytes(b"\xff" * 100)
    assert ledger_generation(tmp_path) == 0
