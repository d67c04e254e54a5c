"""`edgeagents audit`: what a file holds is judged, and each record is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagents.cli.audit import is_wanted
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import link
from tests.audit_files import export_of
from tests.unit.cli.command import Done, run

Run = Callable[..., Done]


@pytest.fixture
def edgeagents(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command."""
    return lambda *words: run(capsys, *words)


def chain(length: int, writer: str = "guard", **body: Any) -> list[AuditRecord]:
    """Return the records of one chain."""
    records: list[AuditRecord] = []
    for number in range(length):
        last = records[-1] if records else None
        records.append(link(last, writer, "i1", "command", {"n": number, **body}, 1_700_000_000_000_000_000))
    return records


def test_a_whole_export_is_said_to_be_whole(edgeagents: Run, tmp_path: Path) -> None:
    path = export_of(tmp_path / "a.jsonl", [*chain(3), *chain(2, "air")])
    done = edgeagents("audit", "verify", "--file", path)
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 chains, 5 records: whole")
    head = chain(3)[-1].digest[:12]
    assert any(line.split()[:3] == ["guard", "i1", "3"] and head in line for line in done.out.splitlines())


def test_what_is_wrong_is_named_and_fails(edgeagents: Run, tmp_path: Path) -> None:
    path = export_of(tmp_path / "a.jsonl", chain(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(rb"\"n\":1", rb"\"n\":9"), *lines[2:]]))
    done = edgeagents("audit", "verify", "--file", path)
    assert done.code == 1
    assert "guard i1 #1: edited: its digest does not fit its content" in done.out
    assert "file a.jsonl: was changed after the export" in done.out
    assert done.out.splitlines()[-1] == "1 chains, 3 records: 2 problems"


def test_an_earlier_export_tells_what_was_dropped_since(edgeagents: Run, tmp_path: Path) -> None:
    earlier = export_of(tmp_path / "earlier.jsonl", [*chain(5), *chain(2, "air")])
    now = export_of(tmp_path / "now.jsonl", chain(3))
    assert edgeagents("audit", "verify", "--file", now).code == 0
    done = edgeagents("audit", "verify", "--file", now, "--against", earlier)
    assert done.code == 1
    assert "guard i1 #3: dropped since the earlier export: #3 to #4 are not there" in done.out
    assert "air i1 #0: dropped since the earlier export: #0 to #1 are not there" in done.out
    assert edgeagents("audit", "verify", "--file", earlier, "--against", now).code == 0


def test_an_earlier_export_that_is_not_whole_is_no_witness(edgeagents: Run, tmp_path: Path) -> None:
    now = export_of(tmp_path / "now.jsonl", chain(3))
    earlier = export_of(tmp_path / "earlier.jsonl", chain(3))
    earlier.write_bytes(b"".join(earlier.read_bytes().splitlines(keepends=True)[:-1]))
    done = edgeagents("audit", "verify", "--file", now, "--against", earlier)
    assert done.code == 1
    assert "file earlier.jsonl: its last line, with the heads, is gone" in done.out


def test_what_a_writer_left_out_is_told_and_does_not_fail(edgeagents: Run, tmp_path: Path) -> None:
    first = link(None, "air", "i1", "started", {}, 1)
    path = export_of(tmp_path / "a.jsonl", [first, link(first, "air", "i1", "dropped", {"records": 3}, 2)])
    done = edgeagents("audit", "verify", "--file", path)
    assert done.code == 0
    assert "air i1 #1: the writer could not store records in time" in done.out


def test_names_from_a_file_move_no_cursor(edgeagents: Run, tmp_path: Path) -> None:
    path = export_of(tmp_path / "a.jsonl", chain(1, "\x1b[31mred"))
    assert "\x1b" not in edgeagents("audit", "verify", "--file", path).out


@pytest.mark.parametrize("words", [
    ["audit", "verify"], ["audit", "tail"], ["audit", "export", "a.jsonl"], ["why", "air"],
])  # fmt: skip
def test_a_broker_that_is_away_is_said(
    edgeagents: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEAGENTS_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("EDGEAGENTS_CONNECT_TIMEOUT_S", "0.1")
    done = edgeagents(*words)
    assert done.code == 1
    assert done.err.startswith("error: nats nats://127.0.0.1:1: no connection")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "says"), [
    (["audit", "verify", "--file", "none"], "does the file exist"),
    (["audit", "verify", "--nats", "http://x"], "is no address of a broker"),
    (["audit", "verify", "--password-file", "none", "--user", "u"], "secret file none"),
])  # fmt: skip
def test_a_wrong_option_is_said(edgeagents: Run, words: list[str], says: str) -> None:
    done = edgeagents(*words)
    assert (done.code, says in done.err) == (1, True), done.err


@pytest.mark.parametrize(
    "words", [[], ["audit"], ["audit", "verify"], ["audit", "tail"], ["audit", "export"], ["why"], ["replay"]]
)
def test_every_command_helps(edgeagents: Run, words: list[str]) -> None:
    done = edgeagents(*words, "--help")
    assert done.code == 0
    assert "Usage: edgeagents" in done.out


@pytest.mark.parametrize(("kinds", "agents", "is_one"), [
    ((), (), True), (("command",), (), True), (("lease", "command"), (), True), (("lease",), (), False),
    ((), ("guard",), True), ((), ("air",), True), ((), ("comfort",), False), (("command",), ("comfort", "air"), True),
    (("lease",), ("air",), False),
])  # fmt: skip
def test_records_are_wanted_by_kind_and_by_the_agent_they_concern(
    kinds: tuple[str, ...], agents: tuple[str, ...], is_one: bool
) -> None:
    (record,) = chain(1, agent="air")
    assert is_wanted(record, kinds, agents) is is_one


def test_a_record_without_an_agent_concerns_its_writer_alone() -> None:
    record = chain(1)[0].model_copy(update={"body": json.dumps([1])})
    assert is_wanted(record, (), ("guard",))
    assert not is_wanted(record, (), ("air",))
