"""Pauses and modes: what they cover, that they survive, and that nothing given before a resume goes out after it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import NotFoundError, StoreError
from services.guard.jobs import Job
from services.guard.orders import Orders, Pause, Scope
from services.guard.owner import Owner
from tests.unit.services.guard.rig import AGENTS, Rig, ends_at


def pause(scope: Scope = "all", name: str = "", reason: str = "window cleaning") -> Pause:
    return Pause(scope, name, "ann", reason, 1)


@pytest.mark.parametrize(
    ("scope", "name", "covered"),
    [
        ("all", "", [("air", "valve"), ("air", "pump"), ("heat", "valve"), ("heat", "pump")]),
        ("agent", "air", [("air", "valve"), ("air", "pump")]),
        ("device", "valve", [("air", "valve"), ("heat", "valve")]),
        ("device", "air", []),
        ("agent", "valve", []),
    ],
)
async def test_a_pause_covers_its_scope_and_nothing_else(
    rig: Rig, scope: Scope, name: str, covered: list[tuple[str, str]]
) -> None:
    await rig.orders.pause(pause(scope, name))
    pairs = [(agent, device) for agent in ("air", "heat") for device in ("valve", "pump")]
    assert [pair for pair in pairs if rig.orders.problem(*pair)] == covered
    assert {rig.orders.problem(*pair) for pair in covered} <= {"paused by ann: window cleaning"}


async def test_pauses_survive_a_restart_and_end_one_by_one(rig: Rig) -> None:
    for order in (pause("agent", "air"), pause("device", "valve", "")):
        await rig.orders.pause(order)
    rig.restart()
    assert rig.orders.paused == (pause("agent", "air"), pause("device", "valve", ""))
    assert rig.orders.problem("heat", "valve") == "paused by ann"
    await rig.orders.resume(rig.orders.paused_at(("device", "valve")), ends_at(0))
    assert (rig.orders.problem("heat", "valve"), rig.orders.problem("air", "pump")) == (
        "", "paused by ann: window cleaning",
    )  # fmt: skip
    rig.restart()
    assert rig.orders.paused == (pause("agent", "air"),)


async def test_what_was_given_before_a_resume_is_known_after_a_restart_too(rig: Rig) -> None:
    await rig.orders.pause(pause("device", "valve"))
    await rig.orders.resume(rig.orders.paused_at(("device", "valve")), ends_at(7))
    rig.restart()
    assert rig.ledger.number("given_before_resume") == 7


def test_what_is_not_paused_cannot_be_resumed_and_the_answer_says_what_is(rig: Rig) -> None:
    with pytest.raises(NotFoundError, match="everything is not paused: paused is nothing"):
        rig.orders.paused_at(("all", ""))


async def test_a_pause_that_cannot_be_stored_holds_and_a_resume_that_cannot_does_not(rig: Rig) -> None:
    await rig.orders.pause(pause())
    rig.ledger._db.execute("DROP TABLE pauses")
    with pytest.raises(StoreError):
        await rig.orders.resume(rig.orders.paused_at(("all", "")), ends_at(0))
    with pytest.raises(StoreError):
        await rig.orders.pause(pause("agent", "heat"))
    assert {order.place for order in rig.orders.paused} == {("all", ""), ("agent", "heat")}


async def test_paused_again_while_it_is_resumed_it_stays_paused(rig: Rig) -> None:
    await rig.orders.pause(pause())
    again = pause(reason="still at it")
    await asyncio.gather(rig.orders.resume(rig.orders.paused_at(("all", "")), ends_at(0)), rig.orders.pause(again))
    assert rig.orders.paused == (again,)
    rig.restart()
    assert rig.orders.paused == (again,)


async def test_a_paused_command_is_refused_with_the_reason_and_never_set(rig: Rig) -> None:
    await rig.orders.pause(pause("device", "valve"))
    assert await rig.run(rig.job()) == {"c-1": ("refused", "paused by ann: window cleaning")}
    assert rig.commands.log == []


async def test_a_pause_between_intent_and_set_is_seen_right_before_the_set(rig: Rig) -> None:
    stored = rig.ledger.enter

    def enter(*arguments: Any) -> None:
        stored(*arguments)
        rig.orders._paused[("all", "")] = pause()

    rig.ledger.enter = enter  # type: ignore[method-assign]
    assert await rig.run(rig.job()) == {"c-1": ("refused", "paused by ann: window cleaning")}
    assert rig.causes() == {"c-1": "order"}
    assert rig.commands.sets == []


async def test_a_pause_while_it_is_written_down_that_a_human_is_asked_is_the_owners_word(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.approvals, "park", lambda job, verdict: rig.orders.problem("air", "valve", job.sequence))
    stored = rig.ledger.enter

    def enter(*arguments: Any) -> None:
        stored(*arguments)
        rig.orders._paused[("all", "")] = pause()

    rig.ledger.enter = enter  # type: ignore[method-assign]
    epoch = rig.grant(resource="Enabled", sequence=2)
    job = rig.job("c-1", "false", resource="Enabled", epoch=epoch, deadline_s=1e6)
    assert await rig.run(job) == {"c-1": ("refused", "paused by ann: window cleaning")}
    assert rig.causes() == {"c-1": "order"}


async def test_what_waited_in_its_lane_is_not_carried_out_after_the_resume(rig: Rig) -> None:
    reached, goes_on = asyncio.Event(), asyncio.Event()

    async def hang(correlation_id: str) -> None:
        reached.set()
        await goes_on.wait()

    rig.commands.set_does = hang
    jobs: list[Job] = [rig.job("sent", sequence=10), rig.job("waits", "22", sequence=11)]
    async with rig.lanes() as lanes:
        for job in jobs:
            await lanes.put(job)
        await reached.wait()
        await rig.orders.pause(pause("agent", "air"))
        await rig.orders.resume(rig.orders.paused_at(("agent", "air")), ends_at(12))
        rig.commands.set_does = None
        goes_on.set()
        for number, value in ((12, "23"), (13, "24")):
            await lanes.put(rig.job(f"c-{number}", value, sequence=number))
    told = rig.told()
    assert told["sent"][0] == "proven", "it was out before the pause"
    for name in ("waits", "c-12"):
        assert told[name][0] == "refused"
        assert told[name][1].startswith("paused by ann: window cleaning (resumed since")
    assert told["c-13"][0] == "proven"
    assert rig.commands.sets == ["sent", "c-13"]


# --- modes ---------------------------------------------------------------------------------------


async def test_a_mode_by_order_counts_at_once_for_the_gate_and_survives(rig: Rig) -> None:
    await rig.orders.order_mode("air", "observe", "ann", "on holiday", 1)
    assert "air' is in mode observe" in (await rig.run(rig.job()))["c-1"][1]
    await rig.orders.order_mode("eye", "act", "ann", "", 2)
    rig.restart()
    assert rig.orders.modes == {"air": "observe", "eye": "act", "heat": "act"}
    assert [(order.agent, order.mode) for order in rig.orders.ordered] == [("air", "observe"), ("eye", "act")]
    rig.grant("eye", sequence=3)
    done = await rig.run(rig.job("c-2", agent="eye", epoch=rig.grant("eye", sequence=4)))
    assert done == {"c-2": ("proven", "Setpoint reads 21")}


async def test_the_mode_of_the_file_ends_an_order(rig: Rig) -> None:
    await rig.orders.order_mode("air", "observe", "ann", "", 1)
    await rig.orders.order_mode("air", "act", "ann", "", 2)
    assert (rig.orders.modes["air"], rig.orders.ordered) == ("act", ())
    rig.restart()
    assert (rig.orders.modes["air"], rig.orders.ordered) == ("act", ())


async def test_a_file_that_was_changed_since_is_the_later_word(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.orders.order_mode("eye", "act", "ann", "", 1)
    rig.restart(agents=[AGENTS[2] | {"mode": "act"}])
    assert (rig.orders.modes["eye"], rig.orders.ordered) == ("act", ())
    assert "mode act of agent 'eye' by ann is over: its file says act now" in caplog.text
    rig.restart()
    assert rig.orders.modes["eye"] == "observe"


async def test_an_order_outlives_a_time_in_which_two_files_declare_its_agent(rig: Rig) -> None:
    await rig.orders.order_mode("air", "observe", "ann", "on holiday", 1)
    unclear = Owner(rig.owner.site, {}, {"air": "a and b both declare agent 'air'"})
    assert Orders(rig.ledger, rig.executor, unclear).modes == {}
    rig.restart()
    assert rig.orders.modes["air"] == "observe"


@pytest.mark.parametrize(
    "unclear", [({"air": "a and b both declare agent 'air'"}, {}), ({}, {Path("air.yaml"): "air.yaml: not YAML"})]
)
async def test_an_order_counts_again_as_soon_as_its_agents_file_can_be_read(
    rig: Rig, unclear: tuple[dict[str, str], dict[Path, str]]
) -> None:
    """A guard that starts while nobody knows what the file says: else the agent would act on the file's own word."""
    await rig.orders.order_mode("air", "observe", "ann", "on holiday", 1)
    agents = {name: item for name, item in rig.owner.agents.items() if name != "air"}
    started = Owner(rig.owner.site, dict(agents), *(dict(unclear[0]), {}, dict(unclear[1])))
    orders = Orders(rig.ledger, rig.executor, started)
    await orders.take_over()
    assert "air" not in orders.modes
    written = rig.owner.agents["air"].model_copy(update={"mode": "act"})
    started.take_over(agents | {"air": written}, {}, {})
    await orders.take_over()
    assert orders.modes["air"] == "observe"
    rig.restart()
    assert rig.orders.modes["air"] == "observe", "nor is it forgotten on disk"


