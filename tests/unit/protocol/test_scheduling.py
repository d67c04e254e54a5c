"""Exact schedules: precedence, capacity, and answers to what cannot be."""

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.protocol.scheduling import Job, schedule


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


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4))
def test_without_constraints_it_is_as_good_as_looking_at_all(durations: list[tuple[int, int]]) -> None:
    jobs = {f"j{n}": Job({"anna": float(a), "bert": float(b)}) for n, (a, b) in enumerate(durations)}
    best = min(
        max(sum(pair[0] for pair, who in zip(durations, owners, strict=True) if not who),
            sum(pair[1] for pair, who in zip(durations, owners, strict=True) if who))
        for owners in itertools.product([False, True], repeat=len(durations))
    )  # fmt: skip
    assert schedule(jobs, {}).cost_s == best


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ({"a": Job(both(1.0), after=("b",))}, "waits for 'b'"),
        ({"a": Job(both(1.0), after=("b",)), "b": Job(both(1.0), after=("a",))}, "in a ring: a, b"),
        ({"a": Job(both(0.0))}, "a duration is above 0 s"),
        ({"a": Job(both(float("nan")))}, "a duration is above 0 s"),
        ({"a": Job(both(1.0), load=-1)}, "a load 0 or more"),
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
