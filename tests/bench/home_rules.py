"""The best controller we could write without agents: plain Python, the same sensors, forecasts and limits.

It heats by the weather of the hours around now, corrects by the coldest room that is in use, spares dear hours, airs by
CO2 and shades by sun and warmth. What it lacks beside the agents: it learns no habits, so it goes by the clock where
rooms have to be warm in time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from services.world.driver import HOUSE_POINTS, ROOM_POINTS
from services.world.forecast import POINTS as FORECASTS
from services.world.home import Controls, Home
from services.world.outside import ROOMS, Scene, hour_of_day
from tests.bench.home_run import Change
from tests.bench.home_schedule import differences

MINIMUM_S: Final[Mapping[str, float]] = {  # as in site.yaml
    "setpoints_c": 300.0, "ventilation_level": 300.0, "flow_setpoint_c": 900.0, "blinds_percent": 600.0,
}  # fmt: skip
# From when to when a room has to be warm whoever is seen there: hours of the day.
EXPECTED: Final[Mapping[str, tuple[tuple[float, float], ...]]] = {
    "living": ((16.0, 22.5),), "bedroom": ((21.5, 24.0), (0.0, 7.0)), "kitchen": ((5.5, 9.0), (17.5, 20.0)),
    "office": ((7.5, 9.0),),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gains:
    """The numbers of this controller, tuned on the tuning seeds."""

    base_c: float = 24.5  # water at 15 °C outside
    slope: float = 0.75  # K of water for each K it is colder
    correction: float = 8.0  # K of water for each K the coldest room in use lacks
    price: float = 12.0  # K of water less where electricity costs twice the mean of the hours to come
    target_c: float = 20.35
    warm_c: float = 22.0
    spare_c: float = 21.5
    mild_c: float = 13.0  # outdoors over the last hours: from here on valves stay low and shade comes sooner
    mild_warm_c: float = 20.0
    too_warm_c: float = 24.0


class RuleController:
    """Runs a house by these rules, once a minute."""

    def __init__(self, seed: int, gains: Gains = Gains()) -> None:
        """Start with nothing measured; `seed` is the house's, for forecasts."""
        self._seed = seed
        self._gains = gains
        self._outdoor_c: float | None = None
        self._air_c: list[float] = []
        self._set_s: dict[tuple[str, str], float] = {}
        self._empty_since_s = 0.0

    def begin(self, history: Iterable[tuple[Home, Scene]]) -> None:
        """Take in the hours before, as its filters would have."""
        for home, around in list(history)[-12 * 60 :]:
            self._measure(home, around)

    def tick(self, home: Home, around: Scene) -> list[Change]:
        """Return what to set; nothing sooner after the last time than site.yaml allows."""
        self._measure(home, around)
        in_use = [
            bool(ROOM_POINTS["presence"](home, around, room)) or self._is_expected(room, home.site_s)
            for room in range(len(ROOMS))
        ]
        wanted = Controls(
            setpoints_c=tuple(self._setpoint_c(used) for used in in_use),
            flow_setpoint_c=self._flow_c(home, around, in_use),
            ventilation_level=self._level(home, around),
            blinds_percent=tuple(self._blind(home, around, room) for room in range(len(ROOMS))),
        )
        allowed = [item for item in differences(home.controls, wanted) if self._may(item, home.site_s)]
        for point, _, room in allowed:
            self._set_s[point, room] = home.site_s
        return allowed

    def _measure(self, home: Home, around: Scene) -> None:
        outdoor = float(HOUSE_POINTS["outdoor"](home, around))  # type: ignore[arg-type]
        self._outdoor_c = outdoor if self._outdoor_c is None else self._outdoor_c + (outdoor - self._outdoor_c) / 480.0
        now = [float(ROOM_POINTS["temperature"](home, around, room)) for room in range(len(ROOMS))]  # type: ignore[arg-type]
        if not self._air_c:
            self._air_c = now
        for room, air in enumerate(now):
            if not around.windows_open[room]:  # airing is over in minutes: the walls are still warm
                self._air_c[room] += (air - self._air_c[room]) / 20.0
        if any(around.people):
            self._empty_since_s = home.site_s

    @staticmethod
    def _is_expected(room: int, site_s: float) -> bool:
        return any(begin <= hour_of_day(site_s) < end for begin, end in EXPECTED[ROOMS[room]])

    def _flow_c(self, home: Home, around: Scene, in_use: list[bool]) -> float:
        gains, seed = self._gains, self._seed
        ahead = sum(FORECASTS[f"outdoor-in-{hours}h"](seed, home.site_s) for hours in (3, 6, 12)) / 3.0
        assert self._outdoor_c is not None
        outdoor = 0.4 * self._outdoor_c + 0.6 * ahead
        lacks = max((gains.target_c - air for air, used in zip(self._air_c, in_use, strict=True) if used), default=-1.0)
        dear = around.price / FORECASTS["price-mean-12h"](seed, home.site_s) - 1.0
        wanted = gains.base_c + gains.slope * (15.0 - outdoor)
        wanted += gains.correction * min(1.5, max(-1.2, lacks)) - gains.price * min(0.6, max(-0.4, dear))
        wanted = min(46.0, max(28.0, round(2.0 * wanted) / 2.0))
        now = home.controls.flow_setpoint_c
        return wanted if abs(wanted - now) >= 1.5 else now

    def _level(self, home: Home, around: Scene) -> int:
        worst = max((ppm for ppm, people in zip(home.co2_ppm, around.people, strict=True) if people), default=0.0)
        now = home.controls.ventilation_level
        if worst > 1850.0:
            return 3
        if worst > 1040.0:
            return max(2, now)
        if worst < 715.0:
            return 0 if home.site_s - self._empty_since_s > 1200.0 else 1
        return now

    @property
    def _is_mild(self) -> bool:
        assert self._outdoor_c is not None
        return self._outdoor_c > self._gains.mild_c

    def _setpoint_c(self, used: bool) -> float:
        gains = self._gains
        return gains.mild_warm_c if self._is_mild else gains.warm_c if used else gains.spare_c

    def _blind(self, home: Home, around: Scene, room: int) -> int:
        now = home.controls.blinds_percent[room]
        too_warm = self._gains.too_warm_c - (3.0 if self._is_mild else 0.0)
        if around.irradiance_w_m2 > 25.0 and home.air_c[room] > too_warm:
            return 100
        return 0 if around.irradiance_w_m2 < 8.0 or home.air_c[room] < too_warm - 1.0 else now

    def _may(self, change: Change, site_s: float) -> bool:
        point, _, room = change
        return site_s - self._set_s.get((point, room), -1e9) >= MINIMUM_S[point]