async def test_the_safe_word_is_taken_for_an_agent_whose_file_cannot_be_read(rig: Rig) -> None:
    await rig.orders.order_mode("eye", "act", "ann", "", 1)
    eye = rig.owner.agents["eye"].model_copy(update={"mode": "observe"})
    agents = {name: item for name, item in rig.owner.agents.items() if name != "eye"}
    started = Owner(rig.owner.site, dict(agents), {}, {}, {Path("eye.yaml"): "eye.yaml: not YAML"})
    orders = Orders(rig.ledger, rig.executor, started)
    with pytest.raises(NotFoundError):
        await orders.order_mode("eye", "act", "ann", "", 2)
    await orders.order_mode("eye", "observe", "bob", "no", 3)
    assert orders.ordered == ()
    started.take_over(agents | {"eye": eye}, {}, {})
    await orders.take_over()
    assert orders.modes["eye"] == "observe"
    again = Orders(rig.ledger, rig.executor, started)
    assert again.modes["eye"] == "observe", "on disk, too"


async def test_observe_while_act_is_being_stored_wins(rig: Rig) -> None:
    orders = rig.orders
    await asyncio.gather(
        orders.order_mode("eye", "act", "ann", "", 1), orders.order_mode("eye", "observe", "bob", "", 2)
    )
    assert orders.modes["eye"] == "observe"
    rig.restart()
    assert rig.orders.modes["eye"] == "observe"


async def test_an_unknown_agent_is_refused_with_the_names_there_are(rig: Rig) -> None:
    with pytest.raises(NotFoundError, match="no agent file declares 'nobody': there are air, eye, heat"):
        await rig.orders.order_mode("nobody", "act", "ann", "", 1)
