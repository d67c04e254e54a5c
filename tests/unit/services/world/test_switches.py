"""Switches on the wall: the house changes, the journal says by hand, and no event is made of it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.adapters.provisioning import load_inventory
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import NotFoundError
from edgeagents.journal import Journal, read_journal
from edgeagents.model.device import Device, Profile
from edgeagents.settings import SiteTime
from services.world.driver import HomeDriver
from services.world.simulation import Simulation
from services.world.switches import add_switches
from tests.unit.services.world.test_driver import FOLDER
from tests.unit.services.world.test_outside import at


class House:
    """A house at rest, its journal, and the route."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "world.jsonl"
        self.simulation = Simulation(7, SiteTime(at("2026-01-20T07:00:00"), 0.0, 1.0), folder / "h.json", now=lambda: 0)
        self.inventory = load_inventory(FOLDER / "profiles", FOLDER / "devices")
        self.journal = Journal.open(self.path)
        self.app = make_app(WebContext("device-world-home", "1", dict, None))
        add_switches(self.app, HomeDriver(self.simulation), self.journal, self.find)

    def find(self, name: str) -> tuple[Device, Profile]:
        for device in self.inventory.devices:
            if device.name == name:  # locked in EdgeX or not, a hand reaches it
                locked = device.model_copy(update={"admin_state": "LOCKED"})
                return locked, next(item for item in self.inventory.profiles if item.name == device.profile_name)
        raise NotFoundError(f"the house has no device {name!r}")

    async def switch(self, device: str, resource: str, value: Any) -> httpx.Response:
        """Do it by hand."""
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://world") as http:
            body = {"device": device, "resource": resource, "value": value}
            return await http.post("/api/v3/world/switch", json=body)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize(("value", "text"), [(22.5, "22.5"), ("2.25e+01", "22.5"), (22, "22")])
async def test_a_hand_changes_the_house_and_the_journal_says_so(house: House, value: Any, text: str) -> None:
    answer = await house.switch("radiator-living", "Setpoint", value)
    assert (answer.status_code, answer.json()["value"]) == (200, text)
    assert house.simulation.home.controls.setpoints_c[0] == float(text)
    (line,) = read_journal(house.path)
    assert {name: line[name] for name in ("kind", "device", "resource", "value", "applied")} == {
        "kind": "hand", "device": "radiator-living", "resource": "Setpoint", "value": text, "applied": True,
    }  # fmt: skip
    again = Simulation(7, SiteTime(at("2026-01-20T07:00:00"), 0.0, 1.0), house.path.parent / "h.json", now=lambda: 0)
    assert again.home.controls == house.simulation.home.controls, "it is on disk"


async def test_switches_of_lights_take_true_and_false(house: House) -> None:
    for value, is_on in ((True, True), ("false", False)):
        assert (await house.switch("light-office", "Switch", value)).status_code == 200
        assert house.simulation.home.controls.lights_on[3] is is_on


@pytest.mark.parametrize(
    ("device", "resource", "value", "status"),
    [
        ("nobody", "Setpoint", 21, 404),
        ("radiator-living", "Nothing", 21, 404),
        ("radiator-living", "Setpoint", 99, 400),
        ("radiator-living", "Setpoint", "warm", 400),
        ("radiator-living", "Opening", 50, 405),
        ("radiator-living", "Setpoint", None, 400),
    ],
)
async def test_what_no_hand_can_do_changes_nothing(
    house: House, device: str, resource: str, value: Any, status: int
) -> None:
    before = house.simulation.home.controls
    assert (await house.switch(device, resource, value)).status_code == status
    assert (house.simulation.home.controls, read_journal(house.path)) == (before, [])
