"""The cascade of stages: the first that is sure enough answers; what is so already is not wanted again."""

from dataclasses import dataclass
from typing import Any

import pytest

from edgeagents.model.agent import AgentDefinition, Decision, Intent, Observation, Stage
from edgeagents.model.message import Cause
from edgeagents.model.values import Value
from edgeagents.settings import SiteTime
from services.agent.decision import SURE_ENOUGH, RuleStage, decide, decision_id, described
from services.agent.perception import Twin
from services.agent.rules import RuleBook

KEYS = {("sensor", "Temperature"), ("valve", "Setpoint")}


def observation(sequence: int = 1, event_id: str = "e") -> Observation:
    """Return what was made of an event."""
    cause = Cause(stream="edgex-events", sequence=sequence, event_id=event_id, origin_ns=77)
    return Observation(cause, "sensor", {}, 1000.0)


def twin(**values: Value) -> Twin:
    """Return a picture with `sensor/Temperature` and `valve/Setpoint` as given."""
    picture = Twin(SiteTime(), KEYS, 3600)
    places = {"temperature": ("sensor", "Temperature"), "setpoint": ("valve", "Setpoint")}
    for index, (name, value) in enumerate(values.items()):
        picture.set_value(places[name], value, 500 + index, 999.0)
    return picture


def stage(**changes: Any) -> RuleStage:
    """Return the stage of one rule."""
    rule = {
        "name": "warm", "given": {"t": "sensor/Temperature"}, "when": "t < 20.0",
        "set": {"device": "valve", "resource": "Setpoint", "value": 21}, "confidence": 0.9, **changes,
    }  # fmt: skip
    agent = AgentDefinition.model_validate({"name": "a", "watches": [{"device": "*"}], "rules": [rule]})
    return RuleStage("a", RuleBook(agent, "a.yaml"))


@dataclass
class Fixed:
    """A stage that always answers the same."""

    confidence: float | None
    name: Stage = "policy-model"

    def decide(self, observation: Observation, twin: Twin) -> Decision | None:
        if self.confidence is None:
            return None
        return Decision("d", (Intent("v", "s", 1, "", ""),), self.name, self.confidence, {}, 0)


def test_a_rules_decision_carries_what_it_rests_on() -> None:
    decision = stage().decide(observation(), twin(temperature=18.0, setpoint=19.0))
    assert decision is not None
    assert (decision.stage, decision.confidence, decision.inputs) == ("rule", 0.9, {"warm.t": 18.0})
    assert decision.data_origin_ns == 500
    told = described(decision)
    assert told["decision"] == decision.id
    assert told["intents"] == [{"device": "valve", "resource": "Setpoint", "value": 21, "rule": "warm", "because": ""}]


def test_a_rule_on_the_time_of_day_alone_rests_on_the_event_that_made_us_look() -> None:
    decision = stage(given={}, when="time.hour >= 0.0").decide(observation(), twin())
    assert decision is not None
    assert decision.data_origin_ns == 77


@pytest.mark.parametrize("known", [21, 21.0, 21.0000001])
def test_what_is_so_already_is_not_wanted_again(known: Value) -> None:
    assert stage().decide(observation(), twin(temperature=18.0, setpoint=known)) is None


@pytest.mark.parametrize(("known", "wanted"), [(20.1, False), (21.9, False), (19.9, True), (22.1, True)])
def test_a_dead_band_leaves_what_is_near_enough(known: float, wanted: bool) -> None:
    patient = stage(set={"device": "valve", "resource": "Setpoint", "value": 21.0, "dead_band": 1.0})

    assert (patient.decide(observation(), twin(temperature=18.0, setpoint=known)) is not None) is wanted


@pytest.mark.parametrize("known", [None, True, "21", 10**400, float("nan")])
def test_what_is_not_known_to_be_so_is_wanted(known: Value) -> None:
    assert stage().decide(observation(), twin(temperature=18.0, setpoint=known)) is not None


def test_the_same_event_makes_the_same_decision_id_and_another_one_another() -> None:
    same = {decision_id("a", observation()), decision_id("a", observation())}
    others = {decision_id("b", observation()), decision_id("a", observation(2)), decision_id("a", observation(1, "f"))}
    assert len(same) == 1
    assert len(same | others) == 4


def test_the_first_stage_that_is_sure_enough_answers() -> None:
    stages = [Fixed(None), Fixed(SURE_ENOUGH - 0.01), Fixed(SURE_ENOUGH), Fixed(1.0)]
    decision = decide(observation(), twin(), stages)
    assert decision is not None
    assert decision.confidence == SURE_ENOUGH


def test_nobody_sure_enough_leaves_everything_as_it_is() -> None:
    assert decide(observation(), twin(), [Fixed(None), Fixed(0.1)]) is None
    assert decide(observation(), twin(), []) is None
