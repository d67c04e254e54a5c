"""The best schedule for a season: grid search, coordinate by coordinate, on seeds of its own.

Best is the least sum of cost, discomfort at `WORTH_EUR_A_K_H`, and stale air above a limit, on the mean of the tuning
seeds. Each round tries one step up and down of each number, and all improvements of a round together; it ends when no
step helps. It begins where an evolutionary search over all numbers at once, on the same seeds, ended.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from services.world.home import Home
from services.world.outside import DAY_S, scene
from tests.bench.home_batch import Scenes, Totals, run_clocks
from tests.bench.home_run import SEASONS
from tests.bench.home_schedule import Schedule

WORTH_EUR_A_K_H: Final = 0.5  # what a household would pay for a degree hour of comfort
STALE_PPM_H_A_DAY: Final = 850.0  # above 1000 ppm, summed over occupied rooms: some 40 ppm too much on average
LEAD_DAYS: Final = 2
SEARCH_STEP_S: Final = 30.0  # three sub-steps of the house: the same figures within a few thousandths
_TOO_STALE_EUR: Final = 0.01

BEGIN: Final = {
    "winter": Schedule(
        warm_c=(21.0, 21.5, 21.0, 21.5), cool_c=(21.5, 21.0, 21.0, 20.5), workday_from_h=(4.0, 15.0, 2.0, 3.0),
        weekend_from_h=(7.0, 16.0, 7.0, 0.0), until_h=(0.0, 8.0, 23.0, 19.0), flow_day_c=36.0, flow_night_c=39.0,
        flow_from_h=9.0, flow_until_h=22.0, level_day=1, level_night=2, night_from_h=22.5, night_until_h=6.5,
    ),
    "summer": Schedule(
        warm_c=(19.5, 20.5, 20.5, 20.5), cool_c=(17.5, 20.0, 21.0, 20.0), workday_from_h=(5.0, 19.0, 4.0, 3.0),
        weekend_from_h=(8.0, 15.0, 1.0, 22.5), until_h=(22.5, 7.0, 22.0, 17.5), flow_day_c=28.0, flow_night_c=28.0,
        shade_percent=100, shade_from_h=4.5, shade_until_h=21.0,
    ),
}  # fmt: skip
STEPS: Final[dict[str, float]] = {
    "warm_c": 0.5, "cool_c": 0.5, "workday_from_h": 1.0, "weekend_from_h": 1.0, "until_h": 1.0,
    "flow_day_c": 1.0, "flow_night_c": 1.0, "flow_from_h": 1.0, "flow_until_h": 1.0,
    "level_day": 1, "level_night": 1, "night_from_h": 1.0, "night_until_h": 1.0,
    "shade_percent": 50, "shade_from_h": 1.0, "shade_until_h": 1.0,
}  # fmt: skip
LIMITS: Final = {"warm": (12.0, 24.0), "cool": (12.0, 24.0), "flow": (28.0, 50.0), "level": (0, 3), "shade": (0, 100)}


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule and how it fared, mean over the tuning seeds."""

    schedule: Schedule
    objective: float
    discomfort_k_h: float
    cost_eur: float
    stale_air_ppm_h: float


def search(
    season: str, seeds: tuple[int, ...], days: int, rounds: int, told: Callable[[int], None] = lambda done: None
) -> Found:
    """Return the best schedule of at most so many rounds; `told` is called with each round that is over."""
    first_s = SEASONS[season] - LEAD_DAYS * DAY_S
    count = round((LEAD_DAYS + days) * DAY_S / SEARCH_STEP_S)
    scenes = Scenes([[scene(seed, first_s + index * SEARCH_STEP_S) for index in range(count)] for seed in seeds])

    def judge(schedules: list[Schedule]) -> list[Found]:
        clocks = [schedule.controls for schedule in schedules]
        totals = run_clocks(scenes, clocks, Home(site_s=first_s), LEAD_DAYS * DAY_S)
        return [_found(schedule, item, days) for schedule, item in zip(schedules, totals, strict=True)]

    best = judge([BEGIN[season]])[0]
    for number in range(rounds):
        moves = [move for move in neighbours(best.schedule) if move != best.schedule]
        found = judge(moves)
        better = [item for item in found if item.objective < best.objective - 1e-6]
        told(number + 1)
        if not better:
            break
        better.sort(key=lambda item: item.objective)
        together = [merged(best.schedule, [item.schedule for item in better[:size]]) for size in (2, 3, 5, 8)]
        best = min([better[0], *judge(together)], key=lambda item: item.objective)
    return best


def _found(schedule: Schedule, totals: Totals, days: int) -> Found:
    discomfort, stale = float(totals.discomfort_k_h.mean()), float(totals.stale_air_ppm_h.mean())
    cost = float(totals.cost_eur.mean())
    objective = cost + WORTH_EUR_A_K_H * discomfort
    objective += _TOO_STALE_EUR * max(0.0, stale - STALE_PPM_H_A_DAY * days)
    return Found(schedule, objective, discomfort, cost, stale)


def neighbours(schedule: Schedule) -> Iterator[Schedule]:
    """Yield every schedule that differs by one step of one number."""
    for name, step in STEPS.items():
        value = getattr(schedule, name)
        for sign in (-step, step):
            if isinstance(value, tuple):
                for index in range(len(value)):
                    changed = (*value[:index], _limited(name, value[index] + sign), *value[index + 1 :])
                    yield replace(schedule, **{name: changed})
            else:
                yield replace(schedule, **{name: _limited(name, value + sign)})


def merged(base: Schedule, moves: list[Schedule]) -> Schedule:
    """Return a schedule with the changes of several, the earlier ones first in line for the same number."""
    changes: dict[str, Any] = {}
    for move in reversed(moves):
        for name in STEPS:
            before, after = getattr(base, name), getattr(move, name)
            if before == after:
                continue
            if isinstance(after, tuple):
                now = changes.get(name, before)
                pairs = zip(now, before, after, strict=True)
                changes[name] = tuple(new if new != old else kept for kept, old, new in pairs)
            else:
                changes[name] = after
    return replace(base, **changes)


def _limited(name: str, value: float) -> float:
    if name.endswith("_h"):
        return value % 24.0
    low, high = LIMITS[name.split("_")[0]]
    return min(high, max(low, value))
