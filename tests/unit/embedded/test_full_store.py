"""A broker that met a full disk is to be started again once there is room, once for each time."""

from pathlib import Path

import pytest

from edgeagents.embedded import full_store
from edgeagents.embedded.full_store import ROOM_BYTES, FullStore

FULL = b"[7] [ERR] JetStream failed to store a msg on stream '$G > audit': write 1.blk: no space left on device\n"


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How much room the disk has."""
    found = {"bytes": ROOM_BYTES}
    monkeypatch.setattr(full_store, "_room_bytes", lambda folder: found["bytes"])
    return found


def add(log: Path, data: bytes) -> None:
    """Let the server log something."""
    with log.open("ab") as file:
        file.write(data)


def test_it_is_told_once_and_only_when_there_is_room_again(tmp_path: Path, room: dict[str, int]) -> None:
    log = tmp_path / "nats.log"
    is_stuck = FullStore(log, tmp_path)
    assert not is_stuck(), "there is no log yet"
    add(log, b"[7] [INF] Server is ready\n")
    assert not is_stuck()
    room["bytes"] = 0
    add(log, FULL * 3)
    assert [is_stuck(), is_stuck()] == [False, False], "starting it on a full disk helps nobody"
    room["bytes"] = ROOM_BYTES
    assert [is_stuck(), is_stuck()] == [True, False]
    add(log, FULL)
    assert [is_stuck(), is_stuck()] == [True, False]


def test_what_an_earlier_server_logged_is_not_this_ones_trouble(tmp_path: Path, room: dict[str, int]) -> None:
    log = tmp_path / "nats.log"
    add(log, FULL)
    assert not FullStore(log, tmp_path)()


def test_a_line_is_read_when_it_is_whole(tmp_path: Path, room: dict[str, int]) -> None:
    log = tmp_path / "nats.log"
    is_stuck = FullStore(log, tmp_path)
    add(log, FULL[:-20])
    assert not is_stuck()
    add(log, FULL[-20:])
    assert is_stuck()


def test_room_is_what_the_disk_says_and_none_where_there_is_no_disk(tmp_path: Path) -> None:
    assert full_store._room_bytes(tmp_path) > 0
    assert full_store._room_bytes(tmp_path / "nowhere") == 0
