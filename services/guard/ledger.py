"""The guard's own state on its volume: commands with their intents and outcomes, generation, blocked devices.

SQLite with full fsync: when a call returns, what it wrote survives a power cut. Calls are blocking and run in a
one-thread executor, so they are in order. One guard per gateway: the volume is locked as long as it runs.

Source: design.md section 3.7; field notes on SQLite (92 us an insert and commit in WAL mode).
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from edgeagents.errors import ConfigurationError, StoreError
from edgeagents.model.message import Command, CommandId, Outcome

Phase: TypeAlias = Literal["received", "waiting", "intent", "done"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS commands (
    id TEXT NOT NULL, agent TEXT NOT NULL, sequence INTEGER NOT NULL, phase TEXT NOT NULL,
    command TEXT NOT NULL, outcome TEXT, told INTEGER NOT NULL DEFAULT 0, changed_s REAL NOT NULL,
    approver TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (agent, id)
);
CREATE INDEX IF NOT EXISTS commands_open ON commands (phase) WHERE phase != 'done' OR told = 0;
CREATE TABLE IF NOT EXISTS sets (
    device TEXT NOT NULL, resource TEXT NOT NULL, agent TEXT NOT NULL, value TEXT NOT NULL, site_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS sets_key ON sets (device, resource, site_s);
CREATE TABLE IF NOT EXISTS blocked (device TEXT PRIMARY KEY, reason TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command in the ledger."""

    command: Command
    agent: str
    sequence: int
    phase: Phase
    outcome: Outcome | None
    approver: str = ""


class Ledger:
    """The SQLite file and the lock beside it."""

    def __init__(self, folder: Path) -> None:
        """Open, or create, the state in a folder.

        Raises:
            ConfigurationError: another guard runs on it, or it cannot be written.
            StoreError: the file is no ledger.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "guard.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"guard state {folder}: {error.strerror}: is the volume writable?") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigurationError(
                f"guard state {folder}: another guard runs on it: one guard per gateway"
            ) from error
        try:
            self._db = sqlite3.connect(folder / "guard.db", check_same_thread=False, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StoreError(f"guard state {folder}/guard.db: {error}") from error

    def close(self) -> None:
        """Close the file and free the lock."""
        self._db.close()
        os.close(self._lock)

    # --- generation ------------------------------------------------------------------------------

    def number(self, name: str) -> int:
        """Return a stored number, 0 when there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def remember(self, name: str, value: int) -> None:
        """Store a number."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def saw(self, sequence: int) -> None:
        """Note that all of the command stream up to a place was taken in; redelivered ones lower nothing."""
        sql = "INSERT INTO meta VALUES ('last_sequence', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, ?)"
        self._write(sql, (sequence, sequence))

    # --- commands --------------------------------------------------------------------------------

    def receive(self, command: Command, agent: str, sequence: int, now_s: float) -> bool:
        """Write a command and its place in the stream down; False when this agent's id is known already."""
        text = command.model_dump_json()
        self._write("BEGIN", ())
        try:
            cursor = self._write(
                "INSERT OR IGNORE INTO commands (id, agent, sequence, phase, command, changed_s) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (command.id, agent, sequence, "received", text, now_s),
            )
            self.saw(sequence)
        except StoreError:
            self._write("ROLLBACK", ())
            raise
        self._write("COMMIT", ())
        return cursor.rowcount == 1

    def enter(self, agent: str, command_id: CommandId, phase: Phase, now_s: float, approver: str = "") -> None:
        """Move a command to its next phase; `intent` is on disk when this returns."""
        self._write(
            "UPDATE commands SET phase = ?, changed_s = ?, approver = ? WHERE agent = ? AND id = ?",
            (phase, now_s, approver, agent, command_id),
        )

    def finish(self, agent: str, outcome: Outcome, now_s: float) -> None:
        """Write an outcome down, not told to anybody yet."""
        self._write(
            "UPDATE commands SET phase = 'done', outcome = ?, changed_s = ? "
            "WHERE agent = ? AND id = ? AND phase != 'done'",
            (outcome.model_dump_json(), now_s, agent, outcome.command_id),
        )

    def told(self, agent: str, command_id: CommandId) -> None:
        """Note that an outcome is in the stream; need not survive a power cut, telling twice is harmless."""
        self._write("UPDATE commands SET told = 1 WHERE agent = ? AND id = ?", (agent, command_id))

    def entry(self, agent: str, command_id: str) -> Entry | None:
        """Return a command, None when it is not known."""
        row = self._db.execute(f"{_SELECT} WHERE agent = ? AND id = ?", (agent, command_id)).fetchone()
        return _entry(row) if row else None

    def unfinished(self) -> list[Entry]:
        """Return commands without an outcome, in stream order."""
        return [_entry(row) for row in self._db.execute(f"{_SELECT} WHERE phase != 'done' ORDER BY sequence")]

    def untold(self) -> list[Entry]:
        """Return commands whose outcome may not be in the stream yet, in stream order."""
        return [
            _entry(row) for row in self._db.execute(f"{_SELECT} WHERE phase = 'done' AND told = 0 ORDER BY sequence")
        ]

    def tell_again(self, commands: Iterable[tuple[str, str]]) -> None:
        """Have the outcomes of these commands (agent, id) told once more, where they have ended."""
        for key in commands:
            self._write("UPDATE commands SET told = 0 WHERE agent = ? AND id = ? AND phase = 'done'", key)

    def forget(self, before_s: float, sets_before_site_s: float) -> None:
        """Drop finished, told commands and past sets older than this."""
        self._write("DELETE FROM commands WHERE phase = 'done' AND told = 1 AND changed_s < ?", (before_s,))
        self._write("DELETE FROM sets WHERE site_s < ?", (sets_before_site_s,))

    # --- what went out, what is blocked ----------------------------------------------------------

    def went_out(self, device: str, resource: str, agent: str, value: str, site_s: float) -> None:
        """Note that a value was set, for rates and minimum times."""
        self._write("INSERT INTO sets VALUES (?, ?, ?, ?, ?)", (device, resource, agent, value, site_s))

    def past_sets(self, since_site_s: float) -> Iterator[tuple[str, str, str, str, float]]:
        """Yield (device, resource, agent, value, site time) of what was set, oldest first."""
        yield from self._db.execute(
            "SELECT device, resource, agent, value, site_s FROM sets WHERE site_s >= ? ORDER BY site_s", (since_site_s,)
        )

    def block(self, device: str, reason: str) -> None:
        """Note that a device takes no further command."""
        self._write("INSERT OR REPLACE INTO blocked VALUES (?, ?)", (device, reason))

    def blocked(self) -> dict[str, str]:
        """Return blocked devices and why."""
        return dict(self._db.execute("SELECT device, reason FROM blocked"))

    def _write(self, sql: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise StoreError(f"guard ledger: {error}: is the volume full or read-only?") from error


_SELECT: Final = "SELECT command, agent, sequence, phase, outcome, approver FROM commands"


def _entry(row: tuple[str, str, int, Phase, str | None, str]) -> Entry:
    command, agent, sequence, phase, outcome, approver = row
    return Entry(
        Command.model_validate_json(command),
        agent,
        sequence,
        phase,
        Outcome.model_validate_json(outcome) if outcome else None,
        approver,
    )
