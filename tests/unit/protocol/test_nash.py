"""The exact Nash point: equal to looking at all, individually rational, Pareto-optimal, and blind to scales."""

import itertools
import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.protocol import nash as module
from edgeagents.protocol.nash import Bargain, Issue, nash, nash_of_issues
from edgeagents.protocol.nash_search import Search
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
    search = Search([issue.values for issue in found_issues], disagreement, 10**6)
    search.run()
    assert search.is_proven
    rows = [
        tuple(sum(column) for column in zip(*choice, strict=True))
        for choice in itertools.product(*(issue.values for issue in found_issues))
    ]
    values = [value_ for row in rows if (value_ := value(row, disagreement)) is not None]
    if not values:
        assert search.choice is None
        return
    assert search.choice is not None
    row = chosen(found_issues, search.choice)
    assert value(row, disagreement) == max(values)
    listed = nash_of_issues(found_issues, disagreement)
    assert sorted(listed.gains) == sorted(u - d for u, d in zip(row, disagreement, strict=True)), "ties, too"


def chosen(found_issues: list[Issue], choice: tuple[int, ...]) -> tuple[float, ...]:
    rows = [issue.values[value_] for issue, value_ in zip(found_issues, choice, strict=True)]
    return tuple(math.fsum(column) for column in zip(*rows, strict=True))


def both_ways(found_issues: list[Issue], disagreement: tuple[float, ...]) -> tuple[Bargain, Bargain]:
    """Return what looking at all finds, and what the search finds."""
    listed = nash_of_issues(found_issues, disagreement)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_LISTED", 0)
        return listed, nash_of_issues(found_issues, disagreement)


@settings(max_examples=CASES)
@given(st.integers(0, 10**9), st.floats(1e-3, 2e5), st.integers(0, 2))
def test_a_disagreement_that_only_one_choice_reaches_hides_it_from_no_search(seed: int, scale: float, off: int) -> None:
    """The first party's disagreement is the most it can have, a rounding less, or a rounding more."""
    random_ = random.Random(seed)
    found_issues = [
        Issue(f"i{n}", tuple((random_.random() * scale, random_.random() * scale) for _ in range(3))) for n in range(5)
    ]
    most = math.fsum(max(row[0] for row in issue.values) for issue in found_issues)
    least = (most, math.nextafter(most, 0.0), math.nextafter(most, math.inf))[off]
    listed, searched = both_ways(found_issues, (least, 0.0))
    assert searched.gains == listed.gains
    assert (searched.choice == ()) == (off == 2)


def test_gains_too_small_for_floats_are_compared_exactly_by_the_search_too() -> None:
    rows = ((1e-200, 1.0, 1.0), (1.0, 1e-200, 1.0), (1.0, 1.0, 1e-200))
    listed, searched = both_ways([Issue(f"i{n}", rows) for n in range(5)], (0.0,) * 3)
    assert sorted(searched.gains) == sorted(listed.gains) == pytest.approx([3.0, 3.0, 4.0])
    tiny = ((1e-200, 1e-200), (2e-200, 1e-200), (1e-200, 3e-200))
    listed, searched = both_ways([Issue(f"i{n}", tiny) for n in range(3)], (0.0, 0.0))
    assert searched.gains == listed.gains
    assert searched.is_proven


def test_of_equal_products_the_fairer_one_is_found_by_the_search_too() -> None:
    """6 times 12 is 8 times 9."""
    found_issues = [Issue("a", ((6.0, 12.0), (8.0, 9.0), (9.0, 8.0))), Issue("b", ((0.0, 0.0),))]
    for found in both_ways(found_issues, (0.0, 0.0)):
        assert found.gains == (8.0, 9.0)


def test_a_party_that_can_never_gain_does_not_keep_the_search_from_its_proof() -> None:
    trade = tuple((float(step), float(3 - step), 0.0) for step in range(4))
    found = nash_of_issues([Issue(f"i{n}", trade) for n in range(12)], (0.0, 0.0, 0.0))
    assert (found.gains, found.is_proven) == ((18.0, 18.0, 0.0), True)


def test_thousands_of_issues_are_no_deeper_than_python_goes() -> None:
    found = nash_of_issues([Issue(f"i{n}", ((1.0, 0.0), (0.0, 1.0))) for n in range(20_000)], (0.0, 0.0))
    assert (found.gains, found.is_proven) == ((10_000.0, 10_000.0), True)
    assert "of some 10^6021 outcomes" in found.reason


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


def test_ties_everywhere_give_the_first_and_products_too_small_for_floats_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert nash([(1.0, 1.0)] * 5, (0.0, 0.0)).place == 0
    exact, asked = module._exact, []

    def watched(*what: Any) -> Any:
        asked.append(what)
        return exact(*what)

    monkeypatch.setattr(module, "_exact", watched)
    assert nash([(0.5, 0.25, 0.75), (0.5, 0.75, 0.25)] * 5_000, (0.1,) * 3).place == 0
    assert len(asked) == 2, "equal rows are compared once: ten thousand take no longer than others"
    tiny = [(1e-200,) * 3, (1e-200, 1e-200, 2e-200), (1e-200,) * 3]
    assert nash(tiny, (0.0,) * 3).place == 1
    assert nash([(0.5, 0.4)], (0.5, 0.4)).gains == (0.0, 0.0)
    assert nash([(0.1, 0.4)], (0.5, 0.4)).place is None
