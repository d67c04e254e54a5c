"""Attacks on the guard's promises that once succeeded, each by name."""

import asyncio
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import DeviceSilentError, InvalidInputError, StoreError
from edgeagents.model.device import Event, Profile, make_reading
from services.guard.orders import Pause
from services.guard.people import People, Verdict
from tests.contract.waiting import until
from tests.unit.services.guard.rig import PROFILE, SITE, SITE_S, Rig, ends_at, event

HALF = json.loads(r'"driver: \ud800"')  # half a character: JSON may carry it, UTF-8 may not


def steady(rig: Rig, device: str, resource: str, text: str) -> None:
    """Have the guard know what a resource shows."""
    rig.commands.values[device, resource] = text
    for _ in range(4):
        rig.picture.see(event(device, resource, text))


def silent_once(rig: Rig) -> None:
    """Have the next SET get no answer."""

    def fails(name: str) -> None:
        rig.commands.set_does = None
        raise DeviceSilentError("no answer")

    rig.commands.set_does = fails


def passing(rig: Rig, seconds: float) -> Callable[[str], None]:
    """Return what has time pass with each read."""
    return lambda command: setattr(rig.clocks, "now_s", rig.clocks.now_s + seconds)


def text_event(device: str, resource: str, text: str) -> Event:
    """Return an event whose reading is a String, whatever the profile says."""
    origin_ns = int(SITE_S * 1e9)
    reading = make_reading(device, "Valve", resource, "String", text, origin_ns, reading_id="r")
    return Event(
        id=f"{device}-odd", device_name=device, profile_name="Valve", source_name=resource, origin=origin_ns,
        readings=(reading,),
    )  # fmt: skip


async def by_hand(rig: Rig, text: str = "25") -> None:
    """Have somebody set the valve."""
    rig.commands.values["valve", "Setpoint"] = text
    rig.picture.see(event("valve", "Setpoint", text))
    await until(lambda: rig.overrides.problem(("valve", "Setpoint")), "it is recognised", timeout_s=5)


async def test_an_odd_reading_of_one_device_ends_no_override_of_another(rig: Rig) -> None:
    steady(rig, "valve", "Setpoint", "18")
    steady(rig, "pump", "Setpoint", "18")
    odd, real = text_event("pump", "Setpoint", "hot"), rig.commands.get
    async with rig.lanes():
        await by_hand(rig)

        async def get(device: str, command: str, **words: Any) -> Event:
            return odd if device == "pump" else await real(device, command)

        rig.commands.get = get  # type: ignore[method-assign]
        rig.picture.see(odd)
        await until(lambda: rig.overrides.problem(("pump", "Setpoint")), "nobody knows what that is", timeout_s=5)
    assert rig.overrides.problem(("valve", "Setpoint"))


async def test_a_hand_at_another_resource_of_a_device_in_quarantine_is_seen_before_what_waits(rig: Rig) -> None:
    steady(rig, "valve", "Setpoint", "18")
    rig.commands.values["valve", "Count"] = "1"
    rig.grant(resource="Count", sequence=1)
    setpoint = rig.grant(resource="Setpoint", sequence=2)
    silent_once(rig)
    async with rig.lanes() as lanes:
        await lanes.put(rig.job("c-1", "2", resource="Count"))
        await until(rig.ledger.blocked, "quarantine", timeout_s=5)
        rig.commands.values["valve", "Setpoint"] = "25"
        rig.picture.see(event("valve", "Setpoint", "25"))
        await lanes.put(rig.job("c-2", "20", sequence=11, epoch=setpoint))
        await asyncio.sleep(0.05)
        rig.clocks.now_s += 6.0
        lanes.seen("valve")
    assert "set by hand to 25" in rig.told()["c-2"][1]
    assert rig.commands.values["valve", "Setpoint"] == "25"


@pytest.mark.parametrize("is_silent", [False, True])
async def test_what_the_guard_sets_again_counts_for_interlocks_at_once(tmp_path: Path, is_silent: bool) -> None:
    site = copy.deepcopy(SITE)
    site["resources"][1]["kind"] = "absolute"
    rig, key = Rig(tmp_path / "locked", site), ("valve", "Open")
    steady(rig, *key, "true")
    steady(rig, "pump", "Open", "false")
    rig.grant(resource="Open", sequence=1)
    pump = rig.grant(device="pump", resource="Open", sequence=2)
    # What a SET of false without an answer leaves behind, and a SET of true after it.
    await rig.overrides.doubtful(key, False, None)
    await rig.overrides.done(key, True, is_certain=True)
    if is_silent:
        silent_once(rig)
    async with rig.lanes() as lanes:
        rig.commands.values[key] = "false"
        rig.clocks.site_s, rig.clocks.wall = SITE_S + 6, int((SITE_S + 6) * 1e9)
        rig.picture.see(event(*key, "false", SITE_S + 5))
        await until(lambda: rig.commands.sets, "it is corrected", timeout_s=5)
        await lanes.put(rig.job("c-2", "true", device="pump", resource="Open", sequence=11, epoch=pump))
    assert "interlock 'one-open'" in rig.told()["c-2"][1]
    rig.close()


