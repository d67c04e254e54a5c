"""`edgeagents doctor` where nothing runs: every check ends in time, says what to do, and the exit code is 1."""

import asyncio
import importlib
import json
import time
from pathlib import Path

import pytest

from edgeagents.cli.doctor import LIMIT_S, diagnose
from edgeagents.cli.place import Place
from edgeagents.model.finding import Finding, ok
from tests.nats import free_port
from tests.unit.cli.command import run

DOCTOR = importlib.import_module("edgeagents.cli.doctor")  # the package has a function of that name


@pytest.fixture
def nowhere(tmp_path: Path) -> list[str]:
    """Options of a gateway of which nothing is there."""
    away = f"127.0.0.1:{free_port()}"
    return ["--nats", f"nats://{away}", "--keeper", f"http://{away}", "--guard", f"http://{away}",
            "--coordinator", f"http://{away}", "--inference", f"http://{away}",
            "--site-file", str(tmp_path / "site.yaml"), "--agents-dir", str(tmp_path / "agents"),
            "--guard-dir", str(tmp_path)]  # fmt: skip


def test_where_nothing_runs_all_failures_are_told_with_remedies(
    capsys: pytest.CaptureFixture[str], nowhere: list[str]
) -> None:
    began = time.monotonic()
    done = run(capsys, "doctor", "--json", *nowhere)
    assert time.monotonic() - began < LIMIT_S
    assert done.code == 1
    body = json.loads(done.out)
    assert body["level"] == "failed"
    levels = {finding["check"]: finding["level"] for finding in body["findings"]}
    assert {name for name, level in levels.items() if level == "failed"} == {
        "broker", "keeper", "agent files", "site.yaml", "guard",
    }  # fmt: skip
    assert all(finding["remedy"] for finding in body["findings"] if finding["level"] in ("failed", "warning"))
    assert levels["disk of the guard"] == "ok"
    assert (levels["coordinator"], levels["language model"]) == ("warning", "warning"), "keeper does not tell"


def test_people_get_a_table_with_the_remedy_below_each_finding(
    capsys: pytest.CaptureFixture[str], nowhere: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = run(capsys, "doctor", *nowhere)
    assert done.code == 1
    lines = done.out.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("keeper ")]
    assert "failed" in lines[at]
    assert "→ start EdgeX, or correct --keeper" in lines[at + 1]
    assert lines[-1].endswith("failed")


def test_warnings_alone_end_with_0(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(place: Place) -> list[Finding]:
        return [ok("broker", "up"), Finding("devices", "warning", "one is missing", "add it")]

    monkeypatch.setattr(DOCTOR, "diagnose", fine)
    done = run(capsys, "doctor")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "1 ok, 1 warning"


async def test_a_check_that_hangs_is_a_finding_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def hang(*_: object) -> object:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(DOCTOR, "look_at_keeper", hang)
    away = f"127.0.0.1:{free_port()}"
    url = f"http://{away}"
    place = Place(
        nats=f"nats://{away}", keeper=url, guard=url, coordinator=url, inference=url, agents_dir=tmp_path
    )  # fmt: skip
    findings = await diagnose(place, limit_s=4.0)
    [keeper] = [finding for finding in findings if finding.check == "keeper"]
    assert (keeper.level, keeper.found) == ("failed", "no answer in 4 s")
    assert any(finding.check == "guard" for finding in findings)


async def test_a_check_that_breaks_is_a_finding_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def broken(*_: object) -> object:
        raise ZeroDivisionError("an odd answer")

    monkeypatch.setattr(DOCTOR, "look_at_keeper", broken)
    url = f"http://127.0.0.1:{free_port()}"
    place = Place(
        nats=url.replace("http", "nats"), keeper=url, guard=url, coordinator=url, inference=url, agents_dir=tmp_path
    )  # fmt: skip
    findings = await diagnose(place)
    [keeper] = [finding for finding in findings if finding.check == "keeper"]
    assert (keeper.level, keeper.found) == ("failed", "this check broke: ZeroDivisionError: an odd answer")
    assert any(finding.check == "guard" for finding in findings)


@pytest.mark.parametrize("command", ["doctor", "status", "agents", "devices", "events", "ask"])
@pytest.mark.parametrize("words", [["--gateway", ""], ["--keeper", "http://127.0.0.1:598900"]])
def test_a_mistyped_option_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    done = run(capsys, command, *words)
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert done.err.startswith("error: ")


def test_a_text_from_outside_moves_no_cursor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hostile(place: Place) -> list[Finding]:
        return [Finding("guard", "failed", "\x1b[2J[bold]gone", "\x1b[31mdo")]

    monkeypatch.setattr(DOCTOR, "diagnose", hostile)
    done = run(capsys, "doctor")
    assert "\x1b" not in done.out
    assert "[bold]gone" in done.out


@pytest.mark.parametrize("command", ["doctor", "status", "agents", "devices", "events"])
def test_each_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str], command: str) -> None:
    done = run(capsys, command, "--help")
    assert done.code == 0
    for option in ("--nats", "--keeper", "--guard", "--folder", "--json", "EDGEAGENTS_NATS_URL"):
        assert option in done.out


def test_a_completion_script_that_cannot_be_written_says_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("no folder")  # as unwritable for root, too
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = run(capsys, "--install-completion", "--shell", "bash")
    assert done.code == 1
    assert done.err.startswith("error: the completion script cannot be written: ")
    assert "--output" in done.err


def test_a_completion_script_for_bash_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(capsys, "--install-completion", "--shell", "bash").code == 0
    [script] = [path for path in tmp_path.rglob("edgeagents") if path.is_file()]
    text = script.read_text()
    for word in ("doctor", "status", "events", "--follow", "complete -F"):
        assert word in text
