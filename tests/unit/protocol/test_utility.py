"""Utilities: between 0 and 1, and exactly the owner's words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.model.preferences import Part, PiecewiseLinear, Preferences, Quadratic, Shape, Threshold, When
from edgeagents.protocol.utility import Moment, gain, worth

LINE = PiecewiseLinear(kind="linear", points=((16.0, 0.0), (20.0, 0.8), (24.0, 0.0)))
points = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6, unique=True).map(sorted)
shapes: st.SearchStrategy[Shape] = st.one_of(
    points.map(lambda xs: PiecewiseLinear(kind="linear", points=tuple((x, float(n % 2)) for n, x in enumerate(xs)))),
    st.builds(Quadratic, kind=st.just("quadratic"), best=st.floats(-1e6, 1e6), width=st.floats(0.001, 1e6)),
    st.floats(-1e6, 1e6).map(lambda x: Threshold(kind="threshold", above=x)),
)


@given(shapes, st.floats(allow_nan=False))
def test_a_gain_is_from_0_to_1_for_any_number(shape: Shape, value: float) -> None:
    assert 0.0 <= gain(shape, value) <= 1.0


@pytest.mark.parametrize(
    ("shape", "value", "expected"),
    [
        (LINE, 18.0, 0.4),
        (LINE, 20.0, 0.8),
        (LINE, 23.0, 0.2),
        (LINE, -math.inf, 0.0),
        (LINE, math.inf, 0.0),
        (Quadratic(kind="quadratic", best=20.0, width=4.0), 20.0, 1.0),
        (Quadratic(kind="quadratic", best=20.0, width=4.0), 22.0, 0.75),
        (Quadratic(kind="quadratic", best=20.0, width=4.0), 30.0, 0.0),
        (Threshold(kind="threshold", above=5.0), 5.0, 1.0),
        (Threshold(kind="threshold", above=5.0, below=7.0, outside=0.25), 7.5, 0.25),
    ],
)
def test_shapes_are_what_their_names_say(shape: Shape, value: float, expected: float) -> None:
    assert gain(shape, value) == pytest.approx(expected)


def preferences(**kwargs: object) -> Preferences:
    warm = Part(of="t", shape=LINE, weight=3.0, **kwargs)  # type: ignore[arg-type]
    return Preferences(agent="comfort", parts=(warm, Part(of="p", shape=Threshold(kind="threshold", below=0.3))))


def test_a_utility_is_the_weighted_mean_with_its_parts() -> None:
    found = worth(preferences(), {"t": 20.0, "p": 0.5, "unasked": 7.0}, Moment())
    assert found.utility == pytest.approx(0.75 * 0.8)
    assert [(share.of, share.gain, share.share) for share in found.shares] == [("t", 0.8, 0.75), ("p", 0.0, 0.25)]


@pytest.mark.parametrize(
    ("moment", "weight"),
    [
        (Moment(12 * 3600.0), 3.0),
        (Moment(23 * 3600.0), 1.0),
        (Moment(12 * 3600.0, frozenset({"anna"})), 7.0),
        (Moment(23 * 3600.0, frozenset({"anna"})), 1.0),
        (Moment((24 + 23) * 3600.0), 1.0),
    ],
)
def test_weights_go_by_time_of_day_and_person_and_the_first_that_fits_counts(moment: Moment, weight: float) -> None:
    when = (When(weight=1.0, since=22 * 3600.0, until=6 * 3600.0), When(weight=7.0, person="anna"))
    found = worth(preferences(when=when), {"t": 20.0, "p": 0.5}, moment)
    assert found.shares[0].share == pytest.approx(weight / (weight + 1.0))


def test_what_cannot_be_told_is_refused_with_its_reason() -> None:
    with pytest.raises(InvalidInputError, match="does not say 't'"):
        worth(preferences(), {"p": 1.0}, Moment())
    with pytest.raises(InvalidInputError, match="no number"):
        worth(preferences(), {"t": math.nan, "p": 1.0}, Moment())
    night = When(weight=0.0, since=22 * 3600.0, until=6 * 3600.0)
    only = Preferences(agent="a", parts=(Part(of="t", shape=LINE, when=(night,)),))
    with pytest.raises(InvalidInputError, match="prefers nothing now"):
        worth(only, {"t": 20.0}, Moment(0.0))
