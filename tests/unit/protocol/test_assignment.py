"""Exact assignment: equal to looking at all, and bad matrices are refused."""

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.protocol.assignment import assign
from tests.unit.protocol.society_machine import CASES, PATIENT

pytestmark = PATIENT

Costs = list[list[float | None]]
matrices = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda size: st.lists(
        st.lists(st.none() | st.integers(0, 9).map(float), min_size=size[1], max_size=size[1]),
        min_size=size[0],
        max_size=size[0],
    )
)


def brute_force(costs: Costs) -> tuple[int, float]:
    """Return how many rows can be placed at most, and at what least cost."""
    best, width = (0, 0.0), len(costs[0])
    for columns in itertools.product([None, *range(width)], repeat=len(costs)):
        used = [column for column in columns if column is not None]
        if len(used) != len(set(used)):
            continue
        paid = [costs[row][column] for row, column in enumerate(columns) if column is not None]
        if None in paid:
            continue
        total = sum(cost for cost in paid if cost is not None)
        best = min(best, (-len(paid), total))
    return -best[0], best[1]


@settings(max_examples=CASES)
@given(matrices)
def test_as_many_as_can_be_are_placed_at_the_least_cost(costs: Costs) -> None:
    found = assign(costs)
    placed = [column for column in found.columns if column is not None]
    assert (len(placed), found.total) == brute_force(costs)
    assert len(placed) == len(set(placed))
    assert len(found.reasons) == len(costs) - len(placed)


@settings(max_examples=CASES)
@given(
    st.lists(
        st.lists(st.sampled_from([None, 1e15, 1e12, 1e-9, 0.0]) | st.floats(0.0, 1.0), min_size=4, max_size=4),
        min_size=2,
        max_size=4,
    )
)
@example([[1e15, None, 0.67, 0.8], [0.72, None, 0.18, 0.92], [0.04, None, None, 0.9], [0.5, None, None, 0.73]])
def test_costs_of_all_sizes_beside_each_other_lose_nothing_to_rounding(costs: Costs) -> None:
    found = assign(costs)
    placed = [column for column in found.columns if column is not None]
    count, total = brute_force(costs)
    assert len(placed) == count
    assert found.total == pytest.approx(total, rel=1e-9, abs=0.0)


def test_a_reason_says_why_one_is_left() -> None:
    found = assign([[None, None], [1.0, None], [2.0, None]])
    assert found.columns == (None, 0, None)
    assert found.reasons == ("row 0: nobody can do it", "row 2: the 1 that could do it are needed elsewhere")


@pytest.mark.parametrize("cost", [math.nan, -1.0, -math.inf, 1e16])
def test_a_cost_that_is_none_is_refused(cost: float) -> None:
    with pytest.raises(InvalidInputError, match="a cost"):
        assign([[cost, 1.0]])


def test_matrices_of_odd_shapes() -> None:
    assert assign([]).columns == ()
    assert assign([[], []]).reasons == ("there is nobody to assign anything to",)
    assert assign([[math.inf]]).columns == (None,)
    with pytest.raises(InvalidInputError, match="rows of one length"):
        assign([[1.0], [1.0, 2.0]])
