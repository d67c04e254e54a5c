"""A task as somebody writes it, and the skills of an agent's file."""

from typing import Any

import pytest
from pydantic import ValidationError

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.message import Cause
from edgeagents.model.skill import Aim, Skill, aim_of
from edgeagents.model.task import LedRef, TaskRef, cause_of, led_cause_of, led_of, read_task, task_of

SET = {"skill": "set", "deviceName": "valve", "resourceName": "Open", "value": True}


def test_a_task_reads_bare_or_wrapped_with_values_as_a_rule_engine_writes_them() -> None:
    task = read_task({"apiVersion": "v3", "requestId": "x", "task": {**SET, "params": {"n": 3, "on": False}}})
    assert (task.value, dict(task.params), task.deadline_s) == ("true", {"n": "3", "on": "false"}, 30.0)
    assert read_task({**SET, "value": 21.5}).value == "21.5"
    assert read_task(SET) == read_task({"task": SET})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"skill": ""}, "skill"),
        ({"skill": "a b"}, "skill"),
        ({"value": ""}, "needs deviceName, resourceName and value"),
        ({"value": float("nan")}, "nan is no value"),
        ({"value": float("inf")}, "inf is no value"),
        ({"value": "x" * 1_025}, "value"),
        ({"deadlineS": 0}, "in the past"),
        ({"deadlineS": -3}, "3 s in the past"),
        ({"deadlineS": float("nan")}, "deadlineS"),
        ({"deadlineS": 86_401}, "deadlineS"),
        ({"priority": "royal"}, "priority"),
        ({"reserve": -1}, "reserve"),
        ({"params": {"A b": "x"}}, "no name"),
        ({"params": {"note": "\ud800"}}, "params.note"),
        ({"params": {"n": -(10**1_023)}}, "params"),
        ({"deviceName": "\ud800"}, "deviceName"),
        ({"\ud800": 1}, "unicode"),
        ({"params": {"n": [1]}}, "a text or a number"),
        ({"params": {f"n{number}": 1 for number in range(33)}}, "params"),
        ({"giver": "owner"}, "giver"),
        ({"id": "a/b"}, "id"),
    ],
)
def test_what_is_no_task_is_refused_by_its_field(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        read_task({**SET, **change})


@pytest.mark.parametrize("body", [None, 7, [], "set", {"task": 3}])
def test_what_is_no_object_is_refused(body: Any) -> None:
    with pytest.raises(InvalidInputError):
        read_task(body)


def test_a_template_takes_parameters_and_the_tasks_own_words() -> None:
    skill = Skill.model_validate(
        {"name": "warm", "set": {"device": "radiator-{room}", "resource": "Setpoint", "value": "{value}"}}
    )
    assert aim_of(skill, "", "", "21", {"room": "living"}) == Aim("radiator-living", "Setpoint", "21")
    with pytest.raises(InvalidInputError, match="needs the parameter 'room'"):
        aim_of(skill, "", "", "21", {})


@pytest.mark.parametrize(
    "skills",
    [
        [{"name": "set", "set": {"device": "a", "resource": "b", "value": "c"}}],
        [{"name": "warm"}],
        [{"name": "set"}, {"name": "set"}],
        [{"name": "set", "cost_s": -1}],
        [{"name": "set", "cost": 1}],
    ],
)
def test_skills_that_mean_nothing_are_refused(skills: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        AgentDefinition.model_validate({"name": "ada", "watches": [{"device": "valve"}], "skills": skills})


@pytest.mark.parametrize("name", ["guard", "coordinator", "owner", "http"])
def test_names_that_mean_something_on_the_bus_are_no_agents(name: str) -> None:
    with pytest.raises(ValidationError, match="is taken"):
        AgentDefinition.model_validate({"name": name, "watches": [{"device": "valve"}]})


def test_a_cause_names_the_award_it_was_made_of_and_nothing_else_does() -> None:
    ref = TaskRef("a.b:c-1", 1_700_000_000_000_000_000, 3)
    assert task_of(cause_of(ref)) == ref
    assert task_of(Cause(stream="edgex-events", sequence=3)) is None
    assert task_of(Cause(stream="tasks", sequence=3)) is None


@pytest.mark.parametrize(
    "stream", ["tasks/", "tasks/t", "tasks/t/", "tasks/t/-1", "tasks//1", "tasks/t/1/2", "tasks/t/٣"]
)
def test_a_cause_that_names_a_task_in_another_way_is_refused(stream: str) -> None:
    with pytest.raises(InvalidInputError, match="names no task"):
        task_of(Cause(stream=stream, sequence=1))


def test_a_led_tasks_cause_names_leader_task_and_award_and_is_no_task_of_the_ledger() -> None:
    ref = LedRef("a" * 41, "t:1.x_-" + "y" * 57, 2**63 - 1, 3)
    cause = led_cause_of(ref)
    assert led_of(cause) == ref
    assert task_of(cause) is None
    assert led_of(Cause(stream="edgex-events", sequence=1)) is None
    assert led_of(cause_of(TaskRef("t", 1, 1))) is None
