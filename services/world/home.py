"""A house of four rooms as physics: air, walls, radiators, heat pump, fresh air, light, meter and score.

Pure: `step` maps a state and the surroundings to the next state; `advance` does so in fixed sub-steps on a
grid of site time, so that the same seed and the same commands give the same house however often it is called.
Two thermal nodes a room (air with furniture; walls and floor), explicit Euler. Left out on purpose: humidity,
hot water, cooling, and air that flows between rooms (doors count as conductance).

Source: lumped RC models as in ISO 13790 (two nodes instead of its three); heat pump as a share of Carnot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from services.world.outside import ROOMS, Scene, scene

STEP_S: Final = 10.0
COMFORT_LOW_C: Final = 20.0
COMFORT_HIGH_C: Final = 25.5
OUTDOOR_CO2_PPM: Final = 420.0

_CO2_M3_PER_PERSON_S: Final = 18e-3 / 3600
_PERSON_W: Final = 80.0
_AIR_HEAT: Final = 0.34  # Wh per m3 and K
_HEAT_RECOVERY: Final = 0.8
_LEAKAGE_PER_H: Final = 0.15
_WINDOW_M3_H: Final = 180.0
VENTILATION_M3_H: Final = (0.0, 50.0, 100.0, 180.0)
VENTILATION_W: Final = (2.0, 12.0, 32.0, 85.0)

_LOOP_J_K: Final = 60 * 4186.0  # 60 litres of heating water
_PUMP_W: Final = 35.0
_VALVE_LAG_S: Final = 120.0
_RADIATOR_LAG_S: Final = 600.0
_PV_KWP: Final = 4.5


@dataclass(frozen=True, slots=True)
class Room:
    """What does not change about a room; its place in `HOUSE` is its place in every tuple of the state."""

    name: str
    floor_m2: float
    loss_w_k: float
    radiator_w_k: float
    glass_m2: float
    light_w: float

    @property
    def volume_m3(self) -> float:
        """The air in it."""
        return self.floor_m2 * 2.5

    @property
    def air_j_k(self) -> float:
        """Heat capacity of air and furniture."""
        return self.floor_m2 * 20_000.0

    @property
    def mass_j_k(self) -> float:
        """Heat capacity of walls and floor."""
        return self.floor_m2 * 170_000.0

    @property
    def coupling_w_k(self) -> float:
        """Conductance between air and walls."""
        return self.floor_m2 * 14.0


HOUSE: Final = (
    Room("living", 36.0, 52.0, 62.0, 9.0, 60.0),
    Room("bedroom", 20.0, 30.0, 36.0, 3.0, 30.0),
    Room("kitchen", 22.0, 36.0, 42.0, 4.0, 45.0),
    Room("office", 18.0, 32.0, 38.0, 4.0, 40.0),
)
_DOORS_W_K: Final = ((0, 1, 20.0), (0, 2, 55.0), (0, 3, 20.0), (1, 3, 15.0))  # room, room, conductance


@dataclass(frozen=True, slots=True)
class Controls:
    """What can be commanded; tuples are in the order of `ROOMS`."""

    setpoints_c: tuple[float, ...] = (20.0, 18.0, 19.5, 19.0)
    heat_pump_on: bool = True
    flow_setpoint_c: float = 38.0
    ventilation_level: int = 1
    blinds_percent: tuple[int, ...] = (0, 0, 0, 0)  # 0: open, 100: closed
    lights_on: tuple[bool, ...] = (False, False, False, False)
    brightness_percent: tuple[int, ...] = (100, 100, 100, 100)


@dataclass(frozen=True, slots=True)
class Score:
    """How well the house was run since its beginning."""

    comfort_violation_degree_hours: float = 0.0
    energy_kwh: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Home:
    """The whole physical state at one site time."""

    site_s: float
    controls: Controls = field(default_factory=Controls)
    air_c: tuple[float, ...] = (19.3, 18.4, 19.0, 18.6)
    mass_c: tuple[float, ...] = (19.0, 18.3, 18.8, 18.5)
    radiator_w: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    opening_percent: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    co2_ppm: tuple[float, ...] = (620.0, 760.0, 600.0, 580.0)
    flow_c: float = 30.0
    heat_pump_w: float = 0.0
    cop: float = 0.0
    meter_w: float = 0.0
    pv_w: float = 0.0
    imported_kwh: float = 0.0
    score: Score = field(default_factory=Score)


def advance(home: Home, seed: int, until_s: float, max_steps: int) -> Home:
    """Return the house brought towards `until_s` by whole sub-steps, at most `max_steps` of them."""
    for _ in range(max_steps):
        if home.site_s + STEP_S > until_s:
            break
        home = step(home, scene(seed, home.site_s), STEP_S)
    return home


def step(home: Home, around: Scene, dt_s: float) -> Home:
    """Return the house `dt_s` later, with these surroundings all the while."""
    openings = tuple(
        opening + (_valve_target(setpoint, air) - opening) * dt_s / _VALVE_LAG_S
        for opening, setpoint, air in zip(home.opening_percent, home.controls.setpoints_c, home.air_c, strict=True)
    )
    drawn_w = [
        room.radiator_w_k * opening / 100.0 * max(0.0, home.flow_c - air)
        for room, opening, air in zip(HOUSE, openings, home.air_c, strict=True)
    ]
    heat_w, electric_w, cop = _heat_pump(home, sum(drawn_w), around.outdoor_c, dt_s)
    standing_loss_w = 4.0 * (home.flow_c - home.air_c[0])
    fresh_m3_h = _ventilation_m3_h(home.controls.ventilation_level, around)
    air_c, mass_c = _rooms(home, around, fresh_m3_h, dt_s)
    lights_w = sum(_light_w(home.controls, index) for index in range(len(HOUSE)))
    run_w = electric_w + lights_w + VENTILATION_W[home.controls.ventilation_level]
    pv_w = _PV_KWP * around.irradiance_w_m2 * 0.85
    meter_w = run_w + around.household_w - pv_w
    return replace(
        home,
        site_s=home.site_s + dt_s,
        air_c=air_c,
        mass_c=mass_c,
        radiator_w=tuple(
            out + (into - out) * dt_s / _RADIATOR_LAG_S for out, into in zip(home.radiator_w, drawn_w, strict=True)
        ),
        opening_percent=openings,
        co2_ppm=_co2(home, around, fresh_m3_h, dt_s),
        flow_c=home.flow_c + (heat_w - sum(drawn_w) - standing_loss_w) * dt_s / _LOOP_J_K,
        heat_pump_w=electric_w,
        cop=cop,
        meter_w=meter_w,
        pv_w=pv_w,
        imported_kwh=home.imported_kwh + max(0.0, meter_w) * dt_s / 3.6e6,
        score=_scored(home, around, run_w, dt_s),
    )


def _valve_target(setpoint_c: float, air_c: float) -> float:
    """Return the opening a thermostatic valve strives for: closed half a degree above, open one below."""
    return min(100.0, max(0.0, (setpoint_c + 0.5 - air_c) / 1.5 * 100.0))


def _heat_pump(home: Home, drawn_w: float, outdoor_c: float, dt_s: float) -> tuple[float, float, float]:
    """Return heat into the water, electric power and COP (0 when it stands still)."""
    wanted_w = drawn_w + (home.controls.flow_setpoint_c - home.flow_c) * _LOOP_J_K / 240.0
    capacity_w = 6000.0 * min(1.25, max(0.55, 1.0 + 0.022 * (outdoor_c - 7.0)))
    heat_w = min(capacity_w, max(0.0, wanted_w)) if home.controls.heat_pump_on else 0.0
    if heat_w < 0.02 * capacity_w:
        return 0.0, 0.0, 0.0
    warm_k, cold_k = home.flow_c + 4.0 + 273.15, outdoor_c - 6.0 + 273.15
    cop = min(6.5, max(1.5, 0.45 * warm_k / max(15.0, warm_k - cold_k)))
    return heat_w, heat_w / cop + _PUMP_W, cop


def _ventilation_m3_h(level: int, around: Scene) -> list[float]:
    """Return what the unit blows into each room: led by demand, occupied rooms get three times their share."""
    shares = [room.floor_m2 * (3.0 if people else 1.0) for room, people in zip(HOUSE, around.people, strict=True)]
    return [VENTILATION_M3_H[level] * share / sum(shares) for share in shares]


def _rooms(
    home: Home, around: Scene, fresh_m3_h: Sequence[float], dt_s: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return air and wall temperatures after `dt_s`."""
    into_air = [0.0] * len(HOUSE)
    for left, right, conductance in _DOORS_W_K:
        flow_w = conductance * (home.air_c[left] - home.air_c[right])
        into_air[left] -= flow_w
        into_air[right] += flow_w
    air_c, mass_c = [], []
    for index, room in enumerate(HOUSE):
        air, mass = home.air_c[index], home.mass_c[index]
        loss_w_k = room.loss_w_k + _AIR_HEAT * fresh_m3_h[index] * (1.0 - _HEAT_RECOVERY)
        if around.windows_open[index]:
            loss_w_k += _AIR_HEAT * _WINDOW_M3_H
        shade = 1.0 - 0.85 * home.controls.blinds_percent[index] / 100.0
        sun_w = 0.5 * 0.6 * room.glass_m2 * around.irradiance_w_m2 * shade
        gains_w = home.radiator_w[index] + _PERSON_W * around.people[index] + _light_w(home.controls, index)
        gains_w += 0.7 * around.household_w * room.floor_m2 / 96.0
        to_mass_w = room.coupling_w_k * (air - mass)
        net_w = into_air[index] + gains_w + 0.4 * sun_w - to_mass_w - loss_w_k * (air - around.outdoor_c)
        air_c.append(air + net_w * dt_s / room.air_j_k)
        mass_c.append(mass + (to_mass_w + 0.6 * sun_w) * dt_s / room.mass_j_k)
    return tuple(air_c), tuple(mass_c)


