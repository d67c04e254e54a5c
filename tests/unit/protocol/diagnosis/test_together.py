"""Facts of coordinator and language model -> findings."""

from typing import Any

import pytest

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.finding import Finding
from edgeagents.protocol.diagnosis.broker import AccountFacts, BrokerFacts, StreamFacts
from edgeagents.protocol.diagnosis.together import (
    SharedFacts,
    coordinator_findings,
    model_findings,
    tasks_stream_findings,
)

AIR = {"name": "air", "watches": [{"profile": "Sensor"}]}
AGENTS = {"air": AgentDefinition.model_validate({**AIR, "thinks": {"by": "gateway"}, "skills": [{"name": "set"}]})}
SERVING = {"isServing": True, "agents": 3, "open": 2}
READY = {"ready": True, "model": "small", "digest": "0123456789abcdef", "waiting": 1}


def coordinator(**changes: Any) -> Finding:
    [found] = coordinator_findings(SharedFacts(**{"url": "http://c", "is_known": True, **changes}), AGENTS)
    return found


def model(**changes: Any) -> Finding:
    [found] = model_findings(SharedFacts(**{"url": "http://m", "is_known": True, **changes}), AGENTS)
    return found


def test_what_serves_is_ok() -> None:
    assert (coordinator(state=SERVING).level, model(state=READY).level) == ("ok", "ok")
    assert coordinator(state=SERVING).found == "http://c: 2 tasks under way, 3 agents heard"
    assert model(state=READY).found == "http://m: small (0123456789ab), 1 questions wait"


def test_a_gateway_may_have_neither_and_who_would_ask_is_named() -> None:
    found = coordinator(problem="cannot be reached", is_known=False)
    assert (found.level, "no tasks can be given" in found.found) == ("ok", True)
    found = model(problem="cannot be reached", is_known=False)
    assert (found.level, "air would ask it, and goes on without" in found.found) == ("warning", True)
    [found] = model_findings(SharedFacts("http://m", "cannot be reached"), {})
    assert (found.level, found.found) == ("ok", "this gateway has none")


def test_nobody_says_there_is_none_when_keeper_does_not_tell() -> None:
    for found in (coordinator(problem="away", is_known=None), model(problem="away", is_known=None)):
        assert (found.level, "keeper does not tell" in found.found) == ("warning", True)


def test_one_that_keeper_knows_and_that_does_not_answer_fails_with_the_setting() -> None:
    for found, setting in (
        (coordinator(problem="cannot be reached"), "EDGEAGENTS_COORDINATOR_URL"),
        (model(problem="cannot be reached"), "EDGEAGENTS_INFERENCE_URL"),
    ):
        assert found.level == "failed"
        assert setting in found.remedy


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ({**SERVING, "isServing": False}, "failed", "takes no task yet"),
        ({**SERVING, "agents": 0}, "warning", "hears no agent"),
        ({}, "failed", "takes no task yet"),
    ],
)
def test_a_coordinator_that_cannot_give_tasks_away_says_why(state: dict[str, Any], level: str, words: str) -> None:
    found = coordinator(state=state)
    assert (found.level, found.remedy != "") == (level, True)
    assert words in found.found


def test_where_no_agent_bids_for_tasks_none_is_missed() -> None:
    facts = SharedFacts("http://c", is_known=True, state={**SERVING, "agents": 0})
    [found] = coordinator_findings(facts, {"air": AgentDefinition.model_validate(AIR)})
    assert (found.level, "no agent file has `skills`" in found.found) == ("ok", True)
    [found] = coordinator_findings(facts, {})
    assert found.level == "ok"


def test_a_service_without_a_model_says_why_and_how_to_make_one() -> None:
    found = model(state={"ready": False, "why": "no language model: /models/x: no such folder"})
    assert (found.level, "no such folder" in found.found) == ("warning", True)
    assert "make model" in found.remedy
    assert "MODELS_DIR" in found.remedy


def test_the_stream_of_tasks_is_missed_where_streams_can_be_seen() -> None:
    seen = BrokerFacts("nats://n", account=AccountFacts())
    [found] = tasks_stream_findings(seen, "tasks")
    assert (found.level, "the guard makes it" in found.remedy) == ("warning", True)
    there = BrokerFacts("nats://n", account=AccountFacts(), streams={"tasks": StreamFacts()})
    assert tasks_stream_findings(there, "tasks") == []
    assert tasks_stream_findings(BrokerFacts("nats://n", state="away"), "tasks") == []