async def test_what_may_still_come_is_forgotten_in_time_also_of_a_device_that_could_not_be_read(rig: Rig) -> None:
    rig.commands.values["pump", "Open"] = "false"
    for device in ("valve", "pump"):
        rig.picture.see(event(device, "Open", "false"))
    rig.grant(resource="Open", sequence=1)
    pump = rig.grant(device="pump", resource="Open", sequence=2)
    silent_once(rig)
    async with rig.lanes() as lanes:
        await lanes.put(rig.job("c-1", "true", resource="Open"))
        await until(rig.ledger.blocked, "quarantine", timeout_s=5)
        rig.clocks.now_s += 6.0
        lanes.seen("valve")
        await until(lambda: "c-1" in rig.told(), "its agent is told", timeout_s=8)
        rig.clocks.now_s += 700.0
        for key in await rig.overrides.tick():
            lanes.reckon(key)
        rig.commands.values["valve", "Open"] = "false"
        rig.commands.get_does = passing(rig, 1.0)
        lanes.seen("valve")
        await until(lambda: not rig.ledger.blocked(), "it is released", timeout_s=8)
        rig.picture.see(event("valve", "Open", "false"))
        await lanes.put(
            rig.job("c-2", "true", device="pump", resource="Open", sequence=11, epoch=pump, deadline_s=1e6)
        )  # fmt: skip
    assert rig.told()["c-2"][0] == "proven"


async def test_a_device_in_quarantine_that_reports_a_lot_holds_nobody_up(rig: Rig) -> None:
    steady(rig, "valve", "Open", "false")
    steady(rig, "pump", "Open", "false")
    rig.grant(resource="Open", sequence=1)
    silent_once(rig)
    async with rig.lanes() as lanes:
        await lanes.put(rig.job("c-1", "true", resource="Open"))
        await until(rig.ledger.blocked, "quarantine", timeout_s=5)
        for _ in range(50):
            lanes.seen("valve")
        assert lanes._lane_of("valve").queue.qsize() <= 1
        rig.commands.get_does = passing(rig, 2.0)


async def test_a_device_that_reports_and_cannot_be_read_is_left_alone_for_a_while(rig: Rig) -> None:
    steady(rig, "valve", "Setpoint", "18")
    reads = 0

    def away(command: str) -> None:
        nonlocal reads
        reads += 1
        raise DeviceSilentError("no answer")

    rig.commands.get_does = away
    async with rig.lanes():
        for number in range(5):
            rig.picture.see(event("valve", "Setpoint", f"{20 + number}"))
            await until(lambda: not rig.overrides.is_doubted(("valve", "Setpoint")), "given up", timeout_s=5)
            rig.clocks.now_s += 7.0
        assert (number, reads) == (4, 3), "what it reports meanwhile makes the while no longer"
        rig.commands.get_does = None
        await by_hand(rig)


async def test_an_override_of_a_device_that_metadata_knows_later_is_in_force_then(rig: Rig) -> None:
    steady(rig, "valve", "Setpoint", "18")
    async with rig.lanes():
        await by_hand(rig)
    valve = rig.known.pop("valve")
    rig.restart()
    assert not rig.overrides.problem(("valve", "Setpoint"))
    rig.known["valve"] = valve
    rig.overrides.forget_rules()
    assert rig.overrides.problem(("valve", "Setpoint"))


@pytest.mark.parametrize("when", ["in quarantine", "in proof"])
async def test_a_hand_while_a_set_of_ours_is_found_out_about_is_seen(rig: Rig, when: str) -> None:
    steady(rig, "valve", "Setpoint", "18")

    def hand(name: str) -> None:
        rig.commands.set_does = None
        if when == "in quarantine":
            rig.commands.values["valve", "Setpoint"] = "25"
            raise DeviceSilentError("no answer")

    def read(command: str) -> None:
        rig.clocks.now_s += 2.0 if when == "in quarantine" else 0.6
        rig.commands.values["valve", "Setpoint"] = "25"

    rig.commands.set_does, rig.commands.get_does = hand, read
    told = await rig.run(rig.job("c-1", "21", deadline_s=1e6), rig.job("c-2", "22", sequence=11, deadline_s=1e6))
    assert told["c-1"][0] == "failed"
    assert "set by hand to 25" in told["c-2"][1]


async def test_who_is_just_turning_a_knob_is_not_overridden(rig: Rig) -> None:
    steady(rig, "valve", "Setpoint", "18")
    at = [18.0]

    def turning(command: str) -> None:
        at[0] += 0.5
        rig.commands.values["valve", "Setpoint"] = f"{at[0]}"

    rig.commands.get_does = turning
    async with rig.lanes() as lanes:
        await lanes.put(rig.job("c-1", "21"))
        rig.picture.see(event("valve", "Setpoint", "18.5"))
    assert rig.told()["c-1"] == ("refused", "valve/Setpoint is being changed by somebody just now")
    assert rig.commands.sets == []


