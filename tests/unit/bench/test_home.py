"""`make bench-home` in small: the agents keep to the owner's rules, and the same inputs give the same decisions."""

import itertools
import json
from collections import defaultdict
from dataclasses import replace

import pytest

from edgeagents.adapters.files import load_agents, load_site
from services.world.home import STEP_S, Controls, Home, step
from services.world.outside import DAY_S, scene
from tests.bench import home
from tests.bench.home_agents import HOME, Agents, SetOut, inventory
from tests.bench.home_batch import Scenes, run_clocks
from tests.bench.home_chart import line
from tests.bench.home_report import compare, goals, half_width
from tests.bench.home_rules import MINIMUM_S, RuleController
from tests.bench.home_run import SEASONS, Minute, Result, lead_in, minute, run, scenes
from tests.bench.home_schedule import Schedule, ScheduleController
from tests.bench.home_search import BEGIN, STEPS, merged, neighbours, search

SEED = 11


@pytest.fixture(scope="module")
def history() -> list[tuple[Home, object]]:
    return lead_in(SEED, "winter", 1, ScheduleController(Schedule()))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def day(history: list) -> Agents:
    """One winter day under the shipped agents."""
    agents = Agents(SEED, SEASONS["winter"])
    run(SEED, "winter", 1, history, agents)
    return agents


def by_key(log: list[SetOut]) -> dict[tuple[str, str], list[SetOut]]:
    found = defaultdict(list)
    for item in log:
        found[item.key].append(item)
    return found


def test_agents_command_something_and_no_rule_fails(day: Agents) -> None:
    assert {item.agent for item in day.log} == {"air", "comfort", "energy"}
    assert not any(count for thinker in day.thinkers for count in thinker.rules.failures.values())


def test_nothing_is_moved_more_often_than_site_yaml_allows(day: Agents) -> None:
    site, devices = load_site(HOME / "site.yaml"), {device.name: device for device in inventory().devices}
    for (device, resource), sets in by_key(day.log).items():
        rule = site.rule_for(devices[device], resource)
        assert rule is not None
        for before, after in itertools.pairwise(sets):
            assert after.site_s - before.site_s >= rule.minimum_interval


def test_no_agent_leaves_its_permissions_and_no_interlock_is_broken(day: Agents) -> None:
    agents, devices = load_agents(HOME / "agents"), {device.name: device for device in inventory().devices}
    for item in day.log:
        entries = [
            entry for entry in agents[item.agent].may
            if entry.resource == item.key[1] and entry.fits(devices[item.key[0]])
        ]  # fmt: skip
        assert any(
            (entry.minimum is None or item.value >= entry.minimum)  # type: ignore[operator]
            and (entry.maximum is None or item.value <= entry.maximum)  # type: ignore[operator]
            for entry in entries
        )
        if item.key[1] == "Setpoint" and item.value > 18.0:  # type: ignore[operator]
            room = ("living", "bedroom", "kitchen", "office").index(item.key[0].removeprefix("radiator-"))
            assert not scene(SEED, item.site_s).windows_open[room]


def test_the_same_inputs_give_the_same_decisions(day: Agents, history: list) -> None:
    again = Agents(SEED, SEASONS["winter"])
    again.begin(history[:-1])
    house, around = history[-1][0], scenes(SEED, SEASONS["winter"], 1)
    for start in range(0, 6 * 60 * 6, 6):
        house = minute(house, around[start : start + 6], again.tick(house, around[start]))

    until_s = SEASONS["winter"] + 6 * 3600.0
    assert again.log == [item for item in day.log if item.site_s < until_s]
    assert again.log


def test_rules_without_agents_keep_the_minimum_intervals(history: list) -> None:
    minutes: list[Minute] = []
    run(SEED, "winter", 1, history, RuleController(SEED), minutes.append)

    times = defaultdict(list)
    for item in minutes:
        for point, _, room in item.changes:
            times[point, room].append(item.home.site_s)
    assert times
    for (point, _), found in times.items():
        assert all(after - before >= MINIMUM_S[point] for before, after in itertools.pairwise(found))


def test_many_houses_at_once_are_the_same_as_each_alone() -> None:
    first_s, count = SEASONS["winter"], 900
    seeds = (3, 4)
    schedules = [Schedule(), Schedule(flow_day_c=35.0, flow_night_c=45.0, level_night=3, shade_percent=100)]
    around = [[scene(seed, first_s + index * STEP_S) for index in range(count)] for seed in seeds]

    many = run_clocks(Scenes(around), [item.controls for item in schedules], Home(site_s=first_s), 0.0)

    for schedule, totals in zip(schedules, many, strict=True):
        for place, surroundings in enumerate(around):
            house = alone(Home(site_s=first_s), schedule, surroundings)
            assert totals.cost_eur[place] == pytest.approx(house.score.cost, rel=1e-9)
            assert totals.energy_kwh[place] == pytest.approx(house.score.energy_kwh, rel=1e-9)
            discomfort = house.score.comfort_violation_degree_hours
            assert totals.discomfort_k_h[place] == pytest.approx(discomfort, rel=1e-9)


