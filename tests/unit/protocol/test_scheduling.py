"""Exact schedules: precedence, capacity, and answers to what cannot be."""

import itertools
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.protocol.scheduling import Job, schedule
from tests.unit.protocol.society_machine import CASES


def both(seconds: float) -> dict[str, float]:
    return {"anna": seconds, "bert": seconds}


def test_what_waits_begins_after_and_the_rest_goes_on_meanwhile() -> None:
    jobs = {"dig": Job(both(3.0)), "plant": Job(both(1.0), after=("dig",)), "paint": Job(both(4.0))}
    found = schedule(jobs, {})
    assert (found.cost_s, found.is_proven) == (4.0, True)
    assert found.slots["plant"].begin_s >= found.slots["dig"].end_s
    assert found.slots["paint"].agent != found.slots["dig"].agent


def test_nobody_carries_more_than_it_can() -> None:
    jobs = {name: Job({"anna": 1.0, "bert": 5.0}, load=2) for name in ("a", "b", "c")}
    found = schedule(jobs, {"anna": 4, "bert": 4}, "sum")
    assert sorted(slot.agent for slot in found.slots.values()) == ["anna", "anna", "bert"]
    assert found.cost_s == 7.0
    assert schedule(jobs, {"anna": 2, "bert": 2}).reason == "no schedule keeps all capacities"


@pytest.mark.parametrize(("count", "duration_s"), [(10, 1e6), (10, 1e5), (100, 3600.0), (200, 900.0)])
def test_long_and_many_tasks_stay_within_what_the_solver_can_count(count: int, duration_s: float) -> None:
    found = schedule({f"j{n}": Job(both(duration_s)) for n in range(count)}, {}, "makespan", 60.0)
    assert (found.cost_s, found.is_proven) == (duration_s * count / 2, True), found.reason
    alone = schedule({f"j{n}": Job({"anna": duration_s}) for n in range(10)}, {}, "sum", 60.0)
    assert (alone.cost_s, alone.is_proven) == (10 * duration_s, True)


def test_of_equal_makespans_the_least_work_counts_and_the_other_way_round() -> None:
    jobs = {"long": Job({"anna": 5.0}), "short": Job({"bert": 4.0, "carl": 3.0})}
    assert schedule(jobs, {}).slots["short"].agent == "carl"
    jobs = {"one": Job(both(2.0)), "other": Job(both(2.0))}
    found = schedule(jobs, {}, "sum")
    assert max(slot.end_s for slot in found.slots.values()) == 2.0


def test_a_model_that_the_solver_refuses_is_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeagents.protocol import scheduling

    monkeypatch.setattr(scheduling, "PER_SECOND", 10**16)
    with pytest.raises(InvalidInputError, match="the solver refuses 2 tasks"):
        schedule({"a": Job({"anna": 400.0}), "b": Job({"anna": 400.0})}, {})


@pytest.mark.parametrize("capacity", [float("nan"), -1, 1.5])
def test_a_capacity_that_is_none_is_refused(capacity: Any) -> None:
    with pytest.raises(InvalidInputError, match="capacity of 'anna'"):
        schedule({"a": Job(both(1.0))}, {"anna": capacity})


@pytest.mark.parametrize("limit_s", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_limit_that_is_none_is_refused(limit_s: float) -> None:
    with pytest.raises(InvalidInputError, match="a limit of"):
        schedule({"a": Job(both(1.0))}, {}, "sum", limit_s)


@pytest.mark.society
@pytest.mark.timeout(1200)
@settings(max_examples=CASES)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4))
def test_without_constraints_it_is_as_good_as_looking_at_all(durations: list[tuple[int, int]]) -> None:
    jobs = {f"j{n}": Job({"anna": float(a), "bert": float(b)}) for n, (a, b) in enumerate(durations)}
    best = min(
        max(sum(pair[0] for pair, who in zip(durations, owners, strict=True) if not who),
            sum(pair[1] for pair, who in zip(durations, owners, strict=True) if who))
        for owners in itertools.product([False, True], repeat=len(durations))
    )  # fmt: skip
    assert schedule(jobs, {}, "makespan", 60.0).cost_s == best


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ({"a": Job(both(1.0), after=("b",))}, "waits for 'b'"),
        ({"a": Job(both(1.0), after=("b",)), "b": Job(both(1.0), after=("a",))}, "in a ring: a, b"),
        ({"a": Job(both(0.0))}, "a duration is above 0 s"),
        ({"a": Job(both(float("nan")))}, "a duration is above 0 s"),
        ({"a": Job(both(1.0), load=-1)}, "a load is a whole number"),
        ({"a": Job(both(1.0), load=float("nan"))}, "a load is a whole number"),  # type: ignore[arg-type]
        ({f"j{n}": Job(both(1.0)) for n in range(201)}, "at most 200"),
    ],
)
def test_what_makes_no_sense_is_refused(jobs: dict[str, Job], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        schedule(jobs, {})


def test_nothing_to_do_and_nobody_to_do_it_are_answers() -> None:
    assert schedule({}, {}).reason == "there is nothing to do"
    assert schedule({"a": Job({})}, {}).reason == "nobody can do 'a'"


def test_without_the_solver_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    with pytest.raises(ConfigurationError, match=r"install edgeagents\[scheduling\]"):
        schedule({"a": Job(both(1.0))}, {})
