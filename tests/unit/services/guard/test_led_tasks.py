"""The guard and commands of tasks that an agent led: class A and absolute alone, whoever says yes to the rest."""

import pytest

from edgeagents.model.message import Cause
from edgeagents.model.site import Site
from edgeagents.model.task import LedRef, led_cause_of
from services.guard.orders import Pause
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


OF_BOSS = led_cause_of(LedRef("boss", "warm", 77, 1))


def let_boss_lead(rig: Rig, mode: str = "act") -> None:
    """Have another agent than the one that commands be the one that may lead."""
    changes = {"name": "boss", "mode": mode, "leads": True}
    rig.owner.agents["boss"] = rig.owner.agents["heat"].model_copy(update=changes)


async def test_what_another_agent_led_is_set_while_the_owner_lets_that_one_act(rig: Rig) -> None:
    let_boss_lead(rig)
    assert (await rig.run(rig.job(cause=OF_BOSS, epoch=rig.grant())))["c-1"][0] == "proven"


async def test_a_leader_that_the_owner_has_observe_gets_nothing_out_by_others(rig: Rig) -> None:
    let_boss_lead(rig, "observe")
    ended = (await rig.run(rig.job(cause=OF_BOSS, epoch=rig.grant())))["c-1"]
    assert ended == ("refused", "'boss', who led task 'warm', is in mode observe")
    assert rig.commands.sets == []


async def test_nor_does_one_that_is_paused_and_others_are_as_free_as_before(rig: Rig) -> None:
    let_boss_lead(rig)
    await rig.orders.pause(Pause("agent", "boss", "ann", "odd", 1))
    status, reason = (await rig.run(rig.job(cause=OF_BOSS, epoch=rig.grant())))["c-1"]
    assert (status, reason) == ("refused", "boss, who led it, is paused by ann: odd")
    let_lead(rig)
    assert (await rig.run(rig.job("c-2", cause=LED, epoch=rig.grant(sequence=4))))["c-2"][0] == "proven"


async def test_a_pause_of_the_leader_stops_what_is_about_to_be_set(rig: Rig) -> None:
    let_boss_lead(rig)
    pause = Pause("agent", "boss", "ann", "", 1)
    rig.commands.on_its_way = lambda: rig.orders._paused.update({pause.place: pause})
    assert (await rig.run(rig.job(cause=OF_BOSS, epoch=rig.grant())))["c-1"][0] == "refused"
    assert rig.commands.values == {}
