"""A command whose words cannot be written: nobody reads on, the disk is full, or stdout has not the letters."""

import io
import os
import sys
from pathlib import Path

import pytest

from edgeagents.cli import main

FULL = Path("/dev/full")


def ended(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


@pytest.fixture(params=["text", "flushed"])
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that prints, and flushes or not: as much as a pipe takes, or a word."""

    def prints(words: list[str]) -> None:
        print("x" * 10, flush=request.param == "flushed")

    monkeypatch.setattr("edgeagents.cli.app", prints)


@pytest.mark.usefixtures("command")
def test_a_reader_that_has_enough_ends_a_command_quietly(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert ended(["x"]) == 1
        out.flush()  # as the interpreter does at its end: nothing is left to complain of
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("command")
@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_what_cannot_be_written_is_told_in_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FULL.open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert ended(["x"]) == 1
        out.flush()
    said = capfd.readouterr().err
    assert said == "error: [Errno 28] No space left on device\n"


def test_letters_that_stdout_has_not_are_written_by_their_numbers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def prints(words: list[str]) -> None:
        print("→ 21 °C \udcff")

    monkeypatch.setattr("edgeagents.cli.app", prints)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    main([])
    assert raw.getvalue() == b"\\u2192 21 \\xb0C \\udcff\n"
    assert capfd.readouterr().err == ""


def test_without_an_open_stdout_a_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr("edgeagents.cli.app", ran.append)
    monkeypatch.setattr(sys, "stdout", None)
    main(["x"])
    assert ran == [["x"]]
