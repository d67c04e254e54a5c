"""The guard's volume: what a call wrote is there after a crash; one guard at a time."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagents.errors import ConfigurationError, StoreError
from edgeagents.model.message import Cause, Command, CommandId, Epoch, Outcome
from services.guard.ledger import Held, Intent, Ledger


def command(name: str = "c-1", value: str = "21") -> Command:
    """Return a command."""
    return Command(
        id=CommandId(name), device="valve", resource="Setpoint", value=value, incarnation="i",
        epoch=Epoch(generation=1, revision=2), ttl_s=10, cause=Cause(stream="s", sequence=3),
    )  # fmt: skip


def outcome(name: str = "c-1") -> Outcome:
    """Return how it ended."""
    return Outcome(command_id=CommandId(name), device="valve", resource="Setpoint", status="proven", reason="reads 21")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(tmp_path)
    yield found
    found.close()


def test_a_command_is_received_once_whatever_its_content(ledger: Ledger) -> None:
    assert ledger.receive(command(), "air", 7, 1.0)
    assert not ledger.receive(command(), "air", 7, 2.0)
    assert not ledger.receive(command(value="30"), "air", 9, 3.0), "an id is one command"
    assert ledger.receive(command(), "heat", 8, 4.0), "ids of others are theirs"
    entry = ledger.entry("air", "c-1")
    assert entry is not None
    assert (entry.command.value, entry.sequence, entry.phase) == ("21", 7, "received")
    assert ledger.entry("air", "c-2") is None
    assert ledger.number("last_sequence") == 9, "one that comes late lowers nothing"
    ledger.saw(12)
    assert ledger.number("last_sequence") == 12


def test_it_moves_from_phase_to_phase_and_ends_once(ledger: Ledger) -> None:
    for name, sequence in (("c-2", 9), ("c-1", 7)):
        ledger.receive(command(name), "air", sequence, 1.0)
    ledger.enter("air", CommandId("c-1"), "intent", 2.0, Intent("ann"))
    assert [(entry.command.id, entry.phase, entry.approver) for entry in ledger.unfinished()] == [
        ("c-1", "intent", "ann"), ("c-2", "received", ""),
    ]  # fmt: skip
    ledger.finish("air", outcome(), 3.0)
    ledger.finish("air", outcome().model_copy(update={"status": "failed"}), 4.0)
    (untold,) = ledger.untold()
    assert (untold.outcome, untold.phase) == (outcome(), "done")
    assert [entry.command.id for entry in ledger.unfinished()] == ["c-2"]
    ledger.told("air", CommandId("c-1"))
    assert ledger.untold() == []


def test_what_was_written_is_there_after_kill_minus_nine(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from services.guard.ledger import Ledger
from tests.unit.services.guard.test_ledger import command
ledger = Ledger(Path({str(tmp_path)!r}))
ledger.remember("generation", 4)
ledger.receive(command(), "air", 7, 1.0)
ledger.enter("air", "c-1", "intent", 2.0)
ledger.went_out("valve", "Setpoint", "air", "21", 5.0)
ledger.block("valve", "silence")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    ledger = Ledger(tmp_path)
    assert (ledger.number("generation"), ledger.number("last_sequence")) == (4, 7)
    assert [entry.phase for entry in ledger.unfinished()] == ["intent"]
    assert list(ledger.past_sets(0)) == [("valve", "Setpoint", "air", "21", 5.0)]
    assert ledger.blocked() == {"valve": "silence"}
    ledger.close()


def test_a_second_guard_on_the_same_volume_is_told_so(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    with pytest.raises(ConfigurationError, match="another guard runs on it: one guard per gateway"):
        Ledger(tmp_path)
    first.close()
    Ledger(tmp_path).close()


def test_a_volume_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="is the volume writable"):
        Ledger(tmp_path / "file" / "guard")
    (tmp_path / "guard.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"guard\.db"):
        Ledger(tmp_path)


def test_a_disk_that_fails_is_a_store_error_and_half_a_command_is_none(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(sequence: int) -> None:
        raise StoreError("volume full")

    monkeypatch.setattr(ledger, "saw", full)
    with pytest.raises(StoreError, match="volume full"):
        ledger.receive(command(), "air", 7, 1.0)
    monkeypatch.undo()
    assert ledger.unfinished() == []
    assert ledger.receive(command(), "air", 7, 1.0)
    ledger._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="is the volume full or read-only"):
        ledger.block("valve", "x")


def test_old_ones_are_forgotten_and_open_ones_never(ledger: Ledger) -> None:
    for number in range(4):
        ledger.receive(command(f"c-{number}"), "air", number, 10.0)
    for number in (0, 1, 2):
        ledger.finish("air", outcome(f"c-{number}"), 10.0 + number * 10)
    ledger.told("air", CommandId("c-0"))
    ledger.told("air", CommandId("c-2"))
    for site_s in (1.0, 2.0):
        ledger.went_out("valve", "Setpoint", "air", "21", site_s)
    ledger.forget(15.0, 1.5)
    known = [number for number in range(4) if ledger.entry("air", f"c-{number}")]
    assert known == [1, 2, 3], "0 is old and told; 1 is old but not told, 2 not old, 3 not done"
    assert [entry[4] for entry in ledger.past_sets(0)] == [2.0]


def test_every_commit_reaches_the_disk(ledger: Ledger) -> None:
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sqlite3.threadsafety == 3, "read by the event loop's thread, written by the ledger's"


def test_an_intent_keeps_what_the_device_showed_and_a_deadline_of_this_boot(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.receive(command(), "air", 7, 1.0)
    ledger.enter("air", CommandId("c-1"), "intent", 2.0, Intent("ann", "1.8e+01", 55.5))
    assert ledger.unfinished()[0].intent == Intent("ann", "1.8e+01", 55.5)
    monkeypatch.setattr("services.guard.ledger._boot_id", lambda: "another boot")
    assert ledger.unfinished()[0].intent == Intent("ann", "1.8e+01", 0.0), "its clock began anew"


def test_what_devices_should_show_and_what_may_still_come_is_kept_by_resource(ledger: Ledger) -> None:
    for value in ("20", "21"):
        ledger.expect("valve", "Setpoint", value)
    ledger.expect("pump", "Setpoint", "5")
    ledger.expect("pump", "Setpoint", None)
    assert ledger.expected() == [Held("valve", "Setpoint", "21")]
    ledger.reckon_with("valve", "Setpoint", [("19", False), ("22", False), ("22", True)])
    newest = (Held("valve", "Setpoint", "22"), True)
    assert ledger.late() == [(Held("valve", "Setpoint", "19"), False), newest, newest], "two SETs of one value are two"
    ledger.reckon_with("valve", "Setpoint", [])
    assert ledger.late() == []


def test_a_clock_that_was_set_moves_what_is_kept_and_is_known_until_the_next_boot(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ledger.clock_offset_ms() is None
    ledger.went_out("valve", "Setpoint", "air", "21", 5000.0)
    ledger.override("valve", "Setpoint", Held("valve", "Setpoint", "17", 5100.0, 6900.0))
    ledger.shift(-3600.0, 77)
    assert list(ledger.past_sets(0)) == [("valve", "Setpoint", "air", "21", 1400.0)]
    assert ledger.overrides() == [Held("valve", "Setpoint", "17", 1500.0, 3300.0)]
    assert ledger.clock_offset_ms() == 77
    monkeypatch.setattr("services.guard.ledger._boot_id", lambda: "another boot")
    assert ledger.clock_offset_ms() is None


def test_until_when_a_command_may_go_out_is_kept_for_this_boot_unless_a_later_one_came_before(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = Intent(deadline_s=90.0, data_site_s=5000.0)
    ledger.receive(command("in-turn"), "air", 7, 1.0, until=until)
    ledger.receive(command("later"), "air", 9, 1.0, until=until)
    ledger.receive(command("redelivered"), "air", 8, 1.0, until=until)
    kept = {entry.command.id: entry.intent for entry in ledger.unfinished()}
    assert kept == {"in-turn": until, "redelivered": Intent(), "later": until}
    monkeypatch.setattr("services.guard.ledger._boot_id", lambda: "another boot")
    assert {entry.intent.deadline_s for entry in ledger.unfinished()} == {0.0}, "its clock began anew"


def test_deadlines_of_what_waits_can_be_forgotten_and_those_of_what_is_under_way_stay(ledger: Ledger) -> None:
    until = Intent(deadline_s=90.0, data_site_s=5000.0)
    for sequence, name in enumerate(("waits", "under-way"), 7):
        ledger.receive(command(name), "air", sequence, 1.0, until=until)
    ledger.enter("air", CommandId("under-way"), "intent", 2.0, until)
    ledger.forget_deadlines()
    assert {entry.command.id: entry.intent.deadline_s for entry in ledger.unfinished()} == {
        "waits": 0.0, "under-way": 90.0,
    }  # fmt: skip


def test_a_volume_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "guard.db")
    old.executescript(
        "CREATE TABLE commands (id TEXT NOT NULL, agent TEXT NOT NULL, sequence INTEGER NOT NULL, phase TEXT NOT NULL,"
        "command TEXT NOT NULL, outcome TEXT, told INTEGER NOT NULL DEFAULT 0, changed_s REAL NOT NULL,"
        "approver TEXT NOT NULL DEFAULT '', PRIMARY KEY (agent, id));"
        "CREATE TABLE blocked (device TEXT PRIMARY KEY, reason TEXT NOT NULL);"
    )
    old.execute(
        "INSERT INTO commands VALUES ('c-1','air',7,'intent',?,NULL,0,1.0,'ann')", (command().model_dump_json(),)
    )
    old.execute("INSERT INTO blocked VALUES ('valve', 'silence')")
    old.commit()
    old.close()
    ledger = Ledger(tmp_path)
    (entry,) = ledger.unfinished()
    assert (entry.command, entry.intent, entry.blocked) == (command(), Intent("ann"), "")
    assert ledger.blocked() == {"valve": "silence"}
    ledger.close()