def _co2(home: Home, around: Scene, fresh_m3_h: Sequence[float], dt_s: float) -> tuple[float, ...]:
    """Return the CO2 of each room after `dt_s`: what people breathe out, what fresh air takes away."""
    result = []
    for index, room in enumerate(HOUSE):
        air_m3_h = room.volume_m3 * _LEAKAGE_PER_H + fresh_m3_h[index]
        air_m3_h += _WINDOW_M3_H if around.windows_open[index] else 0.0
        ppm = home.co2_ppm[index]
        source = around.people[index] * _CO2_M3_PER_PERSON_S * 1e6
        result.append(ppm + (source - air_m3_h / 3600 * (ppm - OUTDOOR_CO2_PPM)) * dt_s / room.volume_m3)
    return tuple(result)


def _light_w(controls: Controls, index: int) -> float:
    return HOUSE[index].light_w * controls.brightness_percent[index] / 100.0 if controls.lights_on[index] else 0.0


def _scored(home: Home, around: Scene, run_w: float, dt_s: float) -> Score:
    hours = dt_s / 3600.0
    off = discomfort_degrees(home.air_c, around.people)
    energy_kwh = run_w * hours / 1000.0
    return Score(
        home.score.comfort_violation_degree_hours + off * hours,
        home.score.energy_kwh + energy_kwh,
        home.score.cost + energy_kwh * around.price,
    )


def discomfort_degrees(air_c: Sequence[float], people: Sequence[int]) -> float:
    """Return by how many degrees, summed over the occupied rooms, the air is too cold or too warm."""
    return sum(
        max(0.0, COMFORT_LOW_C - air, air - COMFORT_HIGH_C) for air, here in zip(air_c, people, strict=True) if here
    )


def change(controls: Controls, point: str, value: float | bool, room: str = "") -> Controls:
    """Return the controls with one point changed; `room` names the place in a tuple.

    Raises:
        KeyError: there is no such point or room.
    """
    if point not in Controls.__dataclass_fields__:
        raise KeyError(point)
    now = getattr(controls, point)
    if isinstance(now, tuple):
        if room not in ROOMS:
            raise KeyError(room)
        index = ROOMS.index(room)
        changes: dict[str, Any] = {point: (*now[:index], type(now[index])(value), *now[index + 1 :])}
    else:
        changes = {point: type(now)(value)}
    return replace(controls, **changes)
