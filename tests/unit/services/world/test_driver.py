"""Devices of the home: every resource of the shipped profiles has a point; what cannot be set is refused."""

from pathlib import Path
from typing import Any

import pytest

from edgeagents.adapters.auto_events import parse_interval_s
from edgeagents.adapters.provisioning import Inventory, load_inventory
from edgeagents.adapters.transforms import for_reading
from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.values import is_numeric
from edgeagents.settings import SiteTime
from services.world.driver import CONTROLS, HOUSE_POINTS, LIMITS, ROOM_POINTS, HomeDriver, points_of
from services.world.forecast import POINTS as FORECASTS
from services.world.outside import ROOMS
from services.world.simulation import Simulation
from tests.unit.services.world.test_outside import at

FOLDER = Path(__file__).resolve().parents[4] / "edgex-profiles" / "home"


@pytest.fixture
def inventory() -> Inventory:
    return load_inventory(FOLDER / "profiles", FOLDER / "devices")


@pytest.fixture
def driver() -> HomeDriver:
    return HomeDriver(Simulation(7, SiteTime(at("2026-01-20T07:00:00"), 0.0, 1.0), None, now=lambda: 0.0))


def find(inventory: Inventory, device: str) -> tuple[Device, Profile]:
    found = next(item for item in inventory.devices if item.name == device)
    return found, next(item for item in inventory.profiles if item.name == found.profile_name)


def resource(point: str, kind: str = "Float64") -> DeviceResource:
    properties = {"valueType": kind, "readWrite": "RW"}
    return DeviceResource.model_validate({"name": "X", "properties": properties, "attributes": {"point": point}})


async def test_every_device_of_the_home_can_be_read_whole(inventory: Inventory, driver: HomeDriver) -> None:
    assert len(inventory.devices) == 21
    for device in inventory.devices:
        _, profile = find(inventory, device.name)
        assert driver.validate(device) is None
        values = await driver.read(device, profile.device_resources)
        for item, value in zip(profile.device_resources, values, strict=True):
            assert for_reading(item, value) == (item.properties.value_type, value)


async def test_every_writable_resource_takes_its_limits_and_reads_back(
    inventory: Inventory, driver: HomeDriver
) -> None:
    written = 0
    for device in inventory.devices:
        _, profile = find(inventory, device.name)
        for item in profile.device_resources:
            if not item.properties.is_writable:
                continue
            limits: list[Any] = [item.properties.minimum, item.properties.maximum]
            values = [int(value) if item.properties.value_type == "Uint8" else value for value in limits]
            for value in values if is_numeric(item.properties.value_type) else [True, False]:
                await driver.write(device, [(item, value)], "c")
                assert await driver.read(device, [item]) == [value]
                written += 1
    assert written == 2 * (4 + 4 + 8 + 3)


def test_profiles_and_points_agree_on_what_can_be_set(inventory: Inventory) -> None:
    points = {
        (item.attributes or {})["point"]: item for profile in inventory.profiles for item in profile.device_resources
    }
    assert points.keys() == ROOM_POINTS.keys() | HOUSE_POINTS.keys() | FORECASTS.keys()
    assert {name for name, item in points.items() if item.properties.is_writable} == CONTROLS.keys()
    for name, (low, high) in LIMITS.items():
        properties = points[name].properties
        assert properties.minimum is not None
        assert properties.maximum is not None
        assert low <= properties.minimum < properties.maximum <= high


def test_the_home_reports_at_most_15_events_a_second(inventory: Inventory) -> None:
    entries = [item for device in inventory.devices for item in device.auto_events]
    regular = sum(1 / parse_interval_s(item.interval) for item in entries if not item.on_change)
    assert 2 < regular < 6
    commanded = {"Setpoint", "Switch", "Position", "Level", "FlowSetpoint", "Enabled"}  # still unless somebody acts
    moving = [item for item in entries if item.source_name not in commanded]
    assert regular + sum(1 / parse_interval_s(item.interval) for item in moving) < 25  # if all changed all the time


async def test_rooms_are_kept_apart(inventory: Inventory, driver: HomeDriver) -> None:
    for number, room in enumerate(ROOMS):
        device, profile = find(inventory, f"radiator-{room}")
        setpoint = profile.resource("Setpoint")
        assert setpoint is not None
        await driver.write(device, [(setpoint, 20.0 + number)], "c")
    setpoints = [
        points["setpoint"] for points in points_of(driver._simulation.home, driver._simulation.around)["rooms"].values()
    ]
    assert setpoints == [20.0, 21.0, 22.0, 23.0]


async def test_a_second_device_may_look_at_the_same_room(driver: HomeDriver) -> None:
    wall, other = (Device(name=name, protocols={"home": {"room": "office"}}) for name in ("a", "b"))
    await driver.write(wall, [(resource("light-on", "Bool"), True)], "c")
    assert await driver.read(other, [resource("light-on", "Bool")]) == [True]


@pytest.mark.parametrize(
    ("protocols", "told"),
    [({}, "has no 'home'"), ({"modbus": {}}, "has no 'home'"), ({"home": {"room": "attic"}}, "no room 'attic'")],
)
def test_a_device_without_a_place_in_the_house_is_not_taken(
    driver: HomeDriver, protocols: dict[str, dict[str, Any]], told: str
) -> None:
    reason = driver.validate(Device(name="new", protocols=protocols))
    assert reason is not None
    assert told in reason


@pytest.mark.parametrize(
    ("protocols", "point", "value", "told"),
    [
        ({"home": {"room": "office"}}, "temperature", 20.0, "cannot be set"),
        ({"home": {"room": "office"}}, "nothing", 20.0, "point 'nothing' is none of"),
        ({"home": {"room": "office"}}, "setpoint", 31.0, "outside 5 to 30"),
        ({"home": {"room": "office"}}, "setpoint", float("nan"), "outside"),
        ({"home": {"room": "office"}}, "setpoint", "warm", "neither a number"),
        ({"home": {}}, "setpoint", 20.0, "needs a room"),
        ({"home": {}}, "ventilation-level", 4, "outside 0 to 3"),
    ],
)
async def test_what_the_house_cannot_do_is_refused_and_changes_nothing(
    driver: HomeDriver, protocols: dict[str, Any], point: str, value: Any, told: str
) -> None:
    before = driver._simulation.home
    good = (resource("heat-pump-enabled", "Bool"), False)
    with pytest.raises(InvalidInputError, match=told):
        await driver.write(Device(name="x", protocols=protocols), [good, (resource(point), value)], "c")
    assert driver._simulation.home == before


async def test_forecasts_are_read_for_the_time_of_the_house(inventory: Inventory, driver: HomeDriver) -> None:
    weather, profile = find(inventory, "weather")
    asked = [item for item in profile.device_resources if item.name == "OutdoorIn6Hours"]

    assert await driver.read(weather, asked) == [FORECASTS["outdoor-in-6h"](7, at("2026-01-20T07:00:00"))]
