"""State of the embedded core on disk: SQLite in WAL mode, one file and one thread per service.

Every database call goes through that one thread, even a short one: a commit with `synchronous=FULL` waits for the
disk, which can take tens of milliseconds, and the event loop serves four services meanwhile. What is read often
(`Table`) is kept in memory and written through: it is answered from memory, and changed there only after the commit.

A process that is killed leaves whole transactions behind; SQLite replays the write-ahead log at the next start.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from edgeagents.errors import ConfigurationError, ConflictError, StoreError

T = TypeVar("T")
Row = dict[str, Any]

_PRAGMAS: Final = ("PRAGMA journal_mode=WAL", "PRAGMA busy_timeout=2000", "PRAGMA temp_store=MEMORY")


class StateFolder:
    """The folder that holds the databases, locked so that no second process writes them."""

    def __init__(self, path: Path) -> None:
        """Make the folder if it is not there and take its lock.

        Raises:
            ConfigurationError: it cannot be made, written or locked.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("w", encoding="ascii")
        except OSError as error:
            raise ConfigurationError(f"state folder {path}: {error.strerror}: give a writable one (--state)") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ConfigurationError(
                f"state folder {path} is in use by another embedded core: end that one, or give another (--state)"
            ) from error
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


class Database:
    """One SQLite file behind one thread."""

    def __init__(self, path: Path, schema: str, *, durable: bool) -> None:
        """Open the file and bring it to `schema`.

        Args:
            path: the file; made when absent.
            schema: statements that may be run on every start.
            durable: a commit survives a power cut too, not only the death of this process.

        Raises:
            StoreError: the file cannot be opened or is no SQLite database.
        """
        self.path = path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=path.stem)
        self._connection = self._executor.submit(self._open, schema, durable).result()

    def _open(self, schema: str, durable: bool) -> sqlite3.Connection:
        with self._errors():
            connection = sqlite3.connect(self.path)
            for pragma in (*_PRAGMAS, f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}"):
                connection.execute(pragma)
            connection.executescript(schema)
            return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise ConflictError(str(error)) from error
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}: is the disk full, may we write there?") from error

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns, run in one transaction on the database's thread, after all earlier ones.

        Raises:
            ConflictError: a row of that name exists already.
            StoreError: the database cannot be read or written; nothing was changed.
        """

        def call() -> T:
            with self._errors(), self._connection:
                return work(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def run_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do as `run`, waiting for it: for start-up, before anything is served."""

        def call() -> T:
            with self._errors(), self._connection:
                return work(self._connection)

        return self._executor.submit(call).result()

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._executor.submit(self._connection.close).result()
        self._executor.shutdown()


class Table(Mapping[str, Row]):
    """JSON objects by name, in the order they were added; read in memory, written through."""

    def __init__(self, database: Database, name: str) -> None:
        """Load the table `name`, made when absent."""
        self._database = database
        self._name = name
        self._rows: dict[str, Row] = database.run_now(self._load)

    def _load(self, connection: sqlite3.Connection) -> dict[str, Row]:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._name} "
            "(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL)"
        )
        rows = connection.execute(f"SELECT name, body FROM {self._name} ORDER BY id").fetchall()  # noqa: S608
        return {name: json.loads(body) for name, body in rows}

    def __getitem__(self, name: str) -> Row:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    async def add(self, name: str, row: Row) -> None:
        """Store a row that is not there yet.

        Raises:
            ConflictError: there is one of that name.
            StoreError: it could not be stored.
        """
        statement = f"INSERT INTO {self._name} (name, body) VALUES (?, ?)"  # noqa: S608 (our own table name)
        await self._database.run(lambda connection: connection.execute(statement, (name, _text(row))) and None)
        self._rows[name] = row

    async def write(self, puts: Mapping[str, Row], removes: Iterable[str] = ()) -> None:
        """Store and remove rows, all or none.

        Raises:
            StoreError: nothing was changed.
        """
        gone = list(removes)
        await self._database.run(lambda connection: self._write(connection, puts, gone))
        self._remember(puts, gone)

    def write_now(self, puts: Mapping[str, Row]) -> None:
        """Do as `write`, waiting for it: for start-up."""
        self._database.run_now(lambda connection: self._write(connection, puts, []))
        self._remember(puts, [])

    def touch(self, name: str, row: Row) -> None:
        """Change a row in memory only, until the next `write`: for what need not survive."""
        self._rows[name] = row

    def _remember(self, puts: Mapping[str, Row], removes: list[str]) -> None:
        for name in removes:
            self._rows.pop(name, None)
        self._rows.update(puts)

    def _write(self, connection: sqlite3.Connection, puts: Mapping[str, Row], removes: list[str]) -> None:
        statement = (
            f"INSERT INTO {self._name} (name, body) VALUES (?, ?) "  # noqa: S608
            "ON CONFLICT (name) DO UPDATE SET body = excluded.body"
        )
        connection.executemany(f"DELETE FROM {self._name} WHERE name = ?", [(name,) for name in removes])  # noqa: S608
        connection.executemany(statement, [(name, _text(row)) for name, row in puts.items()])


def _text(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"))
