"""Exact allocation where tasks wait for each other or agents have a capacity: proven by a constraint solver.

For small batches: the solver looks for at most `limit_s`, and says whether what it found is proven to be the best.
Needs the extra `scheduling`; without it, auction or assign instead.

Source: OR-tools CP-SAT (Perron and Didier).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from edgeagents.errors import ConfigurationError, InvalidInputError

PER_SECOND: Final = 1000  # the solver counts in whole numbers
MOST_JOBS: Final = 200
LONGEST_S: Final = 1e6
MOST_LOAD: Final = 1_000_000_000  # sums of it stay within the solver's whole numbers
Goal: TypeAlias = Literal["makespan", "sum"]


@dataclass(frozen=True, slots=True)
class Job:
    """One task.

    Args:
        durations_s: how long each agent that can do it would take.
        after: tasks that must have ended before it begins.
        load: how much of its agent's capacity it takes up, whole units.
    """

    durations_s: Mapping[str, float]
    after: tuple[str, ...] = ()
    load: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """Who does a task, and from when to when."""

    agent: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The best schedule found; `slots` is empty when there is none, `reason` says what is known of it."""

    slots: Mapping[str, Slot]
    cost_s: float
    is_proven: bool
    reason: str


def schedule(
    jobs: Mapping[str, Job], capacity: Mapping[str, int], goal: Goal = "makespan", limit_s: float = 5.0
) -> Schedule:
    """Return who does what and when, so that the last ends earliest, or the least is worked in all.

    Args:
        jobs: the tasks by name.
        capacity: most load of each agent over all its tasks; one not named here has no limit.
        goal: what shall be least.
        limit_s: how long the solver may look.

    Raises:
        InvalidInputError: a duration, load, capacity or limit that is none, a task that waits for an unknown one or,
            round about, for itself.
        ConfigurationError: the solver is not installed.
    """
    _check(jobs)
    _check_limits(capacity, limit_s)
    if not jobs:
        return Schedule({}, 0.0, True, "there is nothing to do")
    for name, job in jobs.items():
        if not job.durations_s:
            return Schedule({}, 0.0, True, f"nobody can do {name!r}")
    return _solved(jobs, capacity, goal, limit_s)


def _check(jobs: Mapping[str, Job]) -> None:
    if len(jobs) > MOST_JOBS:
        raise InvalidInputError(f"{len(jobs)} tasks at once: at most {MOST_JOBS}, auction them instead")
    for name, job in jobs.items():
        if not all(0 < duration <= LONGEST_S for duration in job.durations_s.values()):
            raise InvalidInputError(f"task {name!r}: a duration is above 0 s and at most {LONGEST_S:g} s")
        if not isinstance(job.load, int) or not 0 <= job.load <= MOST_LOAD:
            raise InvalidInputError(f"task {name!r}: a load is a whole number, 0 or more, at most {MOST_LOAD}")
        unknown = set(job.after) - set(jobs)
        if unknown:
            raise InvalidInputError(f"task {name!r} waits for {sorted(unknown)[0]!r}, which is not in the batch")
    left = {name: set(job.after) for name, job in jobs.items()}
    while left:
        free = {name for name, waits in left.items() if not waits}
        if not free:
            raise InvalidInputError(f"tasks wait for each other in a ring: {', '.join(sorted(left))}")
        left = {name: waits - free for name, waits in left.items() if name not in free}


def _check_limits(capacity: Mapping[str, int], limit_s: float) -> None:
    for agent, most in capacity.items():
        if not isinstance(most, int) or most < 0:
            raise InvalidInputError(f"capacity of {agent!r}: a whole number, 0 or more; leave it out where it has none")
    if not 0 < limit_s <= LONGEST_S:
        raise InvalidInputError(f"a limit of {limit_s:g} s: above 0 s and at most {LONGEST_S:g} s")


