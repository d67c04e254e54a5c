"""`edgeagents task` and `edgeagents why TASK`: what is asked of the coordinator, and what a person reads."""

import importlib
import json
from typing import Any

import httpx
import pytest

from edgeagents.cli import led, service
from edgeagents.cli.history import History
from edgeagents.cli.source import Broker
from edgeagents.cli.why import answer, task_lines
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

        async def exchange(
            method: str, url: str, headers: dict[str, str], content: bytes | None, limit_s: float
        ) -> httpx.Response:
            self.asked.append((method, url, None if content is None else json.loads(content)))
            if isinstance(body, Exception):
                raise body
            return (
                httpx.Response(status, json=body)
                if not isinstance(body, bytes)
                else httpx.Response(status, content=body)
            )

        monkeypatch.setattr(service, "exchange", exchange)


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


class Led:
    """An agent that leads, which answers as told, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *bodies: dict[str, Any]) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        left = list(bodies)

        async def asked(broker: Broker, leader: str, verb: str, body: dict[str, Any]) -> list[bytes]:
            self.asked.append((leader, verb, body))
            return [json.dumps({"statusCode": 200, **left.pop(0)}).encode()] if left else []

        monkeypatch.setattr(led, "_asked", asked)
        monkeypatch.setattr(led, "AGAIN_S", 0.0)


def test_with_a_leader_that_agent_is_asked_and_followed_to_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator = Coordinator(monkeypatch, 202, {"id": "t"})
    states = [{"task": SHOWN | {"state": state}} for state in ("open", "taken", "taken", "done")]
    found = Led(monkeypatch, {"id": "t"}, *states)
    module.submit("set", set_="valve/Open=true", deadline=5.0, id_="t", wait=True, leader="ada")
    task = {"skill": "set", "deadlineS": 5.0, "params": {}, "deviceName": "valve", "resourceName": "Open",
            "value": "true", "id": "t"}  # fmt: skip
    assert found.asked[0] == ("ada", "submit", {"task": task})
    assert found.asked[1:] == [("ada", "get", {"id": "t"})] * 4
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["open", "taken", "done"]
    assert coordinator.asked == []


def test_what_a_leader_did_not_do_ends_the_command_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    Led(monkeypatch, {"id": "t"}, {"task": SHOWN | {"state": "failed"}})
    with pytest.raises(SystemExit) as ended:
        module.submit("set", set_="valve/Open=true", wait=True, leader="ada")
    assert ended.value.code == 1


def test_tasks_of_a_leader_are_listed_shown_and_cancelled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Led(monkeypatch, {"tasks": [SHOWN]}, {"task": SHOWN}, {"task": SHOWN})
    module.list_(state="done", leader="ada")
    module.show("t", leader="ada")
    module.cancel("t", leader="ada")
    assert [verb for _, verb, _ in found.asked] == ["list", "get", "cancel"]
    assert "award 1: ada; bids: ada 1, bob 2" in capsys.readouterr().out


def test_an_agent_that_leads_nothing_or_refuses_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Led(monkeypatch)
    with pytest.raises(UnavailableError, match="leads: true"):
        module.show("t", leader="ada")
    Led(monkeypatch, {"statusCode": 409, "message": "app-coordinator is there: give it to it"})
    with pytest.raises(ConflictError, match="give it to it"):
        module.submit("set", set_="valve/Open=true", leader="ada")
    for data in (b"<html>", b"[]", b"{}"):
        with pytest.raises(UpstreamError):
            led.answer_of([data], "ada")


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
        last = link(last, "coordinator", "i", kind, body, 1_000_000_000)
        history.take(last)
    lines = task_lines(history, "t")
    told = dict(lines)
    assert told["bids"] == "ada 1, bob 2"
    assert (told["runner-up"], told["price"]) == ("bob", "no price: there was no second bid")
    assert told["outcome"] == "proven"
    assert told["end"].endswith("done: proven")
    assert ("because", "ada bid 1") in lines


def test_why_names_who_led_a_task_without_a_coordinator_and_what_a_command_was_for() -> None:
    history = History()
    for writer, kind, body in (
        ("lea", "award", {"task": "t", "leader": "lea", "giver": "owner", "wanted": {"skill": "set"}, "epoch": 1,
                          "winner": "ada", "price": 2.0, "bids": {"ada": 1.0, "bob": 2.0}, "rule": "the lowest bid",
                          "runner_up": "bob"}),
        ("ada", "task-work", {"task": "t", "leader": "lea", "agent": "ada", "device": "valve", "resource": "Open",
                              "value": True, "command": "c-1", "held_back": ""}),
        ("guard", "command", {"command_id": "c-1", "agent": "ada", "status": "proven", "device": "valve",
                              "resource": "Open", "value": "true", "reason": "", "decision": "task-t-1",
                              "cause": {"stream": "led/lea/t/7", "sequence": 1, "event_id": "t"}}),
        ("mallory", "task", {"task": "t", "leader": "lea", "state": "failed", "reason": "so I say", "reasons": []}),
        ("lea", "task", {"task": "t", "leader": "lea", "state": "done", "reason": "proven", "reasons": []}),
    ):  # fmt: skip
        history.take(link(None, writer, "i", kind, body, 1_000_000_000))
    lines = task_lines(history, "t")
    assert [text for word, text in lines if word == "led by"] == ["lea"]
    assert lines.index(("led by", "lea")) < [word for word, _ in lines].index("award")
    assert [text for word, text in lines if word == "end"] == ["1970-01-01 00:00:01.000 done: proven"]
    told = [line.plain for line in answer(history, "c-1", 8)]
    assert "task       t, led by lea: no coordinator was there" in told


def led_lines(*records: tuple[str, str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what `why` says of task `t` by records of writer, kind and body; each led record names its writer."""
    history = History()
    for writer, kind, body in records:
        named = {"task": "t", "leader": writer, **body} if kind in ("award", "task") else body
        history.take(link(None, writer, "i", kind, named, 1_000_000_000))
    return task_lines(history, "t")


