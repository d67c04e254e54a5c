"""`edgeagents replay` hands over to the agent service's own replay."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.cli.command import run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what was started, instead of starting it; it ends with 1."""
    found: list[dict[str, Any]] = []

    def start(command: list[str], **options: Any) -> SimpleNamespace:
        found.append({"command": command, **options})
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(subprocess, "run", start)
    return found


def test_one_decision_is_replayed_with_the_brokers_address_in_the_environment(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--nats", "nats://h:1", "--gateway", "home", "--user", "owner", "--password-file", "p"]
    assert run(capsys, "replay", "d-1", *options).code == 1
    (one,) = started
    assert one["command"] == [sys.executable, "-m", "services.agent", "--replay=d-1"]
    assert {name: value for name, value in one["env"].items() if name.startswith("EDGEAGENTS_")} == {
        "EDGEAGENTS_NATS_URL": "nats://h:1", "EDGEAGENTS_GATEWAY": "home", "EDGEAGENTS_NATS_USER": "owner",
        "EDGEAGENTS_NATS_PASSWORD_FILE": "p",
    }  # fmt: skip


def test_all_decisions_of_a_file_are_replayed(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "replay", "--all", "--file", Path("a.jsonl"))
    assert started[0]["command"][3:] == ["--replay=all", "--file", "a.jsonl"]


@pytest.mark.parametrize("words", [[], ["d-1", "--all"]])
def test_one_decision_or_all_must_be_named(
    started: list[dict[str, Any]], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, "replay", *words)
    assert (done.code, started) == (1, [])
    assert "name one decision, or give --all" in done.err


def test_without_the_agent_service_it_is_said_where_to_go(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run(capsys, "replay", "--all")
    assert (done.code, started) == (1, [])
    assert "the agent service is not installed here" in done.err
