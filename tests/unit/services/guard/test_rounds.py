"""What devices do not report, the guard reads of itself, as often as the owner says and no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import UnavailableError
from edgeagents.model.device import Device
from edgeagents.model.site import Site
from services.guard.rounds import AFTER_FAILURE_S, Rounds
from tests.unit.services.guard.rig import SITE, Rig

KEY = ("valve", "Setpoint")
WATCHED: dict[str, Any] = {
    **SITE,
    "resources": [{"device": "valve", "look_every": "1s", **{k: v for k, v in SITE["resources"][0].items()
                                                             if k != "profile"}}, *SITE["resources"]],
}  # fmt: skip


@pytest.fixture
def watched(rig: Rig, tmp_path: Path) -> Iterator[Rig]:
    """A guard whose owner wants the valve's setpoint read each second, proven to be 21."""
    found = Rig(tmp_path / "watched", WATCHED)
    found.grant()
    yield found
    found.close()


def test_only_what_the_owner_names_is_due_and_again_after_its_time(watched: Rig) -> None:
    rounds = Rounds(watched.owner.site, watched.devices)
    assert rounds.due(100.0) == [KEY]
    assert rounds.due(100.9) == []
    assert rounds.due(101.0) == [KEY]
    rounds.failed(KEY, 101.0)
    assert rounds.due(101.0 + AFTER_FAILURE_S - 0.1) == []
    assert rounds.due(101.0 + AFTER_FAILURE_S) == [KEY]


def test_nothing_is_read_of_itself_unless_the_owner_says_so(rig: Rig) -> None:
    assert Rounds(rig.owner.site, rig.devices).due(100.0) == []


@pytest.mark.parametrize("resource", ["Setpoint", "Nothing"])
def test_devices_that_come_later_are_read_too_if_they_have_it(watched: Rig, resource: str) -> None:
    rule = {"profile": "Valve", "resource": resource, "look_every": 5}
    rounds = Rounds(Site.model_validate({"resources": [rule]}), watched.devices)
    before = rounds.due(100.0)
    watched.known["new"] = Device(name="new", profile_name="Valve")
    assert rounds.due(100.0) == []
    rounds.forget()
    assert rounds.due(100.0) == ([("new", resource)] if resource == "Setpoint" else [])
    assert len(before) == (3 if resource == "Setpoint" else 0)


async def test_a_hand_that_no_event_tells_of_is_found(watched: Rig) -> None:
    assert (await watched.run(watched.job("c-1")))["c-1"][0] == "proven"
    watched.commands.values[KEY] = "17"
    async with watched.lanes() as lanes:
        lanes.look()
        lanes.look()
    assert watched.commands.log.count("get valve/Setpoint") >= 2, "the look, and those that make sure"
    assert [item["value"] for item in watched.overrides.listed()] == ["17"]


async def test_a_device_that_cannot_be_read_does_not_hold_its_lane_up_each_second(watched: Rig) -> None:
    def gone(command: str) -> None:
        raise UnavailableError("its service is down")

    watched.commands.get_does = gone
    async with watched.lanes() as lanes:
        for _ in range(10):
            lanes.look()
            await lanes._lane_of("valve").queue.join()
            watched.clocks.now_s += 1.0
    assert watched.commands.log == ["get valve/Setpoint"]
