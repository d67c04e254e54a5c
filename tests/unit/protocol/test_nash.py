"""The exact Nash point: equal to looking at all, individually rational, Pareto-optimal, and blind to scales."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.protocol import nash as module
from edgeagents.protocol.nash import Issue, nash, nash_of_issues
from tests.unit.protocol.society_machine import CASES, PATIENT

pytestmark = PATIENT
amounts = st.integers(0, 6).map(float) | st.floats(0, 1)
Rows = list[tuple[float, ...]]
domains = st.integers(1, 4).flatmap(
    lambda parties: st.tuples(
        st.lists(st.tuples(*[amounts] * parties), min_size=1, max_size=12), st.tuples(*[amounts] * parties)
    )
)


def value(row: tuple[float, ...], least: tuple[float, ...]) -> tuple[int, Fraction] | None:
    """Return how many gain and the product of their gains, exactly; None when somebody loses."""
    gains = [Fraction(u) - Fraction(d) for u, d in zip(row, least, strict=True)]
    return None if min(gains) < 0 else (sum(g > 0 for g in gains), math.prod(g for g in gains if g > 0))


@settings(max_examples=CASES)
@given(domains)
def test_it_is_what_looking_at_all_finds_and_nobody_loses_and_nobody_could_gain(
    domain: tuple[Rows, tuple[float, ...]],
) -> None:
    rows, least = domain
    found = nash(rows, least)
    values = [found_ for row in rows if (found_ := value(row, least)) is not None]
    if found.place is None:
        assert not values
        return
    chosen = rows[found.place]
    assert value(chosen, least) == max(values)
    assert all(u >= d for u, d in zip(chosen, least, strict=True)), "individually rational"
    for row in rows:
        is_better = all(u >= c for u, c in zip(row, chosen, strict=True)) and row != chosen
        assert not is_better, "Pareto-optimal"


@settings(max_examples=CASES)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12),
    st.integers(0, 9),
    st.sampled_from([0.25, 0.5, 2.0, 4.0, 1024.0]),
)
def test_who_tells_its_utilities_in_another_scale_gains_nothing(
    rows: list[tuple[int, int]], shift: int, scale: float
) -> None:
    honest = nash([(float(a), float(b)) for a, b in rows], (3.0, 5.0))
    scaled = nash([(float(a + shift) * scale, float(b)) for a, b in rows], ((3.0 + shift) * scale, 5.0))
    if honest.place is None:
        assert scaled.place is None
        return
    assert scaled.place is not None
    assert value(rows[scaled.place], (3, 5)) == value(rows[honest.place], (3, 5))


@settings(max_examples=CASES)
@given(domains, st.data())
def test_one_that_lies_cannot_push_another_below_what_no_agreement_is_worth(
    domain: tuple[Rows, tuple[float, ...]], data: st.DataObject
) -> None:
    rows, least = domain
    lies = data.draw(st.lists(amounts, min_size=len(rows), max_size=len(rows)))
    found = nash([(lie, *row[1:]) for lie, row in zip(lies, rows, strict=True)], least)
    if found.place is not None:
        assert all(u >= d for u, d in zip(rows[found.place][1:], least[1:], strict=True))


issues = st.integers(2, 3).flatmap(
    lambda parties: st.lists(
        st.lists(st.tuples(*[st.integers(0, 9).map(float)] * parties), min_size=1, max_size=4).map(
            lambda rows: Issue("i", tuple(rows))
        ),
        min_size=1,
        max_size=4,
    )
)


@settings(max_examples=CASES)
@given(issues, st.integers(0, 12))
def test_branch_and_bound_finds_what_looking_at_all_finds(found_issues: list[Issue], least: int) -> None:
    parties = len(found_issues[0].values[0])
    disagreement = (float(least), *[1.0] * (parties - 1))
    search = module._Search(found_issues, disagreement, 10**6)
    found = search.run(math.prod(len(issue.values) for issue in found_issues))
    rows = [
        tuple(sum(column) for column in zip(*choice, strict=True))
        for choice in itertools.product(*(issue.values for issue in found_issues))
    ]
    values = [value_ for row in rows if (value_ := value(row, disagreement)) is not None]
    if not values:
        assert found.choice == ()
        return
    row = tuple(
        sum(column)
        for column in zip(*(i.values[v] for i, v in zip(found_issues, found.choice, strict=True)), strict=True)
    )
    assert value(row, disagreement) == max(values)
    listed = nash_of_issues(found_issues, disagreement)
    assert math.prod(gain for gain in listed.gains if gain) == pytest.approx(float(max(values)[1]))


def test_beyond_what_can_be_listed_the_best_is_proven() -> None:
    """Twelve issues of four values: 16.8 million outcomes; each issue is an exact trade, so the best one is known."""
    trade = tuple((float(step), float(3 - step)) for step in range(4))
    found = nash_of_issues([Issue(f"i{n}", trade) for n in range(12)], (0.0, 0.0))
    assert found.is_proven
    assert found.gains == (18.0, 18.0)


def test_a_search_that_is_cut_short_says_so() -> None:
    trade = tuple((float(step), float(3 - step)) for step in range(4))
    found = nash_of_issues([Issue(f"i{n}", trade) for n in range(12)], (0.0, 0.0), most_nodes=5)
    assert not found.is_proven


@pytest.mark.parametrize(
    ("rows", "least", "problem"),
    [
        ([], (0.0,), "0 outcomes for 1 parties"),
        ([()], (), "1 outcomes for 0 parties"),
        ([(1.0,)], (0.0, 0.0), "1 utilities for 2 parties"),
        ([(-1.0,)], (0.0,), "not -1"),
        ([(math.nan,)], (0.0,), "not nan"),
        ([(math.inf,)], (0.0,), "not inf"),
        ([(1.0,)], (math.nan,), "not nan"),
    ],
)
def test_what_cannot_be_bargained_about_is_refused(rows: Rows, least: tuple[float, ...], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        nash(rows, least)
    with pytest.raises(InvalidInputError):
        nash_of_issues([Issue("i", tuple(rows))], least)


def test_ties_everywhere_give_the_first_and_products_too_small_for_floats_are_told_apart() -> None:
    assert nash([(1.0, 1.0)] * 5, (0.0, 0.0)).place == 0
    tiny = [(1e-200,) * 3, (1e-200, 1e-200, 2e-200), (1e-200,) * 3]
    assert nash(tiny, (0.0,) * 3).place == 1
    assert nash([(0.5, 0.4)], (0.5, 0.4)).gains == (0.0, 0.0)
    assert nash([(0.1, 0.4)], (0.5, 0.4)).place is None
