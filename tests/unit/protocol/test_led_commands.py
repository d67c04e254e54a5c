"""What may be commanded for a task that an agent led: class A, absolute, by a leader of the owner's."""

from typing import Any

import pytest

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.message import Cause, CommandKind, RiskClass, SiteEntry
from edgeagents.model.site import ResourceRule
from edgeagents.model.task import LedRef, TaskRef, cause_of, led_cause_of
from edgeagents.protocol.gate import NeedsApproval, Passed, Refused, Verdict
from edgeagents.protocol.led_commands import judged, leader_of, told_problem

LED = led_cause_of(LedRef("ada", "warm", 7, 1))


def agent(name: str, **changes: Any) -> AgentDefinition:
    """Return an agent's file."""
    return AgentDefinition.model_validate({"name": name, "watches": [{"device": "valve"}], **changes})


AGENTS = {
    "ada": agent("ada", leads=True, mode="act"), "bob": agent("bob", mode="act"),
    "eve": agent("eve", leads=True, mode="observe"),
}  # fmt: skip


def verdict(risk_class: RiskClass = "A", kind: CommandKind = "absolute") -> Verdict:
    """Return what the gate says of a command that nothing forbids."""
    rule = ResourceRule(device="valve", resource="Setpoint", risk_class=risk_class, kind=kind)
    return Passed(rule, 21.0, "21") if risk_class == "A" else NeedsApproval(rule, 21.0, "21", risk_class)


def test_class_a_with_an_absolute_value_passes() -> None:
    assert judged(LED, verdict(), AGENTS) == verdict()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (verdict("B"), "class B: without a coordinator agents lead class A alone"),
        (verdict("C"), "class C: without a coordinator agents lead class A alone"),
        (verdict(kind="step"), "a step: without a coordinator only what may be set twice"),
        (verdict(kind="toggle"), "a toggle: without"),
    ],
)
def test_what_needs_a_yes_or_does_harm_twice_is_refused(found: Verdict, words: str) -> None:
    refused = judged(LED, found, AGENTS)
    assert isinstance(refused, Refused)
    assert words in refused.reasons[0]


@pytest.mark.parametrize("leader", ["bob", "nobody", "coordinator"])
def test_who_may_not_lead_by_the_owners_files_has_led_nothing(leader: str) -> None:
    refused = judged(led_cause_of(LedRef(leader, "warm", 7, 1)), verdict(), AGENTS)
    assert refused == Refused((f"{leader!r} may lead no tasks by the owner's files",))


def test_who_only_observes_has_nobody_act_for_it() -> None:
    refused = judged(led_cause_of(LedRef("eve", "warm", 7, 1)), verdict(), AGENTS)
    assert refused == Refused(("'eve', who led task 'warm', is in mode observe",))


def test_of_a_cause_the_leader_is_told_where_there_is_one() -> None:
    assert leader_of(LED) == "ada"
    assert leader_of(cause_of(TaskRef("warm", 7, 1))) == ""
    assert leader_of(Cause(stream="led/ada", sequence=1)) == ""


@pytest.mark.parametrize(
    "stream", ["led/", "led/ada", "led/ada/warm", "led/ada/warm/", "led/ada/warm/x", "led//warm/7"]
)
def test_a_cause_that_names_a_led_task_in_another_way_is_refused(stream: str) -> None:
    assert isinstance(judged(Cause(stream=stream, sequence=1), verdict(), AGENTS), Refused)


def test_all_other_causes_leave_the_gates_word_as_it_is() -> None:
    for cause in (Cause(stream="edgex-events", sequence=3), cause_of(TaskRef("warm", 7, 1))):
        for found in (verdict(), verdict("B"), verdict("C"), verdict(kind="step")):
            assert judged(cause, found, AGENTS) is found


def test_what_the_gate_refused_stays_refused_for_its_own_reason() -> None:
    refused = Refused(("interlock 'one-open'",))
    assert judged(LED, refused, AGENTS) is refused


def test_an_agent_that_is_to_do_it_itself_trusts_only_what_it_was_told() -> None:
    site = (
        SiteEntry(device="valve", resource="Setpoint", risk_class="A", kind="absolute"),
        SiteEntry(device="valve", resource="Enabled", risk_class="B", kind="absolute"),
        SiteEntry(device="valve", resource="Count", risk_class="A", kind="step"),
    )
    assert told_problem(site, "valve", "Setpoint", is_own=True) == ""
    assert "class B" in told_problem(site, "valve", "Enabled", is_own=False)
    assert "a step" in told_problem(site, "valve", "Count", is_own=True)
    assert "has told nothing" in told_problem(site, "valve", "Open", is_own=True)
    assert told_problem(site, "valve", "Open", is_own=False) == ""
