"""Facts of guard and agents -> findings."""

from typing import Any

import pytest

from edgeagents.model.finding import Finding
from edgeagents.protocol.diagnosis.services import AgentFacts, GuardFacts, agent_findings, guard_findings

GUARD = GuardFacts("http://g", state={"generation": 3, "waiting": 0, "sessions": ["air"]})


def guard(**state: Any) -> list[Finding]:
    return guard_findings(GuardFacts("http://g", state={**GUARD.state, **state}))


def agent(**changes: Any) -> Finding:
    state = {"mode": "act", "counts": {"decisions": 4}, "commands": {"published": 2}, **changes.pop("state", {})}
    facts = AgentFacts(**{"name": "air", "url": "http://a", "instances": 1, "state": state, **changes})
    return agent_findings([facts], GUARD)[0]


def test_a_sound_guard_is_ok() -> None:
    [finding] = guard()
    assert (finding.level, finding.found) == ("ok", "http://g: generation 3, 0 commands wait")


def test_a_guard_that_is_away_fails_with_the_setting() -> None:
    [finding] = guard_findings(GuardFacts("http://g", "cannot be reached"))
    assert finding.level == "failed"
    assert "EDGEAGENTS_GUARD_URL" in finding.remedy


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ({"blocked": {"valve": "no answer"}}, "warning", "device valve takes no command: no answer"),
        ({"volumeFull": True}, "failed", "its volume is full: only safety commands are taken"),
        ({"paused": [{"scope": "all", "name": "", "by": "ann"}]}, "warning", "paused: everything, by ann"),
        ({"paused": [{"scope": "agent", "name": "air", "by": "ann"}]}, "warning", "paused: agent air, by ann"),
        ({"wrongFiles": {"/a/x.yaml": "/a/x.yaml: mode: wrong"}}, "failed", "/a/x.yaml: mode: wrong"),
        ({"notTaken": {"audit": ["air"]}}, "warning", "stream audit takes nothing of air"),
        ({"doubledAgents": {"x": "a and b both declare agent 'x'"}}, "failed", "both declare agent 'x'"),
        ({"overrides": [{}, {}]}, "ok", "2 resources were set by hand"),
    ],
)
def test_what_the_guard_holds_back_is_told(state: dict[str, Any], level: str, words: str) -> None:
    finding = guard(**state)[1]
    assert finding.level == level
    assert words in finding.found


def test_a_sound_agent_is_ok_with_its_mode() -> None:
    finding = agent()
    assert (finding.level, finding.found) == ("ok", "mode act, 4 decisions, 2 commands")


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"url": ""}, "failed", "not registered"),
        ({"problem": "no answer"}, "failed", "no answer"),
        ({"state": {"mode": "no session"}}, "failed", "no session"),
        ({"name": "heat"}, "failed", "no session"),
        ({"instances": 2}, "failed", "runs 2 times"),
        ({"instances": 0}, "warning", "does not answer by its name"),
        ({"instances": None}, "ok", "mode act"),
        ({"state": {"waitsFor": ["device 'x'"]}}, "warning", "waits for device 'x'"),
    ],
)
def test_what_ails_an_agent_is_told(changes: dict[str, Any], level: str, words: str) -> None:
    finding = agent(**changes)
    assert finding.level == level
    assert words in finding.found


ODD: list[Any] = [7, "x", [1], [[]], {"a": 7}, None, True, 1.5]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "key", ["blocked", "paused", "doubledAgents", "wrongFiles", "notTaken", "overrides", "waiting"]
)
def test_a_guard_that_answers_in_another_shape_breaks_no_check(key: str, odd: Any) -> None:
    assert guard(**{key: odd})[0].check == "guard"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", ["counts", "commands", "waitsFor", "mode"])
def test_an_agent_that_answers_in_another_shape_breaks_no_check(key: str, odd: Any) -> None:
    assert agent(state={key: odd}).check == "agent air"
    odd_guard = GuardFacts("http://g", state={"sessions": odd})
    assert agent_findings([AgentFacts("air", "http://a", state={})], odd_guard)[0].check == "agent air"


def test_two_sessions_of_one_agent_are_told_although_the_broker_was_not_asked() -> None:
    twice = GuardFacts("http://g", state={"sessions": ["air", "air"]})
    [finding] = agent_findings([AgentFacts("air", "http://a", state={"mode": "act"})], twice)
    assert "runs 2 times" in finding.found


def test_without_a_guard_agents_are_not_blamed_for_having_no_session() -> None:
    facts = AgentFacts("air", "http://a", state={"mode": "no session"}, instances=1)
    assert agent_findings([facts], GuardFacts("http://g", "away"))[0].level == "ok"
