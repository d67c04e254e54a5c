"""A fixed schedule with set-back, as programmable thermostats keep it: everything goes by the clock alone.

Each room has a warm and a cool set-point and the hours of the warm one, on working days and at weekends; the water's
temperature, the ventilation and the blinds have hours too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.world.home import Controls, Home
from services.world.outside import ROOMS, Scene, hour_of_day, is_weekend
from tests.bench.home_run import Change

Four = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Set-points in °C in the order of `ROOMS`, times in hours; a span that begins after its end runs past midnight."""

    warm_c: Four = (21.5, 21.0, 21.5, 21.5)
    cool_c: Four = (20.0, 20.0, 20.0, 20.0)
    workday_from_h: Four = (5.0, 18.0, 4.5, 5.0)
    weekend_from_h: Four = (6.0, 18.0, 5.0, 6.0)
    until_h: Four = (22.5, 7.5, 21.0, 18.0)
    flow_day_c: float = 42.0
    flow_night_c: float = 40.0
    flow_from_h: float = 6.0
    flow_until_h: float = 21.0
    level_day: int = 1
    level_night: int = 2
    night_from_h: float = 22.0
    night_until_h: float = 7.0
    shade_percent: int = 0
    shade_from_h: float = 8.0
    shade_until_h: float = 19.0

    def controls(self, site_s: float) -> Controls:
        """Return what the schedule wants at a site time."""
        hour = hour_of_day(site_s)
        begins = self.weekend_from_h if is_weekend(site_s) else self.workday_from_h
        is_night = _within(hour, self.night_from_h, self.night_until_h)
        is_flow_day = _within(hour, self.flow_from_h, self.flow_until_h)
        is_shaded = _within(hour, self.shade_from_h, self.shade_until_h)
        return Controls(
            setpoints_c=tuple(
                warm if _within(hour, begin, end) else cool
                for warm, cool, begin, end in zip(self.warm_c, self.cool_c, begins, self.until_h, strict=True)
            ),
            flow_setpoint_c=self.flow_day_c if is_flow_day else self.flow_night_c,
            ventilation_level=self.level_night if is_night else self.level_day,
            blinds_percent=(self.shade_percent if is_shaded else 0,) * 4,
        )


class ScheduleController:
    """Runs a house by a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        """Go by this schedule."""
        self._schedule = schedule

    def begin(self, history: Iterable[tuple[Home, Scene]]) -> None:
        """Learn nothing: a clock needs no history."""

    def tick(self, home: Home, around: Scene) -> list[Change]:
        """Return what differs from the schedule now."""
        return differences(home.controls, self._schedule.controls(home.site_s))


def differences(now: Controls, wanted: Controls) -> list[Change]:
    """Return the changes that make one set of controls another."""
    changes: list[Change] = []
    for point in WATCHED:
        before, after = getattr(now, point), getattr(wanted, point)
        if isinstance(after, tuple):
            changes += [(point, new, room) for room, old, new in zip(ROOMS, before, after, strict=True) if old != new]
        elif before != after:
            changes.append((point, after, ""))
    return changes


WATCHED: Final = ("setpoints_c", "flow_setpoint_c", "ventilation_level", "blinds_percent")


def _within(hour: float, begin_h: float, end_h: float) -> bool:
    return begin_h <= hour < end_h if begin_h <= end_h else hour >= begin_h or hour < end_h
