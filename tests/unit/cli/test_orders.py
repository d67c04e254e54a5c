"""`edgeagents pause`, `resume`, `mode`, `orders`: what they ask the guard, and what they show."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.cli import main, service

BODY = {
    "paused": [{"scope": "device", "name": "valve", "by": "ann", "reason": "[painting]", "sinceUnixNs": 0}],
    "modes": {"air": "observe", "heat": "act"},
    "modeOrders": [{"agent": "air", "mode": "observe", "by": "bob", "reason": "", "sinceUnixNs": 0}],
}


class FakeGuard:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.answer = httpx.Response(200, json=BODY)

    async def exchange(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None, limit_s: float
    ) -> httpx.Response:
        body = None if content is None else json.loads(content)
        self.asked.append((method, url, headers.get("Authorization", ""), body))
        return self.answer


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGuard]:
    found = FakeGuard()
    (tmp_path / "token").write_text("a-token-of-ann-000\n")
    monkeypatch.setenv("EDGEAGENTS_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("EDGEAGENTS_GUARD_URL", "http://guard:1")
    monkeypatch.setattr(service, "exchange", found.exchange)
    return found


def run(*words: str) -> int:
    """Run the command line; return its exit code."""
    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["pause", "all"], "pause", {"scope": "all", "name": "", "reason": ""}),
        (["pause", "agent", "air", "--reason", "x"], "pause", {"scope": "agent", "name": "air", "reason": "x"}),
        (["resume", "device", "valve"], "resume", {"scope": "device", "name": "valve", "reason": ""}),
        (["mode", "air", "observe"], "mode", {"name": "air", "mode": "observe", "reason": ""}),
    ],
)
def test_an_order_goes_to_the_guard_with_the_approvers_token(
    guard: FakeGuard, words: list[str], path: str, body: dict[str, Any]
) -> None:
    assert run(*words) == 0
    assert guard.asked == [("POST", f"http://guard:1/api/v3/{path}", "Bearer a-token-of-ann-000", body)]


def test_orders_need_no_token_and_are_shown_in_words(
    guard: FakeGuard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGEAGENTS_TOKEN_FILE")
    assert run("orders") == 0
    assert guard.asked == [("GET", "http://guard:1/api/v3/guard", "", None)]
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("paused: device valve, by ann since ")
    assert first.endswith(": [painting]")
    assert rest[0].startswith("air: observe, by bob since ")
    assert rest[1] == "heat: act"


def test_what_was_set_by_hand_is_shown_with_the_time_agents_stand_back_until(
    guard: FakeGuard, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand = {"deviceName": "valve", "resourceName": "Setpoint", "value": "17", "untilSite": 1_768_374_000.0}
    guard.answer = httpx.Response(200, json=BODY | {"overrides": [by_hand]})
    assert run("orders") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "valve/Setpoint was set by hand to 17: agents stand back until 2026-01-14 07:00 (site time)"


def test_nothing_paused_is_said(guard: FakeGuard, capsys: pytest.CaptureFixture[str]) -> None:
    guard.answer = httpx.Response(200, json=BODY | {"paused": []})
    assert run("resume", "all") == 0
    assert capsys.readouterr().out.startswith("nothing is paused\n")


@pytest.mark.parametrize(("status", "text"), [(404, "no agent file declares 'x'"), (429, "try again in 8 s")])
def test_a_refusal_is_told_and_ends_with_1(
    guard: FakeGuard, capsys: pytest.CaptureFixture[str], status: int, text: str
) -> None:
    guard.answer = httpx.Response(status, content=json.dumps({"message": text}))
    assert run("pause", "agent", "x") == 1
    assert f"error: {text}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["pause"], ["pause", "house"], ["mode", "air"], ["mode", "air", "dance"]])
def test_a_wrong_command_line_asks_nobody(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert run(*words) != 0
    assert guard.asked == []
