"""Statistics over recent samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.agent import Sample
from edgeagents.model.values import Value
from services.agent.recent import statistic, trend_per_h


def samples(*values: Value, every_s: float = 600.0) -> list[Sample]:
    """Return samples at even distances, the first at 0."""
    return [Sample(value, index, index * every_s) for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("take", "expected"),
    [("mean", 2.5), ("minimum", 1.0), ("maximum", 4.0), ("change", 3.0), ("age", 200.0), ("trend", 6.0)],
)
def test_each_statistic_of_a_rising_line(take: str, expected: float) -> None:
    assert statistic(take, samples(1.0, 2.0, 3.0, 4.0), 2000.0) == pytest.approx(expected)


def test_a_bool_counts_as_one_or_nought() -> None:
    assert statistic("mean", samples(True, False, False, True), 2000.0) == 0.5


@pytest.mark.parametrize("values", [(), ("warm",), (1.0, None), (10**400,)])
def test_what_is_no_number_has_no_statistic(values: tuple[Value, ...]) -> None:
    assert statistic("mean", samples(*values), 2000.0) is None


def test_one_moment_has_no_trend() -> None:
    assert statistic("trend", samples(1.0), 0.0) is None
    assert statistic("trend", samples(1.0, 2.0, every_s=0.0), 0.0) is None


def test_uneven_distances_do_not_bend_a_straight_line() -> None:
    times = [0.0, 10.0, 3000.0, 3600.0]

    assert trend_per_h(times, [20.0 - 0.5 * at / 3600.0 for at in times]) == pytest.approx(-0.5)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=50), st.floats(-50, 50))
def test_a_trend_does_not_depend_on_the_level(values: list[float], level: float) -> None:
    times = [60.0 * index for index in range(len(values))]
    lifted = trend_per_h(times, [value + level for value in values])

    assert lifted == pytest.approx(trend_per_h(times, values), abs=1e-6)