async def test_an_error_text_with_half_a_character_ends_a_command_and_not_the_guard(rig: Rig) -> None:
    def fails(name: str) -> None:
        raise InvalidInputError(HALF)

    rig.commands.set_does = fails
    assert (await rig.run(rig.job()))["c-1"] == ("failed", "driver: ?")


def with_resource(name: str, kind: str, folder: Path) -> Rig:
    """Return a rig whose valves have one more resource."""
    site = copy.deepcopy(SITE)
    site["resources"].append(
        {"profile": "Valve", "resource": name, "risk_class": "A", "kind": "absolute",
         "proof": {"resource": name, "wait": 1}}
    )  # fmt: skip
    profile = PROFILE.model_dump(by_alias=True)
    more = {"name": name, "properties": {"valueType": kind, "readWrite": "RW"}}
    rig = Rig(folder, site)
    rig.profiles["Valve"] = Profile.model_validate(
        {**profile, "deviceResources": [*profile["deviceResources"], more]}
    )  # fmt: skip
    return rig


async def test_a_reading_with_half_a_character_is_left_out(tmp_path: Path) -> None:
    rig = with_resource("Mode", "String", tmp_path / "mode")
    good, odd = text_event("valve", "Mode", "eco"), text_event("valve", "Mode", "x")
    reading = odd.readings[0].model_copy(update={"value": HALF})
    odd = odd.model_copy(update={"readings": (reading,)})
    async with rig.lanes():
        for shown in (good, good, good, good, odd):
            rig.picture.see(shown)
        await asyncio.sleep(0.05)
    assert rig.picture.view.readings["valve", "Mode"].value == "eco"
    rig.close()


async def test_an_array_set_by_hand_is_a_hand(tmp_path: Path) -> None:
    rig = with_resource("Colour", "Uint8Array", tmp_path / "colour")
    profile, shown = rig.profiles["Valve"], "[1, 2, 3]"

    async def get(device: str, command: str, **words: Any) -> Event:
        return event(device, command, shown, profile=profile)

    rig.commands.get = get  # type: ignore[method-assign]
    async with rig.lanes():
        for _ in range(4):
            rig.picture.see(event("valve", "Colour", shown, profile=profile))
        shown = "[9, 9, 9]"
        rig.picture.see(event("valve", "Colour", shown, profile=profile))
        await until(lambda: rig.overrides.problem(("valve", "Colour")), "it is recognised", timeout_s=5)
    rig.close()


async def test_what_could_not_be_denied_for_want_of_a_disk_still_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = rig.grant(resource="Enabled", sequence=2)
    await rig.run(rig.job("c-1", "true", resource="Enabled", epoch=epoch, deadline_s=1e6))

    def full(*arguments: Any) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(rig.ledger, "finish", full)
    people = People(rig.means, rig.approvals, None, None)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await people.decide("c-1", Verdict(decision="deny"), "ann")
    assert [item["commandId"] for item in rig.approvals.listed()] == ["c-1"]
    monkeypatch.undo()
    await people.decide("c-1", Verdict(decision="deny"), "ann")
    assert rig.told()["c-1"][0] == "refused"
    assert rig.causes()["c-1"] == "approval"


async def test_what_is_given_while_a_resume_is_being_written_down_stays_refused(rig: Rig) -> None:
    rig.commands.values["valve", "Setpoint"] = "18"
    ends, late = [9], rig.job("c-2", "21", sequence=10, deadline_s=1e6)

    async def last() -> int:
        return ends[0]

    async with rig.lanes() as lanes:
        await rig.orders.pause(Pause("all", "", "ann", "", 1))
        rig.executor.submit(time.sleep, 0.2)  # a slow disk
        resuming = asyncio.create_task(rig.orders.resume(rig.orders.paused_at(("all", "")), last))
        await asyncio.sleep(0.05)
        ends[0] = 10
        await resuming
        await lanes.put(late)
    assert "resumed since, but it was given before" in rig.told()["c-2"][1]
    await rig.orders.pause(Pause("all", "", "ann", "", 2))
    await rig.orders.resume(rig.orders.paused_at(("all", "")), ends_at(10))


def test_what_was_set_does_not_lie_in_the_future_when_site_time_begins_anew(rig: Rig) -> None:
    rig.ledger.went_out("valve", "Setpoint", "air", "2e+01", SITE_S + 36_000.0)
    rig.restart()
    rig.picture.load(rig.ledger, rig.devices, 0.0)
    assert [past.site_s for past in rig.picture.view.sets["valve", "Setpoint"]] == [SITE_S]


def test_readings_of_devices_that_nobody_knows_are_not_kept(rig: Rig) -> None:
    rig.picture.knows = rig.known.__contains__
    for number in range(100):
        odd = event("valve", "Setpoint", "20")
        rig.picture.see(odd.model_copy(update={"device_name": f"made-up-{number}"}))
    assert len(rig.picture.view.readings) == 0
