"""Room for safety commands: kept while there is some, used when there is none, whole again afterwards."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeagents.adapters.state_files import files_of
from edgeagents.errors import VolumeFullError
from services.guard import reserve
from services.guard.ledger import Ledger
from services.guard.reserve import BALLAST, BALLAST_BYTES, GROWN_PAGES, KEPT_PAGES, LOG_BYTES, Reserve
from tests.unit.services.guard.test_ledger import command


class Disk:
    """How much room the volume tells, and the time."""

    def __init__(self) -> None:
        self.free_bytes = 1 << 30
        self.now_s = 50.0

    def statvfs(self, path: Path) -> SimpleNamespace:
        """Answer as the system would."""
        return SimpleNamespace(f_bavail=self.free_bytes // 4096, f_frsize=4096)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk with room."""
    found = Disk()
    monkeypatch.setattr(os, "statvfs", found.statvfs)
    monkeypatch.setattr(Reserve.__init__, "__defaults__", (lambda: found.now_s,))
    return found


@pytest.fixture
def ledger(tmp_path: Path, disk: Disk) -> Iterator[Ledger]:
    """A ledger that keeps room."""
    found = Ledger(tmp_path, keeps_reserve=True)
    yield found
    found.close()


def free_pages(ledger: Ledger) -> int:
    """Return how many pages are free inside the file."""
    (count,) = ledger._db.execute("PRAGMA freelist_count").fetchone()
    return int(count)


def fill(ledger: Ledger, first: int = 0) -> int:
    """Take commands in until no more are; return how many."""
    for number in range(first, 10_000):
        try:
            ledger.receive(command(f"c-{number}", "x" * 900), "air", number, 1.0)
        except VolumeFullError:
            return number - first
    raise AssertionError("it never gets full")


def test_room_is_there_from_the_start_in_the_file_itself_and_in_its_log(ledger: Ledger, tmp_path: Path) -> None:
    assert free_pages(ledger) >= KEPT_PAGES + GROWN_PAGES
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    assert (tmp_path / "guard.db").stat().st_size == pages * 4096, "what is only in the log needs room later"
    assert (tmp_path / "guard.db-wal").stat().st_size >= LOG_BYTES
    assert (tmp_path / BALLAST).stat().st_size == BALLAST_BYTES
    assert [path.name for path in files_of(tmp_path)] == ["guard.db"], "no backup needs the ballast"


def test_on_a_full_volume_the_rest_is_for_safety_and_for_what_was_taken_in(
    ledger: Ledger, disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ledger.reserve is not None
    disk.free_bytes = 0
    sizes = [(path, path.stat().st_size) for path in (tmp_path / "guard.db", tmp_path / "guard.db-wal")]
    assert fill(ledger) > GROWN_PAGES, "what is beyond the reserve is for all"
    assert ledger.reserve.is_full
    with pytest.raises(VolumeFullError, match="only safety commands are taken; make room on it"):
        ledger.receive(command("c-x"), "air", 20_000, 1.0)
    for number in range(200):
        assert ledger.receive(command(f"s-{number}", "x" * 900), "smoke", 20_001 + number, 1.0, is_safety=True)
        ledger.enter("smoke", command(f"s-{number}").id, "intent", 2.0)
    assert not ledger.receive(command("c-0"), "air", 0, 1.0), "a redelivered one is known, full or not"
    assert sizes == [(path, path.stat().st_size) for path, _ in sizes], "nothing on the volume has grown"
    assert caplog.text.count("only safety commands are taken") == 1


def test_with_room_again_all_are_taken_and_the_reserve_is_whole(ledger: Ledger, disk: Disk) -> None:
    assert ledger.reserve is not None
    disk.free_bytes = 0
    taken = fill(ledger)
    for number in range(100):
        ledger.receive(command(f"s-{number}", "x" * 900), "smoke", 20_000 + number, 1.0, is_safety=True)
    assert not ledger.reserve.is_whole
    disk.free_bytes = 1 << 30
    with pytest.raises(VolumeFullError):
        ledger.receive(command("c-x"), "air", 30_000, 1.0)  # it was asked a moment ago
    disk.now_s += reserve.RETRY_S
    assert ledger.receive(command("c-x"), "air", 30_000, 1.0)
    assert ledger.reserve.is_whole
    assert not ledger.reserve.is_full
    assert taken > 0


def test_within_a_transaction_nothing_grows_and_nothing_is_told(
    ledger: Ledger, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    assert ledger.reserve is not None
    disk.free_bytes = 0
    fill(ledger)
    ledger.reserve._tell(is_full=False)
    caplog.clear()
    disk.free_bytes, disk.now_s = 1 << 30, disk.now_s + reserve.RETRY_S
    with pytest.raises(VolumeFullError), ledger.together():
        ledger.receive(command("c-x"), "air", 30_000, 1.0)
    assert not ledger.reserve.is_full
    assert ledger.receive(command("c-x"), "air", 30_000, 1.0), "by itself it may"
    assert not caplog.records, "it was never full"


def test_a_guard_that_starts_on_a_full_volume_gives_its_ballast_up(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(tmp_path, keeps_reserve=True).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guard.db", "guard.lock", BALLAST]
    disk.free_bytes = 4096
    seen: list[bool] = []
    connect = sqlite3.connect

    def connecting(*arguments: object, **more: object) -> sqlite3.Connection:
        seen.append((tmp_path / BALLAST).exists())
        return connect(*arguments, **more)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", connecting)
    again = Ledger(tmp_path, keeps_reserve=True)
    assert seen == [False], "there is room before SQLite asks for some"
    assert (tmp_path / "guard.db-wal").stat().st_size >= LOG_BYTES
    assert free_pages(again) >= KEPT_PAGES, "free pages outlive a restart"
    assert not (tmp_path / BALLAST).exists()
    again.close()


def test_a_volume_too_small_for_any_reserve_is_told_and_takes_safety_commands(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def allocate(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    disk.free_bytes = 1 << 20
    ledger = Ledger(tmp_path, keeps_reserve=True)
    assert "no room for safety commands can be kept: No space left on device" in caplog.text
    with pytest.raises(VolumeFullError):
        ledger.receive(command(), "air", 1, 1.0)
    assert ledger.receive(command(), "smoke", 1, 1.0, is_safety=True)
    ledger.close()


def test_a_ledger_without_a_reserve_needs_none(tmp_path: Path, disk: Disk) -> None:
    disk.free_bytes = 0
    ledger = Ledger(tmp_path)
    assert ledger.reserve is None
    assert ledger.receive(command(), "air", 1, 1.0)
    ledger.close()
