"""`edgeagents conflict` and `edgeagents why CONFLICT`: what a person reads of how agents settled something."""

from typing import Any

import httpx
import pytest

from edgeagents.cli import service
from edgeagents.cli.conflict import described
from edgeagents.cli.history import History
from edgeagents.cli.lines import in_words
from edgeagents.cli.why import answer, conflict_lines
from edgeagents.protocol.chains import link
from edgeagents.subjects import COORDINATOR
from tests.unit.cli.command import run

PARTIES = [
    {"agent": "energy", "priority": "comfort", "said": "bargains", "way": "19", "holds": False, "disagreement": 0.2,
     "worth": {"19": 0.9, "20": 0.8}},
    {"agent": "comfort", "priority": "comfort", "said": "bargains", "way": "22", "holds": True, "disagreement": 0.2,
     "worth": {"19": 0.3, "20": 0.6}},
    {"agent": "air", "priority": "comfort", "said": "gives way"},
]  # fmt: skip
BODY: dict[str, Any] = {
    "conflict": "conflict-1", "device": "radiator-living", "resource": "Setpoint", "by": "energy", "wanted": "19",
    "because": "electricity is dear", "options": ["22", "19", "20"], "forbidden": {}, "parties": PARTIES, "value": "20",
    "winner": "comfort", "rung": "nash", "runner_up": "19", "reasons": ["lease: nobody holds it", "nash: largest"],
    "stands_s": 10.0, "took_ms": 3.0,
}  # fmt: skip
SHOWN: dict[str, Any] = {
    "id": "conflict-1", "deviceName": "radiator-living", "resourceName": "Setpoint", "askedBy": "energy",
    "wanted": "19", "because": "electricity is dear", "parties": PARTIES, "value": "20", "winner": "comfort",
    "rung": "nash", "runnerUp": "19", "reasons": ["nash: largest"],
}  # fmt: skip
OBEYED = {"conflict": "conflict-1", "device": "radiator-living", "resource": "Setpoint", "value": "20",
          "winner": "comfort", "part": "stands back", "stands_s": 10.0}  # fmt: skip


def history(*records: tuple[str, str, dict[str, Any]]) -> History:
    """Return what the audit says, a record each: writer, kind, body."""
    found = History()
    for number, (writer, kind, body) in enumerate(records):
        found.take(link(None, writer, "run", kind, body, 1_700_000_000_000_000_000 + number))
    return found


def test_why_tells_who_wanted_what_what_it_was_worth_which_rung_decided_and_who_obeyed() -> None:
    lines = conflict_lines(history((COORDINATOR, "conflict", BODY), ("energy", "settlement", OBEYED)), "conflict-1")
    assert ("rung", "nash") in lines
    assert ("runner-up", "19") in lines
    assert ("party", "comfort (comfort) bargains, would have 22, holds the lease: 20 0.60, 19 0.30") in lines
    assert ("party", "air (comfort) gives way") in lines
    assert next(text for word, text in lines if word == "obeyed").endswith("energy: stands back")


def test_a_settlement_that_an_agent_made_up_is_none() -> None:
    forged = history(("mallory", "conflict", BODY))
    assert conflict_lines(forged, "conflict-1") == [("conflict", "conflict-1")]
    assert forged.conflicts_of("energy") == []


def test_why_of_an_agent_and_of_a_device_name_its_conflicts() -> None:
    found = history((COORDINATOR, "conflict", BODY), ("energy", "settlement", OBEYED))
    told = "\n".join(line.plain for line in answer(found, "energy", 8))
    assert "conflicts of energy" in told
    assert "radiator-living/Setpoint between energy and comfort and air: 20 by comfort: nash: largest" in told
    assert "20 by comfort" in "\n".join(line.plain for line in answer(found, "radiator-living", 8))


