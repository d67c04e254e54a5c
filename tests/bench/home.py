"""How well the shipped agents run the house: against the best fixed schedule and the best rules without agents.

    make bench-home ARGS="--seeds 10 --days 7"

Winter and summer days in lock-step, the same seeds for all three, each from the same house after the same week. The
schedule is searched on other seeds (`home_search.py`); the numbers in agent files and rules were tuned on those too.
The agents decide by the real code under the real gate and leases (`home_agents.py`). The last line is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.home_agents import Agents
from tests.bench.home_chart import chart
from tests.bench.home_negotiated import Negotiating
from tests.bench.home_report import Paired, compare, goals, tables
from tests.bench.home_rules import RuleController
from tests.bench.home_run import LEAD_DAYS, SEASONS, Controller, Result, lead_in, run
from tests.bench.home_schedule import Schedule, ScheduleController
from tests.bench.home_search import Found, search

TUNING_SEEDS: Final = tuple(range(101, 113))
FIRST_SEED: Final = 1
CONTROLLERS: Final[Mapping[str, Callable[[int, str, Schedule], Controller]]] = {
    "schedule": lambda seed, season, schedule: ScheduleController(schedule),
    "rules": lambda seed, season, schedule: RuleController(seed),
    "agents": lambda seed, season, schedule: Agents(seed, SEASONS[season]),
    "negotiated": lambda seed, season, schedule: Negotiating(seed, SEASONS[season]),
}

Case = tuple[str, int]  # season, seed


def run_case(season: str, seed: int, days: int, lead_days: int, schedule: Schedule) -> dict[str, Result]:
    """Return how each controller fared in one house."""
    history = lead_in(seed, season, lead_days, ScheduleController(schedule))
    return {name: run(seed, season, days, history, make(seed, season, schedule)) for name, make in CONTROLLERS.items()}


def measure(options: argparse.Namespace, progress: Progress) -> tuple[dict[str, Found], dict[Case, dict[str, Result]]]:
    """Return the tuned schedules and all results, from at most two processes."""
    seeds, tuned_on = range(FIRST_SEED, FIRST_SEED + options.seeds), TUNING_SEEDS[: options.tuning_seeds]
    schedules: dict[str, Found] = {}
    results: dict[Case, dict[str, Result]] = {}
    bar = progress.add_task("house weeks", total=len(SEASONS) * options.seeds)
    tuning = progress.add_task("schedules tuned", total=len(SEASONS))
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs: dict[Future[Any], str | Case] = {
            pool.submit(search, season, tuned_on, options.tuning_days, options.rounds): season for season in SEASONS
        }
        while jobs:
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                what = jobs.pop(job)
                if isinstance(what, str):
                    schedules[what] = job.result()
                    progress.advance(tuning)
                    schedule = schedules[what].schedule
                    for seed in seeds:
                        arguments = (what, seed, options.days, options.lead_days, schedule)
                        jobs[pool.submit(run_case, *arguments)] = (what, seed)
                else:
                    results[what] = job.result()
                    progress.advance(bar)
                    progress.console.print(told(what, results[what]))
    return schedules, dict(sorted(results.items()))


def told(case: Case, results: Mapping[str, Result]) -> str:
    """Return one house in one line: whoever looks at a long run sees how it goes."""
    parts = [f"{name} {item.cost_eur:.2f} EUR {item.discomfort_k_h:.2f} K h" for name, item in results.items()]
    return f"{case[0]}, seed {case[1]}: {', '.join(parts)}"


def compared(results: Mapping[Case, Mapping[str, Result]]) -> dict[str, dict[str, dict[str, Paired]]]:
    """Return, for each season and for all, every controller's figures beside the schedule's, seed by seed."""
    seasons = sorted({season for season, _ in results})
    parts = {season: [result for (own, _), result in results.items() if own == season] for season in seasons}
    found = {season: compare(cases) for season, cases in parts.items()}
    return found | {"all": compare([summed(cases) for cases in zip(*parts.values(), strict=True)])}


def summed(cases: Sequence[Mapping[str, Result]]) -> dict[str, Result]:
    """Return the sums of one seed's results over the seasons."""
    return {
        name: Result(*(sum(values) for values in zip(*(asdict(case[name]).values() for case in cases), strict=True)))
        for name in cases[0]
    }


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a call."""
    parser = argparse.ArgumentParser(prog="make bench-home", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="houses in each season")
    parser.add_argument("--days", type=int, default=7, help="scored days, from a Monday on")
    parser.add_argument("--lead-days", type=int, default=LEAD_DAYS, help="days before, under the schedule, not scored")
    parser.add_argument("--rounds", type=int, default=3, help="of the search for the best schedule")
    parser.add_argument("--tuning-seeds", type=int, default=len(TUNING_SEEDS), help="houses the schedule is tuned on")
    parser.add_argument("--tuning-days", type=int, default=7, help="days the schedule is tuned on")
    parser.add_argument("--processes", type=int, default=2, choices=(1, 2), help="at the same time")
    parser.add_argument("--chart", action="store_true", help="also draw one winter day of each controller")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show tables, print one line of JSON."""
    options, begun = parse(argv), time.monotonic()
    console = Console(stderr=True, width=128)
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        schedules, results = measure(options, progress)
    found = compared(results)
    for table in tables(found):
        console.print(table)
    if options.chart:
        console.print(chart(FIRST_SEED, "winter", CONTROLLERS, schedules["winter"].schedule))
    report = {
        "bench": "home",
        "goals": goals(found["all"]),
        "seeds": options.seeds,
        "days": options.days,
        "tuning_seeds": list(TUNING_SEEDS[: options.tuning_seeds]),
        "schedules": {season: asdict(item) for season, item in schedules.items()},
        "figures": {
            part: {name: {key: asdict(value) for key, value in rows.items()} for name, rows in by_name.items()}
            for part, by_name in found.items()
        },
        "took_s": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
