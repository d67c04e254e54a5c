"""The guard's own state on its volume: commands with their intents and outcomes, generation, quarantined devices,
what devices should show.

SQLite with full fsync: when a call returns, what it wrote survives a power cut. Calls are blocking and run in the one
thread of `group_commit.py`, so they are in order; those made `together` are on disk when that block ends. One guard
per gateway: the volume is locked as long as it runs.

Source: design.md section 3.7; field notes on SQLite (92 us an insert and commit in WAL mode).
"""

import fcntl
import os
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from edgeagents.errors import ConfigurationError, StoreError, VolumeFullError
from edgeagents.model.message import Command, CommandId, Outcome
from services.guard.reserve import Reserve

Phase: TypeAlias = Literal["received", "waiting", "intent", "done"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS commands (
    id TEXT NOT NULL, agent TEXT NOT NULL, sequence INTEGER NOT NULL, phase TEXT NOT NULL,
    command TEXT NOT NULL, outcome TEXT, told INTEGER NOT NULL DEFAULT 0, changed_s REAL NOT NULL,
    approver TEXT NOT NULL DEFAULT '', before TEXT, deadline_s REAL, boot TEXT, data_site_s REAL,
    PRIMARY KEY (agent, id)
);
CREATE INDEX IF NOT EXISTS commands_open ON commands (phase) WHERE phase != 'done' OR told = 0;
CREATE TABLE IF NOT EXISTS sets (
    device TEXT NOT NULL, resource TEXT NOT NULL, agent TEXT NOT NULL, value TEXT NOT NULL, site_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS sets_key ON sets (device, resource, site_s);
CREATE TABLE IF NOT EXISTS blocked (
    device TEXT PRIMARY KEY, reason TEXT NOT NULL, agent TEXT NOT NULL DEFAULT '', command TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS expected (
    device TEXT NOT NULL, resource TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, resource)
);
CREATE TABLE IF NOT EXISTS late (
    device TEXT NOT NULL, resource TEXT NOT NULL, value TEXT NOT NULL, is_newest INTEGER NOT NULL,
    times INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (device, resource, value)
);
CREATE TABLE IF NOT EXISTS overrides (
    device TEXT NOT NULL, resource TEXT NOT NULL, value TEXT NOT NULL, since_site_s REAL NOT NULL,
    until_site_s REAL NOT NULL, PRIMARY KEY (device, resource)
);
CREATE TABLE IF NOT EXISTS pauses (
    scope TEXT NOT NULL, name TEXT NOT NULL, approver TEXT NOT NULL, reason TEXT NOT NULL, since_ns INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
);
CREATE TABLE IF NOT EXISTS modes (
    agent TEXT PRIMARY KEY, mode TEXT NOT NULL, written TEXT NOT NULL, approver TEXT NOT NULL, reason TEXT NOT NULL,
    since_ns INTEGER NOT NULL
);
"""
# What tables of earlier versions lack, in the order it came.
_ADDED: Final = (
    ("commands", "before", "TEXT"), ("commands", "deadline_s", "REAL"), ("commands", "boot", "TEXT"),
    ("commands", "data_site_s", "REAL"), ("late", "times", "INTEGER NOT NULL DEFAULT 1"),
    ("blocked", "agent", "TEXT NOT NULL DEFAULT ''"), ("blocked", "command", "TEXT NOT NULL DEFAULT ''"),
)  # fmt: skip
_Kept: TypeAlias = Literal["expected", "overrides"]
_KEEP: Final[dict[_Kept, tuple[str, str]]] = {
    "expected": (
        "DELETE FROM expected WHERE device = ? AND resource = ?", "INSERT OR REPLACE INTO expected VALUES (?, ?, ?)"
    ),
    "overrides": (
        "DELETE FROM overrides WHERE device = ? AND resource = ?",
        "INSERT OR REPLACE INTO overrides VALUES (?, ?, ?, ?, ?)",
    ),
}  # fmt: skip
_ONE_MORE: Final = (
    "INSERT INTO late (device, resource, value, is_newest) VALUES (?, ?, ?, ?) ON CONFLICT (device, resource, value) "
    "DO UPDATE SET times = times + 1, is_newest = MAX(is_newest, excluded.is_newest)"
)
_MAY_BE_OUT: Final = -1.0  # in place of a deadline
_ALL: Final = (1 << 63) - 1  # the highest place in a stream that SQLite holds
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Intent:
    """What is written down of a command when it is received, and right before it goes out.

    Args:
        approver: who let it pass; empty when nobody had to.
        before: what its proof showed then, as EdgeX writes it; None: not known.
        deadline_s: on the machine's monotonic clock.
        data_site_s: site time of the oldest reading it rests on.
    """

    approver: str = ""
    before: str | None = None
    deadline_s: float = 0.0
    data_site_s: float = 0.0


_NONE: Final = Intent()


@dataclass(frozen=True, slots=True)
class Entry:
    """One command in the ledger; `intent.deadline_s` is of this boot of the machine, long past when it was not."""

    command: Command
    agent: str
    sequence: int
    phase: Phase
    outcome: Outcome | None
    intent: Intent = _NONE
    blocked: str = ""  # why its device is blocked because of it

    @property
    def approver(self) -> str:
        """Who let it pass; empty when nobody had to."""
        return self.intent.approver

    @property
    def may_be_out(self) -> bool:
        """Whether it may have gone out although the ledger, an older copy, says nothing of it."""
        return self.intent.deadline_s < 0


@dataclass(frozen=True, slots=True)
class Held:
    """A value of one device resource as it was kept, in EdgeX's text."""

    device: str
    resource: str
    value: str
    since_site_s: float = 0.0
    until_site_s: float = 0.0


class Ledger:
    """The SQLite file and the lock beside it."""

    def __init__(self, folder: Path, *, keeps_reserve: bool = False) -> None:
        """Open, or create, the state in a folder.

        Args:
            folder: the guard's volume.
            keeps_reserve: keep room for safety commands there, some 13 MB.

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
        self.reserve = Reserve(folder) if keeps_reserve else None
        try:
            self._db = sqlite3.connect(folder / "guard.db", check_same_thread=False, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
            self._add_columns()
            if self.reserve is not None:
                self.reserve.open(self._db)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StoreError(f"guard state {folder}/guard.db: {error}") from error

    def _add_columns(self) -> None:
        for table, column, kind in _ADDED:
            known = [row[1] for row in self._db.execute(f"PRAGMA table_info({table})")]
            if column not in known:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

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

    def receive(
        self, command: Command, agent: str, sequence: int, now_s: float, is_safety: bool = False, until: Intent = _NONE
    ) -> bool:
        """Write a command and its place in the stream down; False when this agent's id is known already.

        Args:
            is_safety: it may use the room that is kept.
            until: its deadline, and the time of its data. Not kept of one that came after a later command: it is not
                to go out after a restart, when nobody knows any more which of them did.

        Raises:
            VolumeFullError: there is no room for a command that may not, or none at all; nothing was written.
        """
        try:
            if self.reserve is not None:
                self.reserve.keep()
        except VolumeFullError:
            if not is_safety and self.entry(agent, command.id) is None:
                raise
        text = command.model_dump_json()
        known = (until.deadline_s, _boot_id(), until.data_site_s)
        if sequence <= self.number("last_sequence"):
            known = (0.0, "", 0.0)
        with self._whole():
            cursor = self._write(
                "INSERT OR IGNORE INTO commands (id, agent, sequence, phase, command, changed_s, deadline_s, boot, "
                "data_site_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (command.id, agent, sequence, "received", text, now_s, *known),
            )
            self.saw(sequence)
        return cursor.rowcount == 1

    def enter(self, agent: str, command_id: CommandId, phase: Phase, now_s: float, intent: Intent = _NONE) -> None:
        """Move a command to its next phase; it is on disk when this returns."""
        known = (intent.approver, intent.before, intent.deadline_s, _boot_id(), intent.data_site_s)
        self._write(
            "UPDATE commands SET phase = ?, changed_s = ?, approver = ?, before = ?, deadline_s = ?, boot = ?, "
            "data_site_s = ? WHERE agent = ? AND id = ?",
            (phase, now_s, *known, agent, command_id),
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
        row = self._db.execute(f"{_SELECT} WHERE c.agent = ? AND c.id = ?", (agent, command_id)).fetchone()
        return _entry(row) if row else None

    def forget_deadlines(self, *, may_be_out: bool = False) -> None:
        """Have nothing that waits now go out after a restart: it is not certain any more that it may.

        Args:
            may_be_out: it may have gone out already, since this ledger is a copy from before.
        """
        self._write(
            "UPDATE commands SET deadline_s = MIN(COALESCE(deadline_s, 0), ?) "
            "WHERE phase != 'done' AND phase IN ('received', 'waiting')",
            (_MAY_BE_OUT if may_be_out else 0.0,),
        )

    def unfinished(self) -> list[Entry]:
        """Return commands without an outcome, in stream order."""
        return [_entry(row) for row in self._db.execute(f"{_SELECT} WHERE phase != 'done' ORDER BY sequence")]

    def quarantined(self) -> list[Entry]:
        """Return commands whose outcome was told while their device was still blocked because of them."""
        return [
            _entry(row)
            for row in self._db.execute(f"{_SELECT} WHERE phase = 'done' AND reason IS NOT NULL ORDER BY sequence")
        ]

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

    def block(self, device: str, reason: str, agent: str = "", command_id: str = "") -> None:
        """Note that a device takes no further command for now, and because of which."""
        self._write("INSERT OR REPLACE INTO blocked VALUES (?, ?, ?, ?)", (device, reason, agent, command_id))

    def release(self, device: str) -> None:
        """Note that a device takes commands again."""
        self._write("DELETE FROM blocked WHERE device = ?", (device,))

    def blocked(self) -> dict[str, str]:
        """Return blocked devices and why."""
        return dict(self._db.execute("SELECT device, reason FROM blocked"))

    # --- what devices should show -----------------------------------------------------------------

    def expect(self, device: str, resource: str, value: str | None) -> None:
        """Keep what a resource shows, as EdgeX writes it; None: not known."""
        self._keep("expected", device, resource, None if value is None else (value,))

    def expected(self) -> list[Held]:
        """Return what resources should show."""
        return [Held(*row) for row in self._db.execute("SELECT device, resource, value FROM expected")]

    def reckon_with(self, device: str, resource: str, values: Sequence[tuple[str, bool]]) -> None:
        """Keep which values may still take effect on a resource, and which is the newest, in place of those before.

        A value may be there more than once: as many SETs of it may come.
        """
        with self._whole():
            self._write("DELETE FROM late WHERE device = ? AND resource = ?", (device, resource))
            for value, is_newest in values:
                self._write(_ONE_MORE, (device, resource, value, is_newest))

    def late(self) -> list[tuple[Held, bool]]:
        """Return values that may still take effect, oldest first, and whether nothing was wanted after them."""
        rows = self._db.execute("SELECT device, resource, value, is_newest, times FROM late ORDER BY rowid")
        return [
            (Held(device, resource, value), bool(is_newest))
            for device, resource, value, is_newest, times in rows
            for _ in range(times)
        ]

    def override(self, device: str, resource: str, held: Held | None) -> None:
        """Keep what somebody set by hand, and until when; None: no longer."""
        fields = None if held is None else (held.value, held.since_site_s, held.until_site_s)
        self._keep("overrides", device, resource, fields)

    def overrides(self) -> list[Held]:
        """Return what somebody set by hand."""
        return [Held(*row) for row in self._db.execute("SELECT * FROM overrides")]

    def shift(self, by_site_s: float, offset_ms: int) -> None:
        """Move all kept site times at once: the clock behind them was set, and is now `offset_ms` ahead.

        The machine may have slept, too: then our monotonic clock stood still, and deadlines tell nothing.
        """
        moves = "UPDATE overrides SET since_site_s = since_site_s + ?, until_site_s = until_site_s + ?"
        with self._whole():
            self._write("UPDATE sets SET site_s = site_s + ?", (by_site_s,))
            self._write(moves, (by_site_s, by_site_s))
            self.forget_deadlines()
            self.remember_clock(offset_ms)

    def remember_clock(self, offset_ms: int) -> None:
        """Keep what the wall clock is ahead of the monotonic one, which begins anew with each boot."""
        self.remember("clock_offset_ms", offset_ms)
        self.remember("clock_boot", _boot_number())

    def clock_offset_ms(self) -> int | None:
        """Return what the wall clock was ahead of the monotonic one, None when that was before this boot."""
        row = self._db.execute("SELECT value FROM meta WHERE name = 'clock_offset_ms'").fetchone()
        return int(row[0]) if row and self.number("clock_boot") == _boot_number() else None

    def _keep(self, table: _Kept, device: str, resource: str, fields: tuple[object, ...] | None) -> None:
        delete, insert = _KEEP[table]
        if fields is None:
            self._write(delete, (device, resource))
        else:
            self._write(insert, (device, resource, *fields))

    # --- what the owner ordered -------------------------------------------------------------------

    def pause(self, scope: str, name: str, approver: str, reason: str, since_ns: int) -> None:
        """Note that a scope is paused."""
        self._write("INSERT OR REPLACE INTO pauses VALUES (?, ?, ?, ?, ?)", (scope, name, approver, reason, since_ns))

    def resume(self, scope: str, name: str) -> None:
        """Note that a scope is not paused any more; whatever waits counts as given before, until `resumed`."""
        with self._whole():
            self._write("DELETE FROM pauses WHERE scope = ? AND name = ?", (scope, name))
            self.remember("given_before_resume", _ALL)

    def end_resume(self) -> None:
        """Bound what was given before a resume that a kill cut short, before anything new is taken in."""
        if self.number("given_before_resume") == _ALL:
            row = self._db.execute("SELECT MAX(sequence) FROM commands WHERE phase != 'done'").fetchone()
            self.resumed(row[0] or 0)

    def resumed(self, last: int) -> None:
        """Note up to which place in the command stream everything was given before the newest resume."""
        self.remember("given_before_resume", last)

    def pauses(self) -> list[tuple[str, str, str, str, int]]:
        """Return (scope, name, approver, reason, since in wall ns) of what is paused, oldest first."""
        return list(self._db.execute("SELECT scope, name, approver, reason, since_ns FROM pauses ORDER BY since_ns"))

    def order_mode(self, agent: str, mode: str, written: str, approver: str, reason: str, since_ns: int) -> None:
        """Note an agent's mode by order; `written` is what its file said then."""
        order = (agent, mode, written, approver, reason, since_ns)
        self._write("INSERT OR REPLACE INTO modes VALUES (?, ?, ?, ?, ?, ?)", order)

    def drop_mode(self, agent: str) -> None:
        """Note that an agent's file counts again."""
        self._write("DELETE FROM modes WHERE agent = ?", (agent,))

    def modes(self) -> list[tuple[str, str, str, str, str, int]]:
        """Return (agent, mode, what its file said, approver, reason, since in wall ns) of all modes by order."""
        return list(self._db.execute("SELECT agent, mode, written, approver, reason, since_ns FROM modes"))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have all calls inside the block on disk when it ends, with one sync; none of them when it raises.

        Raises:
            StoreError: they could not be written.
        """
        self._write("BEGIN", ())
        try:
            yield
            self._write("COMMIT", ())
        except BaseException:
            if self._db.in_transaction:  # a full disk may have undone it already
                self._write("ROLLBACK", ())
            raise

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Have what is written inside the block written as a whole or not at all, by itself or within `together`."""
        if not self._db.in_transaction:
            with self.together():
                yield
            return
        yield  # what fails here undoes all that is written together

    def _write(self, sql: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise VolumeFullError(f"guard ledger: {error}: make room on the guard's volume") from error
            raise StoreError(f"guard ledger: {error}: is the volume full or read-only?") from error


_SELECT: Final = (
    "SELECT c.command, c.agent, c.sequence, c.phase, c.outcome, c.approver, c.before, c.deadline_s, c.boot, "
    "c.data_site_s, b.reason "
    "FROM commands c LEFT JOIN blocked b ON b.agent = c.agent AND b.command = c.id"
)


def _entry(row: tuple[Any, ...]) -> Entry:
    command, agent, sequence, phase, outcome, approver, before, deadline_s, boot, data_site_s, blocked = row
    is_of_this_boot = deadline_s is not None and (boot == _boot_id() or deadline_s < 0)
    return Entry(
        Command.model_validate_json(command),
        agent,
        sequence,
        phase,
        Outcome.model_validate_json(outcome) if outcome else None,
        Intent(approver, before, deadline_s if is_of_this_boot else 0.0, data_site_s or 0.0),
        blocked or "",
    )


def _boot_number() -> int:
    return zlib.crc32(_boot_id().encode())


@lru_cache(maxsize=1)
def _boot_id() -> str:
    """Return what tells this boot of the machine from others: its monotonic clock began anew with it."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # no Linux: no deadline outlives this process then
        return str(uuid.uuid4())
