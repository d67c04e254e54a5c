"""Lanes: from the gate to the proof, in order, once; what no crash, delay or stranger may change."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import (
    DeviceSilentError,
    InvalidInputError,
    LockedError,
    NotAllowedError,
    NotFoundError,
    StoreError,
    UnavailableError,
)
from edgeagents.model.agent import Sample
from edgeagents.model.message import Cause, Epoch
from edgeagents.protocol.gate import PastSet
from services.guard import lanes as lanes_module
from services.guard.jobs import approved
from services.guard.ledger import Intent
from services.guard.orders import Pause
from services.guard.surprises import MOST_IN_VAIN
from tests.contract.waiting import until
from tests.unit.services.guard.rig import SITE, SITE_S, Rig, ends_at, event


def failing(error: Exception) -> Any:
    """Return what makes a SET fail."""

    def fail(name: str) -> None:
        raise error

    return fail


async def test_a_permitted_command_is_set_read_back_and_told(rig: Rig) -> None:
    rig.grant(resource="Setpoint", sequence=1)
    assert await rig.run(rig.job(value="+21")) == {"c-1": ("proven", "Setpoint reads 21")}
    assert rig.commands.log == ["set valve/Setpoint 2.1e+01 (c-1)", "get valve/Setpoint"]
    (agent, outcome), record = rig.outcomes[0], rig.records[0]
    assert (agent, outcome.value, outcome.read_back, outcome.sequence) == ("air", "2.1e+01", "2.1e+01", 10)
    assert outcome.finished_unix_ns == rig.clocks.wall
    assert (record["kind"], record["agent"], record["status"], record["because"]) == (
        "command",
        "air",
        "proven",
        "cold",
    )
    assert rig.used == [("valve", "Setpoint")]
    assert [entry.outcome for entry in rig.ledger.untold()] == [outcome]
    assert list(rig.ledger.past_sets(0)) == [("valve", "Setpoint", "air", "2.1e+01", SITE_S)]


@pytest.mark.parametrize(
    ("changes", "reason", "cause"),
    [
        ({"agent": "nobody"}, "lease of valve/Setpoint is held by air", "lease"),
        ({"agent": "heat"}, "lease of valve/Setpoint is held by air", "lease"),
        ({"incarnation": "other"}, "lease of valve/Setpoint is held by air", "lease"),
        ({"epoch": Epoch(generation=1, revision=2)}, "epoch 1.2 is not the lease's epoch 1.1", "lease"),
        ({"epoch": Epoch(generation=2, revision=1)}, "epoch 2.1 is not the lease's epoch 1.1", "lease"),
        ({"sequence": 1}, "nobody holds the lease", "lease"),
        ({"resource": "Open", "value": "true"}, "nobody holds the lease of valve/Open", "lease"),
        ({"value": "31"}, "3.1e+01 is outside the profile's range", "gate"),
        ({"value": "warm"}, "'warm' is no Float64", "gate"),
    ],
)
async def test_what_lease_or_gate_forbid_is_refused_by_cause_and_nothing_is_set(
    rig: Rig, changes: dict[str, Any], reason: str, cause: str
) -> None:
    status, told = (await rig.run(rig.job(**changes)))["c-1"]
    assert status == "refused"
    assert reason in told
    assert rig.outcomes[-1][1].cause_kind == cause
    assert rig.records[-1]["cause_kind"] == cause
    assert rig.commands.log == []


async def test_an_observer_with_a_lease_is_refused_all_the_same(rig: Rig) -> None:
    epoch = rig.grant("eye", sequence=5)
    assert "mode observe" in (await rig.run(rig.job(agent="eye", epoch=epoch)))["c-1"][1]
    assert rig.commands.log == []


async def test_a_late_command_expires_and_nothing_is_set(rig: Rig) -> None:
    assert (await rig.run(rig.job(deadline_s=99.9)))["c-1"][0] == "expired"
    assert rig.outcomes[-1][1].cause_kind == "late"
    assert rig.commands.log == []


async def test_a_pause_and_a_task_without_award_are_causes_of_their_own(rig: Rig) -> None:
    await rig.orders.pause(Pause("device", "valve", "ann", "painting", 1))
    await rig.run(rig.job())
    assert rig.outcomes[-1][1].cause_kind == "order"
    rig.restart()
    await rig.orders.resume(rig.orders.paused_at(("device", "valve")), ends_at(0))
    rig.grant("air")
    await rig.run(rig.job("c-2", cause=Cause(stream="tasks/t-1", sequence=1)))
    assert (rig.outcomes[-1][1].status, rig.outcomes[-1][1].cause_kind) == ("refused", "task")


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("404"),
        NotAllowedError("405"),
        LockedError("423"),
        InvalidInputError("400"),
        UnavailableError("never sent"),
    ],
)
async def test_a_definite_no_is_a_failure_and_the_device_stays_free(rig: Rig, error: Exception) -> None:
    rig.commands.set_does = failing(error)
    first = await rig.run(rig.job("c-1"))
    assert first == {"c-1": ("failed", str(error))}
    rig.commands.set_does = None
    assert (await rig.run(rig.job("c-2", sequence=11)))["c-2"][0] == "proven"
    assert len(list(rig.ledger.past_sets(0))) == 1, "what was certainly not set counts for nothing"
    assert [past.agent for past in rig.picture.view.sets["valve", "Setpoint"]] == ["air"]


class TestQuarantine:
    """A SET without a definite answer: nothing else goes to its device until it is known what became of it."""

    def silent(self, rig: Rig, *, carries_out: bool = False) -> None:
        """Have the next SET get no answer; time passes with each read."""
        rig.commands.values["valve", "Setpoint"] = "18"
        rig.picture.see(event("valve", "Setpoint", "18"))

        def fails(name: str) -> None:
            rig.commands.set_does = None
            if carries_out:
                rig.commands.values["valve", "Setpoint"] = "21"
            raise DeviceSilentError("no answer in 7 s")

        rig.commands.set_does = fails
        rig.commands.get_does = lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + 2.0)

    async def test_what_took_effect_is_proven_and_the_next_one_goes_out_after_it(self, rig: Rig) -> None:
        self.silent(rig, carries_out=True)
        told = await rig.run(rig.job("c-1"), rig.job("c-2", "22", sequence=11))
        assert told["c-1"] == ("proven", "Setpoint reads 21")
        assert told["c-2"][0] == "proven"
        assert rig.commands.sets == ["c-1", "c-2"]
        assert [record["kind"] for record in rig.records][:2] == ["quarantine", "released"]
        assert rig.ledger.blocked() == {}

    async def test_what_did_not_is_set_again_under_an_id_of_its_own_when_there_is_time(self, rig: Rig) -> None:
        self.silent(rig)
        told = await rig.run(rig.job("c-1", deadline_s=200.0))
        assert told["c-1"][0] == "proven"
        first, again = rig.commands.sets
        assert first == "c-1" != again
        (record,) = [item for item in rig.records if item["kind"] == "set-again"]
        assert (record["command"], record["correlation"]) == ("c-1", again)

    async def test_after_its_deadline_it_is_not_set_again(self, rig: Rig) -> None:
        self.silent(rig)
        status, reason = (await rig.run(rig.job("c-1", deadline_s=104.0)))["c-1"]
        assert status == "failed"
        assert "c-1 got no definite answer: no answer in 7 s" in reason
        assert "reads agree: Setpoint reads 18" in reason
        assert rig.commands.sets == ["c-1"]

    async def test_a_toggle_is_never_set_again(self, rig: Rig) -> None:
        self.silent(rig)
        rig.commands.values["valve", "Open"] = "false"
        rig.picture.see(event("valve", "Open", "false"))
        rig.picture.see(event("pump", "Open", "false"))
        epoch = rig.grant(resource="Open", sequence=2)
        told = await rig.run(rig.job(value="true", resource="Open", epoch=epoch, deadline_s=1e6))
        assert told["c-1"][0] == "uncertain"
        assert rig.commands.sets == ["c-1"]

    async def test_what_waits_meanwhile_expires_at_its_own_deadline(self, rig: Rig) -> None:
        self.silent(rig)
        told = await rig.run(rig.job("c-1"), rig.job("c-2", "22", sequence=11, deadline_s=101.0))
        assert told["c-2"] == ("expired", "deadline passed while its device was in quarantine")
        assert "c-2" not in rig.commands.sets

    async def test_a_guard_started_anew_goes_on_with_it(self, rig: Rig) -> None:
        self.silent(rig)
        rig.commands.get_does = failing(NotFoundError("gone"))
        async with asyncio.TaskGroup() as tasks:
            lanes = lanes_module.Lanes(rig.means, tasks)
            await lanes.put(rig.job("c-1"))
            await until(rig.ledger.blocked, "the device is in quarantine")
            await lanes.stop(0)
        rig.restart()
        rig.commands.values["valve", "Setpoint"] = "21"
        rig.commands.get_does = lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + 2.0)
        assert "c-1 got no definite answer" in rig.ledger.blocked()["valve"]
        async with rig.lanes() as lanes:
            for entry in rig.ledger.unfinished():
                assert entry.blocked
                await lanes.put(entry)
            await lanes.put(rig.job("c-2", "22", sequence=11))
        assert [status for status, _ in rig.told().values()] == ["proven", "proven"]
        assert rig.commands.sets == ["c-1", "c-2"]

    async def test_a_device_that_cannot_be_read_stays_alone_over_a_restart_after_its_agent_was_told(
        self, rig: Rig
    ) -> None:
        self.silent(rig)

        def away(command: str) -> None:
            rig.clocks.now_s += 2.0
            raise NotFoundError("gone")

        rig.commands.get_does = away
        async with asyncio.TaskGroup() as tasks:
            lanes = lanes_module.Lanes(rig.means, tasks)
            await lanes.put(rig.job("c-1"))
            await until(lambda: rig.outcomes, "its agent is told")
            await lanes.stop(0)
        assert rig.told()["c-1"][0] == "uncertain"
        rig.restart()
        assert rig.ledger.unfinished() == []
        (entry,) = rig.ledger.quarantined()
        rig.commands.get_does = lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + 2.0)
        async with rig.lanes() as lanes:
            await lanes.put(entry)
            await lanes.put(rig.job("c-2", "22", sequence=11, deadline_s=1e6))
        assert rig.told() == {"c-2": ("proven", "Setpoint reads 22")}
        assert rig.ledger.quarantined() == []

    async def test_other_devices_of_its_lane_go_on_and_what_may_still_come_counts_against_them(self, rig: Rig) -> None:
        """One of two valves may be open; nobody knows whether the first one opens."""
        for device in ("valve", "pump"):
            rig.commands.values[device, "Open"] = "false"
            rig.picture.see(event(device, "Open", "false"))
        epochs = {
            name: rig.grant(device=name, resource="Open", sequence=place) for name, place in (("valve", 2), ("pump", 3))
        }
        rig.grant(device="pump", sequence=4)

        def fails(name: str) -> None:
            if name == "first":
                raise DeviceSilentError("no answer")

        rig.commands.set_does = fails
        rig.commands.get_does = lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + 1.0)
        jobs = [rig.job("first", "true", resource="Open", epoch=epochs["valve"], deadline_s=1e6)]
        jobs += [rig.job("second", "true", device="pump", resource="Open", epoch=epochs["pump"], deadline_s=1e6)]
        jobs += [rig.job("third", "22", device="pump", epoch=Epoch(generation=1, revision=4), deadline_s=1e6)]
        told = await rig.run(*jobs)
        assert "interlock 'one-open'" in told["second"][1]
        assert told["third"][0] == "proven"
        assert told["first"][0] == "uncertain"
        words = {"device": "pump", "resource": "Open", "epoch": epochs["pump"]}
        late = rig.job("fourth", "true", sequence=20, deadline_s=1e9, **words)
        assert "interlock 'one-open'" in (await rig.run(late))["fourth"][1], "it may still come"


class TestStraggler:
    """A SET that takes effect after its time is over."""

    async def test_the_newest_wanted_value_is_set_again(self, rig: Rig) -> None:
        quarantine = TestQuarantine()
        quarantine.silent(rig)
        await rig.run(rig.job("c-1", deadline_s=104.0), rig.job("c-2", "25", sequence=11, deadline_s=1e6))
        assert rig.told()["c-2"][0] == "proven"
        rig.commands.values["valve", "Setpoint"] = "21"  # c-1, long after its end
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 60))
        assert rig.commands.values["valve", "Setpoint"] == "2.5e+01"
        (record,) = [item for item in rig.records if item["kind"] == "correction"]
        assert (record["value"], record["straggler"]) == ("2.5e+01", "2.1e+01")
        assert rig.commands.sets[-1] == record["correlation"]
        assert rig.overrides.listed() == [], "nobody set it by hand"

    async def test_the_first_of_a_value_that_was_set_again_is_one_too(self, rig: Rig) -> None:
        TestQuarantine().silent(rig)
        await rig.run(rig.job("c-1", deadline_s=1e6), rig.job("c-2", "25", sequence=11, deadline_s=1e6))
        assert [status for status, _ in rig.told().values()] == ["proven", "proven"]
        assert len(rig.commands.sets) == 3, "c-1 was set twice"
        rig.restart()
        rig.commands.values["valve", "Setpoint"] = "21"  # the first SET of c-1
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 60))
        assert rig.commands.values["valve", "Setpoint"] == "2.5e+01"
        assert rig.overrides.listed() == [], "nobody set it by hand"

    async def test_one_that_wanted_what_was_there_before_is_one_too(self, rig: Rig) -> None:
        TestQuarantine().silent(rig)
        await rig.run(rig.job("c-1", "18"), rig.job("c-2", "25", sequence=11, deadline_s=1e6))
        assert rig.told()["c-1"] == ("proven", "Setpoint reads 18")
        rig.commands.values["valve", "Setpoint"] = "18"
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "18", SITE_S + 60))
        assert rig.commands.values["valve", "Setpoint"] == "2.5e+01"
        assert rig.overrides.listed() == []

    @pytest.mark.parametrize("error", [DeviceSilentError("no answer"), LockedError("locked")])
    async def test_a_correction_that_fails_is_tried_again_at_the_next_reading(self, rig: Rig, error: Exception) -> None:
        TestQuarantine().silent(rig)
        await rig.run(rig.job("c-1", deadline_s=104.0), rig.job("c-2", "25", sequence=11, deadline_s=1e6))
        rig.commands.values["valve", "Setpoint"] = "21"
        rig.commands.set_does = failing(error)
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 60))
        assert rig.commands.values["valve", "Setpoint"] == "21"
        rig.commands.set_does = None
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 61))
        assert rig.commands.values["valve", "Setpoint"] == "2.5e+01"
        assert rig.overrides.listed() == [], "nobody set it by hand"

    async def test_a_correction_that_a_device_does_not_carry_out_makes_nobody_a_hand(self, rig: Rig) -> None:
        TestQuarantine().silent(rig)
        await rig.run(rig.job("c-1", deadline_s=104.0), rig.job("c-2", "25", sequence=11, deadline_s=1e6))
        rig.commands.values["valve", "Setpoint"] = "21"
        rig.commands.is_deaf = True

        def is_given_up() -> bool:
            rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 60))
            return any(item["kind"] == "late-effect" for item in rig.records)

        async with rig.lanes():
            await until(is_given_up, "it is not tried for ever", timeout_s=20)
        kinds = [item["kind"] for item in rig.records]
        assert (kinds.count("correction"), kinds.count("late-effect")) == (MOST_IN_VAIN, 1)
        assert rig.overrides.listed() == [], "nobody set it by hand"

    async def test_what_nothing_came_after_is_left_and_written_down(self, rig: Rig) -> None:
        TestQuarantine().silent(rig)
        await rig.run(rig.job("c-1", deadline_s=104.0))
        rig.commands.values["valve", "Setpoint"] = "21"
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 60))
        assert [item["kind"] for item in rig.records][-1] == "late-effect"
        assert rig.commands.sets == ["c-1"]

    async def test_nothing_is_set_again_that_an_interlock_forbids_by_now(self, tmp_path: Path) -> None:
        resources = [item | {"kind": "absolute"} if item["resource"] == "Open" else item for item in SITE["resources"]]
        rig = Rig(tmp_path / "locked", {**SITE, "resources": resources})
        epoch = rig.grant(resource="Open", sequence=2)
        rig.commands.values["valve", "Open"] = "true"
        for device, text in (("valve", "true"), ("pump", "false")):
            rig.picture.see(event(device, "Open", text))
        rig.commands.set_does = failing(DeviceSilentError("no answer in 7 s"))
        rig.commands.get_does = lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + 2.0)
        stalled = rig.job("c-1", "false", resource="Open", epoch=epoch, deadline_s=104.0)
        assert (await rig.run(stalled))["c-1"][0] == "failed"
        rig.commands.set_does = None
        newest = rig.job("c-2", "true", resource="Open", epoch=epoch, sequence=11, deadline_s=1e6)
        assert (await rig.run(newest))["c-2"][0] == "proven"
        rig.picture.see(event("pump", "Open", "true", SITE_S + 50))  # somebody opened the other one
        rig.commands.values["valve", "Open"] = "false"  # c-1, at last
        async with rig.lanes():
            rig.picture.see(event("valve", "Open", "false", SITE_S + 60))
        assert rig.commands.sets == ["c-1", "c-2"]
        assert [item["kind"] for item in rig.records][-1] == "late-effect"
        rig.close()


class TestHand:
    """Somebody changes what agents may command."""

    async def proven(self, rig: Rig) -> None:
        assert (await rig.run(rig.job("c-1")))["c-1"][0] == "proven"

    async def change(self, rig: Rig, text: str, later_s: float = 60.0) -> None:
        rig.commands.values["valve", "Setpoint"] = text
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", text, SITE_S + later_s))

    async def test_its_lease_ends_and_agents_stand_back_for_the_owners_time(self, rig: Rig) -> None:
        await self.proven(rig)
        await self.change(rig, "17")
        (key, reason), *_ = rig.ended
        assert key == ("valve", "Setpoint")
        assert reason.startswith("valve/Setpoint was set by hand to 17: agents stand back until")
        (shown,) = rig.overrides.listed()
        assert (shown["value"], shown["untilSite"] - shown["sinceSite"]) == ("17", 1800.0)
        assert "set by hand to 17" in (await rig.run(rig.job("c-2", sequence=11)))["c-2"][1]
        assert rig.causes()["c-2"] == "override"
        assert rig.commands.values["valve", "Setpoint"] == "17"
        rig.restart()
        assert "set by hand to 17" in (await rig.run(rig.job("c-3", sequence=12)))["c-3"][1], "also after a restart"
        rig.clocks.site_s += 1801
        await rig.overrides.tick()
        assert (await rig.run(rig.job("c-4", sequence=13)))["c-4"][0] == "proven"

    async def test_a_command_that_comes_before_the_reading_is_confirmed_waits_for_that(self, rig: Rig) -> None:
        await self.proven(rig)
        rig.commands.values["valve", "Setpoint"] = "17"
        async with rig.lanes() as lanes:
            await lanes.put(rig.job("c-2", sequence=11))
            rig.picture.see(event("valve", "Setpoint", "17", SITE_S + 60))
        assert "set by hand" in rig.told()["c-2"][1]
        assert rig.causes()["c-2"] == "override"

    async def test_a_stale_reading_is_no_hand(self, rig: Rig) -> None:
        await self.proven(rig)
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "18", SITE_S + 60))  # read before c-1, published after it
        assert rig.overrides.listed() == []
        assert (await rig.run(rig.job("c-2", "22", sequence=11)))["c-2"][0] == "proven"

    async def test_what_changes_by_itself_is_no_hand(self, rig: Rig) -> None:
        async with rig.lanes():
            for number in range(20):
                rig.commands.values["valve", "Setpoint"] = str(10 + number % 7)
                rig.picture.see(event("valve", "Setpoint", str(10 + number % 7), SITE_S + number))
        assert rig.overrides.listed() == []

    async def test_what_goes_on_changing_after_a_set_is_written_down_once_and_is_no_hand(self, rig: Rig) -> None:
        await self.proven(rig)
        numbers = iter(range(10_000))
        rig.commands.get_does = lambda command: rig.commands.values.update(
            {("valve", "Setpoint"): str(5 + next(numbers) % 7)}
        )
        for number in range(40):
            await self.change(rig, str(10 + number % 7), 60.0 + number)
        assert rig.overrides.listed() == []
        assert [item["kind"] for item in rig.records].count("restless") == 1
        assert rig.ledger.expected() == [], "nor is it one after a restart"

    async def test_a_doubted_resource_that_cannot_be_read_is_looked_at_again_with_its_next_reading(
        self, rig: Rig
    ) -> None:
        await self.proven(rig)
        shown = rig.commands.values.pop(("valve", "Setpoint"))
        async with rig.lanes():
            rig.picture.see(event("valve", "Setpoint", "17", SITE_S + 60))
        assert (rig.overrides.listed(), shown) == ([], "2.1e+01")
        await self.change(rig, "17", 61.0)
        assert [item["value"] for item in rig.overrides.listed()] == ["17"]

    async def test_what_was_steady_and_nobody_commanded_is_watched_too(self, rig: Rig) -> None:
        rig.commands.values["valve", "Setpoint"] = "18"
        for number in range(3):
            rig.picture.see(event("valve", "Setpoint", "18", SITE_S + number))
        await self.change(rig, "23")
        assert [item["value"] for item in rig.overrides.listed()] == ["23"]

    async def test_what_was_changed_while_the_guard_was_away_is_found(self, rig: Rig) -> None:
        await self.proven(rig)
        rig.restart()
        await self.change(rig, "17")
        assert [item["value"] for item in rig.overrides.listed()] == ["17"]

    async def test_agents_stand_back_as_long_as_they_should_whoever_sets_the_clock(self, rig: Rig) -> None:
        await self.proven(rig)
        await self.change(rig, "17")
        rig.clocks.site_s -= 3600
        rig.overrides.shift(-3600)
        (shown,) = rig.overrides.listed()
        assert shown["untilSite"] == SITE_S - 3600 + 1800


async def test_the_last_look_is_right_before_it_is_sent(rig: Rig) -> None:
    """The process may be stopped, or wait for a connection, after the intent was stored and all was looked at."""
    rig.commands.on_its_way = lambda: setattr(rig.clocks, "now_s", 110.1)
    assert (await rig.run(rig.job()))["c-1"] == ("expired", "deadline passed before it could be sent")
    rig.clocks.now_s = 100.0
    rig.commands.on_its_way = lambda: rig.grant("heat", sequence=9) and None
    told = await rig.run(rig.job("c-2", sequence=11))
    assert "is held by heat" in told["c-2"][1]
    assert rig.commands.log == []
    assert list(rig.ledger.past_sets(0)) == []


async def test_silence_counts_for_rates_as_it_may_have_been_set(rig: Rig) -> None:
    rig.commands.set_does = failing(DeviceSilentError("x"))
    await rig.run(rig.job())
    assert len(list(rig.ledger.past_sets(0))) == 1


async def test_commands_of_a_device_go_one_after_the_other_and_in_order(rig: Rig) -> None:
    busy, most = 0, 0

    async def slow(name: str) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1

    rig.commands.set_does = slow
    await rig.run(*(rig.job(f"c-{number}", str(20 + number / 10), sequence=10 + number) for number in range(5)))
    assert rig.commands.sets == [f"c-{number}" for number in range(5)]
    assert most == 1


async def test_devices_do_not_wait_for_each_other(rig: Rig) -> None:
    release = asyncio.Event()
    rig.grant(device="fan", sequence=2)

    async def hang(name: str) -> None:
        if name == "c-1":
            await release.wait()

    rig.commands.set_does = hang
    async with rig.lanes() as lanes:
        await lanes.put(rig.job("c-1"))
        await lanes.put(rig.job("c-2", device="fan", epoch=Epoch(generation=1, revision=2)))
        await until(lambda: rig.outcomes, "one is done")
        assert [outcome.command_id for _, outcome in rig.outcomes] == ["c-2"]
        assert lanes.waiting == 1
        release.set()
    assert rig.told()["c-1"][0] == "proven"


async def test_a_lower_epoch_never_leaves_after_a_higher_one(rig: Rig) -> None:
    """A command that was delivered again, late, stands before the record that ended its lease."""
    heat = rig.grant("heat", sequence=20)
    new = rig.job("new", "22", agent="heat", sequence=21, epoch=heat)
    old = rig.job("old", "18", sequence=12, deadline_s=1e9)
    told = await rig.run(new, old)
    assert told["new"][0] == "proven"
    assert told["old"] == ("expired", "a later command for it was carried out before")
    assert rig.commands.sets == ["new"]


async def test_what_stands_before_a_change_of_holder_is_still_carried_out_before_it(rig: Rig) -> None:
    heat = rig.grant("heat", sequence=20)
    told = await rig.run(rig.job("old", "18", sequence=12), rig.job("new", "22", agent="heat", sequence=21, epoch=heat))
    assert [status for status, _ in told.values()] == ["proven", "proven"]
    assert rig.commands.sets == ["old", "new"]


async def test_the_deadline_counts_again_right_before_the_set(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    enter = rig.ledger.enter

    def slow_disk(*arguments: Any) -> None:
        enter(*arguments)
        rig.clocks.now_s = 110.1

    monkeypatch.setattr(rig.ledger, "enter", slow_disk)
    assert (await rig.run(rig.job()))["c-1"] == ("expired", "deadline passed before it could be set")
    assert rig.commands.log == []


async def test_the_gate_counts_again_right_before_the_set(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.grant(resource="Open", sequence=2)
    rig.picture.see(event("pump", "Open", "false"))
    enter = rig.ledger.enter

    def meanwhile(*arguments: Any) -> None:
        enter(*arguments)
        rig.clocks.site_s += 1
        rig.clocks.wall += 10**9
        rig.picture.see(event("pump", "Open", "true", SITE_S + 1))

    monkeypatch.setattr(rig.ledger, "enter", meanwhile)
    job = rig.job(value="true", resource="Open", epoch=Epoch(generation=1, revision=2))
    assert "interlock 'one-open'" in (await rig.run(job))["c-1"][1]
    assert rig.commands.log == []


async def test_two_devices_never_pass_one_interlock_at_the_same_time(rig: Rig) -> None:
    """Both see the other one closed; whoever comes first is seen by the second although nobody has read it yet."""
    for device in ("valve", "pump"):
        rig.picture.see(event(device, "Open", "false"))
    rig.clocks.site_s += 5
    epochs = {
        name: rig.grant(device=name, resource="Open", sequence=place) for name, place in (("valve", 2), ("pump", 3))
    }

    async def slow(name: str) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    rig.commands.set_does = slow
    told = await rig.run(
        *(rig.job(name, "true", device=name, resource="Open", epoch=epochs[name]) for name in ("valve", "pump"))
    )
    assert sorted(status for status, _ in told.values()) == ["proven", "refused"]
    assert len(rig.commands.sets) == 1


async def test_a_device_that_does_not_do_it_is_told_as_failed(rig: Rig) -> None:
    rig.commands.values["valve", "Setpoint"] = "18"
    rig.commands.is_deaf = True

    def later(command: str) -> None:
        rig.clocks.now_s += 0.6

    rig.commands.get_does = later
    status, reason = (await rig.run(rig.job()))["c-1"]
    assert (status, reason) == ("failed", "not proven in 1 s: Setpoint reads 18, wanted 21")
    assert rig.commands.sets == ["c-1"], "never set twice"


async def test_a_slow_disk_takes_nothing_of_the_time_to_show_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.commands.values["valve", "Setpoint"] = "18"
    rig.commands.is_deaf = True
    went_out = rig.ledger.went_out

    def slowly(*what: Any) -> None:
        rig.clocks.now_s += 5.0
        went_out(*what)

    def at_the_second_look(command: str) -> None:
        if sum(line.startswith("get") for line in rig.commands.log) > 1:
            rig.commands.values["valve", "Setpoint"] = "21"

    monkeypatch.setattr(rig.ledger, "went_out", slowly)
    rig.commands.get_does = at_the_second_look
    status, reason = (await rig.run(rig.job()))["c-1"]
    assert status == "proven", reason


async def test_without_a_proof_it_is_unproven(rig: Rig) -> None:
    epoch = rig.grant(resource="Count", sequence=2)
    assert (await rig.run(rig.job(value="3", resource="Count", epoch=epoch)))["c-1"][0] == "unproven"


async def test_a_device_that_is_gone_meanwhile_is_no_obstacle(rig: Rig) -> None:
    def forget(name: str) -> None:
        rig.known.clear()

    rig.commands.set_does = forget
    assert (await rig.run(rig.job()))["c-1"][0] == "proven"


class TestHuman:
    """Class C waits for somebody to say yes."""

    async def parked(self, rig: Rig, *, deadline_s: float = 300.0) -> tuple[Any, Epoch]:
        epoch = rig.grant(resource="Enabled", sequence=2)
        job = rig.job(value="false", resource="Enabled", epoch=epoch, deadline_s=deadline_s)
        assert await rig.run(job) == {}
        assert rig.commands.log == []
        return job, epoch

    async def test_it_waits_and_goes_out_in_the_approvers_name(self, rig: Rig) -> None:
        await self.parked(rig)
        assert rig.ledger.unfinished()[0].phase == "waiting"
        waiting = rig.approvals.take("c-1")
        rig.clocks.now_s, rig.clocks.site_s = 150.0, SITE_S + 5000
        told = await rig.run(approved(waiting.job, "ann", rig.clocks.site_s))
        assert told["c-1"][0] == "proven"
        assert rig.outcomes[0][1].approver == "ann"
        assert rig.records[0]["approver"] == "ann"
        assert [entry.approver for entry in rig.ledger.untold()] == ["ann"]

    async def test_not_after_its_own_deadline(self, rig: Rig) -> None:
        job, _ = await self.parked(rig, deadline_s=120.0)
        rig.clocks.now_s = 120.1
        assert [late.command.id for late in rig.approvals.overdue()] == ["c-1"]
        assert (await rig.run(approved(job, "ann", SITE_S)))["c-1"][0] == "expired"

    async def test_not_when_the_lease_went_to_somebody_else(self, rig: Rig) -> None:
        job, _ = await self.parked(rig)
        rig.grant("heat", resource="Enabled", sequence=20)
        assert (await rig.run(approved(job, "ann", SITE_S)))["c-1"][0] == "refused"

    async def test_not_when_the_lease_went_and_came_back(self, rig: Rig) -> None:
        job, _ = await self.parked(rig)
        rig.grant("heat", resource="Enabled", sequence=20)
        rig.grant("air", resource="Enabled", sequence=21)
        assert "epoch 1.2 is not the lease's epoch 1.21" in (await rig.run(approved(job, "ann", SITE_S)))["c-1"][1]

    async def test_not_after_a_later_command_that_was_approved_first(self, rig: Rig) -> None:
        job, epoch = await self.parked(rig)
        later = rig.job("c-2", "true", resource="Enabled", epoch=epoch, sequence=11, deadline_s=300)
        await rig.run(later)
        told = await rig.run(approved(later, "ann", SITE_S), approved(job, "ann", SITE_S))
        assert (told["c-2"][0], told["c-1"][0]) == ("proven", "expired")

    async def test_what_the_gate_forbids_no_human_lets_pass(self, rig: Rig) -> None:
        locked = {**SITE, "resources": [*SITE["resources"][:3], SITE["resources"][3] | {"risk_class": "D"}]}
        strict = Rig(rig.folder.parent / "strict", locked)
        epoch = strict.grant(resource="Enabled", sequence=2)
        job = approved(strict.job(value="false", resource="Enabled", epoch=epoch), "ann", SITE_S)
        assert "class D: never by an agent" in (await strict.run(job))["c-1"][1]
        strict.close()

    async def test_too_many_that_wait_are_refused(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.guard.approvals.MOST_WAITING", 2)
        epoch = rig.grant(resource="Enabled", sequence=2)
        jobs = [
            rig.job(f"c-{n}", "false", resource="Enabled", epoch=epoch, sequence=10 + n, deadline_s=1e6)
            for n in range(3)
        ]
        told = await rig.run(*jobs)
        assert told == {"c-2": ("refused", "2 commands of agent 'air' wait for a human already")}
        assert rig.causes() == {"c-2": "room"}

    async def test_nobody_takes_the_place_of_a_command_that_waits(self, rig: Rig) -> None:
        """The approver must get what was listed under an id."""
        await self.parked(rig)
        heat = rig.grant("heat", device="pump", resource="Enabled", sequence=3)
        evil = rig.job("c-1", "true", agent="heat", device="pump", resource="Enabled", epoch=heat, deadline_s=300)
        assert (await rig.run(evil))["c-1"] == ("refused", "another agent's command waits under this id")
        assert rig.approvals.listed()[0]["agent"] == "air"


class TestStrangers:
    """Nobody makes the guard grow."""

    async def test_a_device_nobody_knows_gets_no_lane(self, rig: Rig) -> None:
        async with rig.lanes() as lanes:
            for number in range(50):
                await lanes.put(rig.job(f"c-{number}", device=f"made-up-{number}"))
            assert lanes._lanes == {}
        assert set(rig.told().values()) == {
            ("refused", f"core-metadata knows no device 'made-up-{n}'") for n in range(50)
        }
        assert set(rig.causes().values()) == {"gate"}
        assert rig.missed == 50, "a notice may be lost: the cache decides how often it reads"

    async def test_one_agents_flood_is_cut_off_and_others_go_on(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lanes_module, "MOST_UNDER_WAY", 3)
        heat = rig.grant("heat", device="pump", sequence=2)
        async with rig.lanes() as lanes:
            for number in range(6):
                await lanes.put(rig.job(f"c-{number}", sequence=10 + number))
            await lanes.put(rig.job("other", agent="heat", device="pump", epoch=heat))
        told = rig.told()
        assert [told[f"c-{number}"][0] for number in range(6)].count("refused") >= 1
        assert told["other"][0] == "proven"
        assert "3 commands of agent 'air' are under way already" in dict(told.values())["refused"]
        assert {rig.causes()[name] for name, (status, _) in told.items() if status == "refused"} == {"room"}

    async def test_long_texts_make_no_long_outcomes(self, rig: Rig) -> None:
        rig.commands.set_does = failing(NotFoundError("x" * 100_000))
        await rig.run(rig.job("c-1"), rig.job("c-2", "9" * 16_000, sequence=11))
        assert all(len(outcome.reason) <= 2000 for _, outcome in rig.outcomes)


class TestDisk:
    """No disk, no actuation."""

    async def test_an_intent_that_cannot_be_stored_sets_nothing(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: Any) -> None:
            raise StoreError("volume full")

        monkeypatch.setattr(rig.ledger, "enter", full)
        told = await rig.run(rig.job())
        assert told["c-1"] == ("failed", "intent not stored, so nothing was set: volume full")
        assert rig.commands.log == []

    @pytest.mark.parametrize("call", ["went_out", "finish", "block"])
    async def test_when_the_ledger_fails_afterwards_the_guard_ends_and_finds_out_at_its_next_start(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def full(*arguments: Any) -> None:
            raise StoreError("volume full")

        if call == "block":
            rig.commands.set_does = failing(DeviceSilentError("x"))
        monkeypatch.setattr(rig.ledger, call, full)
        with pytest.raises(ExceptionGroup) as caught:
            await rig.run(rig.job("c-1"), rig.job("c-2", sequence=11))
        assert isinstance(caught.value.exceptions[0], StoreError)
        assert len(rig.commands.sets) == 1, "the next one must not go out"
        monkeypatch.undo()
        rig.restart()
        assert {entry.command.id: entry.phase for entry in rig.ledger.unfinished()} == {
            "c-1": "intent",
            "c-2": "received",
        }


class TestRecovery:
    """After a crash the guard reads first."""

    def crashed(self, rig: Rig, *, before: str | None = "1.8e+01", deadline_s: float = 0.0, **changes: Any) -> None:
        job = rig.job(**changes)
        rig.ledger.enter(job.agent, job.command.id, "intent", 1.0, Intent("", before, deadline_s, SITE_S))
        rig.restart()
        rig.commands.get_does = lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + 0.6)

    async def recover(self, rig: Rig) -> tuple[str, str]:
        async with rig.lanes() as lanes:
            for entry in rig.ledger.unfinished():
                await lanes.put(entry)
        return rig.told()["c-1"]

    async def test_what_is_so_is_proven(self, rig: Rig) -> None:
        self.crashed(rig)
        rig.commands.values["valve", "Setpoint"] = "21.05"
        assert (await self.recover(rig))[0] == "proven"
        assert rig.commands.sets == []
        assert len(list(rig.ledger.past_sets(0))) == 1, "rates count it: it went out"
        assert rig.ledger.unfinished() == []
        assert rig.ledger.blocked() == {}

    async def test_what_is_not_so_failed_when_its_time_is_over(self, rig: Rig) -> None:
        self.crashed(rig)
        rig.commands.values["valve", "Setpoint"] = "18"
        assert (await self.recover(rig))[0] == "failed"
        assert rig.commands.sets == []

    async def test_an_absolute_value_is_set_again_when_nothing_changed_and_there_is_time(self, rig: Rig) -> None:
        self.crashed(rig, deadline_s=110.0)
        rig.commands.values["valve", "Setpoint"] = "18"
        assert (await self.recover(rig))[0] == "proven"
        assert len(rig.commands.sets) == 1
        assert rig.commands.sets != ["c-1"], "under an id of its own"

    @pytest.mark.parametrize(
        "change",
        [
            lambda rig: rig.commands.values.update({("valve", "Setpoint"): "19"}),
            lambda rig: rig.grant("heat", sequence=9),
            lambda rig: rig.picture.see(event("valve", "Setpoint", "18", SITE_S - 10_000)),
        ],
        ids=["the value changed", "the lease changed", "nothing"],
    )
    async def test_else_it_is_not(self, rig: Rig, change: Callable[[Rig], Any], request: Any) -> None:
        self.crashed(rig, deadline_s=110.0)
        rig.commands.values["valve", "Setpoint"] = "18"
        change(rig)
        status, _ = await self.recover(rig)
        expected = {"the value changed": "failed", "the lease changed": "uncertain", "nothing": "proven"}
        assert status == next(value for name, value in expected.items() if name in request.node.name)

    async def test_a_deadline_of_another_boot_is_over(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.guard.ledger._boot_id", lambda: "before")
        self.crashed(rig, deadline_s=1e9)
        monkeypatch.undo()
        rig.commands.values["valve", "Setpoint"] = "18"
        assert (await self.recover(rig))[0] == "failed"

    async def test_a_toggle_is_not_set_again(self, rig: Rig) -> None:
        rig.grant(resource="Open", sequence=2)
        epoch = Epoch(generation=1, revision=2)
        self.crashed(rig, before="false", deadline_s=1e9, resource="Open", value="true", epoch=epoch)
        rig.commands.values["valve", "Open"] = "false"
        assert (await self.recover(rig))[0] == "uncertain"
        assert rig.commands.sets == []

    @pytest.mark.parametrize("changes", [{"resource": "Count", "value": "3"}, {"device": "gone"}, {"value": "warm"}])
    async def test_what_nothing_can_tell_is_uncertain(self, rig: Rig, changes: dict[str, Any]) -> None:
        self.crashed(rig, **changes)
        assert (await self.recover(rig))[0] == "uncertain"
        assert rig.commands.log == []

    async def test_a_block_from_before_of_which_nothing_is_known_any_more_is_lifted(self, rig: Rig) -> None:
        rig.ledger.block("valve", "before")
        self.crashed(rig)
        rig.commands.values["valve", "Setpoint"] = "21"
        assert (await self.recover(rig))[0] == "proven"
        assert rig.ledger.blocked() == {}

    async def test_the_approver_is_still_named(self, rig: Rig) -> None:
        job = rig.job()
        rig.ledger.enter(job.agent, job.command.id, "intent", 1.0, Intent("ann", "1.8e+01"))
        rig.restart()
        rig.commands.values["valve", "Setpoint"] = "21"
        await self.recover(rig)
        assert rig.outcomes[0][1].approver == "ann"


async def test_stopping_gives_what_is_under_way_a_moment_and_keeps_the_rest_for_later(rig: Rig) -> None:
    started = asyncio.Event()

    async def hang(name: str) -> None:
        started.set()
        await asyncio.Event().wait()

    rig.commands.set_does = hang
    async with asyncio.TaskGroup() as tasks:
        lanes = lanes_module.Lanes(rig.means, tasks)
        await lanes.put(rig.job("c-1"))
        await lanes.put(rig.job("c-2", sequence=11))
        await started.wait()
        await lanes.stop(0.05)
        await lanes.stop(0.05)
    assert {entry.command.id: entry.phase for entry in rig.ledger.unfinished()} == {"c-1": "intent", "c-2": "received"}


def test_past_sets_and_readings_of_the_picture_are_what_the_gate_sees(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "x")
    rig.picture.see(event("valve", "Setpoint", "20"))
    rig.picture.went_out(("valve", "Setpoint"), PastSet("air", 21.0, SITE_S + 1))
    assert rig.picture.view.readings["valve", "Setpoint"] == Sample(20.0, int(SITE_S * 1e9), SITE_S)
    assert rig.picture.view.possible(("valve", "Setpoint"), 0.0) == [20.0, 21.0]
    rig.close()
