"""What is usual at a time of day: learned from past days, by kind of day, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.habit import DAY_S, HOLDS_S, KEPT_DAYS, Habit, is_weekend

HOUR_S = 3600.0
MONDAY = 20465  # a day since the epoch


def lived(days: range, at_home: tuple[float, float], every_s: float = 600.0) -> Habit:
    """Return a habit of somebody who was there between two hours of each of these days."""
    habit = Habit()
    for day in days:
        for index in range(int(DAY_S / every_s)):
            hour = index * every_s / HOUR_S
            habit.add(day * DAY_S + index * every_s, at_home[0] <= hour < at_home[1])
    return habit


def at(day: int, hour: float) -> float:
    """Return a site time."""
    return day * DAY_S + hour * HOUR_S


def test_nothing_is_usual_before_the_first_day_is_over() -> None:
    habit = lived(range(MONDAY, MONDAY + 1), (8.0, 10.0))

    assert habit.share(at(MONDAY, 23.0), 600.0, 14 * DAY_S) is None


@pytest.mark.parametrize(
    ("hour", "ahead_h", "share"), [(7.0, 0.5, 0.0), (7.5, 0.75, 1.0), (9.0, 0.0, 1.0), (10.5, 1, 0)]
)
def test_the_share_counts_the_span_from_now_to_ahead(hour: float, ahead_h: float, share: float) -> None:
    habit = lived(range(MONDAY, MONDAY + 4), (8.0, 10.0))

    assert habit.share(at(MONDAY + 4, hour), ahead_h * HOUR_S, 14 * DAY_S) == share


def test_a_span_reaches_past_midnight() -> None:
    habit = lived(range(MONDAY, MONDAY + 4), (0.0, 1.0))

    assert habit.share(at(MONDAY + 3, 23.5), HOUR_S, 14 * DAY_S) == 1.0
    assert habit.share(at(MONDAY + 3, 22.0), HOUR_S, 14 * DAY_S) == 0.0


def test_working_days_are_not_compared_with_weekends() -> None:
    habit = lived(range(MONDAY, MONDAY + 5), (8.0, 10.0))

    assert habit.share(at(MONDAY + 5, 8.5), 600.0, 14 * DAY_S) is None  # a Saturday, the first one
    assert habit.share(at(MONDAY + 7, 8.5), 600.0, 14 * DAY_S) == 1.0


def test_days_before_the_span_of_interest_do_not_count() -> None:
    habit = lived(range(MONDAY, MONDAY + 2), (8.0, 10.0))
    for index in range(144):
        habit.add(at(MONDAY + 2, index / 6), False)

    assert habit.share(at(MONDAY + 3, 8.5), 600.0, 1 * DAY_S) == 0.0
    assert habit.share(at(MONDAY + 3, 8.5), 600.0, 14 * DAY_S) == pytest.approx(2 / 3)


def test_what_nobody_reported_is_unknown_and_not_false() -> None:
    habit = Habit()
    habit.add(at(MONDAY, 7.0), True)
    habit.add(at(MONDAY, 12.0), False)  # silent for five hours

    assert habit.share(at(MONDAY + 1, 9.0), 600.0, 14 * DAY_S) is None
    assert habit.share(at(MONDAY + 1, 7.0), 600.0, 14 * DAY_S) == 1.0


def test_a_value_holds_until_the_next_reading() -> None:
    habit = Habit()
    habit.add(at(MONDAY, 7.0), True)
    habit.add(at(MONDAY, 7.0) + HOLDS_S, False)

    assert habit.share(at(MONDAY + 1, 7.3), 0.0, 14 * DAY_S) == 1.0


def test_a_late_reading_changes_nothing() -> None:
    habit = lived(range(MONDAY, MONDAY + 1), (8.0, 10.0))
    habit.add(at(MONDAY, 20.0), True)

    assert habit.share(at(MONDAY + 1, 20.0), 600.0, 14 * DAY_S) == 0.0


@given(st.lists(st.tuples(st.floats(0, 400 * DAY_S), st.booleans()), max_size=200))
def test_memory_is_bounded_and_shares_are_shares(readings: list[tuple[float, bool]]) -> None:
    habit = Habit()
    for site_s, is_so in sorted(readings):
        habit.add(site_s, is_so)
        share = habit.share(site_s, HOUR_S, 14 * DAY_S)
        assert share is None or 0.0 <= share <= 1.0

    assert len(habit._known) <= KEPT_DAYS + 1


def test_the_epoch_began_on_a_thursday() -> None:
    assert [is_weekend(day) for day in range(7)] == [False, False, True, True, False, False, False]
