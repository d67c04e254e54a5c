"""What agents, devices and services wrote is shown as they wrote it: no markup of ours, no word to the terminal."""

import importlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.cli import service
from edgeagents.cli.history import History
from edgeagents.cli.lines import json_of
from edgeagents.cli.why import answer
from edgeagents.errors import NotFoundError
from edgeagents.protocol.chains import link
from tests.unit.cli.command import Done, run

EVIL = "so [/b] hot [red]\x1b[2A\x1b[2K\x9b1A\r\u202eforged"
SHOWN = "so [/b] hot [red]·[2A·[2K·1A··forged"
ASK: Any = importlib.import_module("edgeagents.cli.ask")  # the package has the command under that name


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-ann-000\n")
    monkeypatch.setenv("EDGEAGENTS_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("COLUMNS", "400")


def says(monkeypatch: pytest.MonkeyPatch, body: Any, status: int = 200) -> None:
    """Let every service answer this."""

    async def exchange(*_: object) -> httpx.Response:
        return httpx.Response(status, content=json.dumps(body))

    monkeypatch.setattr(service, "exchange", exchange)


def is_harmless(done: Done) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in done.out + done.err)


def test_an_approval_shows_every_cell_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("commandId", "agent", "deviceName", "resourceName", "value", "riskClass", "because")
    says(monkeypatch, {"approvals": [{**dict.fromkeys(names, EVIL), "secondsLeft": 3.4}]})
    done = run(capsys, "approvals", "list")
    assert (done.code, is_harmless(done)) == (0, True)
    assert done.out.replace("\n", "").count("forged") == len(names)
    says(monkeypatch, {"approvals": [{**dict.fromkeys(names, "x"), "because": EVIL, "secondsLeft": 3.4}]})
    assert SHOWN in run(capsys, "approvals", "list").out


def test_orders_show_names_and_reasons_as_they_were_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pause = {"scope": "device", "name": EVIL, "by": EVIL, "reason": EVIL, "sinceUnixNs": 0}
    by_hand = {"deviceName": EVIL, "resourceName": EVIL, "value": EVIL, "untilSite": 0}
    says(monkeypatch, {"paused": [pause], "modes": {EVIL: EVIL}, "overrides": [by_hand]})
    done = run(capsys, "orders")
    assert (done.code, is_harmless(done), SHOWN in done.out) == (0, True, True)


def test_an_error_that_somebody_else_wrote_is_shown_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    says(monkeypatch, {"message": EVIL}, 409)
    for words in (["orders"], ["task", "list"]):
        done = run(capsys, *words)
        assert (done.code, is_harmless(done), done.err) == (1, True, f"error: {SHOWN}\n")


def test_an_agents_refusal_and_its_answer_as_json_move_no_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        {"statusCode": 404, "message": EVIL},
        {"statusCode": 200, "kind": "done", "answer": f"开灯 {EVIL}\udcff"},
    ]

    async def asked(place: Any, agent: str, *_: object) -> dict[str, Any]:
        found: dict[str, Any] = ASK.answer_of([json.dumps(answers.pop(0)).encode()], agent, "home")
        return found

    monkeypatch.setattr(ASK, "_ask", asked)
    done = run(capsys, "ask", "x")
    assert (done.code, is_harmless(done), done.err) == (1, True, f"error: {SHOWN}\n")
    done = run(capsys, "ask", "x", "--json")
    assert (done.code, is_harmless(done), "开灯" in done.out) == (0, True, True)
    assert json.loads(done.out)["answer"] == f"开灯 {EVIL}\udcff"


def test_json_for_people_says_the_same_as_any_json() -> None:
    body = {"\x1b": ['"\\\u2028', "\U000e0001", None]}
    assert json.loads(json_of(body)) == body
    assert json_of(body).isprintable()


@pytest.mark.parametrize(("words", "name"), [
    (["\udcff\udcfe turn"], "text"), (["turn", "--request-id", "\udcff"], "requestId"),
    (["turn", "--wait", "nan"], "waitSeconds"),
])  # fmt: skip
def test_a_question_that_cannot_be_sent_is_told_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    async def asked(*_: object) -> dict[str, Any]:
        raise AssertionError("nobody is to be asked")

    monkeypatch.setattr(ASK, "_ask", asked)
    done = run(capsys, "ask", *words)
    assert (done.code, is_harmless(done)) == (1, True)
    assert name in done.err
    assert "cannot be sent" in done.err


def test_a_tasks_id_that_was_made_elsewhere_is_printed_as_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    says(monkeypatch, {"id": EVIL})
    assert run(capsys, "task", "submit", "clean").out == f"{SHOWN}\n"


def test_why_shows_a_kind_of_record_that_an_agent_made_up_as_it_was_written() -> None:
    history = History()
    outcome = {"command_id": "c-1", "agent": "air", "device": "valve", "resource": "Open", "status": "proven"}
    for writer, kind, body in (("guard", "command", outcome), ("air", EVIL, {"command": "c-1"})):
        history.take(link(None, writer, "i", kind, body, 1))
    assert all(line.plain.isprintable() for line in answer(history, "c-1", 8))


@pytest.mark.parametrize("odd", [3, "x", [1], {"room": 3}, {"room": "ab"}])
def test_an_agents_file_of_another_shape_ends_no_answer(odd: Any) -> None:
    history = History()
    file = json.dumps({"rules": [{"name": "r", "for_each": odd}]})
    intent = {"device": "valve", "resource": "Open", "value": 1, "rule": "r"}
    for kind, body in (
        ("started", {"file": file}),
        (
            "decision",
            {"decision": "d-1", "intents": [intent], "given": [{**intent, "command": "c-1"}], "stage": "rule"},
        ),
    ):
        history.take(link(None, "air", "i", kind, body, 1))
    assert any("rule" in line.plain for line in answer(history, "c-1", 8))


def test_a_subject_that_is_no_word_is_not_known() -> None:
    with pytest.raises(NotFoundError):
        list(answer(History(), "\udcff", 8))
