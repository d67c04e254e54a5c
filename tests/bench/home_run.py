"""One house run in lock-step under one controller: no network, no wall clock; the house is `services.world.home`.

A controller looks at the house once a site minute, as EdgeX's shortest auto event does at sixty-fold time, and says
what to set. Each run begins with the same unscored week under the tuned schedule, so that all controllers find one
house, and agents a history to learn from. What is scored is the home's own score, and beside it the air, the number
of commands and the heat left in the walls.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Final, Protocol

from services.world.home import HOUSE, STEP_S, Home, change, step
from services.world.outside import DAY_S, Scene, scene

MINUTE_S: Final = 60.0
STEPS: Final = int(MINUTE_S / STEP_S)
SEASONS: Final[Mapping[str, float]] = {"winter": 20465 * DAY_S, "summer": 20647 * DAY_S}  # two Mondays of 2026
LEAD_DAYS: Final = 7
STALE_AIR_PPM: Final = 1000.0

Change = tuple[str, float | bool, str]  # field of `Controls`, value, room or empty


class Controller(Protocol):
    """Whatever runs a house."""

    def begin(self, history: Iterable[tuple[Home, Scene]]) -> None:
        """Take in the minutes before the run, oldest first."""

    def tick(self, home: Home, around: Scene) -> list[Change]:
        """Return what to set at this minute, in the order it is set."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to. Discomfort and air count while somebody is in the room."""

    discomfort_k_h: float
    energy_kwh: float
    cost_eur: float
    switches: float
    stale_air_ppm_h: float
    walls_kwh: float


@dataclass(slots=True)
class Minute:
    """One minute of a run, for charts and tests."""

    home: Home
    around: Scene
    changes: list[Change] = field(default_factory=list)


@lru_cache(maxsize=2)
def scenes(seed: int, first_s: float, days: int) -> tuple[Scene, ...]:
    """Return the surroundings of each sub-step of so many days."""
    return tuple(scene(seed, first_s + index * STEP_S) for index in range(round(days * DAY_S / STEP_S)))


def lead_in(seed: int, season: str, days: int, schedule: Controller) -> list[tuple[Home, Scene]]:
    """Return the minutes before a run, under the schedule that all controllers take the house over from."""
    first_s = SEASONS[season] - days * DAY_S
    around = scenes(seed, first_s, days)
    home, past = Home(site_s=first_s), []
    for start in range(0, len(around), STEPS):
        past.append((home, around[start]))
        home = minute(home, around[start : start + STEPS], schedule.tick(home, around[start]))
    past.append((home, scene(seed, home.site_s)))
    return past


def run(
    seed: int,
    season: str,
    days: int,
    history: list[tuple[Home, Scene]],
    controller: Controller,
    watch: Callable[[Minute], None] = lambda seen: None,
) -> Result:
    """Return how a controller fared over so many days from the season's first Monday on.

    Args:
        seed: of weather, people and prices.
        season: a key of `SEASONS`.
        days: how many.
        history: the lead-in; its last house is where the run begins.
        controller: runs the house.
        watch: told each minute.
    """
    begun = home = history[-1][0]
    controller.begin(history[:-1])
    around = scenes(seed, SEASONS[season], days)
    switches, stale = 0, 0.0
    for start in range(0, len(around), STEPS):
        changes = controller.tick(home, around[start])
        watch(Minute(home, around[start], changes))
        switches += len(changes)
        home = minute(home, around[start : start + STEPS], changes)
        stale += _stale_ppm(home, around[start]) * MINUTE_S / 3600.0
    before, after = asdict(begun.score), asdict(home.score)
    return Result(
        after["comfort_violation_degree_hours"] - before["comfort_violation_degree_hours"],
        after["energy_kwh"] - before["energy_kwh"],
        after["cost"] - before["cost"],
        float(switches),
        stale,
        _walls_kwh(home) - _walls_kwh(begun),
    )


def minute(home: Home, around: Iterable[Scene], changes: Iterable[Change]) -> Home:
    """Return the house after these sub-steps, with changes of its controls at their beginning."""
    controls = home.controls
    for point, value, room in changes:
        controls = change(controls, point, value, room)
    home = replace(home, controls=controls)
    for surroundings in around:
        home = step(home, surroundings, STEP_S)
    return home


def _stale_ppm(home: Home, around: Scene) -> float:
    """Return by how much the air of occupied rooms is above the limit, summed over rooms."""
    return sum(max(0.0, ppm - STALE_AIR_PPM) for ppm, people in zip(home.co2_ppm, around.people, strict=True) if people)


def _walls_kwh(home: Home) -> float:
    """Return the heat in walls, floors and air, above 0 °C: what one controller leaves to the days after."""
    return sum(
        (room.mass_j_k * mass + room.air_j_k * air) / 3.6e6
        for room, mass, air in zip(HOUSE, home.mass_c, home.air_c, strict=True)
    )
