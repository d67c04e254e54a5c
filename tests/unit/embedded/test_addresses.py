"""A gateway that goes on in its old folder may have other ports than keeper remembers."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeagents.embedded.addresses import move_ports
from edgeagents.errors import StoreError

PORT = "edgex/v4/app-guard/Service/Port"


def test_what_keeper_knows_follows_and_the_rest_stays(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "keeper.sqlite")) as database, database:
        database.execute("CREATE TABLE key_values (id INTEGER PRIMARY KEY, name TEXT, body TEXT)")
        for name in (PORT, "edgex/v4/app-agent-air/Service/Port"):
            database.execute("INSERT INTO key_values (name, body) VALUES (?, ?)", (name, '{"value":"1","created":7}'))
    move_ports(tmp_path, {"app-guard": 59741, "device-world-home": 5})
    with closing(sqlite3.connect(tmp_path / "keeper.sqlite")) as database:
        rows = {name: json.loads(body) for name, body in database.execute("SELECT name, body FROM key_values")}
    assert rows[PORT] == {"value": "59741", "created": 7}
    assert rows["edgex/v4/app-agent-air/Service/Port"]["value"] == "1"
    assert len(rows) == 2


def test_a_new_folder_needs_nothing_and_a_broken_file_is_named(tmp_path: Path) -> None:
    move_ports(tmp_path, {"app-guard": 1})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "keeper.sqlite").write_text("no database, just text that is long enough to look like a header " * 20)
    with pytest.raises(StoreError, match=r"keeper\.sqlite: file is not a database"):
        move_ports(tmp_path, {"app-guard": 1})
