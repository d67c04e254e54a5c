"""The guard and commands of tasks that an agent led: class A and absolute alone, whoever says yes to the rest."""

import pytest

from edgeagents.model.message import Cause
from edgeagents.model.site import Site
from edgeagents.model.task import LedRef, led_cause_of
from tests.unit.services.guard.rig import AGENTS, SITE, Rig, owner_of

LED = led_cause_of(LedRef("heat", "warm", 77, 1))
LEADING = [{**item, "leads": item["name"] == "heat"} for item in AGENTS]


def let_lead(rig: Rig) -> None:
    """Have the owner's file say that `heat` may lead."""
    rig.owner.agents.update(owner_of(LEADING, Site.model_validate(SITE)).agents)


async def test_class_a_is_set_and_proven_and_the_audit_names_leader_and_task(rig: Rig) -> None:
    let_lead(rig)
    ended = await rig.run(rig.job(cause=LED, epoch=rig.grant()))
    assert ended["c-1"][0] == "proven"
    (written,) = [entry for entry in rig.records if entry["kind"] == "command"]
    assert written["cause"]["stream"] == "led/heat/warm/77"


@pytest.mark.parametrize(
    ("resource", "value", "words"),
    [("Enabled", "true", "is of class C"), ("Count", "3", "is set by a step"), ("Open", "false", "is set by a step")],
)
async def test_what_needs_a_yes_or_may_not_be_set_twice_is_refused_and_waits_for_nobody(
    rig: Rig, resource: str, value: str, words: str
) -> None:
    let_lead(rig)
    job = rig.job(resource=resource, value=value, cause=LED, epoch=rig.grant(resource=resource, sequence=2))
    status, reason = (await rig.run(job))["c-1"]
    assert (status, rig.commands.sets, rig.approvals.listed()) == ("refused", [], [])
    assert words in reason


@pytest.mark.parametrize("cause", [LED, Cause(stream="led/heat/warm", sequence=1), Cause(stream="led/", sequence=1)])
async def test_without_a_leader_of_the_owners_nothing_goes_out(rig: Rig, cause: Cause) -> None:
    status, reason = (await rig.run(rig.job(cause=cause, epoch=rig.grant())))["c-1"]
    assert (status, rig.commands.sets) == ("refused", [])
    assert "may lead no tasks" in reason or "names no task" in reason


async def test_an_owner_who_takes_the_right_back_stops_what_is_about_to_be_set(rig: Rig) -> None:
    let_lead(rig)

    def take_back() -> None:
        rig.owner.agents.update(owner_of(AGENTS, Site.model_validate(SITE)).agents)

    rig.commands.on_its_way = take_back
    status, reason = (await rig.run(rig.job(cause=LED, epoch=rig.grant())))["c-1"]
    assert (status, reason) == ("refused", "'heat' may lead no tasks by the owner's files")
    assert rig.commands.values == {}