def test_what_binds_nobody_any_more_says_why() -> None:
    reason = "comfort takes no part any more: paused by ann"
    released = {"conflict": "conflict-1", "device": "radiator-living", "resource": "Setpoint", "reason": reason}
    lines = conflict_lines(history(
        (COORDINATOR, "conflict", BODY), ("comfort", "settlement-left", {**released, "reason": "paused by ann"}),
        (COORDINATOR, "conflict-released", released), ("energy", "settlement-released", released),
        ("mallory", "conflict-released", {**released, "reason": "lies"}),
    ), "conflict-1")  # fmt: skip
    assert next(text for word, text in lines if word == "freed").endswith(f"energy: {reason}")
    assert next(text for word, text in lines if word == "left").endswith("comfort: paused by ann")
    assert [text.endswith(reason) for word, text in lines if word == "released"] == [True]
    assert f"binds nobody any more: {reason}" in list(described({**SHOWN, "released": reason}))


@pytest.mark.parametrize("parties", [None, [7], [{"agent": "a"}], "none"])
def test_a_record_of_another_shape_is_shown_all_the_same(parties: object) -> None:
    found = history((COORDINATOR, "conflict", {**BODY, "parties": parties}))
    assert ("rung", "nash") in conflict_lines(found, "conflict-1")
    assert "conflict=conflict-1" in in_words("conflict", {**BODY, "parties": 7})


def test_a_conflict_that_settled_nothing_says_so() -> None:
    assert "nothing: all goes on as it was" in next(described({**SHOWN, "value": "", "winner": ""}))
    assert "nothing, all goes on as it was" in in_words("conflict", {**BODY, "value": "", "winner": ""})


def test_list_and_show_ask_the_coordinator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    async def exchange(method: str, url: str, *_: object) -> httpx.Response:
        asked.append(f"{method} {url}")
        return httpx.Response(200, json={"conflicts": [SHOWN], "conflict": SHOWN})

    monkeypatch.setattr(service, "exchange", exchange)
    listed = run(capsys, "conflict", "list", "--coordinator", "http://c:1")
    shown = run(capsys, "conflict", "show", "conflict-1", "--coordinator", "http://c:1")
    assert asked == ["GET http://c:1/api/v3/conflict/all?limit=20", "GET http://c:1/api/v3/conflict/id/conflict-1"]
    assert "nash" in listed.out
    assert "asked by energy, who wanted 19: electricity is dear" in shown.out
    assert "runner-up: 19" in shown.out


def test_why_of_a_command_that_was_agreed_on_tells_the_conflict() -> None:
    given = {"conflict": "conflict-1", "device": "radiator-living", "resource": "Setpoint", "value": "20",
             "command": "c0ffee-1"}  # fmt: skip
    outcome = {"command_id": "c0ffee-1", "device": "radiator-living", "resource": "Setpoint", "value": "20",
               "status": "proven", "agent": "comfort", "decision": "conflict-1", "because": "agreed"}  # fmt: skip
    found = history(
        (COORDINATOR, "conflict", BODY), ("comfort", "settlement-given", given), ("guard", "command", outcome)
    )  # fmt: skip
    told = "\n".join(line.plain for line in answer(found, "c0ffee-1", 8))
    assert "conflict-1: the audit has no record of it" not in told
    assert "rung       nash" in told
    assert "comfort: 20, command c0ffee-1" in told


def test_why_of_a_wish_that_was_settled_otherwise_tells_what_was_given_instead() -> None:
    place = {"device": "radiator-living", "resource": "Setpoint"}
    decided = {
        "agent": "comfort", "decision": "d0d0d0-1", "stage": "rule", "confidence": 1.0, "device": "sensor",
        "cause": {"stream": "s", "sequence": 1}, "changed": {}, "inputs": {}, "model": "",
        "intents": [{**place, "value": 22.0, "rule": "in-use", "because": "somebody is in"}],
        "given": [{**place, "command": "c0ffee-2", "held_back": "", "value": 20.0, "because": "agreed in conflict-1"}],
    }  # fmt: skip
    told = "\n".join(line.plain for line in answer(history(("comfort", "decision", decided)), "c0ffee-2", 8))
    assert "20: agreed in conflict-1" in told