def alone(house: Home, schedule: Schedule, surroundings: list) -> Home:
    """Return the real house after these surroundings under a schedule."""
    for index, around in enumerate(surroundings):
        if index % 6 == 0:
            house = replace(house, controls=schedule.controls(house.site_s))
        house = step(house, around, STEP_S)
    return house


@pytest.mark.parametrize("season", sorted(SEASONS))
def test_the_search_never_ends_worse_than_it_began(season: str) -> None:
    begun = search(season, (7,), 1, 0)
    found = search(season, (7,), 1, 1)

    assert found.objective <= begun.objective
    assert begun.schedule == BEGIN[season]


def test_every_number_of_a_schedule_is_searched() -> None:
    moves = list(neighbours(Schedule()))

    assert {name for move in moves for name in STEPS if getattr(move, name) != getattr(Schedule(), name)} == set(STEPS)


def test_merged_moves_hold_all_changes_and_the_first_wins() -> None:
    base = Schedule()
    moves = [
        Schedule(flow_day_c=30.0, warm_c=(19.0, *base.warm_c[1:])),
        Schedule(flow_day_c=50.0, warm_c=(*base.warm_c[:3], 23.0)),
    ]

    both = merged(base, moves)

    assert both.flow_day_c == 30.0
    assert both.warm_c == (19.0, *base.warm_c[1:3], 23.0)


def test_a_schedule_goes_by_the_clock() -> None:
    schedule = Schedule(
        warm_c=(21.0,) * 4, cool_c=(17.0,) * 4, workday_from_h=(22.0, 6.0, 6.0, 6.0), until_h=(5.0, 9, 9, 9)
    )
    midnight_s = SEASONS["winter"] + DAY_S

    assert schedule.controls(midnight_s).setpoints_c == (21.0, 17.0, 17.0, 17.0)
    assert schedule.controls(midnight_s + 8 * 3600).setpoints_c == (17.0, 21.0, 21.0, 21.0)
    assert isinstance(schedule.controls(midnight_s), Controls)


def result(cost: float, discomfort: float) -> Result:
    return Result(discomfort, 100.0, cost, 10.0, 50.0, 0.0)


def test_goals_compare_agents_with_the_schedule_in_the_same_houses() -> None:
    cases = [
        {"schedule": result(40.0, 2.0), "rules": result(38.0, 2.0), "agents": result(33.0, 2.5)},
        {"schedule": result(50.0, 4.0), "rules": result(48.0, 4.0), "agents": result(41.0, 3.0)},
    ]

    found = compare(cases)

    assert found["agents"]["cost_eur"].difference == -8.0
    assert found["agents"]["cost_eur"].half_width == pytest.approx(12.706)
    assert goals(found)["cost_saving_percent"] == {"value": 17.78, "goal": 15.0, "met": True}
    assert goals(found)["discomfort_not_more"] == {"value": -0.25, "goal": 0.0, "met": True}


def test_a_long_run_tells_of_each_house() -> None:
    told = home.told(("winter", 3), {"schedule": result(40.0, 2.0), "agents": result(33.0, 2.5)})

    assert told == "winter, seed 3: schedule 40.00 EUR 2.00 K h, agents 33.00 EUR 2.50 K h"


def test_one_seed_has_no_interval() -> None:
    assert half_width([1.0]) is None


def test_a_line_has_a_block_for_each_quarter_of_an_hour() -> None:
    assert line([0.0] * 720 + [10.0] * 720, 0.0, 10.0) == "▁" * 48 + "█" * 48


def test_the_last_line_is_json_with_the_goals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = {name: result(40.0, 2.0) for name in ("schedule", "rules", "agents")}
    cases = {(season, seed): outcome for season in SEASONS for seed in (1, 2)}
    tuned = {season: search(season, (7,), 1, 0) for season in SEASONS}
    monkeypatch.setattr(home, "measure", lambda options, progress: (tuned, cases))

    assert home.main(["--seeds", "2", "--days", "1"]) == 0

    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["bench"] == "home"
    assert report["goals"]["cost_saving_percent"] == {"value": 0.0, "goal": 15.0, "met": False}
    assert set(report["figures"]) == {"winter", "summer", "all"}
