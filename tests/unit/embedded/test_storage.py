"""State on disk: tables that survive, transactions that are whole, a folder that is one process's own."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagents.embedded.storage import Database, StateFolder, Table
from edgeagents.errors import ConfigurationError, ConflictError, StoreError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "x.sqlite", "", durable=True)
    yield opened
    opened.close()


async def test_table_keeps_rows_in_order_over_a_restart(tmp_path: Path) -> None:
    first = Database(tmp_path / "x.sqlite", "", durable=True)
    table = Table(first, "things")
    await table.add("b", {"n": 1})
    await table.add("a", {"n": 2, "text": "ü\ud800"})
    await table.write({"b": {"n": 3}}, ["nowhere"])
    first.close()
    second = Database(tmp_path / "x.sqlite", "", durable=True)
    assert list(Table(second, "things").items()) == [("b", {"n": 3}), ("a", {"n": 2, "text": "ü\ud800"})]
    second.close()


async def test_second_row_of_a_name_is_a_conflict(database: Database) -> None:
    table = Table(database, "things")
    await table.add("a", {"n": 1})
    with pytest.raises(ConflictError):
        await table.add("a", {"n": 2})
    assert table["a"] == {"n": 1}


async def test_failed_transaction_changes_nothing(database: Database) -> None:
    table = Table(database, "things")
    await table.add("a", {"n": 1})

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM things")
        connection.execute("SELECT * FROM nowhere")

    with pytest.raises(StoreError, match=r"x\.sqlite"):
        await database.run(work)
    assert list(Table(database, "things")) == ["a"]


async def test_row_touched_in_memory_is_stored_with_the_next_write(database: Database) -> None:
    table = Table(database, "things")
    await table.add("a", {"n": 1})
    table.touch("a", {"n": 2})
    assert table["a"] == {"n": 2}
    assert Table(database, "things")["a"] == {"n": 1}


def test_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"x\.sqlite"):
        Database(path, "CREATE TABLE IF NOT EXISTS a (b)", durable=False)


def test_folder_belongs_to_one_process(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    with pytest.raises(ConfigurationError, match="in use"):
        StateFolder(tmp_path / "state")
    folder.close()
    StateFolder(tmp_path / "state").close()


def test_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file/state"):
        StateFolder(tmp_path / "file" / "state")