AWARD: dict[str, Any] = {"giver": "owner", "wanted": {"skill": "set"}, "epoch": 1, "winner": "ada", "bids": {"ada": 1}}
DONE: dict[str, Any] = {"state": "done", "reason": "proven", "winner": "ada", "reasons": []}
FAILED: dict[str, Any] = {"state": "failed", "reason": "so I say", "winner": "eve", "reasons": []}


def command_of(leader: str, status: str = "proven") -> tuple[str, str, dict[str, Any]]:
    """Return the guard's record of a command for `t`, which names its leader."""
    return "guard", "command", {"command_id": f"c-{leader}", "status": status, "cause": {"stream": f"led/{leader}/t/7"}}


def test_awards_and_ends_count_of_the_leader_alone_that_the_guards_record_of_the_command_names() -> None:
    lines = led_lines(("lea", "award", AWARD), command_of("lea"), ("eve", "task", FAILED), ("lea", "task", DONE))
    assert [text for word, text in lines if word == "led by"] == ["lea"]
    assert [text for word, text in lines if word == "end"] == ["1970-01-01 00:00:01.000 done: proven"]


@pytest.mark.parametrize("status", ["refused", "expired"])
def test_a_command_that_the_guard_did_not_let_pass_makes_nobody_a_leader(status: str) -> None:
    lines = led_lines(
        ("lea", "award", AWARD), command_of("lea"), command_of("eve", status), ("eve", "task", FAILED)
    )  # fmt: skip
    assert [text for word, text in lines if word == "led by"] == ["lea"]


def test_an_agents_own_record_of_a_command_is_not_the_guards() -> None:
    _, kind, body = command_of("eve")
    lines = led_lines(("lea", "award", AWARD), command_of("lea"), ("eve", kind, body), ("eve", "task", FAILED))
    assert [text for word, text in lines if word == "led by"] == ["lea"]


def test_what_the_coordinator_led_is_nobody_elses() -> None:
    lines = led_lines(("coordinator", "award", {**AWARD, "leader": ""}), ("eve", "task", FAILED))
    assert [word for word, _ in lines if word in ("led by", "end")] == []


def test_without_any_command_each_ones_word_is_shown_as_its_word_and_what_is_told_done_is_told_to_have_none() -> None:
    lines = led_lines(("lea", "award", AWARD), ("eve", "task", FAILED), ("lea", "task", DONE))
    assert [text for word, text in lines if word == "led by"] == [
        f"{name}, as it says: the guard let no command of it pass" for name in ("lea", "eve", "lea")
    ]
    assert dict(lines)["no command"] == "of it is in the guard's audit: ada says it is done"
