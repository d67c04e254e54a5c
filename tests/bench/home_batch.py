"""Many houses at once: the physics of `services.world.home` on numpy arrays, to search for a schedule in seconds.

Rooms are rows, houses columns; each house has its seed and its schedule. Only clocks can run them. A unit test holds
this copy against the real house, so that it cannot drift; every figure that is reported comes from the real one.
Left out is what a schedule does not switch: lights, the heat pump itself, and the meter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.world.home import (
    _AIR_HEAT,
    _CO2_M3_PER_PERSON_S,
    _DOORS_W_K,
    _HEAT_RECOVERY,
    _LEAKAGE_PER_H,
    _LOOP_J_K,
    _PERSON_W,
    _PUMP_W,
    _RADIATOR_LAG_S,
    _VALVE_LAG_S,
    _WINDOW_M3_H,
    COMFORT_HIGH_C,
    COMFORT_LOW_C,
    HOUSE,
    OUTDOOR_CO2_PPM,
    VENTILATION_M3_H,
    VENTILATION_W,
    Controls,
    Home,
)
from services.world.outside import Scene
from tests.bench.home_run import MINUTE_S, STALE_AIR_PPM

Array = Any  # numpy's own type says nothing about shapes either

_FLOOR, _LOSS, _RADIATOR, _GLASS, _VOLUME, _AIR, _MASS, _COUPLING = (
    np.array([[getattr(room, name)] for room in HOUSE])
    for name in ("floor_m2", "loss_w_k", "radiator_w_k", "glass_m2", "volume_m3", "air_j_k", "mass_j_k", "coupling_w_k")
)
_FRESH: Final = np.array(VENTILATION_M3_H)
_FAN: Final = np.array(VENTILATION_W)


@dataclass(slots=True)
class Surroundings:
    """The scenes of several seeds at one moment, spread over the houses."""

    outdoor_c: Array
    irradiance: Array
    price: Array
    household_w: Array
    people: Array
    windows: Array


class Scenes:
    """The scenes of several seeds as arrays, step by step."""

    def __init__(self, by_seed: Sequence[Sequence[Scene]]) -> None:
        """Take the scenes of each seed, all equally long and equally far apart."""

        def stack(of: Callable[[Scene], Any]) -> Array:
            return np.stack([np.array([of(item) for item in items]) for items in by_seed], axis=-1)

        self.length = len(by_seed[0])
        self.first_s = by_seed[0][0].site_s
        self.dt_s = by_seed[0][1].site_s - self.first_s
        self._outdoor = stack(lambda item: item.outdoor_c)
        self._irradiance = stack(lambda item: item.irradiance_w_m2)
        self._price = stack(lambda item: item.price)
        self._household = stack(lambda item: item.household_w)
        self._people = stack(lambda item: item.people)
        self._windows = stack(lambda item: item.windows_open)

    def at(self, index: int, seeds: Array) -> Surroundings:
        """Return the surroundings of one sub-step; `seeds` says which seed each house has."""
        return Surroundings(
            self._outdoor[index][seeds], self._irradiance[index][seeds], self._price[index][seeds],
            self._household[index][seeds], self._people[index][:, seeds], self._windows[index][:, seeds],
        )  # fmt: skip


@dataclass(slots=True)
class Totals:
    """What was scored so far, one number a house."""

    discomfort_k_h: Array
    energy_kwh: Array
    cost_eur: Array
    stale_air_ppm_h: Array


class Houses:
    """The state of many houses; `step` is `services.world.home.step`."""

    def __init__(self, count: int, home: Home) -> None:
        """Begin with so many copies of one house."""

        def rows(values: Sequence[float]) -> Array:
            return np.repeat(np.array(values, float)[:, None], count, axis=1)

        self.air_c, self.mass_c, self.co2 = rows(home.air_c), rows(home.mass_c), rows(home.co2_ppm)
        self.radiator_w, self.opening = rows(home.radiator_w), rows(home.opening_percent)
        self.flow_c = np.full(count, home.flow_c)
        self.totals = Totals(*(np.zeros(count) for _ in range(4)))
        self.control([home.controls] * count)

    def control(self, controls: Sequence[Controls]) -> None:
        """Set each house's controls."""
        self.setpoints = np.array([item.setpoints_c for item in controls], float).T
        self.blinds = np.array([item.blinds_percent for item in controls], float).T
        self.flow_setpoint = np.array([item.flow_setpoint_c for item in controls], float)
        self.level = np.array([item.ventilation_level for item in controls])

    def step(self, around: Surroundings, dt_s: float, is_scored: bool) -> None:
        """Bring all houses `dt_s` on."""
        target = np.clip((self.setpoints + 0.5 - self.air_c) / 1.5 * 100.0, 0.0, 100.0)
        self.opening = self.opening + (target - self.opening) * dt_s / _VALVE_LAG_S
        drawn = _RADIATOR * self.opening / 100.0 * np.maximum(0.0, self.flow_c - self.air_c)
        drawn_w = drawn.sum(axis=0)
        heat_w, electric_w = self._heat_pump(drawn_w, around.outdoor_c)
        standing_w = 4.0 * (self.flow_c - self.air_c[0])
        shares = _FLOOR * np.where(around.people > 0, 3.0, 1.0)
        fresh = _FRESH[self.level] * shares / shares.sum(axis=0) + np.zeros_like(self.air_c)
        run_w = electric_w + _FAN[self.level]
        if is_scored:
            self._score(around, run_w, dt_s / 3600.0)
        co2 = self._co2(around, fresh, dt_s)
        self.air_c, self.mass_c = self._rooms(around, fresh, dt_s)
        self.radiator_w = self.radiator_w + (drawn - self.radiator_w) * dt_s / _RADIATOR_LAG_S
        self.co2 = co2
        self.flow_c = self.flow_c + (heat_w - drawn_w - standing_w) * dt_s / _LOOP_J_K

    def _heat_pump(self, drawn_w: Array, outdoor_c: Array) -> tuple[Array, Array]:
        wanted = drawn_w + (self.flow_setpoint - self.flow_c) * _LOOP_J_K / 240.0
        capacity = 6000.0 * np.clip(1.0 + 0.022 * (outdoor_c - 7.0), 0.55, 1.25)
        heat = np.clip(wanted, 0.0, capacity)
        runs = heat >= 0.02 * capacity
        warm, cold = self.flow_c + 4.0 + 273.15, outdoor_c - 6.0 + 273.15
        cop = np.clip(0.45 * warm / np.maximum(15.0, warm - cold), 1.5, 6.5)
        return np.where(runs, heat, 0.0), np.where(runs, heat / cop + _PUMP_W, 0.0)

    def _rooms(self, around: Surroundings, fresh: Array, dt_s: float) -> tuple[Array, Array]:
        into = np.zeros_like(self.air_c)
        for left, right, conductance in _DOORS_W_K:
            flow = conductance * (self.air_c[left] - self.air_c[right])
            into[left] -= flow
            into[right] += flow
        loss = (
            _LOSS + _AIR_HEAT * fresh * (1.0 - _HEAT_RECOVERY) + np.where(around.windows, _AIR_HEAT * _WINDOW_M3_H, 0.0)
        )
        sun = 0.5 * 0.6 * _GLASS * around.irradiance * (1.0 - 0.85 * self.blinds / 100.0)
        gains = self.radiator_w + _PERSON_W * around.people + 0.7 * around.household_w * _FLOOR / 96.0
        to_mass = _COUPLING * (self.air_c - self.mass_c)
        net = into + gains + 0.4 * sun - to_mass - loss * (self.air_c - around.outdoor_c)
        return self.air_c + net * dt_s / _AIR, self.mass_c + (to_mass + 0.6 * sun) * dt_s / _MASS

    def _co2(self, around: Surroundings, fresh: Array, dt_s: float) -> Array:
        air = _VOLUME * _LEAKAGE_PER_H + fresh + np.where(around.windows, _WINDOW_M3_H, 0.0)
        source = around.people * _CO2_M3_PER_PERSON_S * 1e6
        return self.co2 + (source - air / 3600.0 * (self.co2 - OUTDOOR_CO2_PPM)) * dt_s / _VOLUME

    def _score(self, around: Surroundings, run_w: Array, hours: float) -> None:
        here = around.people > 0
        off = np.maximum(0.0, np.maximum(COMFORT_LOW_C - self.air_c, self.air_c - COMFORT_HIGH_C))
        stale = np.maximum(0.0, self.co2 - STALE_AIR_PPM)
        totals = self.totals
        totals.discomfort_k_h += np.where(here, off, 0.0).sum(axis=0) * hours
        totals.stale_air_ppm_h += np.where(here, stale, 0.0).sum(axis=0) * hours
        totals.energy_kwh += run_w * hours / 1000.0
        totals.cost_eur += run_w * hours / 1000.0 * around.price


def run_clocks(
    scenes: Scenes, clocks: Sequence[Callable[[float], Controls]], home: Home, lead_s: float
) -> list[Totals]:
    """Return how each clock fares with each seed: one `Totals` a clock, an entry a seed; the lead-in is not scored."""
    seeds = scenes.at(0, slice(None)).price.size
    houses, which = Houses(seeds * len(clocks), home), np.tile(np.arange(seeds), len(clocks))
    last: list[Controls] = []
    for index in range(scenes.length):
        past_s = index * scenes.dt_s
        if past_s % MINUTE_S == 0.0:
            wanted = [clock(scenes.first_s + past_s) for clock in clocks]
            if wanted != last:
                houses.control([item for item in wanted for _ in range(seeds)])
                last = wanted
        houses.step(scenes.at(index, which), scenes.dt_s, past_s >= lead_s)
    found = houses.totals
    arrays = (found.discomfort_k_h, found.energy_kwh, found.cost_eur, found.stale_air_ppm_h)
    split = [array.reshape(len(clocks), seeds) for array in arrays]
    return [Totals(*(array[index] for array in split)) for index in range(len(clocks))]
