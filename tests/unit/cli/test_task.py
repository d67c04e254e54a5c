"""`edgeagents task` and `edgeagents why TASK`: what is asked of the coordinator, and what a person reads."""

import importlib
from typing import Any

import httpx
import pytest

from edgeagents.cli.history import History
from edgeagents.cli.why import task_lines
from edgeagents.errors import ConflictError, InvalidInputError, UnavailableError, UpstreamError
from edgeagents.protocol.chains import link

module: Any = importlib.import_module("edgeagents.cli.task")  # the package has the command under that name
SHOWN = {
    "id": "t", "state": "done",
    "task": {"skill": "set", "deviceName": "valve", "resourceName": "Open", "value": "true"},
    "giver": "http", "winner": "ada", "reason": "proven", "reasons": ["ada bid 1, the best of 2"],
    "awards": [{"epoch": 1, "winner": "ada", "price": 2.0, "bids": {"bob": 2.0, "ada": 1.0}}],
}  # fmt: skip


class Coordinator:
    """Answers as told, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int, body: Any) -> None:
        self.asked: list[tuple[str, str, Any]] = []

        def request(method: str, url: str, **options: Any) -> httpx.Response:
            self.asked.append((method, url, options.get("json")))
            if isinstance(body, Exception):
                raise body
            return (
                httpx.Response(status, json=body)
                if not isinstance(body, bytes)
                else httpx.Response(status, content=body)
            )

        monkeypatch.setattr(httpx, "request", request)


def test_submit_sends_the_task_and_prints_its_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Coordinator(monkeypatch, 202, {"id": "t"})
    module.submit("set", set_="a/b/Open=x=y", param=("n=3",), deadline=5.0, coordinator="http://c:1/")
    assert capsys.readouterr().out == "t\n"
    task = {"skill": "set", "deadlineS": 5.0, "params": {"n": "3"}, "deviceName": "a/b", "resourceName": "Open",
            "value": "x=y"}  # fmt: skip
    assert found.asked == [("POST", "http://c:1/api/v3/task", {"task": task})]


@pytest.mark.parametrize("options", [{"set_": "no-value"}, {"set_": "Open=1"}, {"param": ("x",)}])
def test_what_is_half_written_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    found = Coordinator(monkeypatch, 202, {})
    with pytest.raises(InvalidInputError):
        module.submit("set", **options)
    assert found.asked == []


def test_list_and_show_tell_who_has_it_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Coordinator(monkeypatch, 200, {"tasks": [SHOWN], "task": SHOWN})
    module.list_(state="done")
    module.show("t")
    module.cancel("t")
    out = capsys.readouterr().out
    assert "set valve/Open = true" in out
    assert "award 1: ada; bids: ada 1, bob 2" in out
    assert "ada bid 1, the best of 2" in out


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (409, {"message": "done already"}, ConflictError),
        (200, b"<html>", UpstreamError),
        (200, [], UpstreamError),
        (200, httpx.ConnectError("refused"), UnavailableError),
    ],
)
def test_an_answer_that_is_no_help_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, status: int, body: Any, error: type[Exception]
) -> None:
    Coordinator(monkeypatch, status, body)
    with pytest.raises(error):
        module.call("GET", "http://c:1", "/x")


def test_why_tells_bids_rule_runner_up_command_and_end() -> None:
    history, last = History(), None
    for kind, body in (
        ("award", {"task": "t", "giver": "http", "wanted": {"skill": "set"}, "epoch": 1, "winner": "ada", "price": None,
                   "bids": {"bob": 2.0, "ada": 1.0}, "rule": "the lowest bid wins", "runner_up": "bob"}),
        ("task-work", {"task": "t", "agent": "ada", "device": "valve", "resource": "Open", "value": True,
                       "command": "c", "held_back": ""}),
        ("command", {"command_id": "c", "status": "proven", "device": "valve", "resource": "Open", "reason": ""}),
        ("task", {"task": "t", "state": "done", "reason": "proven", "reasons": ["ada bid 1"]}),
    ):  # fmt: skip
        last = link(last, "w", "i", kind, body, 1_000_000_000)
        history.take(last)
    lines = task_lines(history, "t")
    told = dict(lines)
    assert told["bids"] == "ada 1, bob 2"
    assert (told["runner-up"], told["price"]) == ("bob", "no price: there was no second bid")
    assert told["outcome"] == "proven"
    assert told["end"].endswith("done: proven")
    assert ("because", "ada bid 1") in lines