def _solved(jobs: Mapping[str, Job], capacity: Mapping[str, int], goal: Goal, limit_s: float) -> Schedule:
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise ConfigurationError("no solver for schedules: install edgeagents[scheduling]") from error
    model = cp_model.CpModel()
    horizon = sum(_ticks(max(job.durations_s.values())) for job in jobs.values())
    chosen, begins, ends = _variables(model, jobs, horizon)
    last = model.new_int_var(0, horizon, "last")
    _constrain(model, jobs, capacity, chosen, begins, ends, last)
    worked = sum(_ticks(jobs[name].durations_s[agent]) * is_its for (name, agent), is_its in chosen.items())
    model.add_max_equality(last, list(ends.values()))
    first, second = (last, worked) if goal == "makespan" else (worked, last)
    model.minimize(first)
    solver = _solver(cp_model, limit_s)
    status = solver.solve(model)
    if status == cp_model.MODEL_INVALID:
        raise InvalidInputError(f"the solver refuses {len(jobs)} tasks like these: {model.validate()}")
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        text = "no schedule keeps all capacities" if status == cp_model.INFEASIBLE else f"none found in {limit_s:g} s"
        return Schedule({}, 0.0, status == cp_model.INFEASIBLE, text)
    found = _read(solver, jobs, chosen, begins, goal, is_proven=status == cp_model.OPTIMAL)
    # Of the schedules with the least makespan the one with the least work, and the other way round. Asked for in a
    # second run: one sum of both, with a weight, would leave the solver's whole numbers.
    left_s = limit_s - solver.wall_time
    if not found.is_proven or left_s <= 0:
        return found
    model.add(first <= round(solver.objective_value))
    model.minimize(second)
    solver = _solver(cp_model, left_s)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return found
    return _read(solver, jobs, chosen, begins, goal, is_proven=True)


def _solver(cp_model: Any, limit_s: float) -> Any:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_time_in_seconds = limit_s
    return solver


def _ticks(seconds: float) -> int:
    return max(1, math.ceil(seconds * PER_SECOND - 1e-6))


def _variables(model: Any, jobs: Mapping[str, Job], horizon: int) -> tuple[dict[tuple[str, str], Any], Any, Any]:
    chosen: dict[tuple[str, str], Any] = {}
    begins = {name: model.new_int_var(0, horizon, f"begin {name}") for name in jobs}
    ends = {name: model.new_int_var(0, horizon, f"end {name}") for name in jobs}
    for name, job in jobs.items():
        for agent in job.durations_s:
            chosen[name, agent] = model.new_bool_var(f"{name} by {agent}")
        model.add_exactly_one(chosen[name, agent] for agent in job.durations_s)
    return chosen, begins, ends


def _constrain(
    model: Any, jobs: Mapping[str, Job], capacity: Mapping[str, int], chosen: dict[tuple[str, str], Any], begins: Any,
    ends: Any, last: Any,
) -> None:  # fmt: skip
    """Add: one task at a time for each agent, what waits begins after, no agent carries more than it can."""
    intervals: dict[str, list[Any]] = {}
    for (name, agent), is_its in chosen.items():
        ticks = _ticks(jobs[name].durations_s[agent])
        interval = model.new_optional_interval_var(begins[name], ticks, ends[name], is_its, f"{name} at {agent}")
        intervals.setdefault(agent, []).append(interval)
    for agent, own in intervals.items():
        model.add_no_overlap(own)
        # It follows from the above, but the solver proves much sooner with it.
        work = (_ticks(jobs[name].durations_s[its]) * is_its for (name, its), is_its in chosen.items() if its == agent)
        model.add(sum(work) <= last)
    for name, job in jobs.items():
        for before in job.after:
            model.add(begins[name] >= ends[before])
    for agent, most in capacity.items():
        limit = min(most, MOST_LOAD * MOST_JOBS)
        model.add(sum(jobs[name].load * is_its for (name, its), is_its in chosen.items() if its == agent) <= limit)


def _read(
    solver: Any,
    jobs: Mapping[str, Job],
    chosen: dict[tuple[str, str], Any],
    begins: Any,
    goal: Goal,
    *,
    is_proven: bool,
) -> Schedule:
    slots = {}
    for (name, agent), is_its in chosen.items():
        if solver.value(is_its):
            begin_s = solver.value(begins[name]) / PER_SECOND
            slots[name] = Slot(agent, begin_s, begin_s + jobs[name].durations_s[agent])
    lengths = [slot.end_s - slot.begin_s for slot in slots.values()]
    cost_s = max(slot.end_s for slot in slots.values()) if goal == "makespan" else math.fsum(lengths)
    text = "proven to be the best" if is_proven else "the best found in time, maybe not the best there is"
    return Schedule(slots, cost_s, is_proven, text)
