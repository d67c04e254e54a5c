"""The home behind EdgeX's devices: which point of the house each resource is, read and written.

A profile's resource names its point (`attributes: {point: temperature}`), a device its room
(`protocols: {home: {room: living}}`); so any number of devices, also ones added over REST, can look at one
house. Writing returns once the house has the value and its state is stored.

Source: edgex-profiles/home.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, DeviceResource
from edgeagents.model.values import Value
from services.world.forecast import POINTS as FORECASTS
from services.world.home import VENTILATION_W, Controls, Home
from services.world.outside import ROOMS, Scene
from services.world.simulation import Simulation

RoomReader = Callable[[Home, Scene, int], Value]
HouseReader = Callable[[Home, Scene], Value]

ROOM_POINTS: Final[Mapping[str, RoomReader]] = {
    "temperature": lambda home, around, room: round(home.air_c[room], 2),
    "co2": lambda home, around, room: round(home.co2_ppm[room], 0),
    "presence": lambda home, around, room: around.people[room] > 0,
    "window-open": lambda home, around, room: around.windows_open[room],
    "setpoint": lambda home, around, room: home.controls.setpoints_c[room],
    "opening": lambda home, around, room: round(home.opening_percent[room], 1),
    "blind-position": lambda home, around, room: home.controls.blinds_percent[room],
    "light-on": lambda home, around, room: home.controls.lights_on[room],
    "light-brightness": lambda home, around, room: home.controls.brightness_percent[room],
}
HOUSE_POINTS: Final[Mapping[str, HouseReader]] = {
    "heat-pump-enabled": lambda home, around: home.controls.heat_pump_on,
    "flow-setpoint": lambda home, around: home.controls.flow_setpoint_c,
    "flow-temperature": lambda home, around: round(home.flow_c, 1),
    "heat-pump-power": lambda home, around: round(home.heat_pump_w, 0),
    "cop": lambda home, around: round(home.cop, 2),
    "ventilation-level": lambda home, around: home.controls.ventilation_level,
    "ventilation-power": lambda home, around: VENTILATION_W[home.controls.ventilation_level],
    "outdoor": lambda home, around: round(around.outdoor_c, 1),
    "irradiance": lambda home, around: round(around.irradiance_w_m2, 0),
    "meter-power": lambda home, around: round(home.meter_w, 0),
    "meter-energy": lambda home, around: round(home.imported_kwh, 3),
    "pv-power": lambda home, around: round(home.pv_w, 0),
    "price": lambda home, around: around.price,
    "price-next-hour": lambda home, around: around.next_price,
}
# What can be commanded, and where it stands in `Controls`.
CONTROLS: Final[Mapping[str, str]] = {
    "setpoint": "setpoints_c",
    "blind-position": "blinds_percent",
    "light-on": "lights_on",
    "light-brightness": "brightness_percent",
    "heat-pump-enabled": "heat_pump_on",
    "flow-setpoint": "flow_setpoint_c",
    "ventilation-level": "ventilation_level",
}
# What the house itself cannot hold, whatever a profile allows.
LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "setpoint": (5, 30),
    "blind-position": (0, 100),
    "light-brightness": (0, 100),
    "flow-setpoint": (20, 60),
    "ventilation-level": (0, len(VENTILATION_W) - 1),
}


class HomeDriver:
    """Reads and sets the simulated house."""

    def __init__(self, simulation: Simulation) -> None:
        """Drive a running simulation."""
        self._simulation = simulation

    def validate(self, device: Device) -> str | None:
        """Return why a device has no place in this house, None when it has."""
        home = device.protocols.get("home")
        if home is None:
            return f"device {device.name}: protocols has no 'home': write protocols: {{home: {{room: living}}}}"
        room = home.get("room")
        if room is not None and room not in ROOMS:
            return f"device {device.name}: the house has no room {room!r}: it has {', '.join(ROOMS)}"
        return None

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        """Return the values of the house as it is now.

        Raises:
            InvalidInputError: a resource names no point of the house, or the device no room.
        """
        simulation = self._simulation
        return [read_point(simulation.home, simulation.around, simulation.seed, device, item) for item in resources]

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        """Set all values at once, or none; stored when this returns.

        Raises:
            InvalidInputError: a resource cannot be set in this house, or the device names no room.
            StoreError: the state could not be written to disk; the house is unchanged.
        """
        changes = []
        for resource, value in writes:
            control, room = control_of(device, resource)
            changes.append((control, _limited(resource, _point(resource), value), room))
        await self._simulation.command(changes)


def read_point(home: Home, around: Scene, seed: int, device: Device, resource: DeviceResource) -> Value:
    """Return the value of the point that a device's resource looks at; `seed` is the house's, for forecasts.

    Raises:
        InvalidInputError: the resource names no point of the house, or the device no room.
    """
    point = _point(resource)
    if point in HOUSE_POINTS:
        return HOUSE_POINTS[point](home, around)
    if point in FORECASTS:
        return FORECASTS[point](seed, home.site_s)
    return ROOM_POINTS[point](home, around, ROOMS.index(_room(device, resource)))


def control_of(device: Device, resource: DeviceResource) -> tuple[str, str]:
    """Return which field of `Controls` a resource sets, and in which room; the room is empty for the whole house.

    Raises:
        InvalidInputError: the resource cannot be set in this house, or the device names no room.
    """
    point = _point(resource)
    if point not in CONTROLS:
        raise InvalidInputError(f"{resource.name} of {device.name}: point {point!r} cannot be set")
    return CONTROLS[point], "" if point in HOUSE_POINTS else _room(device, resource)


def points_of(home: Home, around: Scene) -> dict[str, Any]:
    """Return every point of the house by name, for pages."""
    house = {name: read(home, around) for name, read in HOUSE_POINTS.items()}
    rooms = {
        room: {name: read(home, around, index) for name, read in ROOM_POINTS.items()}
        for index, room in enumerate(ROOMS)
    }
    return {"house": house, "rooms": rooms}


def _point(resource: DeviceResource) -> str:
    point = str((resource.attributes or {}).get("point", ""))
    if point not in HOUSE_POINTS and point not in ROOM_POINTS and point not in FORECASTS:
        known = ", ".join((*ROOM_POINTS, *HOUSE_POINTS, *FORECASTS))
        raise InvalidInputError(f"resource {resource.name}: attribute point {point!r} is none of {known}")
    return point


def _room(device: Device, resource: DeviceResource) -> str:
    room = device.protocols.get("home", {}).get("room")
    if room not in ROOMS:
        raise InvalidInputError(f"{resource.name} of {device.name} needs a room: protocols: {{home: {{room: living}}}}")
    return str(room)


def _limited(resource: DeviceResource, point: str, value: Value) -> float | bool:
    if not isinstance(value, (int, float)):
        raise InvalidInputError(f"{resource.name}: {value!r} is neither a number nor true or false")
    low, high = LIMITS.get(point, (0, 1))
    if not low <= value <= high:
        raise InvalidInputError(f"{resource.name}: {value} is outside {low} to {high}, what the house can do")
    return value


assert all(name in Controls.__dataclass_fields__ for name in CONTROLS.values())
