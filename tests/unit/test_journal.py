"""The journal: whole lines, through restarts, nothing without a folder."""

from pathlib import Path

import pytest

from edgeagents.errors import StoreError
from edgeagents.journal import Journal, read_journal


def test_lines_come_back_in_order_and_go_on_after_a_restart(tmp_path: Path) -> None:
    first = Journal.in_folder(tmp_path / "new", "world")
    first.write("event", id="1", subject="a.b", origin_ns=5)
    first.close()
    second = Journal.in_folder(tmp_path / "new", "world")
    second.write("set", device="lamp", value="caf\u00e9\nnext", applied=True)
    second.close()
    assert read_journal(tmp_path / "new" / "world.jsonl") == [
        {"kind": "event", "id": "1", "subject": "a.b", "origin_ns": 5},
        {"kind": "set", "device": "lamp", "value": "caf\u00e9\nnext", "applied": True},
    ]


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    journal = Journal.in_folder(None, "world")
    journal.write("event", id="1")
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_bytes(b'{"kind":"event"}\n{"kind":"ev')
    assert read_journal(path) == [{"kind": "event"}]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="may we write there"):
        Journal.in_folder(tmp_path / "file" / "below", "world")
